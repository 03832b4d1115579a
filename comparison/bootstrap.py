"""AP and AR on resampled images, and paired bootstrap intervals of their differences.

The only input is matches.npz (`backbones.core.matches`).  A resample draws as many images as the data set has, with
replacement; it is a vector of weights, the number of times that each image was drawn.  All rows of a table use the
SAME resamples, so that the difficulty of the drawn images cancels in the difference of two rows.  The interval is the
percentile interval.  It covers the sampling of images, not the variation between training seeds.

AP of weighted images equals pycocotools' AP of a data set where every image is repeated as often as its weight.
It depends only on precision at the true positives: the envelope of precision can only fall where a false positive is
added, so it suffices to know, at each true positive, the weight of all detections up to it.

Letters: R resamples, I images, K classes, N detections, A area ranges, T IoU thresholds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backbones.core.errors import InputError
from backbones.core.matches import TRUE_POSITIVE, Matches

RECALL_POINTS = np.linspace(0.0, 1.0, 101)
CHUNK = 2_000_000  # numbers in one work array: 16 MB
AP_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
AR_NAMES = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def resample_images(images: int, *, resamples: int, seed: int) -> np.ndarray:
    """Return (R, I) float64, the number of times that each image was drawn; a pure function of its arguments."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)


# ---- AP and AR of weighted images ---------------------------------------------------------------------------------


def average_precision(matches: Matches, image_weights: np.ndarray | None = None, area: str = "all") -> np.ndarray:
    """Return (R, T) AP at every IoU threshold, mean over the classes with objects in the resample; NaN without any.

    image_weights: (R, I) non-negative; None: every image once (R = 1).
    """
    weights, at = _weights(matches, image_weights), matches.area(area)
    above = (matches.score > matches.score_threshold) | (matches.score_threshold <= 0)
    total, classes = np.zeros((len(weights), len(matches.iou_thresholds))), np.zeros((len(weights), 1))
    for k, objects in _classes(matches, weights, at):
        chosen = np.flatnonzero(above & (matches.category == k))
        chosen = chosen[np.argsort(-matches.score[chosen], kind="stable")]
        total += _class_average_precision(matches.outcome[chosen, at], matches.image[chosen], weights, objects)
        classes += (objects > 0)[:, None]
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)


def average_recall(
    matches: Matches, image_weights: np.ndarray | None = None, area: str = "all", most: int = 100
) -> np.ndarray:
    """Return (R, T) recall of the `most` best detections per image and class, mean over classes as in AP."""
    weights, at = _weights(matches, image_weights), matches.area(area)
    total, classes = np.zeros((len(weights), len(matches.iou_thresholds))), np.zeros((len(weights), 1))
    hits = (matches.outcome[:, at] == TRUE_POSITIVE) & (matches.rank < most)[:, None]
    hit = np.flatnonzero(hits.any(1))
    for k, objects in _classes(matches, weights, at):
        chosen = hit[matches.category[hit] == k]
        found = weights[:, matches.image[chosen]] @ hits[chosen].astype(np.float64)
        total += found / np.where(objects > 0, objects, 1)[:, None]
        classes += (objects > 0)[:, None]
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)


