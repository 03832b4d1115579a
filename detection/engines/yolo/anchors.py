"""Anchors: those of the paper, validation of a list, and estimation from a data set.

Anchors are (width, height) in units of their scale's stride, one list per scale, strides 8, 16, 32.
Estimation follows Redmon & Farhadi 2017 (arXiv:1612.08242, Sec. 2): k-means with distance 1 - IoU of the shapes.
"""

from collections.abc import Sequence

import numpy as np

from backbones.core.errors import InputError

STRIDES = (8, 16, 32)
# Anchors of the MobileNetV2 YOLOv3 that OLS's experiment on VOC builds on.
VOC_ANCHORS = [
    [[1.25, 1.625], [2.0, 3.75], [4.125, 2.875]],
    [[1.875, 3.8125], [3.875, 2.8125], [3.6875, 7.4375]],
    [[3.625, 2.8125], [4.875, 6.1875], [11.656, 10.188]],
]
RESTARTS, ITERATIONS = 10, 300


def check_anchors(anchors: Sequence[Sequence[Sequence[float]]]) -> None:
    """Refuse anything but one list per stride, all with the same number of positive (width, height)."""
    counts = [len(scale) for scale in anchors]
    if len(counts) != len(STRIDES) or len(set(counts)) != 1 or not counts[0]:
        raise InputError(
            f"MODEL.ANCHORS: {counts} anchors: give {len(STRIDES)} lists (strides {', '.join(map(str, STRIDES))}) of "
            "equally many (width, height); tools/estimate_anchors.py prints such a block"
        )
    for scale in anchors:
        for anchor in scale:
            if len(anchor) != 2 or not all(side > 0 for side in anchor):
                raise InputError(f"MODEL.ANCHORS: {list(anchor)}: an anchor is a width and a height above 0")


def pairwise_shape_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU, (N, M), of shapes (N, 2) and (M, 2) with a common centre."""
    overlap = np.minimum(a[:, None], b[None]).prod(axis=2)
    return overlap / (a.prod(axis=1)[:, None] + b.prod(axis=1)[None] - overlap)


def estimate_anchors(shapes: np.ndarray, number: int, seed: int) -> tuple[np.ndarray, float]:
    """Return `number` anchors for the boxes (N, 2), sorted by area, and the mean over the boxes of their best IoU.

    The best of several seeded starts and of all their iterations, because the mean shape of a cluster does not always
    raise the mean IoU.

    Raises:
        InputError: fewer different boxes than anchors.
    """
    different = np.unique(shapes, axis=0)
    if len(different) < number:
        raise InputError(f"{len(different)} different boxes cannot make {number} anchors; use a larger data set")
    random = np.random.default_rng(seed)
    found = [_cluster(shapes, different[random.permutation(len(different))[:number]]) for _ in range(RESTARTS)]
    centres, quality = max(found, key=lambda result: result[1])
    return centres[np.argsort(centres.prod(axis=1), kind="stable")], quality


def split_scales(anchors: np.ndarray) -> list[list[list[float]]]:
    """Convert anchors (9, 2) in pixels, sorted by area, to MODEL.ANCHORS: smallest at the finest stride, in strides."""
    parts = np.split(anchors, len(STRIDES))
    return [np.round(part / stride, 3).tolist() for part, stride in zip(parts, STRIDES, strict=True)]


def _cluster(shapes: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
    best, quality, last = centres, -1.0, None
    for _ in range(ITERATIONS):
        iou = pairwise_shape_iou(shapes, centres)
        nearest = iou.argmax(axis=1)
        if (mean := float(iou.max(axis=1).mean())) > quality:
            best, quality = centres, mean
        if last is not None and (nearest == last).all():
            break
        last, count = nearest, np.bincount(nearest, minlength=len(centres))
        sums = np.stack([np.bincount(nearest, shapes[:, axis], len(centres)) for axis in (0, 1)], axis=1)
        centres = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], centres)
    return best, quality
