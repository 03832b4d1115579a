"""Catalog of detection data sets: the format of each name and its place below DATASETS.ROOT.

Names and folders of COCO and VOC are those of detectron2.  VOC may also be in VOCdevkit/, as its archives unpack.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.core.config import expand_path
from backbones.core.errors import InputError, suggestion
from backbones.core.warning_counter import WarningCounter
from detection.data.coco.reader import load_coco
from detection.data.records import DetectionData, join
from detection.data.roots import VARIABLES, data_root
from detection.data.voc.reader import VOC_CLASSES, load_voc

# name -> (json, image folder)
COCO_SETS = {
    "coco128": ("coco128/annotations/instances_train2017.json", "coco128/train2017"),
    "scenes_train": ("scenes/detection/annotations/instances_train.json", "scenes/detection/train"),
    "scenes_val": ("scenes/detection/annotations/instances_val.json", "scenes/detection/val"),
    **{
        f"coco_{year}_{split}": (f"coco/annotations/instances_{split}{year}.json", f"coco/{split}{year}")
        for year in (2014, 2017)
        for split in ("train", "val")
    },
    # Parts of val2014: 5,000 test images, and the rest, which was added to the training images before 2017.
    "coco_2014_minival": ("coco/annotations/instances_minival2014.json", "coco/val2014"),
    "coco_2014_valminusminival": ("coco/annotations/instances_valminusminival2014.json", "coco/val2014"),
    "coco_2017_val_100": ("coco/annotations/instances_val2017_100.json", "coco/val2017"),
}
# name -> (folder, split, classes)
VOC_SETS = {
    **{
        f"voc_{year}_{split}": (f"VOC{year}", split, VOC_CLASSES)
        for year in (2007, 2012)
        for split in ("train", "val", "trainval", "test")
    },
    "voc2012_100": ("voc2012-100/VOCdevkit/VOC2012", "trainval", VOC_CLASSES),
    **{f"bccd_{split}": ("bccd/BCCD", split, ("Platelets", "RBC", "WBC")) for split in ("trainval", "test")},
    # None: the classes that occur; tools/prepare_data.py scenes-voc can draw any.
    **{f"scenes_voc_{split}": ("scenes-voc", split, None) for split in ("train", "val")},
}


@dataclass(frozen=True)
class CocoFiles:
    """A data set in COCO format: its json, and the folder that its `file_name`s are relative to."""

    name: str
    annotations: Path
    images: Path

    @property
    def listing(self) -> Path:
        """File that lists the images."""
        return self.annotations


@dataclass(frozen=True)
class VocFolder:
    """A data set in VOC format: the folder that holds JPEGImages; `classes` None: those that occur."""

    name: str
    folder: Path
    split: str
    classes: tuple[str, ...] | None

    @property
    def listing(self) -> Path:
        """File that lists the images."""
        return self.folder / "ImageSets" / "Main" / f"{self.split}.txt"

    @property
    def images(self) -> Path:
        """Folder that holds the images."""
        return self.folder / "JPEGImages"


def load_data(names: Sequence[str], root: str, warnings: WarningCounter) -> DetectionData:
    """Load the data sets `names` and join them.

    Args:
        names: keys of the tables above, "coco:<json>:<image folder>" or "voc:<folder>:<split>".
        root: DATASETS.ROOT.

    Raises:
        InputError: unknown name, missing folder, or an error that the reader finds.
    """
    return join([_load_one(name, root, warnings) for name in names])


def locate(name: str, root: str) -> CocoFiles | VocFolder:
    """Return the location of the data set `name` without reading it.

    Raises:
        InputError: unknown name, or no root.
    """
    form, _, rest = name.partition(":")
    if rest:
        return _locate_explicit(name, form, rest)
    if name not in COCO_SETS and name not in VOC_SETS:
        raise InputError(
            f"DATASETS: unknown data set '{name}'{suggestion(name, [*COCO_SETS, *VOC_SETS])} "
            "(or coco:<json>:<image folder>, or voc:<folder>:<split>)"
        )
    return locate_below(name, data_root(root, needed_by=name))


def locate_below(name: str, base: Path) -> CocoFiles | VocFolder:
    """Return the location of the catalog's data set `name` below the folder `base`."""
    if name in COCO_SETS:
        annotations, images = COCO_SETS[name]
        return CocoFiles(name, base / annotations, base / images)
    folder, split, classes = VOC_SETS[name]
    places = [VocFolder(name, place / folder, split, classes) for place in (base, base / "VOCdevkit")]
    return next((place for place in places if place.listing.is_file()), places[0])


def require_files(found: CocoFiles | VocFolder, images: bool = True) -> None:
    """Raise `InputError` if a file or folder of the data set is missing; the message names it and the key to set."""
    missing = ""
    if not found.listing.is_file():
        missing = f"{'no such file:' if isinstance(found, CocoFiles) else 'no split file'} {found.listing}"
    elif images and not found.images.is_dir():
        missing = f"no image folder {found.images}"
    if missing:
        raise InputError(
            f"{found.name}: {missing}; put it there, or check DATASETS.ROOT (default: {' or '.join(VARIABLES)})"
        )


def _load_one(name: str, root: str, warnings: WarningCounter) -> DetectionData:
    found = locate(name, root)
    require_files(found)
    if isinstance(found, CocoFiles):
        return load_coco(found.annotations, found.images, found.name, warnings)
    return load_voc(found.folder, found.split, found.name, warnings, found.classes)


def _locate_explicit(name: str, form: str, rest: str) -> CocoFiles | VocFolder:
    first, _, second = rest.rpartition(":")
    if form == "coco" and first:
        annotations = expand_path(first)
        return CocoFiles(annotations.stem, annotations, expand_path(second))
    if form == "voc" and first:
        folder = expand_path(first)
        return VocFolder(f"{folder.name}_{second}", folder, second, None)
    raise InputError(f"DATASETS: cannot read '{name}'; write coco:<json>:<image folder> or voc:<folder>:<split>")