def summary(matches: Matches, image_weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return (R,) values of AP, AP50, AP75, AP by size, AR 1/10/100 and AR by size."""
    whole = average_precision(matches, image_weights)
    result = {"AP": whole.mean(1)}
    for percent in (50, 75):
        result[f"AP{percent}"] = whole[:, np.flatnonzero(np.isclose(matches.iou_thresholds, percent / 100))[0]]
    for size in matches.area_names[1:]:
        result[f"AP{size[0]}"] = average_precision(matches, image_weights, size).mean(1)
    for most in (1, 10, 100):
        result[f"AR{most}"] = average_recall(matches, image_weights, most=most).mean(1)
    for size in matches.area_names[1:]:
        result[f"AR{size[0]}"] = average_recall(matches, image_weights, size).mean(1)
    return result


def _weights(matches: Matches, image_weights: np.ndarray | None) -> np.ndarray:
    images = len(matches.image_ids)
    return np.ones((1, images)) if image_weights is None else np.asarray(image_weights, float).reshape(-1, images)


def _classes(matches: Matches, weights: np.ndarray, at: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield every class that has objects, and their weighted number (R,)."""
    counts = matches.object_counts[:, at]
    for k in np.unique(matches.object_category[counts]):
        yield int(k), weights[:, matches.object_image[counts & (matches.object_category == k)]].sum(1)


def _class_average_precision(
    outcome: np.ndarray, image: np.ndarray, weights: np.ndarray, objects: np.ndarray
) -> np.ndarray:
    """Return (R, T) AP of one class from N detections by descending score: outcome (N, T), image (N,), objects (R,)."""
    result = np.zeros((len(weights), outcome.shape[1]))
    if not (outcome == TRUE_POSITIVE).any():
        return result
    rows = max(1, CHUNK // len(image))
    for start in range(0, len(weights), rows):
        part = slice(start, start + rows)
        drawn = weights[part][:, image]  # (r, N)
        for t, above, hits in _weights_above(drawn, outcome):
            result[part, t] = _area_under(drawn[:, hits], above, objects[part])
    return result


def _weights_above(drawn: np.ndarray, outcome: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield per IoU threshold: index, weight (r, H) of all detections up to each hit, positions (H,) of hits."""
    last, running = None, np.empty(0)
    for t in range(outcome.shape[1]):
        counts = outcome[:, t] >= 0
        if last is None or not np.array_equal(counts, last):  # the counted detections rarely differ between IoUs
            last, running = counts, np.cumsum(drawn * counts, axis=1)
        hits = np.flatnonzero(outcome[:, t] == TRUE_POSITIVE)
        yield t, running[:, hits], hits


def _area_under(hit_weights: np.ndarray, above: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return the (r,) mean of the precision envelope over 101 recall points.

    hit_weights, above: (r, H) weight of each hit, and of all detections up to it; objects: (r,).
    A hit covers the recall points between the previous recall and its own; the first also covers recall 0.
    """
    if not hit_weights.shape[1]:
        return np.zeros(len(objects))
    found = np.cumsum(hit_weights, axis=1)
    envelope = np.maximum.accumulate((found / (above + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    recall = found / np.where(objects > 0, objects, 1)[:, None]
    points = np.searchsorted(RECALL_POINTS, recall, side="right")
    return (envelope * np.diff(points, axis=1, prepend=0)).sum(1) / len(RECALL_POINTS)


# ---- intervals ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resampled:
    """Metrics of one row: on the original images (name -> float), and on the resamples (name -> (R,))."""

    matches: Matches
    value: dict[str, float]
    draws: dict[str, np.ndarray]


def resample_rows(rows: Sequence[Matches], *, resamples: int = 1000, seed: int = 0) -> list[Resampled]:
    """Compute every row on the same resamples; raise `InputError` if two rows have different ground truth."""
    for other in rows[1:]:
        _check_same_ground_truth(rows[0], other)
    weights = resample_images(len(rows[0].image_ids), resamples=resamples, seed=seed) if rows else np.empty(0)
    return [
        Resampled(row, {name: float(value[0]) for name, value in summary(row).items()}, summary(row, weights))
        for row in rows
    ]


def interval(value: float, draws: np.ndarray, level: float = 0.95, *, centred: bool = False) -> dict[str, float]:
    """{"value", "low", "high"}: percentile interval; NaN resamples are excluded.

    centred: shift the resamples so that their mean is the value.  AP of a resample is biased upwards (its envelope
    takes maxima), which affects the interval of one row; in the difference of two rows the bias cancels.
    """
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return {"value": value, "low": float("nan"), "high": float("nan")}
    if centred:
        draws = draws - draws.mean() + value
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return {"value": value, "low": float(low), "high": float(high)}


def difference(a: Resampled, b: Resampled, name: str = "AP", level: float = 0.95) -> dict[str, float]:
    """Return {"value", "low", "high"} of a minus b."""
    return interval(a.value[name] - b.value[name], a.draws[name] - b.draws[name], level)


def paired_bootstrap(
    matches_a: Matches,
    matches_b: Matches,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    name: str = "AP",
) -> dict[str, float]:
    """Return {"value", "low", "high"}: the difference a minus b of a metric, and its percentile interval over images.

    Both must hold the same images, which are resampled with replacement, jointly for a and b.
    """
    a, b = resample_rows([matches_a, matches_b], resamples=resamples, seed=seed)
    return difference(a, b, name, level)


def _check_same_ground_truth(a: Matches, b: Matches) -> None:
    if not np.array_equal(a.image_ids, b.image_ids):
        differing = len(np.setxor1d(a.image_ids, b.image_ids))
        raise InputError(f"{a.where} and {b.where} differ in {differing} images; evaluate both on the same images")
    same = np.array_equal(a.category_ids, b.category_ids) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("object_image", "object_category")
    )
    if not same or not np.array_equal(a.object_counts.sum(0), b.object_counts.sum(0)):
        raise InputError(f"{a.where} and {b.where} differ in their ground truth; evaluate both with the same json")
    if a.score_threshold != b.score_threshold:
        raise InputError(
            f"{a.where} and {b.where} differ in the score threshold of AP; evaluate both with the same one"
        )
