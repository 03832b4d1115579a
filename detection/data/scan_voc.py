"""Reads one split of a VOC folder in spite of what is wrong with it, and finds all that is."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError, suggestion
from backbones.core.findings import ERROR, WARNING, Findings, Kind
from backbones.core.picture_checks import Picture
from detection.data.scan import LARGEST_SIDE, Scan
from detection.data.voc import read_split

BROKEN_SPLIT = Kind(ERROR, "broken split file", "it must list a picture a line")
REPEATED_LINE = Kind(ERROR, "names listed twice in the split", "remove one of the lines")
NO_XML = Kind(ERROR, "listed pictures without XML", "restore the annotations or remove the lines")
BROKEN_XML = Kind(ERROR, "broken XML files", "restore them")
BAD_SIZE = Kind(ERROR, "XML whose size is no pair of integers", "correct them")
NO_SIZE = Kind(ERROR, "XML without size", "add the width and height of the picture that the boxes refer to")
ZERO_SIZE = Kind(WARNING, "XML whose size is 0", "the picture's own size is taken")
UNKNOWN_CLASS = Kind(ERROR, "objects of a class that is not in the list", "correct the name or list the class")
NO_DIFFICULT = Kind(WARNING, "objects without `difficult`", "they are taken to be not difficult")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def scan_voc(folder: Path, listing: Path, classes: Sequence[str] | None, findings: Findings) -> Scan | None:
    """The split that `listing` names, None where it is no text; `classes` None: every name in the folder's XML."""
    try:
        lines = read_split(listing)
    except InputError as error:
        findings.add(BROKEN_SPLIT, str(error))
        return None
    findings.add(REPEATED_LINE, [f"{listing}: '{stem}'" for stem, n in Counter(lines).items() if n > 1])
    stems = list(dict.fromkeys(lines))
    trees = {stem: _parse(folder / "Annotations" / f"{stem}.xml", findings) for stem in stems}
    if classes is None:
        classes = _all_names(folder / "Annotations", trees)
    pictures = [_read_picture(folder, stem, n, tree, findings) for n, (stem, tree) in enumerate(trees.items(), start=1)]
    found = [(n, item) for n, tree in enumerate(trees.values()) if tree is not None for item in tree.findall("object")]
    return _read_objects(found, pictures, list(classes), findings)


def _read_objects(
    found: list[tuple[int, ElementTree.Element]], pictures: list[Picture], classes: list[str], findings: Findings
) -> Scan:
    names = [_text(item, "name") for _, item in found]
    place = {name: n for n, name in enumerate(classes)}
    corners = np.array([_read_corners(item) for _, item in found], np.float64).reshape(-1, 4)
    # Pixels count from 1 and the last one is included.
    bbox = np.concatenate([corners[:, :2] - 1, corners[:, 2:] - corners[:, :2] + 1], axis=1)

    def describe(n: int) -> str:
        return f"{Path(pictures[found[n][0]].path).stem}.xml: {names[n]} {corners[n].tolist()}"

    scan = Scan(
        pictures=pictures,
        categories=classes,
        category_ids=list(range(1, len(classes) + 1)),
        image=np.array([n for n, _ in found], np.int64),
        label=np.array([place.get(name, -1) for name in names], np.int64),
        bbox=bbox,
        # A corner that is a number, though not a finite one, is infinite here; NaN is no number.
        malformed=np.asarray(np.isnan(corners).any(axis=1)),
        area=bbox[:, 2] * bbox[:, 3],
        iscrowd=np.array([_text(item, "difficult") == "1" for _, item in found], bool),
        describe=describe,
    )
    unknown = np.flatnonzero(scan.label < 0).tolist()
    hints = (f"{describe(n)}{suggestion(names[n], classes) if len(classes) < 50 else ''}" for n in unknown)
    findings.add(UNKNOWN_CLASS, hints, len(unknown))
    bare = [n for n, (_, item) in enumerate(found) if item.find("difficult") is None]
    findings.add(NO_DIFFICULT, (describe(n) for n in bare), len(bare))
    return scan


def _read_picture(
    folder: Path, stem: str, number: int, tree: ElementTree.Element | None, findings: Findings
) -> Picture:
    width = height = 0
    if tree is not None:
        try:
            width, height = int(tree.findtext("size/width") or 0), int(tree.findtext("size/height") or 0)
            if max(width, height) > LARGEST_SIDE:
                raise ValueError
        except ValueError:
            width = height = 0
            findings.add(BAD_SIZE, f"{stem}.xml")
        else:
            if min(width, height) <= 0:  # some tools state 0
                width = height = 0
                findings.add(NO_SIZE if tree.find("size") is None else ZERO_SIZE, f"{stem}.xml")
    return Picture(str(folder / "JPEGImages" / f"{stem}.jpg"), width, height, f"image id {number}")


def _parse(path: Path, findings: Findings | None) -> ElementTree.Element | None:
    try:
        return ElementTree.parse(path).getroot()
    except OSError as error:
        kind, where = NO_XML, f"{path} ({error.strerror})"
    except ElementTree.ParseError as error:
        kind, where = BROKEN_XML, f"{path} ({error})"
    if findings is not None:
        findings.add(kind, where)
    return None


def _all_names(folder: Path, read: dict[str, ElementTree.Element | None]) -> list[str]:
    """The names that occur in the folder, sorted, as the reader takes them."""
    others = (_parse(path, None) for path in sorted(folder.glob("*.xml")) if path.stem not in read)
    trees = [tree for tree in (*read.values(), *others) if tree is not None]
    return sorted({_text(item, "name") for tree in trees for item in tree.findall("object")})


def _read_corners(item: ElementTree.Element) -> list[float]:
    try:
        return [float(item.findtext(f"bndbox/{corner}") or "") for corner in _CORNERS]
    except ValueError:
        return [np.nan] * 4


def _text(item: ElementTree.Element, tag: str) -> str:
    return (item.findtext(tag) or "").strip()
