"""The influence of each image on a difference of AP: what the difference loses when the image is left out.

For image i and two groups of runs, with AP averaged over the runs of a group,

    influence(i) = (AP_a - AP_b) - (AP_a - AP_b without image i)

It is exact (a jackknife over images): AP without an image is that of a data set that never had it.  A positive value
says that the image favours a.  The values order images; they are no substitute for the bootstrap's standard error, as
AP changes in steps of its 101 recalls.  Influences do not add up exactly: what images do together, `joint_influence`
evaluates.  Letters: R resamples, I images, S sets of images.
"""

from collections.abc import Sequence

import numpy as np

from backbones.core.errors import InputError
from backbones.core.matches import Matches
from comparison.diagnosis.variants import (
    Detections,
    at_thresholds,
    class_precision,
    class_weights,
    mean_over_classes,
    only,
)

_BLOCK = 512  # images left out at a time: bounds the memory


def influence(a: Sequence[Matches], b: Sequence[Matches], iou: float | None = None) -> np.ndarray:
    """Return the influence (I,) of every image on mean AP of runs `a` minus that of runs `b`.

    NaN where no class has an object without the image.

    Args:
        iou: the IoU threshold of AP; None: mean over all.

    Raises:
        InputError: the runs have different images, or no such threshold.
    """
    _check_images(a, b)
    groups = [np.mean([influence_on_row(matches, iou) for matches in group], axis=0) for group in (a, b)]
    return groups[0] - groups[1]


def joint_influence(
    a: Sequence[Matches], b: Sequence[Matches], sets: Sequence[Sequence[int]], iou: float | None = None
) -> np.ndarray:
    """Return (S,) what the difference of the means loses when all images of a set are left out together.

    Args:
        sets: positions of images, in the order of the matches; the other arguments are those of `influence`.

    Raises:
        InputError: as `influence`.
    """
    _check_images(a, b)
    weights = np.ones((1 + len(sets), len(a[0].image_ids)))
    for number, chosen in enumerate(sets, 1):
        weights[number, list(chosen)] = 0
    groups = [np.mean([_average_precision(m, _detections(m, iou), weights) for m in group], axis=0) for group in (a, b)]
    left = groups[0] - groups[1]
    return left[0] - left[1:]


def _check_images(a: Sequence[Matches], b: Sequence[Matches]) -> None:
    for other in (*a, *b):
        if not np.array_equal(other.image_ids, a[0].image_ids):
            raise InputError(f"{a[0].where} and {other.where} differ in their images; evaluate both on the same ones")


def _detections(matches: Matches, iou: float | None) -> Detections:
    return at_thresholds(matches) if iou is None else only(at_thresholds(matches), matches, [iou])


def influence_on_row(matches: Matches, iou: float | None = None) -> np.ndarray:
    """Return the influence (I,) of every image on AP of one run: AP minus AP without the image."""
    detections, images = _detections(matches, iou), len(matches.image_ids)
    without = np.empty(images)
    for first in range(0, images, _BLOCK):
        block = np.arange(first, min(first + _BLOCK, images))
        weights = np.ones((len(block), images))
        weights[np.arange(len(block)), block] = 0
        without[block] = _average_precision(matches, detections, weights)
    return _average_precision(matches, detections, np.ones((1, images))) - without


def _average_precision(matches: Matches, detections: Detections, weights: np.ndarray) -> np.ndarray:
    """Return (R,) AP, mean over the variants of `detections`."""
    objects = class_weights(matches, matches.object_counts[:, 0], weights)
    return mean_over_classes(class_precision(detections, objects[:, None], weights), objects).mean(0)
