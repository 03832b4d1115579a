"""COCO instances json: its three lists, the ids and names of its entries, and the columns of its annotations.

The check of a data set, training and evaluation all read such files through this module.  Problems are added to
`Findings`; a caller that cannot continue with them calls `refuse`.

n annotations, K categories.
"""

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.findings import ERROR, WARNING, Findings, Kind
from detection.data.fields import ABSENT, column, read_flags, read_ids, read_numbers, read_rows, say, say_id

PARTS = ("images", "categories", "annotations")
NO_ENTRY = Kind(ERROR, "entries without an integer id", "number the entries with integers")
REPEATED = {
    part: Kind(ERROR, f"repeated {name} ids", "ids must be unique")
    for part, name in (("images", "image"), ("annotations", "annotation"), ("categories", "category"))
}
BAD_REFERENCE = Kind(ERROR, "annotations whose image_id or category_id is not an integer", "write the id as a number")
UNKNOWN_IMAGE = Kind(ERROR, "annotations of an unknown image", "list the image or remove the annotations")
UNKNOWN_CATEGORY = Kind(ERROR, "annotations of an unknown category", "list the category or remove the annotations")
BAD_FLAG = Kind(ERROR, "flags that are neither 0 nor 1", "write 0 or 1")
IGNORE = Kind(WARNING, "annotations with `ignore`", "the key has no effect, as in pycocotools; iscrowd has")
BAD_AREA = Kind(ERROR, "areas that are not a number of at least 0", "correct them, or leave `area` out")


@dataclass
class Annotations:
    """Columns of the annotations that have an id; of a duplicate id, only the first.

    Attributes:
        items: n entries.
        ids: (n,) int64.
        image, category: (n,) int64 positions among the sorted ids; -1: unknown id (already reported).
        bbox: (n, 4) float64, can be infinite or NaN; NaN where malformed.
        malformed: (n,) bool, not 4 numbers; not yet reported.
        area: (n,) float64; NaN if missing or invalid (already reported).
        no_area: (n,) bool.
        iscrowd: (n,) bool.
    """

    items: list[Mapping]
    ids: np.ndarray
    image: np.ndarray
    category: np.ndarray
    bbox: np.ndarray
    malformed: np.ndarray
    area: np.ndarray
    no_area: np.ndarray
    iscrowd: np.ndarray

    def describe(self, n: int) -> str:
        """Describe annotation n by its ids and its box."""
        item = self.items[n]
        image, bbox = (say(item.get(key, ABSENT)).removeprefix("the list ") for key in ("image_id", "bbox"))
        return f"annotation id {self.ids[n]} (image id {image}, bbox {bbox})"


def load_instances(path: str | Path) -> dict[str, list[Any]]:
    """Load the lists `PARTS` of an instances json.

    Raises:
        InputError: the file cannot be read as JSON, lacks a list, or holds one of them twice.
    """
    tree = load_json(path)
    lists = require_lists(tree, str(path))
    _refuse_repeated_lists(Path(path))
    return lists


def require_lists(tree: Any, where: str) -> dict[str, list[Any]]:
    """Return the lists `PARTS` of a tree; raise `InputError` for a missing one."""
    for part in PARTS:
        if not isinstance(tree, Mapping) or not isinstance(tree.get(part), list):
            results = isinstance(tree, list) and tree and isinstance(tree[0], Mapping) and "score" in tree[0]
            hint = " (these are results of a detector)" if results else ""
            raise InputError(f"{where}: no list '{part}'{hint}; give a COCO instances json")
    return {part: tree[part] for part in PARTS}


