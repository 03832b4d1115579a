"""AP of every class under many variants of the outcomes, on many resamples at once, compiled by numba.

A variant is an IoU threshold, or a correction of errors: it gives every detection an outcome.  Detections with the same
outcomes in all variants form a pattern; few patterns exist.  The innermost loops run over LANES resamples, which the
processor treats several at a time.  For each class, a pass down the scores adds up false positives and hits; a pass up
takes them away again, and keeps the highest precision seen so far, which is the envelope.

Import this module where it is called: numba takes half a second to import.  The numbers are those of
`comparison.resampling.kernel` if sums of weights are exact, as those of integers are.

Letters: R resamples, I images, C classes, N detections, P patterns, V variants.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

EPSILON = float(np.spacing(1))  # pycocotools adds it to the number of detections
LANES = 64
POINTS = 101  # recalls 0, 0.01, ..., 1


def _compile(function: Callable) -> Any:
    """Compile a function, whose divisions follow IEEE 754, and keep the code for later processes."""
    try:
        return njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba may write to no folder: it compiles again in every process
        return njit(error_model="numpy")(function)


# Where the numbers of a variant are in its row of LANES each.  One array: the compiler then knows that they are apart.
CHANGE, FOUND, BEST, REACHED, TOTAL, OBJECTS, END = (LANES * place for place in range(7))


@_compile
def _add(drawn: np.ndarray, sign: float, target: np.ndarray) -> None:
    """Add `sign` times the weights (LANES,) of a detection."""
    for r in range(LANES):
        target[r] += sign * drawn[r]


@_compile
def _take_hit(drawn: np.ndarray, false: np.ndarray, state: np.ndarray) -> None:
    """Take a hit away, and add the highest precision so far at the recall points between it and the next hit below.

    Args:
        drawn: (LANES,) weight of the hit; 0 changes nothing, as the next hit has no lower precision.
        false: (LANES,) weight of the false positives up to it, to which CHANGE is added.
        state: (END,) numbers of the variant.
    """
    for r in range(LANES):
        found = state[FOUND + r]
        precision = found / (false[r] + state[CHANGE + r] + found + EPSILON)
        best = max(state[BEST + r], precision)
        found -= drawn[r]
        reached = _count_points(found, state[OBJECTS + r])
        state[TOTAL + r] += (state[REACHED + r] - reached) * best
        state[BEST + r], state[FOUND + r], state[REACHED + r] = best, found, reached


@_compile
def _add_best(before: np.ndarray, state: np.ndarray, curve: np.ndarray) -> None:
    """Add the highest precision so far to `curve` (POINTS, LANES) between the points reached now and before."""
    for r in range(LANES):
        for point in range(int(state[REACHED + r]), int(before[r])):
            curve[point, r] += state[BEST + r]


@_compile
def _count_points(found: float, objects: float) -> float:
    """Return how many recall points a weight of hits reaches; none without a hit."""
    recall = found / objects
    nearest = min(np.floor(recall * (POINTS - 1) + 0.5), POINTS - 1.0)
    reached = nearest + (1.0 if nearest * 0.01 <= recall else 0.0)
    return reached if found > 0 else 0.0


@_compile
def _sum_class(
    weights: np.ndarray,
    image: np.ndarray,
    pattern: np.ndarray,
    usual: np.ndarray,
    changes: np.ndarray,
    hits: np.ndarray,
    states: np.ndarray,
    curves: np.ndarray,
) -> None:
    """Sum the precision of a class over the recall points: TOTAL of `states` (V, END), where only OBJECTS are set.

    curves: (V, POINTS, LANES), to which the precision at each recall point is added; V = 0 if it is not needed.
    """
    false, before = np.zeros(LANES), np.zeros(LANES)
    for n in range(len(image)):
        drawn, p = weights[image[n]], pattern[n]
        if usual[p]:
            _add(drawn, 1.0, false)
        for at in range(1, 1 + changes[p, 0]):
            _add(drawn, 1.0 - 2.0 * usual[p], states[changes[p, at], CHANGE : CHANGE + LANES])
        for at in range(1, 1 + hits[p, 0]):
            _add(drawn, 1.0, states[hits[p, at], FOUND : FOUND + LANES])
    for v in range(len(states)):
        for r in range(LANES):
            states[v, REACHED + r] = _count_points(states[v, FOUND + r], states[v, OBJECTS + r])
    for n in range(len(image) - 1, -1, -1):
        drawn, p = weights[image[n]], pattern[n]
        for at in range(1, 1 + hits[p, 0]):
            v = hits[p, at]
            if len(curves):
                before[:] = states[v, REACHED : REACHED + LANES]
            _take_hit(drawn, false, states[v])
            if len(curves):
                _add_best(before, states[v], curves[v])
        if usual[p]:
            _add(drawn, -1.0, false)
        for at in range(1, 1 + changes[p, 0]):
            _add(drawn, 2.0 * usual[p] - 1.0, states[changes[p, at], CHANGE : CHANGE + LANES])


@_compile
def sum_precisions(
    weights: np.ndarray,
    image: np.ndarray,
    pattern: np.ndarray,
    first: np.ndarray,
    usual: np.ndarray,
    changes: np.ndarray,
    hits: np.ndarray,
    objects: np.ndarray,
    total: np.ndarray,
    curves: np.ndarray,
) -> None:
    """Write the sum over the recall points of the precision of every class into `total` (C, V, R).

    Args:
        weights: (I, R) float64, of every image in every resample; R is a multiple of LANES.
        image, pattern: (N,) int32, of each detection, by class and descending score.
        first: (C + 1,) int64, where each class begins.
        usual: (P,) float64, 1 if the pattern is a false positive in most variants, 0 if not.
        changes: (P, 1 + V) int32; how many variants differ from `usual` in whether it is one, and which.
        hits: (P, 1 + V) int32; in how many variants the pattern is a hit, and in which.
        objects: (C, V, R) float64, weighted objects of each class; 1 where a class has none.
        curves: (V, POINTS, R) zeros, to which the precision of every class is added; (0, POINTS, R) to save time.
    """
    classes, variants = objects.shape[:2]
    for begin in range(0, weights.shape[1], LANES):
        block = np.ascontiguousarray(weights[:, begin : begin + LANES])
        sums = np.zeros((len(curves), POINTS, LANES))
        for c in range(classes):
            own = slice(first[c], first[c + 1])
            states = np.zeros((variants, END))
            states[:, OBJECTS:END] = objects[c, :, begin : begin + LANES]
            _sum_class(block, image[own], pattern[own], usual, changes, hits, states, sums)
            total[c, :, begin : begin + LANES] = states[:, TOTAL : TOTAL + LANES]
        curves[:, :, begin : begin + LANES] = sums
