"""One class of an ILSVRC data set: its images, their sizes and the usable boxes of their annotations, as arrays.

    ROOT/<split>/<class>/<stem>.JPEG
    ROOT/annotations/<split>/<class>/<stem>.xml     or, as in ILSVRC's val, ROOT/annotations/<split>/<stem>.xml

Letters: n images, m boxes.  Each peculiarity of an image is one bit of its `flags`.
"""

import functools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from backbones.core.images import read_header_and_frames
from backbones.core.warning_counter import WarningCounter
from backbones.data.ilsvrc_xml import composed, read_ilsvrc_xml
from backbones.data.reading import (
    CONVERTED,
    FRAMES,
    TURNED,
    count_beside_folders,
    count_left_out,
    list_folder,
    list_folders,
)

ANNOTATIONS = "annotations"
NOT_RGB, SIZE_DIFFERS, NO_XML, NO_OBJECT, NO_SOLID_BOX, IS_TURNED, HAS_FRAMES, SHARES_XML = (1 << n for n in range(8))
# Reasons why an image with an annotation has no usable box.
REASONS = {NO_OBJECT: "no object of the image's class", NO_SOLID_BOX: "every box empty or outside of the image"}
ORPHANS = "annotations without an image"
# Flags that are counted as warnings; NO_SOLID_BOX is not, as its boxes are counted one by one.
COUNTED = {
    NOT_RGB: CONVERTED,
    SIZE_DIFFERS: "image sizes differ from the XML's; the image's taken",
    NO_OBJECT: "annotations without an object of the image's class",
    IS_TURNED: TURNED,
    HAS_FRAMES: FRAMES,
    SHARES_XML: "images that differ by suffix alone and share one annotation",
}


@dataclass(frozen=True)
class Stamp:
    """State of a class's folders: their modification times in ns (0: no folder), and a digest of the names in them."""

    images: int
    annotations: int
    names: str


@dataclass(frozen=True)
class ClassImages:
    """Images and boxes of one class.

    name: the class. files: n names, sorted. sizes: (n, 2) int64 width, height, from the image headers.
    boxes: (m, 4) float32, clipped, of positive area, half-open; counts: (n,) int64 boxes per image.
    flags: (n,) uint8. clipped, empty: (n,) int64 boxes that were clipped to the image, and dropped for zero area.
    orphans: annotations without an image. others, hidden: other entries of the class's folders, which are ignored.
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
    others: list[str]
    hidden: list[str]
    stamp: Stamp

    def count_warnings(self, split: str, warnings: WarningCounter) -> None:
        """Count the peculiarities of the images and boxes, with examples."""
        for bit, what in COUNTED.items():
            self._count(split, warnings, what, (self.flags & bit > 0).astype(int))
        self._count(split, warnings, "boxes clipped to the image", self.clipped)
        self._count(split, warnings, "boxes of zero area dropped", self.empty)
        for orphan in self.orphans:
            warnings.add(ORPHANS, orphan)
        count_left_out(self.others, self.hidden, warnings)

    def _count(self, split: str, warnings: WarningCounter, what: str, counts: np.ndarray) -> None:
        for i in np.flatnonzero(counts):
            warnings.add(what, f"{split}/{self.name}/{self.files[i]}", int(counts[i]))


@dataclass(frozen=True)
class _Looked:
    """Names in a class's folders; xml: stem of an annotation -> its file."""

    stamp: Stamp
    files: list[str]
    xml: dict[str, str]
    others: list[str]
    hidden: list[str]


def read_class(root: Path, split: str, name: str) -> ClassImages:
    """Read every image header and every annotation of one class; raise `InputError` for a broken file."""
    looked = _look(root, split, name)
    files, annotations = looked.files, _annotation_folder(root, split, name)
    base, xml_base = f"{root / split / name}{os.sep}", f"{annotations}{os.sep}"
    stems = [_stem(file) for file in files]
    shared = {stem for stem, count in Counter(stems).items() if count > 1} if len(set(stems)) < len(stems) else set()
    found, sizes, flags = [], np.zeros((len(files), 2), np.int64), np.zeros(len(files), np.uint8)
    for i, (file, stem) in enumerate(zip(files, stems, strict=True)):
        (width, height, mode, turned), animated = read_header_and_frames(base + file)
        sizes[i] = width, height
        xml = looked.xml.get(stem)
        boxes, noted = read_ilsvrc_xml(xml_base + xml, name) if xml else ([], None)
        flags[i] = (NOT_RGB * (mode != "RGB") | SIZE_DIFFERS * (noted not in (None, (width, height)))
                    | (NO_OBJECT * (not boxes) | SHARES_XML * (stem in shared) if xml else NO_XML)
                    | IS_TURNED * turned | HAS_FRAMES * animated)  # fmt: skip
        found.append(boxes)
    lost = [] if _is_flat(root, split, annotations) else sorted(looked.xml.keys() - set(stems))
    return ClassImages(
        name=name,
        files=files,
        sizes=sizes,
        orphans=[f"{name}/{looked.xml[stem]}" for stem in lost],
        others=looked.others,
        hidden=looked.hidden,
        stamp=looked.stamp,
        **_usable(found, sizes, flags),
    )


