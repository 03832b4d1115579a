"""Weakly supervised localisation: how well a map of the true class covers the boxes of that class.

The class is given, as in the papers of these measures, so that a wrong prediction does not lower them.  No number is
computed from the map of the predicted class; `top1_at_this_size` says how often it is the true one.

Letters: n images, m boxes of an image, H and W the size of the map in pixels.
A map is (H, W) float in [0, 1].  A box is x0, y0, x1, y1, half-open, in pixels of the map, which are those of the image
after its direct resize to H x W.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from backbones.core.per_image import BestShare, Mean, Number, pack_hits

TOLERANCE_PIXELS = 15  # pointing game (Zhang et al. 2016), at the evaluated scale
IOU_LEVELS = (0.3, 0.5, 0.7)  # MaxBoxAccV2 (Choe et al. 2020)
SPLIT_NAMES = ("max_box_acc_split", "max_box_acc_v2_split")
THRESHOLDS = 1000  # shares of the map's maximum: 0, 0.001 ... 0.999


class BoxOverlap(NamedTuple):
    """Best IoU with a true box at each threshold, (THRESHOLDS,) float64."""

    largest: np.ndarray  # for the box around the largest contour
    any: np.ndarray  # for the boxes around all contours


# ---- MaxBoxAcc ---------------------------------------------------------------------------------


def inclusive_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Convert half-open float boxes (m, 4) to the first and last pixel whose centres they contain (at least one)."""
    low = np.ceil(boxes[:, :2] - 0.5).astype(np.int64)
    high = np.ceil(boxes[:, 2:] - 0.5).astype(np.int64) - 1
    limit = np.array([width - 1, height - 1])
    low = low.clip(0, limit)
    return np.concatenate([low, high.clip(low, limit)], axis=1)


def box_overlap(levels: np.ndarray, boxes: np.ndarray) -> BoxOverlap:
    """Return the best IoU at every threshold of one map, computed as in the benchmark of Choe et al. 2020.

    The map is binarised at > int(threshold * maximum); a box encloses each contour (including inner ones).

    Args:
        levels: (H, W) uint8, the map times 255.
        boxes: (m, 4) int, both ends inclusive.
    """
    if len(boxes) == 0:
        return BoxOverlap(np.zeros(THRESHOLDS), np.zeros(THRESHOLDS))
    cuts = (np.arange(0, 1, 1 / THRESHOLDS) * levels.max()).astype(np.int64)
    # A uint8 map has at most 256 different binarisations: all cuts between two adjacent values of the map give the
    # same one.  `runs` numbers them.
    values = np.unique(levels)
    _, first, runs = np.unique(np.searchsorted(values, cuts, side="right"), return_index=True, return_inverse=True)
    best = np.array([_overlap_at(levels, int(cuts[i]), boxes) for i in first])
    return BoxOverlap(best[runs, 0], best[runs, 1])


def max_box_accuracy(overlaps: Sequence[BoxOverlap]) -> dict[str, float]:
    """Return the fractions `max_box_acc` and `max_box_acc_v2`; the threshold is tuned on the measured images.

    MaxBoxAcc: share of images in which the box of the largest contour has IoU >= 0.5, at the best threshold.
    V2: the box of any contour, at the best threshold for each IoU 0.3, 0.5, 0.7; each of the three, and their mean.
    """
    largest = np.stack([overlap.largest for overlap in overlaps])
    of_any = np.stack([overlap.any for overlap in overlaps])
    v2 = {f"max_box_acc_v2_{100 * iou:.0f}": _best_share(of_any, iou) for iou in IOU_LEVELS}
    return {"max_box_acc": _best_share(largest, 0.5), "max_box_acc_v2": float(np.mean(list(v2.values())))} | v2


def split_accuracy(overlaps: Sequence[BoxOverlap]) -> dict[str, np.ndarray]:
    """Return the hits of each image, (n,) in [0, 1], whose means are `max_box_acc_split` and `max_box_acc_v2_split`.

    As in `max_box_accuracy`, but each image is measured at the threshold that is best for the half that it is not in.
    The halves are a random split, the same for every backbone.  Empty for fewer than two images.
    """
    if len(overlaps) < 2:
        return {}
    largest = np.stack([overlap.largest for overlap in overlaps])
    of_any = np.stack([overlap.any for overlap in overlaps])
    v2 = np.mean([_hits_of_other_half(of_any >= iou) for iou in IOU_LEVELS], axis=0)
    return dict(zip(SPLIT_NAMES, (_hits_of_other_half(largest >= 0.5), v2), strict=True))


