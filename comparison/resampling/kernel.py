"""The inner loops of AP on resampled images, compiled by numba.

Import this module where it is called: numba takes half a second to import.  numba keeps the compiled code beside this
file, or else in the user's cache folder (NUMBA_CACHE_DIR), so that only the first call on a machine compiles, which
takes seconds.

Letters: R resamples, C classes, N detections, E events, T IoU thresholds, P recall points.
"""

from collections.abc import Callable

import numpy as np
from numba import njit

EPSILON = float(np.spacing(1))  # pycocotools adds it to the number of detections


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function as code that is compiled when it is first called, and kept for later processes."""
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # numba may write to no folder: it compiles again in every process
        return njit(function)


@compiled
def _find_best(
    drawn: np.ndarray,
    always: np.ndarray,
    at: np.ndarray,
    threshold: np.ndarray,
    hit: np.ndarray,
    objects: float,
    recall_points: np.ndarray,
    best: np.ndarray,
) -> None:
    """Write the highest precision among the hits of a class that reach p recall points into `best[p]` (P + 1, T).

    Events of weight 0 are skipped, as they change neither recall nor precision.

    Args:
        drawn, always: (N,) weight of each detection of the class, and whether it counts at all thresholds.
        at, threshold, hit: (E,) events of the class, as below.
        objects: weight of the objects, above 0.
    """
    above = np.cumsum(drawn * always)
    sometimes, found = np.zeros(best.shape[1]), np.zeros(best.shape[1])  # weight of the other detections, of the hits
    last = len(recall_points) - 1
    best[:] = 0
    for e in range(len(at)):
        n, t = at[e], threshold[e]
        if drawn[n] == 0:
            continue
        if not always[n]:
            sometimes[t] += drawn[n]
        if hit[e]:
            found[t] += drawn[n]
            recall = found[t] / objects
            nearest = min(int(recall * last + 0.5), last)
            reached = nearest + (recall_points[nearest] <= recall)
            best[reached, t] = max(best[reached, t], found[t] / (above[n] + sometimes[t] + EPSILON))


@compiled
def _add_envelope(best: np.ndarray, total: np.ndarray) -> None:
    """Add to `total` (T,) the mean over recall points of the best precision of a hit at this recall or above."""
    points = len(best) - 1
    for p in range(points - 1, 0, -1):
        for t in range(len(total)):
            best[p, t] = max(best[p, t], best[p + 1, t])
    for t in range(len(total)):
        covered = 0.0
        for p in range(1, points + 1):
            covered += best[p, t]
        total[t] += covered / points


@compiled
def sum_precisions(
    weights: np.ndarray,
    image: np.ndarray,
    always: np.ndarray,
    detections: np.ndarray,
    at: np.ndarray,
    threshold: np.ndarray,
    hit: np.ndarray,
    events: np.ndarray,
    objects: np.ndarray,
    recall_points: np.ndarray,
    total: np.ndarray,
) -> None:
    """Add the mean precision over the recall points, summed over classes, to `total` (R, T).

    An event is a hit, or a detection that counts at some IoU thresholds but not at all, at one threshold.

    Args:
        weights: (R, I) float64, of every image in every resample.
        image, always: (N,) int32, bool; image of each detection, by class and descending score, and whether the
            detection counts at all thresholds.
        detections, events: (C + 1,) int64; where each class begins among the detections and the events.
        at, threshold, hit: (E,) int32, int32, bool; events by class and detection: position of the detection in its
            class, IoU threshold, and whether it is a hit.
        objects: (R, C) float64, weighted objects of each class; 1 where a class has none.
        recall_points: (P,) float64, evenly spaced from 0 to 1.
    """
    best = np.empty((len(recall_points) + 1, total.shape[1]))
    for r in range(len(weights)):
        for c in range(len(detections) - 1):
            first, end = detections[c], detections[c + 1]
            own = slice(events[c], events[c + 1])
            if events[c] < events[c + 1]:
                drawn = weights[r][image[first:end]]
                _find_best(
                    drawn, always[first:end], at[own], threshold[own], hit[own], objects[r, c], recall_points, best
                )
                _add_envelope(best, total[r])


@compiled
def _find_hits(
    drawn: np.ndarray,
    always: np.ndarray,
    at: np.ndarray,
    threshold: np.ndarray,
    hit: np.ndarray,
    objects: float,
    curve: np.ndarray,
    thresholds: int,
) -> None:
    """Write the recall before and after each hit of a class, and its precision, into `curve` (E, 3).

    The precision of all other events, and of hits of weight 0, is -1.  Arguments as of `_find_best`.
    """
    above = np.cumsum(drawn * always)
    sometimes, found = np.zeros(thresholds), np.zeros(thresholds)
    for e in range(len(at)):
        n, t = at[e], threshold[e]
        curve[e, 2] = -1
        if drawn[n] == 0:
            continue
        if not always[n]:
            sometimes[t] += drawn[n]
        if hit[e]:
            curve[e, 0] = found[t] / objects
            found[t] += drawn[n]
            curve[e, 1] = found[t] / objects
            curve[e, 2] = found[t] / (above[n] + sometimes[t])


@compiled
def _add_voc(
    threshold: np.ndarray, curve: np.ndarray, recall_points: np.ndarray, area: np.ndarray, points: np.ndarray
) -> None:
    """Add the area under the envelope of precision to `area` (T,), and its mean at the recall points to `points` (T,).

    The envelope at a hit is the highest precision of it and of later ones.  A recall point has that of the first hit
    that reaches it, and 0 if none does.
    """
    best, left = np.zeros(len(area)), np.full(len(area), len(recall_points) - 1)
    for e in range(len(curve) - 1, -1, -1):
        before, after, precision = curve[e]
        if precision < 0:
            continue
        t = threshold[e]
        best[t] = max(best[t], precision)
        area[t] += (after - before) * best[t]
        while left[t] >= 0 and (recall_points[left[t]] > before or before == 0):
            if recall_points[left[t]] <= after:
                points[t] += best[t] / len(recall_points)
            left[t] -= 1


@compiled
def sum_voc_precisions(
    weights: np.ndarray,
    image: np.ndarray,
    always: np.ndarray,
    detections: np.ndarray,
    at: np.ndarray,
    threshold: np.ndarray,
    hit: np.ndarray,
    events: np.ndarray,
    objects: np.ndarray,
    recall_points: np.ndarray,
    area: np.ndarray,
    points: np.ndarray,
) -> None:
    """Add VOC's AP by area and at the recall points, each summed over classes, to `area` and `points` (R, T).

    Other arguments as of `sum_precisions`.
    """
    curve = np.empty((len(at), 3))
    for r in range(len(weights)):
        for c in range(len(detections) - 1):
            first, end = detections[c], detections[c + 1]
            own = slice(events[c], events[c + 1])
            if events[c] < events[c + 1]:
                drawn = weights[r][image[first:end]]
                _find_hits(
                    drawn,
                    always[first:end],
                    at[own],
                    threshold[own],
                    hit[own],
                    objects[r, c],
                    curve[own],
                    area.shape[1],
                )
                _add_voc(threshold[own], curve[own], recall_points, area[r], points[r])