def _usable(found: list, sizes: np.ndarray, flags: np.ndarray) -> dict[str, np.ndarray]:
    """Return boxes, counts, flags, clipped and empty of `ClassImages` from the annotated boxes."""
    noted = np.array([len(boxes) for boxes in found], np.int64)
    owner = np.repeat(np.arange(len(found)), noted)
    with np.errstate(over="ignore"):  # a corner beyond float32 is clipped to the image
        array = np.array([box for boxes in found for box in boxes], np.float32).reshape(-1, 4)
    inside = np.minimum(np.maximum(array, 0), np.tile(sizes, 2)[owner].astype(np.float32))
    solid = np.all(inside[:, 2:] > inside[:, :2], axis=1)

    def per_image(rows: np.ndarray) -> np.ndarray:
        return np.bincount(owner[rows], minlength=len(found)).astype(np.int64)

    counts = per_image(solid)
    return {
        "boxes": inside[solid],
        "counts": counts,
        "flags": flags | np.where((noted > 0) & (counts == 0), NO_SOLID_BOX, 0).astype(np.uint8),
        "clipped": per_image(np.any(inside != array, axis=1)),
        "empty": per_image(~solid),
    }


def is_unchanged(root: Path, split: str, name: str, stamp: Stamp) -> bool:
    """Whether a class's folders are unchanged: by modification time, or by all names if the times differ (a copy)."""
    if not (root / split / name).is_dir():
        return False
    times = (_changed(root / split / name), _changed(_annotation_folder(root, split, name)))
    return times == (stamp.images, stamp.annotations) or _look(root, split, name).stamp.names == stamp.names


def count_beside(root: Path, split: str, classes: list[ClassImages], warnings: WarningCounter) -> None:
    """Count the ignored entries beside the class folders, of both images and annotations."""
    count_beside_folders(root / split, warnings, split)
    folder = root / ANNOTATIONS / split
    if not folder.is_dir():
        return
    listed, known = _list_annotations(str(folder), _changed(folder)), {composed(own.name) for own in classes}
    folders = [name[:-1] for name in listed.others if name.endswith("/")]
    for name in folders:
        if composed(name) not in known:
            warnings.add("folders of annotations without a class folder", f"{folder.parent.name}/{split}/{name}")
    place = f"{ANNOTATIONS}/{split}"
    rest = [name for name in listed.others if not name.endswith("/")]
    count_left_out(_within(place, rest), _within(place, listed.hidden), warnings)
    if listed.xml:
        annotated = {composed(name) for name in folders}
        used = {_stem(file) for own in classes if composed(own.name) not in annotated for file in own.files}
        for stem in sorted(listed.xml.keys() - used):
            warnings.add(ORPHANS, f"{place}/{listed.xml[stem]}")


def _look(root: Path, split: str, name: str) -> _Looked:
    """List the folders of one class."""
    folder, annotations = root / split / name, _annotation_folder(root, split, name)
    times = (_changed(folder), _changed(annotations))  # before listing, so that later additions count as changes
    files, others, hidden = list_folder(folder)
    others, hidden = _within(f"{split}/{name}", others), _within(f"{split}/{name}", hidden)
    listed = _list_annotations(str(annotations), times[1])
    xml = listed.xml
    if _is_flat(root, split, annotations):  # one folder for all classes: use only the annotations of these images
        xml = {stem: xml[stem] for stem in map(_stem, files) if stem in xml}
    else:
        place = f"{ANNOTATIONS}/{split}/{annotations.name}"
        others, hidden = others + _within(place, listed.others), hidden + _within(place, listed.hidden)
    names = fingerprint("\n".join(files), "\n".join(sorted(xml)), "\n".join(others))
    return _Looked(Stamp(*times, names), files, xml, others, hidden)


def _within(place: str, names: list[str]) -> list[str]:
    return [f"{place}/{name}" for name in names]


def _stem(file: str) -> str:
    return composed(file.rpartition(".")[0])


class _Annotations(NamedTuple):
    """Files in an annotation folder; xml: stem -> file; others, hidden: as in `Listing`."""

    xml: dict[str, str]
    others: list[str]
    hidden: list[str]


@functools.lru_cache(maxsize=1)
def _list_annotations(folder: str, changed: int) -> _Annotations:
    if not changed:
        return _Annotations({}, [], [])
    listed, xml = list_folder(Path(folder), (".xml",)), {}
    for file in listed.images:
        if (other := xml.setdefault(_stem(file), file)) != file:
            raise InputError(f"{folder} holds {other} and {file}, annotations of one image; remove one")
    return _Annotations(xml, listed.others, listed.hidden)


def _annotation_folder(root: Path, split: str, name: str) -> Path:
    folder = root / ANNOTATIONS / split
    if (folder / name).is_dir():
        return folder / name
    if not name.isascii() and folder.is_dir():  # its accents can be composed differently
        return next((folder / own for own in list_folders(folder) if composed(own) == composed(name)), folder)
    return folder


def _is_flat(root: Path, split: str, annotations: Path) -> bool:
    return annotations == root / ANNOTATIONS / split


def _changed(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}; check its permissions") from None