def _hits_of_other_half(hits: np.ndarray) -> np.ndarray:
    """Return the hits (n,) of (n, THRESHOLDS) at the first threshold that is best for the other half of the images."""
    order = np.random.default_rng(0).permutation(len(hits))
    found = np.empty(len(hits))
    for own, other in ((order[0::2], order[1::2]), (order[1::2], order[0::2])):
        found[own] = hits[own, hits[other].mean(axis=0).argmax()]
    return found


def best_threshold(overlaps: Sequence[BoxOverlap], iou: float = 0.5) -> float:
    """Return the first threshold (share of the map's maximum) at which most largest contours reach `iou`."""
    hits = np.stack([overlap.largest for overlap in overlaps]) >= iou
    return float(hits.mean(axis=0).argmax() / THRESHOLDS)


def contour_boxes(levels: np.ndarray, cut: int) -> tuple[np.ndarray, int]:
    """Return boxes (k, 4) around the contours of levels > cut, and the index of the contour with the largest area.

    NOTE: x1 and y1 are one pixel beyond the contour, unless that is outside the map, although the IoU counts them as
    inside, as in the benchmark's code and its published numbers.
    """
    height, width = levels.shape
    _, binary = cv2.threshold(levels, cut, 255, cv2.THRESH_BINARY)
    contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return np.zeros((1, 4), dtype=np.int64), 0
    boxes = np.array([cv2.boundingRect(contour) for contour in contours], dtype=np.int64)
    boxes[:, 2:] = np.minimum(boxes[:, :2] + boxes[:, 2:], [width - 1, height - 1])
    return boxes, int(np.argmax([cv2.contourArea(contour) for contour in contours]))


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU (k, m) of inclusive boxes a (k, 4) and b (m, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low + 1).clip(min=0).prod(axis=2)
    area_a, area_b = ((box[:, 2:] - box[:, :2] + 1).prod(axis=1) for box in (a, b))
    return shared / (area_a[:, None] + area_b[None, :] - shared)


def _overlap_at(levels: np.ndarray, cut: int, boxes: np.ndarray) -> tuple[float, float]:
    found, largest = contour_boxes(levels, cut)
    best = pairwise_iou(found, boxes).max(axis=1)
    return float(best[largest]), float(best.max())


def _best_share(overlap: np.ndarray, iou: float) -> float:
    """Return the largest share over the columns of rows with overlap >= iou.  overlap: (n, THRESHOLDS)."""
    return float((overlap >= iou).mean(axis=0).max())


# ---- pointing game and energy ------------------------------------------------------------------


def pointing_hit(point: tuple[float, float], boxes: np.ndarray, tolerance: float) -> bool:
    """Whether a point (x, y) is in one of the boxes (m, 4), or at most `tolerance` pixels (Euclidean) from one."""
    outside = np.maximum(boxes[:, :2] - point, point - boxes[:, 2:]).clip(min=0)
    return bool((np.hypot(outside[:, 0], outside[:, 1]) <= tolerance).any())


def peak(values: np.ndarray) -> tuple[float, float]:
    """Return the centre (x, y) of the map's largest pixel; of equal ones, the first in reading order."""
    y, x = np.unravel_index(values.argmax(), values.shape)
    return float(x + 0.5), float(y + 0.5)


def energy_in_boxes(values: np.ndarray, boxes: np.ndarray) -> float:
    """Return the share of the map's sum inside the union of the boxes; 0 for a map that is 0 everywhere."""
    total = float(values.sum(dtype=np.float64))
    inside = float(values[union_mask(boxes, *values.shape)].sum(dtype=np.float64))
    return inside / total if total > 0 else 0.0


