"""Read a COCO instances json into DetectionData, with the checks of tools/validate_data.py."""

from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.findings import Findings
from backbones.core.warning_counter import WarningCounter
from detection.data.coco.scan import scan_coco
from detection.data.reading import build_data
from detection.data.records import DetectionData


def load_coco(annotations: Path, images: Path, name: str, warnings: WarningCounter) -> DetectionData:
    """Read a COCO instances json.

    The categories are all that the file lists, annotated or not, except a root that repeats its child's name.
    Annotations with `iscrowd` are kept for the evaluation; the loader drops them in training.

    Args:
        annotations: the json file.
        images: folder that its `file_name`s are relative to.
        warnings: counts clipped or dropped boxes, converted images, and every other flaw that is tolerated.

    Raises:
        InputError: the data are invalid; the message names file, key and id.
    """
    if not images.is_dir():
        raise InputError(f"{name}: no image folder {images}; check DATASETS.ROOT")
    findings = Findings()
    scan = scan_coco(annotations, images, findings)
    return build_data(scan, findings, name, images, annotations, warnings)
