"""Reads a COCO instances json in spite of what is wrong with it, and finds all that is."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.findings import ERROR, WARNING, Findings, Kind
from backbones.core.picture_checks import Picture
from detection.data.scan import BAD_AREA, LARGEST_SIDE, NO_AREA, ZERO_AREA, Scan

BROKEN = Kind(ERROR, "broken annotation file", "restore it; it must be a COCO instances json")
NO_ENTRY = Kind(ERROR, "entries without an integer id", "number the entries")
REPEATED = {
    part: Kind(ERROR, f"repeated {name} ids", "ids must be unique")
    for part, name in (("images", "image"), ("annotations", "annotation"), ("categories", "category"))
}
REPEATED_NAME = Kind(ERROR, "repeated category names", "rename one of them")
INCOMPLETE = Kind(ERROR, "pictures without file_name, width or height", "add or correct them")
REPEATED_FILE = Kind(WARNING, "files listed under several image ids", "they are learned and tested several times")
UNKNOWN_IMAGE = Kind(ERROR, "annotations of an unknown image", "list the image or remove the annotations")
UNKNOWN_CATEGORY = Kind(ERROR, "annotations of an unknown category", "list the category or remove the annotations")


def scan_coco(annotations: Path, images: Path, findings: Findings) -> Scan | None:
    """The whole file; None where it is no COCO instances json."""
    try:
        tree = load_json(annotations)
    except InputError as error:
        findings.add(BROKEN, str(error))
        return None
    for part in REPEATED:
        if not isinstance(tree, Mapping) or not isinstance(tree.get(part), list):
            findings.add(BROKEN, f"{annotations} has no list '{part}'")
            return None
    categories = sorted(_unique(tree["categories"], "categories", findings), key=lambda item: item["id"])
    names = [str(item.get("name", item["id"])) for item in categories]
    repeated = {name for name in names if names.count(name) > 1}
    findings.add(REPEATED_NAME, [f"'{name}'" for name in names if name in repeated], len(repeated))
    entries = sorted(_unique(tree["images"], "images", findings), key=lambda item: item["id"])
    pictures = _read_pictures(entries, images, findings)
    items = _unique(tree["annotations"], "annotations", findings)
    return _read_annotations(items, entries, pictures, categories, names, findings)


def _unique(items: list[Any], part: str, findings: Findings) -> list[Mapping]:
    """The entries with an integer id, each id once."""
    numbered = [isinstance(item, Mapping) and isinstance(item.get("id"), int) for item in items]
    sound = [item for item, good in zip(items, numbered, strict=True) if good]
    findings.add(NO_ENTRY, (f"{part}[{n}]" for n, good in enumerate(numbered) if not good), len(items) - len(sound))
    first = {item["id"]: item for item in reversed(sound)}
    if len(first) == len(sound):
        return sound
    again = [item["id"] for item in sound if first[item["id"]] is not item]
    findings.add(REPEATED[part], (f"{part}: id {key}" for key in again), len(again))
    return [item for item in sound if first[item["id"]] is item]


def _read_pictures(entries: Sequence[Mapping], images: Path, findings: Findings) -> list[Picture]:
    pictures, seen = [], set()
    for item in entries:
        file, *size = (item.get(key) for key in ("file_name", "width", "height"))
        width, height = (side if isinstance(side, int) and 0 < side <= LARGEST_SIDE else 0 for side in size)
        whole = isinstance(file, str) and width and height
        if not whole:
            findings.add(INCOMPLETE, f"images: id {item['id']}")
        if isinstance(file, str) and file in seen:
            findings.add(REPEATED_FILE, f"{file} (image id {item['id']})")
        seen.add(file if isinstance(file, str) else None)
        path = str(images / file) if isinstance(file, str) else ""
        pictures.append(Picture(path, width if whole else 0, height if whole else 0, f"image id {item['id']}"))
    return pictures


def _read_annotations(
    items: Sequence[Mapping],
    entries: Sequence[Mapping],
    pictures: list[Picture],
    categories: Sequence[Mapping],
    names: list[str],
    findings: Findings,
) -> Scan:
    bbox, malformed = _read_boxes([item.get("bbox") for item in items])
    area, missing = _read_areas(items)

    def describe(n: int) -> str:
        item = items[n]
        return f"annotation id {item['id']} (image id {item.get('image_id')!r}, bbox {item.get('bbox')!r})"

    scan = Scan(
        pictures=pictures,
        categories=names,
        category_ids=[entry["id"] for entry in categories],
        image=_positions(items, "image_id", entries),
        label=_positions(items, "category_id", categories),
        bbox=bbox,
        malformed=malformed,
        area=area,
        iscrowd=np.array([bool(item.get("iscrowd", 0)) for item in items], bool),
        describe=describe,
    )
    for field, where, kind in (("image_id", scan.image, UNKNOWN_IMAGE), ("category_id", scan.label, UNKNOWN_CATEGORY)):
        lost = np.flatnonzero(where < 0).tolist()
        findings.add(kind, (f"id {items[n]['id']}: {field} {items[n].get(field)!r}" for n in lost), len(lost))
    for kind, rows in ((NO_AREA, missing), (BAD_AREA, np.isnan(area) & ~missing), (ZERO_AREA, area == 0)):
        found = np.flatnonzero(rows).tolist()
        findings.add(kind, (f"id {items[n]['id']}: {items[n].get('area')!r}" for n in found), len(found))
    return scan


def _positions(items: Sequence[Mapping], field: str, entries: Sequence[Mapping]) -> np.ndarray:
    """Position in `entries` of the id that each item names; -1: none."""
    place = {entry["id"]: n for n, entry in enumerate(entries)}
    named = (item.get(field) for item in items)
    return np.array([place.get(key, -1) if isinstance(key, int) else -1 for key in named], np.int64)


def _read_boxes(values: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) with NaN where there is no box; (n,) where that is so because it is not 4 numbers."""
    boxes = _as_numbers(values)
    if boxes is not None and boxes.shape == (len(values), 4):
        return boxes, np.zeros(len(values), bool)
    boxes, malformed = np.full((len(values), 4), np.nan), np.ones(len(values), bool)
    for n, value in enumerate(values):  # some are wrong: one by one
        row = _as_numbers(value)
        if row is not None and row.shape == (4,):
            boxes[n], malformed[n] = row, False
    return boxes, malformed


def _as_numbers(value: Any) -> np.ndarray | None:
    """The value as float64; None where something in it is no number."""
    try:
        return np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None


def _read_areas(items: Sequence[Mapping]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) with NaN where there is none or a wrong one; (n,) where there is none."""
    values = [item.get("area") for item in items]
    # Python compares whole numbers of any length, of which numpy takes none beyond the largest float.
    sound = [isinstance(value, (int, float)) and 0 <= value <= sys.float_info.max for value in values]
    area = np.array([value if good else np.nan for value, good in zip(values, sound, strict=True)], np.float64)
    return area, np.array(["area" not in item for item in items], bool)
