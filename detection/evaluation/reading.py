"""Read and check the two COCO files: the ground truth (instances json) and the results of a detector.

All evaluators of boxes use it.  The ground truth is read by the same code as in training
(`detection.data.coco.instances`).  Letters: I images, K classes, N detections, G objects.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.findings import ERROR, Findings, Kind
from detection.data.categories import read_names
from detection.data.coco.instances import (
    find_positions,
    load_instances,
    read_annotations,
    require_lists,
    sort_entries,
    unique_entries,
)
from detection.data.fields import ABSENT, column, read_ids, read_numbers, read_rows, say, say_id
from detection.data.scan import MALFORMED, NOT_FINITE, cut_boxes, refuse
from detection.evaluation.listed import LISTED, use_truth_ids
from detection.evaluation.matching import Boxes
from detection.evaluation.valid import build_detections, image_areas, read_valid_detections, read_valid_truth

NO_AREA = Kind(ERROR, "annotations without area", "COCO's sizes need it: add width times height, or the mask's area")


class GroundTruth:
    """Checked ground truth: sorted ids, and the objects in file order.

    image_area: (I,) width times height in square pixels, NaN where the file does not say it.
    names: {"image_id": {id: file_name}, "category_id": {id: name}}, as the file states them.
    without_area: number of annotations that get the area of their box.
    clipped, dropped: numbers of boxes that `as_in_training` changed.
    """

    without_area, clipped, dropped = 0, 0, 0

    def __init__(self, source: Mapping[str, Any] | str | Path, *, box_areas: bool = False) -> None:
        """Read a ground truth.

        Args:
            box_areas: use the area of the box, as training does, where an annotation has none; otherwise it is refused.
        """
        self.where = str(source) if isinstance(source, str | Path) else "ground truth"
        read = read_valid_truth(source)
        if read is None:
            read, self.without_area = _read_any_truth(source, self.where, box_areas)
        self.image_ids, self.category_ids, files, names, self.objects, self.image_area = read
        if not names:
            raise InputError(f"{self.where}: the list of categories is empty; list the classes of the objects")
        self.category_names = _distinct(names)
        listed = {"image_id": (self.image_ids, files), "category_id": (self.category_ids, names)}
        self.names = {key: dict(zip(ids.tolist(), some, strict=True)) for key, (ids, some) in listed.items()}

    def as_in_training(self, sizes: np.ndarray, roots: np.ndarray) -> "GroundTruth":
        """Return the ground truth as training reads it, with boxes clipped to their images and empty ones dropped.

        The result is the object itself if nothing changes.

        Args:
            sizes: (I, 2) widths and heights; NaN: unknown, and boxes are left as they are.
            roots: (K,) bool, categories without objects to leave out.
        """
        size = sizes[self.objects.image]
        unknown = np.asarray(np.isnan(size).any(axis=1))
        bbox, moved, kept = cut_boxes(self.objects.xywh, np.nan_to_num(size))
        kept |= unknown
        if kept.all() and not (moved & ~unknown).any() and not roots.any():
            return self
        other = copy.copy(self)
        other.clipped, other.dropped = int((moved & kept & ~unknown).sum()), int((~kept).sum())
        xywh = np.where(unknown[:, None], self.objects.xywh, bbox)
        place = np.cumsum(~roots) - 1
        other.objects = replace(self.objects, xywh=xywh, category=place[self.objects.category]).take(kept)
        other.category_ids = self.category_ids[~roots]
        names = {key: self.names["category_id"][key] for key in other.category_ids.tolist()}
        other.names = {**self.names, "category_id": names}
        other.category_names = _distinct(list(names.values()))
        return other

    def positions(self, items: Sequence[Mapping], where: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray]:
        """Return (N,) image and class positions; raise `InputError` for the first invalid or unknown id."""
        result = []
        for key, known in (("image_id", self.image_ids), ("category_id", self.category_ids)):
            named = column(items, key)
            values, bad = read_ids(named)
            if bad.any():
                n = int(np.flatnonzero(bad)[0])
                raise InputError(f"{where(n)}: {say_id(key, named[n])}; use one json for both")
            found = find_positions(values, known)
            if (found < 0).any():
                n = int(np.flatnonzero(found < 0)[0])
                raise InputError(f"{where(n)}: {key} {values[n]} is not in the ground truth; use one json for both")
            result.append(found)
        return result[0], result[1]


def _read_any_truth(
    source: Mapping[str, Any] | str | Path, where: str, box_areas: bool
) -> tuple[tuple[np.ndarray, np.ndarray, list[Any], list[str], Boxes, np.ndarray], int]:
    """Read value by value, as `read_valid_truth`; also return how many annotations have no area.

    Raises:
        InputError: the first kind of error; annotations without area are one unless `box_areas`.
    """
    lists = load_instances(source) if isinstance(source, str | Path) else require_lists(source, where)
    findings = Findings()
    images, image_ids = sort_entries(*unique_entries(lists["images"], "images", findings))
    categories, category_ids = sort_entries(*unique_entries(lists["categories"], "categories", findings))
    names = read_names(categories, category_ids, findings)
    read = read_annotations(lists["annotations"], image_ids, category_ids, findings)
    infinite = ~read.malformed & ~np.isfinite(read.bbox).all(axis=1)
    refused = read.no_area & (not box_areas)
    for kind, rows in ((MALFORMED, read.malformed), (NOT_FINITE, infinite), (NO_AREA, refused)):
        findings.add(kind, map(read.describe, np.flatnonzero(rows).tolist()), int(rows.sum()))
    refuse(findings, where)
    with np.errstate(over="ignore"):
        area = np.where(read.no_area, read.bbox[:, 2] * read.bbox[:, 3], read.area)
    objects = Boxes(read.image, read.category, read.bbox, area, np.zeros(len(read.items)), crowd=read.iscrowd)
    areas = image_areas([(image.get("width"), image.get("height")) for image in images])
    files = [image.get("file_name") for image in images]
    return (image_ids, category_ids, files, names, objects, areas), int(read.no_area.sum())


def read_detections(source: Sequence | Mapping | str | Path, truth: GroundTruth, name: str = "detections") -> Boxes:
    """Read and check COCO results, keeping their order; raise `InputError` for the first that does not fit the truth.

    Numbers can be NumPy scalars, and a box can be a NumPy array.  Ids of results that list their own images or
    categories are those of the truth's images and categories of the same names.

    Args:
        name: names detections in memory in messages.
    """
    name = str(source) if isinstance(source, str | Path) else name
    source = adopt_ids(source, truth, name)
    valid = read_valid_detections(source, truth.image_ids, truth.category_ids)
    return _read_any(source, truth, name) if valid is None else valid


def adopt_ids(
    source: Sequence | Mapping | str | Path, truth: GroundTruth, name: str, keys: Iterable[str] = LISTED
) -> Sequence | Mapping | str | Path:
    """Return the source, or its detections with the truth's ids if it lists its own images or categories.

    Args:
        keys: those of "image_id" and "category_id" that hold ids.
    """
    tree = _load_object(source) if isinstance(source, str | Path) else source
    if not isinstance(tree, Mapping):
        return source
    known = {key: truth.names[key] for key in keys if LISTED[key][0] in tree}
    return use_truth_ids(tree, load_detections(tree, name), known, name) if known else source


def _load_object(path: str | Path) -> Any:
    """Return the JSON object of a file; None for a list, or a file that cannot be read, which its reader refuses."""
    try:
        with open(path, "rb") as file:
            start = file.read(256).lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
        return load_json(path) if start[:1] in (b"{", b"") else None
    except (OSError, InputError):
        return None


def load_detections(source: Sequence | Mapping | str | Path, name: str = "detections") -> Sequence[Mapping]:
    """Return the list of COCO results in a file or in memory, unchecked but for being objects with keys.

    Raises:
        InputError: it is not such a list.
    """
    name = str(source) if isinstance(source, str | Path) else name
    items = load_json(source) if isinstance(source, str | Path) else source
    if isinstance(items, Mapping):
        items = items.get("annotations")
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise InputError(f"{name}: not a list of detections; give COCO results (image_id, category_id, bbox, score)")
    if not set(map(type, items)) <= {dict}:
        for n, item in enumerate(items):
            if not isinstance(item, Mapping):
                raise InputError(f"{name}[{n}] is {say(item)}, not an object with keys; correct it")
    return items


def _read_any(source: Sequence | Mapping | str | Path, truth: GroundTruth, name: str) -> Boxes:
    """Read value by value; raise `InputError` for the first that does not fit."""
    items = load_detections(source, name)
    name = str(source) if isinstance(source, str | Path) else name

    def where(n: int) -> str:
        return f"{name}: detection {n}"

    image, category = truth.positions(items, where)
    xywh = _finite(items, "bbox", *read_rows(column(items, "bbox"), 4), where)
    score, bad = read_numbers(column(items, "score"))
    return build_detections(image, category, xywh, _finite(items, "score", score[:, None], bad, where)[:, 0])


def _finite(
    items: Sequence[Mapping], key: str, values: np.ndarray, bad: np.ndarray, where: Callable[[int], str]
) -> np.ndarray:
    """Return the (N, size) values; raise `InputError` for the first item with missing or non-finite values."""
    bad = bad | ~np.isfinite(values).all(axis=1)
    if bad.any():
        n = int(np.flatnonzero(bad)[0])
        count = f"{values.shape[1]} finite numbers" if values.shape[1] > 1 else "a finite number"
        raise InputError(f"{where(n)}: '{key}' must be {count}, is {say(items[n].get(key, ABSENT))}; correct it")
    return values


def _distinct(names: Sequence[str]) -> list[str]:
    """Return class names with a number appended to duplicates."""
    return [f"{name} ({n})" if name in names[:n] else name for n, name in enumerate(names)]
