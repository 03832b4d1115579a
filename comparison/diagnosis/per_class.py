"""AP and AR of every class on resampled images.

The mean over the classes with objects is AP and AR of `comparison.resampling.weighted`.
Letters: R resamples, I images, K classes, N detections, T IoU thresholds.
"""

import numpy as np

from backbones.core.matches import TRUE_POSITIVE, Matches
from comparison.diagnosis.variants import add_up, at_thresholds, class_precision, class_weights, image_weights

MOST = 100  # detections per image and class that count for AR


def per_class(matches: Matches, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return AP, AP at IoU 0.5 and 0.75, and AR100 of every class: name -> (R, K); NaN where a class has no objects.

    Args:
        weights: (R, I) of the images, whose sums are exact; None: every image once (R = 1).
    """
    drawn = image_weights(matches, weights)
    objects = class_weights(matches, matches.object_counts[:, 0], drawn)
    precision = class_precision(at_thresholds(matches), objects[:, None], drawn)
    result = {"AP": precision.mean(1)}
    for percent in (50, 75):
        result[f"AP{percent}"] = precision[:, np.flatnonzero(np.isclose(matches.iou_thresholds, percent / 100))[0]]
    result[f"AR{MOST}"] = _found(matches, drawn) / np.where(objects > 0, objects, 1)
    return {name: np.where(objects > 0, values, np.nan).T for name, values in result.items()}


def _found(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """Return the weight (K, R) of the objects found, mean over the IoU thresholds."""
    share = (matches.outcome[:, 0] == TRUE_POSITIVE).mean(1) * (matches.rank < MOST)
    rows = np.flatnonzero(share)
    return add_up(matches.category[rows], matches.image[rows], len(matches.category_ids), weights, share[rows])
