"""Pascal VOC's mAP of weighted images.

It equals the mAP of a data set where every image is repeated as often as its weight: each copy has its own objects, and
the copies of a hit follow each other, so that precision rises until the last of them.  Of detections with equal scores
in one image and class, the first counts with its whole weight before the next, where repeated images alternate.

Letters: R resamples, I images, C classes with objects, T IoU thresholds.
"""

import numpy as np

from backbones.core.matches import Matches
from comparison.resampling.weighted import Weighted, mean_over_classes

RECALL_POINTS = np.arange(0.0, 1.1, 0.1)  # rounded as in the reference: the seventh point is above 0.6


def voc_summary(matches: Matches, image_weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return (R,) values of the six VOC numbers, of the matches of matches_voc.npz.

    image_weights: (R, I) non-negative; None: every image once (R = 1).
    """
    area, points = voc_precision(matches, image_weights)
    result = {}
    for percent in (50, 75):
        at = int(np.abs(matches.iou_thresholds - percent / 100).argmin())
        result |= {f"VOC_mAP{percent}": area[:, at], f"VOC_mAP{percent}_11": points[:, at]}
    return result | {"VOC_mAP": area.mean(1), "VOC_mAP_11": points.mean(1)}


def voc_precision(matches: Matches, image_weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return mAP by area and by 11 recalls, (R, T) each: means over the classes with objects in the resample."""
    from comparison.resampling.kernel import sum_voc_precisions  # not at the top: see there

    weighted = Weighted(matches, image_weights)
    events, objects = weighted.events("all")
    area, points = np.zeros((2, len(weighted.weights), len(matches.iou_thresholds)))
    sum_voc_precisions(*events, RECALL_POINTS, area, points)
    return mean_over_classes(area, objects), mean_over_classes(points, objects)
