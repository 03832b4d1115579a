"""Crops, boxes and the share of a crop that objects cover, in closed form: no mask is drawn.

Boxes are x0, y0, x1, y1 in pixels, half-open: [x0, x1) x [y0, y1), area (x1 - x0) * (y1 - y0).  A crop is
(x, y, width, height) in the same pixels.  Letters: M boxes.  Pure numpy.
"""

import math
from itertools import pairwise
from operator import itemgetter

import numpy as np

Crop = tuple[float, float, float, float]

# As torchvision's RandomResizedCrop.
CROP_TRIES = 10
# Up to this number of boxes, a sweep in Python is faster than numpy.
FEW_BOXES = 10


def clip_boxes(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """Clip (M, 4) boxes to an image; a box outside the image gets zero area."""
    low = np.zeros(4, boxes.dtype)
    high = np.array([width, height, width, height], boxes.dtype)
    return np.clip(boxes, low, high)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (M,) of (M, 4) boxes; 0 if a side is empty or reversed."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return sides[:, 0] * sides[:, 1]


def union_area(boxes: np.ndarray) -> float:
    """Return the exact area of the union of (M, 4) boxes.

    Coordinate compression: the edges of the boxes cut the plane into at most (2M - 1)^2 cells, each either inside or
    outside each box; the area is the sum over the cells inside at least one box.
    """
    boxes = np.asarray(boxes, np.float64)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    if len(boxes) < 2:
        return float(box_areas(boxes).sum())
    xs, ys = np.unique(boxes[:, 0::2]), np.unique(boxes[:, 1::2])
    spans_x = (boxes[:, :1] <= xs[:-1]) & (xs[:-1] < boxes[:, 2:3])  # (M, columns)
    spans_y = (boxes[:, 1:2] <= ys[:-1]) & (ys[:-1] < boxes[:, 3:])  # (M, rows)
    covered = spans_y.T.astype(np.float32) @ spans_x.astype(np.float32) > 0  # in at least one box
    return float(np.diff(ys) @ covered @ np.diff(xs))


def objectness(boxes: np.ndarray, crop: Crop) -> float:
    """Return the share in [0, 1] of a crop that is covered by the union of (M, 4) boxes (ALS Sec. 3).

    A flip does not change it.  A loader calls this for every image.  Up to 10 boxes are handled without numpy, whose
    calls alone cost 50 microseconds, 2 % of loading an image: one box takes two microseconds, five take fifteen.
    """
    x, y, width, height = crop
    right, bottom = x + width, y + height
    inside = []
    for x0, y0, x1, y1 in boxes.tolist():
        x0, y0, x1, y1 = max(x0, x), max(y0, y), min(x1, right), min(y1, bottom)
        if x0 < x1 and y0 < y1:
            inside.append((x0, y0, x1, y1))
    area = _union_area_of_few(inside) if len(inside) <= FEW_BOXES else union_area(np.array(inside))
    return min(area / (width * height), 1.0)


def _union_area_of_few(boxes: list[tuple[float, float, float, float]]) -> float:
    """Return the union area of boxes of positive area by a sweep: between adjacent x edges, boxes are y intervals."""
    if len(boxes) == 1:
        x0, y0, x1, y1 = boxes[0]
        return (x1 - x0) * (y1 - y0)
    boxes = sorted(boxes, key=itemgetter(1))
    edges = sorted({edge for box in boxes for edge in box[0::2]})
    area = 0.0
    for left, right in pairwise(edges):
        length, end = 0.0, -math.inf
        for x0, y0, x1, y1 in boxes:  # sorted by y0: only the part below `end` is new
            if x0 <= left and right <= x1 and y1 > end:
                length += y1 - max(y0, end)
                end = y1
        area += length * (right - left)
    return area


def map_boxes(boxes: np.ndarray, crop: Crop, width: int, height: int, *, flip: bool = False) -> np.ndarray:
    """Map (M, 4) boxes of the source image to the crop resized to width x height, mirrored if `flip`.

    Returns:
        (M, 4) float32 boxes in pixels of the result; boxes outside the crop become zero rows, so that row i is box i.
    """
    x, y, crop_width, crop_height = crop
    scale_x, scale_y = width / crop_width, height / crop_height
    mapped = (np.asarray(boxes, np.float64) - [x, y, x, y]) * [scale_x, scale_y, scale_x, scale_y]
    mapped = clip_boxes(mapped, width, height)
    if flip:
        mapped = np.stack([width - mapped[:, 2], mapped[:, 1], width - mapped[:, 0], mapped[:, 3]], axis=1)
    mapped[box_areas(mapped) == 0] = 0
    return mapped.astype(np.float32)


def sample_crop(
    rng: np.random.Generator,
    width: int,
    height: int,
    area_range: tuple[float, float],
    ratio_range: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Draw a crop with the distribution of torchvision's `RandomResizedCrop.get_params`.

    The area is uniform over `area_range` (share of the image), width / height log-uniform over `ratio_range`; both are
    rounded to pixels and the crop is placed uniformly.  After 10 crops that do not fit, return the largest centred crop
    of an allowed ratio.
    """
    low, high = math.log(ratio_range[0]), math.log(ratio_range[1])
    for _ in range(CROP_TRIES):
        area = width * height * (area_range[0] + (area_range[1] - area_range[0]) * rng.random())
        ratio = math.exp(low + (high - low) * rng.random())
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            # floor(u * n) instead of rng.integers(n): ten times faster, with an error below 2^-40.
            return int(rng.random() * (width - w + 1)), int(rng.random() * (height - h + 1)), w, h
    return _central_crop(width, height, ratio_range)


def _central_crop(width: int, height: int, ratio_range: tuple[float, float]) -> tuple[int, int, int, int]:
    w, h = width, height
    if width / height < ratio_range[0]:
        h = round(width / ratio_range[0])
    elif width / height > ratio_range[1]:
        w = round(height * ratio_range[1])
    return (width - w) // 2, (height - h) // 2, w, h
