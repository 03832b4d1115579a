"""Read valid COCO files fast: msgspec decodes them into typed rows, in C.

Whatever is not plainly valid is left to `reading`, which reads it value by value or says what is wrong.
I images, K classes, N detections, G objects.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detection.data.coco.instances import PARTS, find_positions
from detection.data.fields import is_encodable
from detection.evaluation.matching import Boxes

MOST_PIXELS = 2**31  # of a side: larger numbers are no size
Source = Sequence | Mapping | str | Path


# Keys that are not listed are skipped.  A text, a bool or a fraction is not an integer.
class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: Any = None
    width: Any = None
    height: Any = None


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _Box(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]


class _Object(_Box, gc=False):
    id: int
    area: float
    iscrowd: int = 0
    ignore: int = 0  # without effect, but checked


class _Instances(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Object]


class _Detection(_Box, gc=False):
    score: float


class _Results(msgspec.Struct):
    annotations: list[_Detection]


_REFUSED = (OSError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def read_valid_truth(source: Source) -> tuple[np.ndarray, np.ndarray, list[Any], list[str], Boxes, np.ndarray] | None:
    """Return image ids (I,) and category ids (K,), sorted, file names (I), names (K), objects (G), image areas (I,).

    None: maybe invalid.
    """
    try:
        tree: _Instances = _decode(source, _Instances, once=PARTS)
        ids = [_column(rows, "id", np.int64) for rows in (tree.images, tree.categories, tree.annotations)]
        (image_ids, category_ids, object_ids), names = map(np.unique, ids), [row.name for row in tree.categories]
        objects = _boxes(tree.annotations, image_ids, category_ids, key_of_number="area")
        flags = [_column(tree.annotations, key, np.int64) for key in ("iscrowd", "ignore")]
    except _REFUSED:
        return None
    unique = [len(some) for some in ids] == [len(image_ids), len(category_ids), len(object_ids)]
    named = all(name.strip() and is_encodable(name) for name in names)
    flagged = all(np.isin(flag, (0, 1)).all() for flag in flags)
    if objects is None or not (unique and named and flagged and (objects.area >= 0).all()):
        return None
    objects.crowd = flags[0] == 1
    images = [tree.images[n] for n in np.argsort(ids[0])]
    areas = image_areas([(row.width, row.height) for row in images])
    files = [row.file_name for row in images]
    return image_ids, category_ids, files, [names[k] for k in np.argsort(ids[1])], objects, areas


def image_areas(sizes: Sequence[tuple[Any, Any]]) -> np.ndarray:
    """Return (I,) width times height in square pixels; NaN unless both are positive numbers."""

    def area(width: Any, height: Any) -> float:
        known = all(isinstance(side, int | float | np.integer) and 0 < side < MOST_PIXELS for side in (width, height))
        return float(width) * float(height) if known else math.nan

    return np.array([area(*size) for size in sizes], dtype=np.float64)


def read_valid_detections(source: Source, image_ids: np.ndarray, category_ids: np.ndarray) -> Boxes | None:
    """Return the detections of a file or in memory, in their order; None: one may be invalid.

    Args:
        image_ids, category_ids: sorted int64, those of the ground truth.
    """
    try:
        rows = _decode(source, list[_Detection] | _Results)
        rows = rows.annotations if isinstance(rows, _Results) else rows
        return _boxes(rows, image_ids, category_ids, key_of_number="score")
    except _REFUSED:
        return None


def _decode(source: Source, form: Any, once: Sequence[str] = ()) -> Any:
    """Decode a file or convert a tree; raise one of `_REFUSED` if it does not have the form.

    Args:
        once: keys that may occur only once in a file: of duplicates, the last would win."""
    if not isinstance(source, str | Path):
        return msgspec.convert(source, form)
    data = Path(source).read_bytes()
    if not data.isascii():
        data.decode()  # msgspec does not check text that it skips
    if any(data.count(f'"{key}"'.encode()) > 1 for key in once):
        raise ValueError("duplicate keys")
    return msgspec.json.decode(data, type=form)


def _boxes(rows: Sequence, image_ids: np.ndarray, category_ids: np.ndarray, key_of_number: str) -> Boxes | None:
    """Return the boxes of rows with an area or a score; None if a number is not finite or an id is unknown."""
    image, category = (
        find_positions(_column(rows, key, np.int64), known)
        for key, known in (("image_id", image_ids), ("category_id", category_ids))
    )
    corners = chain.from_iterable(map(attrgetter("bbox"), rows))
    xywh = np.fromiter(corners, np.float64, 4 * len(rows)).reshape(-1, 4)
    number = _column(rows, key_of_number, np.float64)
    if (image < 0).any() or (category < 0).any() or not (np.isfinite(xywh).all() and np.isfinite(number).all()):
        return None
    boxes = build_detections(image, category, xywh, np.zeros(len(rows)))
    setattr(boxes, key_of_number, number)
    return boxes


def _column(rows: Sequence, key: str, dtype: type) -> np.ndarray:
    return np.fromiter(map(attrgetter(key), rows), dtype, len(rows))


def build_detections(image: np.ndarray, category: np.ndarray, xywh: np.ndarray, score: np.ndarray) -> Boxes:
    """Build the boxes of detections, whose area is that of the box."""
    with np.errstate(over="ignore"):
        area = xywh[:, 2] * xywh[:, 3]
    return Boxes(image, category, xywh, area, score, crowd=np.zeros(len(image), dtype=bool))