def union_mask(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a mask (H, W) bool of the pixels whose centres are in a box."""
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    columns = (x >= boxes[:, :1]) & (x < boxes[:, 2:3])
    rows = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:])
    covered: np.ndarray = rows[:, :, None] & columns[:, None, :]
    return np.asarray(covered.any(axis=0))


# ---- one accumulator over a data set -----------------------------------------------------------


def evenly_spaced(numbers: np.ndarray, count: int) -> np.ndarray:
    """Choose at most `count` of the sorted sample numbers, the middles of equal parts; the same for every backbone."""
    count = min(count, len(numbers))
    return numbers[(2 * np.arange(count) + 1) * len(numbers) // (2 * max(count, 1))]


class LocalizationEvaluator:
    """Accumulates the scores of maps; `metrics()` and `details()` cover all maps processed."""

    def __init__(self) -> None:
        self.overlaps: list[BoxOverlap] = []
        self.scores: list[dict[str, float]] = []

    def process(self, values: np.ndarray, boxes: np.ndarray, *, right: bool) -> None:
        """
        Args:
            values: (H, W) map in [0, 1].
            boxes: (m, 4) half-open, pixels of the map; m >= 1.
            right: whether the classifier predicts the class, for the image at the map's size.
        """
        height, width = values.shape
        # Truncated, not rounded, as the benchmark does.
        levels = (values * 255).astype(np.uint8)
        self.overlaps.append(box_overlap(levels, inclusive_boxes(boxes, height, width)))
        centre = (width / 2, height / 2)
        self.scores.append(
            {
                "pointing": pointing_hit(peak(values), boxes, TOLERANCE_PIXELS),
                "pointing_exact": pointing_hit(peak(values), boxes, 0),
                "energy_in_box": energy_in_boxes(values, boxes),
                "centre_pointing": pointing_hit(centre, boxes, TOLERANCE_PIXELS),
                "centre_pointing_exact": pointing_hit(centre, boxes, 0),
                "mean_box_share": float(union_mask(boxes, height, width).mean()),
                "zero_maps": not values.any(),
                "right": bool(right),
            }
        )

    def metrics(self) -> Mapping[str, float | None]:
        """Return max_box_acc and max_box_acc_v2, also with `_split`, pointing, pointing_exact, energy_in_box.

        None without any map, and `_split` without two.
        """
        names = ("pointing", "pointing_exact", "energy_in_box")
        split = dict.fromkeys(SPLIT_NAMES)
        if not self.scores:
            return dict.fromkeys(("max_box_acc", "max_box_acc_v2", *split, *names))
        split |= {name: float(hits.mean()) for name, hits in split_accuracy(self.overlaps).items()}
        return {**max_box_accuracy(self.overlaps), **split, **{name: self._mean(name) for name in names}}

    def per_image(self) -> dict[str, Number]:
        """Return the numbers of the comparison image by image, in the order of the maps; none without any map."""
        if not self.scores:
            return {}
        largest, of_any = (np.stack([getattr(o, name) for o in self.overlaps]) for name in BoxOverlap._fields)
        named = {name: Mean(np.array([s[name] for s in self.scores])) for name in ("pointing", "energy_in_box")}
        return {
            "max_box_acc": BestShare(pack_hits([largest >= 0.5])),
            "max_box_acc_v2": BestShare(pack_hits([of_any >= iou for iou in IOU_LEVELS])),
            **{name: Mean(hits) for name, hits in split_accuracy(self.overlaps).items()},
            **named,
        }

    def details(self) -> dict:
        """Return baselines that do not use the image, the tuned threshold, and the number of maps that are all 0."""
        if not self.scores:
            return {"images": 0, "null": "no image of the split has a box"}
        missing = SPLIT_NAMES if len(self.scores) < 2 else ()
        return {
            "images": len(self.scores),
            "null": dict.fromkeys(missing, "a single image cannot be split into halves"),
            "zero_maps": int(sum(score["zero_maps"] for score in self.scores)),
            "top1_at_this_size": self._mean("right"),
            "max_box_acc_threshold": best_threshold(self.overlaps),
            "baselines": {
                "centre point, pointing": self._mean("centre_pointing"),
                "centre point, pointing_exact": self._mean("centre_pointing_exact"),
                "mean box share, energy_in_box": self._mean("mean_box_share"),
            },
        }

    def _mean(self, name: str) -> float:
        return float(np.mean([score[name] for score in self.scores]))
