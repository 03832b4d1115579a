"""AP of every class on resampled images, under variants of the outcomes of detections.

A variant is an IoU threshold, or a correction of errors.  AP is that of `comparison.resampling.weighted`: 101 recall
points, of repeated images if a weight is above 1.  Sums of weights must be exact, as those of integers are.

Letters: R resamples, I images, K classes, C classes with objects, N detections, G objects, V variants.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backbones.core.errors import InputError
from backbones.core.matches import FALSE_POSITIVE, TRUE_POSITIVE, Matches


@dataclass(frozen=True)
class Detections:
    """Detections that may count for AP, in any order.

    image, category: (N,) positions; score: (N,), ties in the order of the arrays; pattern: (N,) rows of `outcomes`;
    outcomes: (P, V) outcome of each pattern in each variant, as those of matches.
    """

    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    pattern: np.ndarray
    outcomes: np.ndarray


def above_threshold(matches: Matches) -> np.ndarray:
    """Return (N,) bool: AP counts the detection."""
    return (matches.score > matches.score_threshold) | (matches.score_threshold <= 0)


def at_thresholds(matches: Matches, area: str = "all") -> Detections:
    """Return the detections that AP counts; the variants are the IoU thresholds."""
    rows = np.flatnonzero(above_threshold(matches))
    outcomes, pattern = distinct_rows(matches.outcome[rows, matches.area(area)])
    return Detections(matches.image[rows], matches.category[rows], matches.score[rows], pattern, outcomes)


def only(detections: Detections, matches: Matches, ious: Sequence[float]) -> Detections:
    """Keep the variants of some IoU thresholds; raise `InputError` if the matches lack one."""
    lacking = [iou for iou in ious if not np.isclose(matches.iou_thresholds, iou).any()]
    if lacking:
        known = ", ".join(f"{one:g}" for one in matches.iou_thresholds)
        raise InputError(f"{matches.where}: no IoU threshold {lacking[0]:g}; choices: {known}")
    chosen = [int(np.argmin(np.abs(matches.iou_thresholds - iou))) for iou in ious]
    return replace(detections, outcomes=detections.outcomes[:, chosen])


def distinct_rows(outcome: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows (P, V) of outcomes (N, V), and where each row is among them (N,)."""
    code = (outcome.astype(np.int64) + 1) @ 3 ** np.arange(outcome.shape[1])  # exact for up to 39 variants
    _, first, pattern = np.unique(code, return_index=True, return_inverse=True)
    return outcome[first], pattern


def class_weights(matches: Matches, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weight (K, R) of the objects `chosen`, a mask (G,), of every class."""
    return add_up(matches.object_category[chosen], matches.object_image[chosen], len(matches.category_ids), weights)


def add_up(
    group: np.ndarray, image: np.ndarray, groups: int, weights: np.ndarray, amount: np.ndarray | None = None
) -> np.ndarray:
    """Return the weight (groups, R) of things, each in one group and one image; `amount`: (N,) of each, or 1."""
    from scipy.sparse import csr_array

    amount = np.ones(len(group)) if amount is None else amount
    return csr_array((amount, (group, image)), shape=(groups, weights.shape[1])) @ np.ascontiguousarray(weights.T)


def image_weights(matches: Matches, given: np.ndarray | None) -> np.ndarray:
    """Return (R, I) float64; None: every image once (R = 1)."""
    images = len(matches.image_ids)
    weights = np.ones((1, images)) if given is None else np.asarray(given, dtype=np.float64)
    return weights.reshape(-1, images)


def class_precision(detections: Detections, objects: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return AP (K, V, R) of every class under every variant; 0 for a class without objects.

    Args:
        objects: (K, V, R) or (K, 1, R) weight of the objects.
        weights: (R, I) of the images.
    """
    return _precision(detections, objects, weights, curves=False)[0]


def sum_curves(detections: Detections, objects: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the precision (V, 101, R) at the recall points, summed over classes; arguments as above."""
    return _precision(detections, objects, weights, curves=True)[1]


def _precision(
    detections: Detections, objects: np.ndarray, weights: np.ndarray, *, curves: bool
) -> tuple[np.ndarray, np.ndarray]:
    from comparison.diagnosis import kernel  # not at the top: see there

    outcomes, resamples = detections.outcomes, len(weights)
    variants = outcomes.shape[1]
    hit = (outcomes == TRUE_POSITIVE).any(1)
    order = np.lexsort((-detections.score, detections.category))
    order = order[_up_to_last(hit[detections.pattern[order]], detections.category[order])]
    spare = -resamples % kernel.LANES
    padded = np.pad(np.where(objects > 0, objects, 1.0), ((0, 0), (0, 0), (0, spare)), constant_values=1.0)
    total = np.zeros((len(objects), variants, resamples + spare))
    summed = np.zeros((variants * curves, kernel.POINTS, resamples + spare))
    false = outcomes == FALSE_POSITIVE
    usual = false.mean(1) > 0.5
    kernel.sum_precisions(
        np.ascontiguousarray(np.pad(weights.T, ((0, 0), (0, spare)))),
        detections.image[order].astype(np.int32),
        detections.pattern[order].astype(np.int32),
        np.searchsorted(detections.category[order], np.arange(len(objects) + 1)),
        usual.astype(np.float64),
        _list_true(false != usual[:, None]),
        _list_true(outcomes == TRUE_POSITIVE),
        np.array(np.broadcast_to(padded, total.shape)),  # writable always, for which numba compiles once
        total,
        summed,
    )
    return total[:, :, :resamples] / kernel.POINTS, summed[:, :, :resamples]


def mean_over_classes(values: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return the mean (V, R) of values (K, V, R) over the classes with objects (K, R) > 0; NaN without any."""
    present = objects > 0
    classes = present.sum(0)
    total = np.einsum("kvr,kr->vr", values, present.astype(np.float64))
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)


def _up_to_last(hit: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Return (N,) bool, of detections by class: whether a hit of the class, in any variant, is at or after it."""
    last = np.full(category.max(initial=0) + 1, -1)
    last[category[hit]] = np.flatnonzero(hit)
    return np.arange(len(hit)) <= last[category]


def _list_true(table: np.ndarray) -> np.ndarray:
    """Return (P, 1 + V) int32: the number of true entries of each row, then their positions."""
    listed = np.argsort(~table, axis=1, kind="stable")
    return np.ascontiguousarray(np.column_stack([table.sum(1), listed]), dtype=np.int32)