def _refuse_repeated_lists(path: Path) -> None:
    """Refuse a list that occurs twice in the JSON object, of which Python silently keeps the last."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        twice = [part for part in PARTS if _occurs_twice(data, f'"{part}"'.encode())]
    if not twice:
        return

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in found]
        for part in twice:
            if keys.count(part) > 1:
                raise InputError(f"{path}: the key '{part}' is duplicated; keep one list")
        return dict(found)

    json.loads(path.read_bytes(), object_pairs_hook=pairs)


def _occurs_twice(data: mmap.mmap, key: bytes) -> bool:
    first = data.find(key)
    return first >= 0 and data.find(key, first + len(key)) >= 0


def unique_entries(items: Sequence[Any], part: str, findings: Findings) -> tuple[list[Mapping], np.ndarray]:
    """Return the entries with an integer id, the first of each id, and their (n,) int64 ids."""
    objects: list[Any] = list(items)
    if not set(map(type, objects)) <= {dict}:
        wrong = [n for n, item in enumerate(objects) if not isinstance(item, Mapping)]
        findings.add(NO_ENTRY, (f"{part}[{n}] is {say(objects[n])}, not an object" for n in wrong), len(wrong))
        objects = [item for item in objects if isinstance(item, Mapping)]
    named = column(objects, "id")
    ids, bad = read_ids(named)
    if bad.any():
        rows = np.flatnonzero(bad).tolist()
        findings.add(
            NO_ENTRY, (f"{part}[{_place(items, objects[n])}]: {say_id('id', named[n])}" for n in rows), len(rows)
        )
        rows = np.flatnonzero(~bad)
        objects, ids = [objects[n] for n in rows.tolist()], ids[rows]
    _, first = np.unique(ids, return_index=True)
    if len(first) < len(ids):
        again = np.setdiff1d(np.arange(len(ids)), first)
        findings.add(REPEATED[part], (f"{part}: duplicate id {ids[n]}" for n in again), len(again))
        first.sort()
        objects, ids = [objects[n] for n in first.tolist()], ids[first]
    return objects, ids


def _place(items: Sequence[Any], entry: Mapping) -> int:
    return next(n for n, item in enumerate(items) if item is entry)


def sort_entries(entries: list[Mapping], ids: np.ndarray) -> tuple[list[Mapping], np.ndarray]:
    """Sort entries and ids by ascending id."""
    order = np.argsort(ids)
    return [entries[n] for n in order.tolist()], ids[order]


def read_annotations(
    items: Sequence[Any], image_ids: np.ndarray, category_ids: np.ndarray, findings: Findings
) -> Annotations:
    """Read the columns of the list "annotations".

    Args:
        image_ids, category_ids: sorted int64.
    """
    entries, ids = unique_entries(items, "annotations", findings)

    def say_row(n: int) -> str:
        return f"annotations: id {ids[n]}"

    bbox, malformed = read_rows(column(entries, "bbox"), 4)
    iscrowd = _read_flags(entries, "iscrowd", say_row, findings)
    ignore = np.flatnonzero(_read_flags(entries, "ignore", say_row, findings) & ~iscrowd).tolist()
    findings.add(IGNORE, (say_row(n) for n in ignore), len(ignore))
    stated = column(entries, "area")
    no_area = np.array([value is ABSENT for value in stated], bool)
    area, wrong = read_numbers([0 if value is ABSENT else value for value in stated])
    wrong |= ~(np.isfinite(area) & (area >= 0))
    rows = np.flatnonzero(wrong).tolist()
    findings.add(BAD_AREA, (f"{say_row(n)}: area is {say(stated[n])}" for n in rows), len(rows))
    return Annotations(
        items=entries,
        ids=ids,
        image=_positions(entries, "image_id", image_ids, UNKNOWN_IMAGE, say_row, findings),
        category=_positions(entries, "category_id", category_ids, UNKNOWN_CATEGORY, say_row, findings),
        bbox=bbox,
        malformed=malformed,
        area=np.where(wrong | no_area, np.nan, area),
        no_area=no_area,
        iscrowd=iscrowd,
    )


def _read_flags(entries: Sequence[Mapping], key: str, say_row: Any, findings: Findings) -> np.ndarray:
    values = column(entries, key)
    flags, bad = read_flags(values)
    rows = np.flatnonzero(bad).tolist()
    findings.add(BAD_FLAG, (f"{say_row(n)}: {key} must be 0 or 1, is {say(values[n])}" for n in rows), len(rows))
    return flags


def _positions(
    entries: Sequence[Mapping], key: str, known: np.ndarray, unknown: Kind, say_row: Any, findings: Findings
) -> np.ndarray:
    named = column(entries, key)
    values, bad = read_ids(named)
    rows = np.flatnonzero(bad).tolist()
    findings.add(BAD_REFERENCE, (f"{say_row(n)}: {say_id(key, named[n])}" for n in rows), len(rows))
    found = find_positions(values, known)
    found[bad] = -1
    rows = np.flatnonzero((found < 0) & ~bad).tolist()
    findings.add(unknown, (f"{say_row(n)}: {key} {values[n]} is not listed" for n in rows), len(rows))
    return found


def find_positions(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the (n,) int64 position of each value in the sorted `known`; -1: not found."""
    if not len(known):
        return np.full(len(values), -1, np.int64)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[place] == values, place, -1).astype(np.int64)
