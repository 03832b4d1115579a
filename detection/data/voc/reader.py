"""Read a Pascal VOC devkit (JPEGImages, Annotations, ImageSets/Main) into DetectionData, in COCO's convention.

VOC counts pixels from 1 and includes the last one: xmin, xmax become x = xmin - 1, w = xmax - x.
`difficult` objects become crowds: not trained on, and ignored by the evaluation, as in VOC's own evaluation.
Category ids are 1, 2, ... in the order of the classes; image ids are 1, 2, ... in the order of the split file.
"""

from collections.abc import Sequence
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.findings import Findings
from backbones.core.warning_counter import WarningCounter
from detection.data.reading import build_data
from detection.data.records import DetectionData
from detection.data.voc.scan import scan_voc

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def load_voc(
    root: Path, split: str, name: str, warnings: WarningCounter, classes: Sequence[str] | None = None
) -> DetectionData:
    """Read one split of a VOC folder.

    Args:
        root: the folder that holds JPEGImages, such as VOCdevkit/VOC2007.
        split: name of a list in ImageSets/Main, such as "trainval".
        classes: None: every name that occurs in any annotation of the folder, sorted.

    Raises:
        InputError: the data are invalid; the message names the file.
    """
    list_path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not list_path.is_file():
        raise InputError(f"{name}: no split file {list_path}; check DATASETS.ROOT and the split")
    findings = Findings()
    scan = scan_voc(root, list_path, classes, findings)
    source = f"the data set {name} has" if classes else f"the annotations in {root / 'Annotations'} name"
    return build_data(scan, findings, name, root, list_path, warnings, form="voc", classes_from=source)
