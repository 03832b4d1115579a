"""One class of an ILSVRC data set: its pictures, their sizes and the usable boxes of their annotations, as arrays.

    ROOT/<split>/<class>/<stem>.JPEG
    ROOT/annotations/<split>/<class>/<stem>.xml     or, as ILSVRC's val comes, ROOT/annotations/<split>/<stem>.xml

n pictures, m boxes.  What is unusual about a picture is a bit of its `flags`.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from backbones.core.warnings import WarningCounter
from backbones.data.ilsvrc_xml import read_ilsvrc_xml
from backbones.data.jpeg_header import picture_header
from backbones.data.reading import list_pictures

ANNOTATIONS = "annotations"
NOT_RGB, SIZE_DIFFERS, NO_XML, NO_OBJECT, NO_SOLID_BOX = 1, 2, 4, 8, 16
# Why a picture, although it has an annotation, has no usable box.
REASONS = {NO_OBJECT: "no object of the picture's class", NO_SOLID_BOX: "every box empty or outside of the picture"}


@dataclass(frozen=True)
class Stamp:
    """How a class's folders looked: their times of change in ns (0: no folder), and a digest of the names in them."""

    pictures: int
    annotations: int
    names: str


@dataclass(frozen=True)
class ClassPictures:
    """name: the class. files: n names, sorted. sizes: (n, 2) int64 width, height, of the pictures' headers.

    boxes: (m, 4) float32, clipped, solid, half-open; counts: (n,) int64 boxes of each picture.
    flags: (n,) uint8. clipped, empty: (n,) int64 boxes cut to the picture, and dropped for zero area.
    orphans: annotations without a picture.
    """

    name: str
    files: list[str]
    sizes: np.ndarray
    boxes: np.ndarray
    counts: np.ndarray
    flags: np.ndarray
    clipped: np.ndarray
    empty: np.ndarray
    orphans: list[str]
    stamp: Stamp

    def count_warnings(self, split: str, warnings: WarningCounter) -> None:
        """Count what had to be mended, with examples."""
        for bit, what in ((NOT_RGB, "grey or CMYK pictures converted"),
                          (SIZE_DIFFERS, "picture sizes differ from the XML's; the picture's taken")):  # fmt: skip
            self._count(split, warnings, what, (self.flags & bit > 0).astype(int))
        self._count(split, warnings, "boxes clipped to the picture", self.clipped)
        self._count(split, warnings, "boxes of zero area dropped", self.empty)
        for orphan in self.orphans:
            warnings.add("annotations without a picture", orphan)

    def _count(self, split: str, warnings: WarningCounter, what: str, counts: np.ndarray) -> None:
        for i in np.flatnonzero(counts):
            warnings.add(what, f"{split}/{self.name}/{self.files[i]}", int(counts[i]))


def read_class(root: Path, split: str, name: str) -> ClassPictures:
    """Read every picture's header and every annotation of one class; `InputError` names a broken file."""
    folder, annotations = root / split / name, _annotation_folder(root, split, name)
    stamp, files, stems = _look(root, split, name)
    base, xml_base = f"{folder}{os.sep}", f"{annotations}{os.sep}"
    found, sizes, flags = [], np.zeros((len(files), 2), np.int64), np.zeros(len(files), np.uint8)
    for i, file in enumerate(files):
        width, height, mode = picture_header(base + file)
        sizes[i] = width, height
        stem = file.rpartition(".")[0]
        boxes, noted = read_ilsvrc_xml(f"{xml_base}{stem}.xml", name) if stem in stems else ([], None)
        flags[i] = (NOT_RGB * (mode != "RGB") | SIZE_DIFFERS * (noted not in (None, (width, height)))
                    | (NO_XML if stem not in stems else NO_OBJECT * (not boxes)))  # fmt: skip
        found.append(boxes)
    own = {file.rpartition(".")[0] for file in files}
    flat = annotations.name != name
    orphans = [] if flat else [f"{name}/{stem}.xml" for stem in sorted(stems - own)]
    usable = _usable(found, sizes, flags)
    return ClassPictures(name=name, files=files, sizes=sizes, orphans=orphans, stamp=stamp, **usable)


def _usable(found: list, sizes: np.ndarray, flags: np.ndarray) -> dict[str, np.ndarray]:
    """Boxes, counts, flags, clipped, empty of `ClassPictures`, from the boxes as they were annotated."""
    noted = np.array([len(boxes) for boxes in found], np.int64)
    owner = np.repeat(np.arange(len(found)), noted)
    array = np.array([box for boxes in found for box in boxes], np.float32).reshape(-1, 4)
    inside = np.minimum(np.maximum(array, 0), np.tile(sizes, 2)[owner].astype(np.float32))
    solid = np.all(inside[:, 2:] > inside[:, :2], axis=1)

    def per_picture(rows: np.ndarray) -> np.ndarray:
        return np.bincount(owner[rows], minlength=len(found)).astype(np.int64)

    counts = per_picture(solid)
    return {
        "boxes": inside[solid],
        "counts": counts,
        "flags": flags | np.where((noted > 0) & (counts == 0), NO_SOLID_BOX, 0).astype(np.uint8),
        "clipped": per_picture(np.any(inside != array, axis=1)),
        "empty": per_picture(~solid),
    }


def is_unchanged(root: Path, split: str, name: str, stamp: Stamp) -> bool:
    """Whether a class's folders hold what they held: by their times, or, where a copy has others, by all names."""
    if not (root / split / name).is_dir():
        return False
    times = (_changed(root / split / name), _changed(_annotation_folder(root, split, name)))
    return times == (stamp.pictures, stamp.annotations) or _look(root, split, name)[0].names == stamp.names


def _look(root: Path, split: str, name: str) -> tuple[Stamp, list[str], set[str]]:
    """Stamp, names of the pictures, and stems of the annotations of one class."""
    folder, annotations = root / split / name, _annotation_folder(root, split, name)
    times = (_changed(folder), _changed(annotations))  # before listing: what comes later is a change
    files = list_pictures(folder)
    stems = _stems(str(annotations), times[1])
    if annotations.name != name:  # one folder for all classes: only what belongs to these pictures counts
        stems = stems & {file.rpartition(".")[0] for file in files}
    return Stamp(*times, fingerprint("\n".join(files), "\n".join(sorted(stems)))), files, set(stems)


@functools.lru_cache(maxsize=1)
def _stems(folder: str, changed: int) -> frozenset[str]:
    if not changed:
        return frozenset()
    with os.scandir(folder) as entries:
        return frozenset(entry.name[:-4] for entry in entries if entry.name.endswith(".xml"))


def _annotation_folder(root: Path, split: str, name: str) -> Path:
    own = root / ANNOTATIONS / split / name
    return own if own.is_dir() else own.parent


def _changed(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}; check its rights") from None
