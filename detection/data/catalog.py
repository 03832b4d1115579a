"""Names of detection data sets: which format, and where below DATASETS.ROOT."""

from __future__ import annotations

from collections.abc import Sequence

from backbones.core.config import expand_path
from backbones.core.errors import InputError, suggestion
from backbones.core.warnings import WarningCounter
from detection.data.coco import load_coco
from detection.data.records import DetectionData, join
from detection.data.voc import VOC_CLASSES, load_voc

# name -> (json, picture folder)
COCO_SETS = {
    "coco128": ("coco128/annotations/instances_train2017.json", "coco128/train2017"),
    "scenes_train": ("scenes/detection/annotations/instances_train.json", "scenes/detection/train"),
    "scenes_val": ("scenes/detection/annotations/instances_val.json", "scenes/detection/val"),
    **{
        f"coco_{year}_{split}": (f"coco/annotations/instances_{split}{year}.json", f"coco/{split}{year}")
        for year in (2014, 2017)
        for split in ("train", "val")
    },
}
# name -> (folder, split, classes)
VOC_SETS = {
    **{
        f"voc_{year}_{split}": (f"VOC{year}", split, VOC_CLASSES)
        for year in (2007, 2012)
        for split in ("train", "val", "trainval", "test")
    },
    **{f"bccd_{split}": ("bccd/BCCD", split, ("Platelets", "RBC", "WBC")) for split in ("trainval", "test")},
}


def load_data(names: Sequence[str], root: str, warnings: WarningCounter) -> DetectionData:
    """Load and join the data sets called `names`.

    Args:
        names: names of the tables above, "coco:<json>:<picture folder>" or "voc:<folder>:<split>".
        root: DATASETS.ROOT.

    Raises:
        InputError: unknown name, missing folder, or whatever the reader finds.
    """
    return join([_load_one(name, root, warnings) for name in names])


def _load_one(name: str, root: str, warnings: WarningCounter) -> DetectionData:
    form, _, rest = name.partition(":")
    if rest:
        return _load_explicit(name, form, rest, warnings)
    if name not in COCO_SETS and name not in VOC_SETS:
        raise InputError(
            f"DATASETS: unknown data set '{name}'{suggestion(name, [*COCO_SETS, *VOC_SETS])} "
            "(or coco:<json>:<picture folder>, or voc:<folder>:<split>)"
        )
    base = expand_path(root)
    if not base.is_dir():
        raise InputError(f"DATASETS.ROOT: no folder {base} (needed by '{name}'); set DATASETS.ROOT")
    if name in COCO_SETS:
        annotations, images = COCO_SETS[name]
        return load_coco(base / annotations, base / images, name, warnings)
    folder, split, classes = VOC_SETS[name]
    return load_voc(base / folder, split, name, warnings, classes)


def _load_explicit(name: str, form: str, rest: str, warnings: WarningCounter) -> DetectionData:
    first, _, second = rest.rpartition(":")
    if form == "coco" and first:
        annotations = expand_path(first)
        return load_coco(annotations, expand_path(second), annotations.stem, warnings)
    if form == "voc" and first:
        folder = expand_path(first)
        return load_voc(folder, second, f"{folder.name}_{second}", warnings)
    raise InputError(f"DATASETS: cannot read '{name}'; write coco:<json>:<picture folder> or voc:<folder>:<split>")
