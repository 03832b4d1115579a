"""Catalog of detection data sets: the format of each name and its place below DATASETS.ROOT.

Names and folders of COCO and VOC are those of detectron2.  VOC may also be in VOCdevkit/, as its archives unpack.
DATASETS.ROOT holds the folders of the data sets, such as `coco`, or is the folder of the one that is named.  Data sets
that are not in the catalog are named by their files:

    coco:<json>:<image folder>
    voc:<folder>:<split>[:<file with the class names, one per line>]

Their relative paths are below DATASETS.ROOT if they exist there; otherwise they are relative to the current folder.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backbones.core.config import expand_path
from backbones.core.errors import InputError, suggestion
from backbones.core.warning_counter import WarningCounter
from detection.data.coco.reader import load_coco
from detection.data.records import DetectionData, join
from detection.data.roots import VARIABLES, data_root, expand_root
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
EXPLICIT = "coco:<json>:<image folder>, or voc:<folder>:<split>[:<classes.txt>]"


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
        names: keys of the tables above, or explicit ones (see the top of this file).
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
        return _locate_explicit(name, form, rest, root)
    if name not in COCO_SETS and name not in VOC_SETS:
        raise InputError(
            f"DATASETS: unknown data set '{name}'{suggestion(name, [*COCO_SETS, *VOC_SETS])} (or {EXPLICIT})"
        )
    return locate_below(name, data_root(root, needed_by=name))


def locate_below(name: str, base: Path) -> CocoFiles | VocFolder:
    """Return the location of the catalog's data set `name` below the folder `base`, or in it."""
    if name in COCO_SETS:
        places = [CocoFiles(name, *(place(path) for path in COCO_SETS[name])) for place in _places(base)]
    else:
        folder, split, classes = VOC_SETS[name]
        places = [VocFolder(name, place(folder), split, classes) for place in _places(base)]
    return next((place for place in places if place.listing.is_file()), places[0])


def _places(base: Path) -> list[Callable[[str], Path]]:
    """Return functions that map a path of the tables above to a place where it can be.

    The last one takes `base` for the folder of the data set itself: it has its name, or the file that
    tools/prepare_data.py writes there.  Otherwise, VOC 2007 could be read as VOC 2012.
    """

    def within(path: str) -> Path:
        first, *rest = Path(path).parts
        itself = Path(os.path.abspath(base)).name == first or (base / f"{first}.json").is_file()
        return base.joinpath(*rest) if itself else base / path

    return [base.joinpath, (base / "VOCdevkit").joinpath, within]


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


def _locate_explicit(name: str, form: str, rest: str, root: str) -> CocoFiles | VocFolder:
    first, _, second = rest.rpartition(":")
    if form == "coco" and first:
        annotations = _find(first, root)
        return CocoFiles(annotations.stem, annotations, _find(second, root))
    classes = None
    if form == "voc" and ":" in first and second.endswith(".txt"):
        classes = load_classes(_find(second, root), "DATASETS")
        first, _, second = first.rpartition(":")
    if form == "voc" and first:
        folder = _find(first, root)
        return VocFolder(f"{folder.name}_{second}", folder, second, classes)
    raise InputError(f"DATASETS: cannot read '{name}'; write {EXPLICIT}")


def _find(text: str, root: str) -> Path:
    """Return an explicit path, below DATASETS.ROOT if it exists there."""
    path = expand_path(text)
    if path.is_absolute():
        return path
    with suppress(InputError):  # a root that is not set
        if (below := expand_root(root)[0] / path).exists():
            return below
    return path


def load_classes(path: Path, where: str) -> tuple[str, ...]:
    """Return class names from a text file, one per line; raise `InputError` for an empty or duplicate one."""
    try:
        names = path.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: cannot read the class names in {path}: {error}") from None
    names = [name.strip() for name in names]
    for number, name in enumerate(names, 1):
        if not name or names.count(name) > 1:
            wrong = f"'{name}' is duplicated" if name else "is empty"
            raise InputError(f"{where}: {path}, line {number}: {wrong}; write one distinct class name per line")
    return tuple(names)
