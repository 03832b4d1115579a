"""Loops over single boxes, compiled by numba: greedy matching, nearest objects, precision and recall.

numba takes a part of a second to import; import this module only where it is used.  Machine code is cached beside the
module, or in the user's cache folder.  Every operation is in the order of pycocotools: the numbers are the same.

Letters: N detections, G objects, I images, K classes, A area ranges, T IoU thresholds, M limits, R recall points.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from backbones.core.matches import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE

EPSILON = float(np.spacing(1))  # as pycocotools


def _compile(function: Callable) -> Any:
    """Compile a function, whose divisions follow IEEE 754 as NumPy's do."""
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder can be written: each process compiles
        return numba.njit(error_model="numpy")(function)


@_compile
def box_iou(a: np.ndarray, b: np.ndarray, crowd: bool) -> float:
    """Return the IoU of two boxes (4,) x, y, w, h; for a crowd region b, the intersection over the area of a.

    Source: maskApi.c, bbIou.
    """
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if not (width > 0 and height > 0):
        return 0.0
    inter, own = width * height, a[2] * a[3]
    return inter / (own if crowd else own + b[2] * b[3] - inter)


@_compile
def match_greedily(
    boxes: np.ndarray,
    cells: np.ndarray,
    objects: np.ndarray,
    crowd: np.ndarray,
    counts: np.ndarray,
    thresholds: np.ndarray,
    outcome: np.ndarray,
    partner: np.ndarray,
) -> None:
    """Set the outcome and the partner of every detection that can be matched (see `matching.match`).

    Args:
        boxes: (N, 4), by descending score within an image and class.
        cells: (N, 2) first of the objects of the same image and class, and the first beyond them.
        objects, crowd: (G, 4) and (G,), sorted by class and image.
        counts: (G, A) the object counts in the area range.
        thresholds: (T,) ascending.
        outcome: (N, A, T) int8; partner: (N,) positions among the sorted objects.
    """
    areas = counts.shape[1]
    taken = np.zeros((len(objects), areas, len(thresholds)), np.bool_)
    iou = np.zeros(len(objects))
    for n in range(len(boxes)):
        start, stop = cells[n]
        highest = 0.0
        for g in range(start, stop):
            iou[g] = box_iou(boxes[n], objects[g], crowd[g])
            highest = max(highest, iou[g])
        for t in range(len(thresholds)):
            if highest < thresholds[t]:
                break
            for a in range(areas):
                best = _choose(start, stop, iou, thresholds[t], crowd, taken[:, a, t], counts[:, a])
                if best >= 0:
                    taken[best, a, t] = True
                    outcome[n, a, t] = TRUE_POSITIVE if counts[best, a] else IGNORED
                    if a == 0 and t == 0:
                        partner[n] = best


@_compile
def _choose(
    start: int, stop: int, iou: np.ndarray, least: float, crowd: np.ndarray, taken: np.ndarray, counts: np.ndarray
) -> int:
    """Return the object from `start` to `stop` to match; -1: none.

    Of the objects of at least the IoU `least` that are free, one that counts if there is one, then the one of the
    highest IoU, then the last.
    """
    best = -1
    for g in range(start, stop):
        if iou[g] >= least and (crowd[g] or not taken[g]):
            same = best >= 0 and counts[g] == counts[best]
            if best < 0 or (iou[g] >= iou[best] if same else counts[g]):
                best = g
    return best


@_compile
def match_across_classes(
    boxes: np.ndarray,
    category: np.ndarray,
    cells: np.ndarray,
    objects: np.ndarray,
    object_category: np.ndarray,
    crowd: np.ndarray,
    least: float,
    partner: np.ndarray,
) -> None:
    """Set the partner of every detection that can be matched (see `matching.match_across_classes`).

    Args:
        boxes, category: (N, 4) and (N,), by image and descending score.
        cells: (N, 2) first of the objects of the same image, and the first beyond them.
        objects, object_category, crowd: (G, 4), (G,) and (G,), sorted by image.
        least: IoU of a match.
        partner: (N,) positions among the sorted objects, set where there is one.
    """
    taken = np.zeros(len(objects), np.bool_)
    for n in range(len(boxes)):
        best, highest = -1, 0.0
        for g in range(cells[n, 0], cells[n, 1]):
            if taken[g] or (crowd[g] and object_category[g] != category[n]):
                continue
            iou = box_iou(boxes[n], objects[g], crowd[g])
            if iou < least or (best >= 0 and crowd[g] and not crowd[best]):
                continue
            if best < 0 or iou >= highest or (crowd[best] and not crowd[g]):
                best, highest = g, iou
        if best >= 0:
            partner[n] = best
            taken[best] = not crowd[best]


