"""AP and AR of weighted images.

AP of weighted images equals pycocotools' AP of a data set where every image is repeated as often as its weight.
It depends only on precision at the true positives: the envelope of precision can only fall where a false positive is
added, so it suffices to know, at each true positive, the weight of all detections up to it.  Of detections with equal
scores in one image and class, the first counts with its whole weight before the next, where repeated images alternate.

Letters: R resamples, I images, K classes, C classes with objects, N detections, T IoU thresholds.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from backbones.core.matches import TRUE_POSITIVE, Matches

RECALL_POINTS = np.linspace(0.0, 1.0, 101)


def average_precision(matches: Matches, image_weights: np.ndarray | None = None, area: str = "all") -> np.ndarray:
    """Return (R, T) AP at every IoU threshold, mean over the classes with objects in the resample; NaN without any.

    image_weights: (R, I) non-negative; None: every image once (R = 1).
    """
    return Weighted(matches, image_weights).average_precision(area)


def average_recall(
    matches: Matches, image_weights: np.ndarray | None = None, area: str = "all", most: int = 100
) -> np.ndarray:
    """Return (R, T) recall of the `most` best detections per image and class, mean over classes as in AP."""
    return Weighted(matches, image_weights).average_recall(area, most)


def summary(matches: Matches, image_weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return (R,) values of AP, AP50, AP75, AP by size, AR 1/10/100 and AR by size."""
    weighted = Weighted(matches, image_weights)
    whole = weighted.average_precision("all")
    result = {"AP": whole.mean(1)}
    for percent in (50, 75):
        result[f"AP{percent}"] = whole[:, np.flatnonzero(np.isclose(matches.iou_thresholds, percent / 100))[0]]
    for size in matches.area_names[1:]:
        result[f"AP{size[0]}"] = weighted.average_precision(size).mean(1)
    for most in (1, 10, 100):
        result[f"AR{most}"] = weighted.average_recall("all", most).mean(1)
    for size in matches.area_names[1:]:
        result[f"AR{size[0]}"] = weighted.average_recall(size, 100).mean(1)
    return result


class Events(NamedTuple):
    """What the loops of `comparison.resampling.kernel` run over, described there."""

    weights: np.ndarray
    image: np.ndarray
    always: np.ndarray
    detections: np.ndarray
    at: np.ndarray
    threshold: np.ndarray
    hit: np.ndarray
    events: np.ndarray
    objects: np.ndarray


class Weighted:
    """Matches and the weights (R, I) of their images."""

    def __init__(self, matches: Matches, image_weights: np.ndarray | None) -> None:
        images = len(matches.image_ids)
        given = np.ones((1, images)) if image_weights is None else image_weights
        self.matches = matches
        self.weights = np.ascontiguousarray(given, dtype=np.float64).reshape(-1, images)
        self.by_image = np.ascontiguousarray(self.weights.T)  # (I, R)

    @cached_property
    def by_score(self) -> np.ndarray:
        """The detections that AP counts, by class and descending score; ties in the order of the matches."""
        matches = self.matches
        chosen = np.flatnonzero((matches.score > matches.score_threshold) | (matches.score_threshold <= 0))
        return chosen[np.lexsort((-matches.score[chosen], matches.category[chosen]))]

    def average_precision(self, area: str) -> np.ndarray:
        """Return (R, T) AP, as the function of this name."""
        from comparison.resampling.kernel import sum_precisions  # not at the top: see there

        events, objects = self.events(area)
        total = np.zeros((len(self.weights), len(self.matches.iou_thresholds)))
        sum_precisions(*events, RECALL_POINTS, total)
        return mean_over_classes(total, objects)

    def events(self, area: str) -> tuple[Events, np.ndarray]:
        """Return the arguments of the compiled loops, and the weight (C, R) of the objects of each class."""
        matches, at = self.matches, self.matches.area(area)
        classes, objects = self._objects(at)
        outcome = matches.outcome[self.by_score, at]
        kept = np.flatnonzero((outcome >= 0).any(1) & np.isin(matches.category[self.by_score], classes))
        rows, outcome = self.by_score[kept], outcome[kept]
        always = np.asarray((outcome >= 0).all(1))
        detection, threshold = np.nonzero((outcome == TRUE_POSITIVE) | ((outcome >= 0) & ~always.reshape(-1, 1)))
        group = np.searchsorted(classes, matches.category[rows])
        first = np.searchsorted(group, np.arange(len(classes) + 1))
        events = Events(
            weights=self.weights,
            image=matches.image[rows].astype(np.int32),
            always=always,
            detections=first,
            at=(detection - first[group[detection]]).astype(np.int32),
            threshold=threshold.astype(np.int32),
            hit=outcome[detection, threshold] == TRUE_POSITIVE,
            events=np.searchsorted(group[detection], np.arange(len(classes) + 1)),
            objects=np.ascontiguousarray(_or_one(objects).T),
        )
        return events, objects

    def average_recall(self, area: str, most: int) -> np.ndarray:
        """Return (R, T) recall, as the function of this name."""
        matches, at = self.matches, self.matches.area(area)
        classes, objects = self._objects(at)
        hits = (matches.outcome[:, at] == TRUE_POSITIVE) & (matches.rank < most)[:, None]
        hits &= np.isin(matches.category, classes).reshape(-1, 1)
        detection, threshold = np.nonzero(hits)
        group = np.searchsorted(classes, matches.category[detection]) * hits.shape[1] + threshold
        found = self._add_up(group, matches.image[detection], len(classes) * hits.shape[1])
        recall = found.reshape(len(classes), hits.shape[1], len(self.weights)) / _or_one(objects)[:, None]
        return mean_over_classes(recall.sum(0).T, objects)

    def _objects(self, at: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the classes with objects of an area range (C,), and the weight of their objects (C, R)."""
        counts = self.matches.object_counts[:, at]
        classes, group = np.unique(self.matches.object_category[counts], return_inverse=True)
        return classes, self._add_up(group, self.matches.object_image[counts], len(classes))

    def _add_up(self, group: np.ndarray, image: np.ndarray, groups: int) -> np.ndarray:
        """Return the weight (groups, R) of things, each in one group and one image."""
        from scipy.sparse import csr_array

        counts = csr_array((np.ones(len(group)), (group, image)), shape=(groups, len(self.by_image)))
        return counts @ self.by_image


def _or_one(objects: np.ndarray) -> np.ndarray:
    """Replace 0, where a class has no objects in a resample, by a number to divide by."""
    return np.where(objects > 0, objects, 1)


def mean_over_classes(total: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Divide the sum over classes (R, T) by the number of classes with objects (C, R) > 0; NaN without any."""
    classes = (objects > 0).sum(0)[:, None]
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)
