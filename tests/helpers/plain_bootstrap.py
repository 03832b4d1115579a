"""AP and AR of weighted images as the bootstrap first computed them: class by class in numpy, with every running sum.

Slow, and independent of `comparison.resampling`, which must give the same numbers.
"""

import numpy as np

from backbones.core.matches import TRUE_POSITIVE

RECALL_POINTS = np.linspace(0.0, 1.0, 101)


def resample_images(images, *, resamples, seed):
    """Return (R, I) float64, the number of times that each image was drawn; a pure function of its arguments."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)


def average_precision(matches, image_weights=None, area="all"):
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


def average_recall(matches, image_weights=None, area="all", most=100):
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


def summary(matches, image_weights=None):
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


def _weights(matches, image_weights):
    images = len(matches.image_ids)
    return np.ones((1, images)) if image_weights is None else np.asarray(image_weights, float).reshape(-1, images)


def _classes(matches, weights, at):
    """Yield every class that has objects, and their weighted number (R,)."""
    counts = matches.object_counts[:, at]
    for k in np.unique(matches.object_category[counts]):
        yield int(k), weights[:, matches.object_image[counts & (matches.object_category == k)]].sum(1)


def _class_average_precision(outcome, image, weights, objects):
    """Return (R, T) AP of one class from N detections by descending score: outcome (N, T), image (N,), objects (R,)."""
    result = np.zeros((len(weights), outcome.shape[1]))
    if not (outcome == TRUE_POSITIVE).any():
        return result
    drawn = weights[:, image]  # (R, N)
    for t in range(outcome.shape[1]):
        hits = np.flatnonzero(outcome[:, t] == TRUE_POSITIVE)
        above = np.cumsum(drawn * (outcome[:, t] >= 0), axis=1)[:, hits]
        result[:, t] = _area_under(drawn[:, hits], above, objects)
    return result


def _area_under(hit_weights, above, objects):
    """Return the (R,) mean of the precision envelope over 101 recall points.

    hit_weights, above: (R, H) weight of each hit, and of all detections up to it; objects: (R,).
    A hit covers the recall points between the previous recall and its own; the first also covers recall 0.
    """
    if not hit_weights.shape[1]:
        return np.zeros(len(objects))
    found = np.cumsum(hit_weights, axis=1)
    envelope = np.maximum.accumulate((found / (above + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    recall = found / np.where(objects > 0, objects, 1)[:, None]
    points = np.searchsorted(RECALL_POINTS, recall, side="right")
    return (envelope * np.diff(points, axis=1, prepend=0)).sum(1) / len(RECALL_POINTS)
