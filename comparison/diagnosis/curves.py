"""Precision over recall at an IoU threshold, mean over classes, on resampled images.

At each of COCO's 101 recalls the precision is the highest at this recall or above, and 0 beyond the last recall that a
class reaches: the mean of a curve is AP at its IoU threshold.  Letters: R resamples, I images.
"""

import numpy as np

from backbones.core.matches import Matches
from comparison.diagnosis.variants import at_thresholds, class_weights, image_weights, only, sum_curves

IOUS = (0.5, 0.75)


def precision_curves(
    matches: Matches, weights: np.ndarray | None = None, ious: tuple[float, ...] = IOUS
) -> dict[float, np.ndarray]:
    """Return IoU threshold -> precision (R, 101) at recalls 0, 0.01, ..., 1; NaN without any object.

    Args:
        weights: (R, I) of the images, whose sums are exact; None: every image once (R = 1).

    Raises:
        InputError: the matches have no such threshold.
    """
    drawn = image_weights(matches, weights)
    objects = class_weights(matches, matches.object_counts[:, 0], drawn)
    total = sum_curves(only(at_thresholds(matches), matches, ious), objects[:, None], drawn)
    classes = (objects > 0).sum(0)
    mean = np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)
    return {iou: curve.T for iou, curve in zip(ious, mean, strict=True)}