@_compile
def find_nearest(
    image: np.ndarray,
    category: np.ndarray,
    boxes: np.ndarray,
    first: np.ndarray,
    object_category: np.ndarray,
    objects: np.ndarray,
    iou: np.ndarray,
    nearest: np.ndarray,
) -> None:
    """Find for each detection the object of highest IoU, the first in a tie, of its class and of any other class.

    Args:
        image, category, boxes: (N,), (N,) and (N, 4).
        first: (I + 1,) first object of every image, and the number of objects.
        object_category, objects: (G,) and (G, 4), sorted by image.
        iou: (2, N) zeros, own class and others; nearest: (2, N) positions among the sorted objects, set where IoU > 0.
    """
    for n in range(len(image)):
        for g in range(first[image[n]], first[image[n] + 1]):
            other = int(object_category[g] != category[n])
            found = box_iou(boxes[n], objects[g], False)
            if found > iou[other, n]:
                iou[other, n], nearest[other, n] = found, g


@_compile
def accumulate(
    order: np.ndarray,
    bounds: np.ndarray,
    outcome: np.ndarray,
    rank: np.ndarray,
    above: np.ndarray,
    objects: np.ndarray,
    limits: np.ndarray,
    recall_points: np.ndarray,
    precision: np.ndarray,
    hits: np.ndarray,
) -> None:
    """Compute precision at recall points, and count the objects found.

    Precision is interpolated: at each recall, the highest at that recall or beyond it; 0 beyond the last recall.

    Args:
        order: (N,) detections by class and descending score; bounds: (K + 1,) first of every class, and N.
        outcome, rank, above: (N, A, T), (N,) and (N,) bool, counts for the precision.
        objects: (K, A) number of counted objects.
        limits: (M,) on the detections of an image and class.
        recall_points: (R,) ascending.
        precision: (K, A, T, R) zeros; hits: (K, M, A, T) zeros.
    """
    areas, levels = outcome.shape[1:]
    curve = np.empty((areas, levels, objects.max() + 1))  # precision at every true positive
    for k in range(len(objects)):
        found, wrong = np.zeros((areas, levels), np.int64), np.zeros((areas, levels), np.int64)
        for n in order[bounds[k] : bounds[k + 1]]:
            for a in range(areas):
                for t in range(levels):
                    if outcome[n, a, t] == TRUE_POSITIVE:
                        for m in range(len(limits)):
                            hits[k, m, a, t] += rank[n] < limits[m]
                        if above[n]:
                            found[a, t] += 1
                            curve[a, t, found[a, t] - 1] = found[a, t] / (found[a, t] + wrong[a, t] + EPSILON)
                    elif outcome[n, a, t] == FALSE_POSITIVE:
                        wrong[a, t] += above[n]
        for a in range(areas):
            for t in range(levels):
                _interpolate(curve[a, t, : found[a, t]], objects[k, a], recall_points, precision[k, a, t])


@_compile
def _interpolate(curve: np.ndarray, objects: int, recall_points: np.ndarray, precision: np.ndarray) -> None:
    """Set the precision at the recall points (R,) from that at every true positive, which is modified."""
    for n in range(len(curve) - 2, -1, -1):
        curve[n] = max(curve[n], curve[n + 1])
    n = 0
    for r in range(len(recall_points)):
        while n < len(curve) and (n + 1) / objects < recall_points[r]:
            n += 1
        if n == len(curve):
            return
        precision[r] = curve[n]
