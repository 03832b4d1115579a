"""Pascal VOC devkit (JPEGImages, Annotations, ImageSets/Main) -> DetectionData, in COCO's form.

VOC counts pixels from 1 and includes the last one: xmin, xmax become x = xmin - 1, w = xmax - x.
`difficult` objects become crowds: not learned, and ignored by the evaluation, as in VOC's own.
Category ids are 1, 2, ... in the order of the classes; image ids 1, 2, ... in that of the split's file.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError, suggestion
from backbones.core.pictures import read_header
from backbones.core.warnings import WarningCounter
from detection.data.records import DetectionData, Record, build_data, build_record

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def load_voc(
    root: Path, split: str, name: str, warnings: WarningCounter, classes: Sequence[str] | None = None
) -> DetectionData:
    """Read one split of a VOC folder.

    Args:
        root: the folder that holds JPEGImages, such as VOCdevkit/VOC2007.
        split: name of a list in ImageSets/Main, such as "trainval".
        classes: None: every name that occurs in any annotation of the folder, sorted.

    Raises:
        InputError: names the file of what is wrong.
    """
    list_path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not list_path.is_file():
        raise InputError(f"{name}: no split file {list_path}; check DATASETS.ROOT and the split")
    stems = read_split(list_path)
    if len(set(stems)) != len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise InputError(f"{list_path}: '{twice}' stands twice; remove one line")
    classes = list(classes) if classes else _all_names(root / "Annotations")
    records = [_read_record(root, stem, n, classes, warnings) for n, stem in enumerate(stems, start=1)]
    categories = [{"id": n, "name": label} for n, label in enumerate(classes, start=1)]
    return build_data(name, root, list_path, categories, records, warnings, form="voc")


def read_split(path: Path) -> list[str]:
    """The names of a split's pictures, as its file lists them: the first word of each line.

    Raises:
        InputError: the file cannot be read as text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the split file {path} as text: {error}; restore it") from None
    return [line.split()[0] for line in lines if line.strip()]


def _read_record(root: Path, stem: str, image_id: int, classes: list[str], warnings: WarningCounter) -> Record:
    path = root / "Annotations" / f"{stem}.xml"
    picture = root / "JPEGImages" / f"{stem}.jpg"
    tree = _parse(path)
    objects = tree.findall("object")
    names = [(item.findtext("name") or "").strip() for item in objects]
    for label in names:
        if label not in classes:
            raise InputError(f"{path}: unknown category '{label}'{suggestion(label, classes)}")
    if silent := sum(item.find("difficult") is None for item in objects):
        warnings.add("object without 'difficult', taken as 0", path.name, silent)
    corners = np.array([_read_corners(item, path) for item in objects], np.float64).reshape(-1, 4)
    corners[:, :2] -= 1
    return build_record(
        image_id,
        picture,
        _read_size(tree, path, picture),
        np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
        [classes.index(label) for label in names],
        [(item.findtext("difficult") or "0").strip() == "1" for item in objects],
        None,
        warnings,
    )


def _parse(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except OSError as error:
        raise InputError(f"cannot read the annotation {path}: {error.strerror}; restore the file") from None
    except ElementTree.ParseError as error:
        raise InputError(f"the annotation {path} is broken XML: {error}; restore the file") from None


def _read_corners(item: ElementTree.Element, path: Path) -> list[float]:
    try:
        corners = [float(item.findtext(f"bndbox/{corner}") or "") for corner in _CORNERS]
    except ValueError:
        corners = [float("nan")]
    if not np.isfinite(corners).all():
        raise InputError(f"{path}: object '{item.findtext('name')}' has no whole bndbox; correct it")
    return corners


def _read_size(tree: ElementTree.Element, path: Path, picture: Path) -> tuple[int, int]:
    """(width, height) as stated; some tools state 0, then the picture's own."""
    if tree.find("size") is None:
        raise InputError(f"{path}: has no size; add the width and height of the picture that its boxes refer to")
    try:
        size = int(tree.findtext("size/width") or 0), int(tree.findtext("size/height") or 0)
    except ValueError:
        raise InputError(f"{path}: size is no pair of integers; correct it") from None
    return size if min(size) > 0 else read_header(picture)[:2]


def _all_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InputError(f"no annotation folder {folder}; check DATASETS.ROOT")
    found = {
        (item.findtext("name") or "").strip()
        for path in sorted(folder.glob("*.xml"))
        for item in _parse(path).findall("object")
    }
    return sorted(found)
