"""Calibration of a detector on resampled images: D-ECE, LaECE and the reliability diagram.

docs/measures.md defines both; matches are those of COCO at IoU 0.5.

    D-ECE    1 / N * sum over bins of |sum of (t - p)|      Kueppers et al., CVPR workshops 2020, with confidence alone
    LaECE    the same for each class with t * IoU instead of t, mean over classes       Oksuz et al., CVPR 2023

p is the score, t whether the detection has a match.  NOTE: differs from the authors' code of LaECE: classes without
objects count if they have detections, and so does a class whose error is 0.

Letters: R resamples, I images, K classes, N detections, J bins.
"""

from dataclasses import dataclass

import numpy as np

from backbones.core.matches import TRUE_POSITIVE, Matches
from comparison.diagnosis.variants import add_up, image_weights

SCORE_THRESHOLD = 0.3  # below it are so many detections that they alone would set the number


@dataclass(frozen=True)
class Calibration:
    """Calibration on R resamples, and the settings that it depends on.

    d_ece, la_ece: (R,), NaN without detections.  class_la_ece: (R, K), NaN where a class has no detections.
    count, confidence, precision: (R, J) weight, mean score and precision of the detections in each of the J bins of
        D-ECE; NaN in an empty bin.
    """

    d_ece: np.ndarray
    la_ece: np.ndarray
    class_la_ece: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    precision: np.ndarray
    score_threshold: float
    bins: int
    la_bins: int
    iou: float = 0.5


def calibration(
    matches: Matches,
    weights: np.ndarray | None = None,
    *,
    score_threshold: float = SCORE_THRESHOLD,
    bins: int = 10,
    la_bins: int = 25,
) -> Calibration:
    """Measure the calibration of the scores.

    Args:
        weights: (R, I) of the images; None: every image once (R = 1).
        score_threshold: detections scored above it exist.
        bins, la_bins: number of bins of D-ECE and of LaECE.

    Raises:
        InputError: the file was written by a version that did not keep the IoU of matches.
    """
    drawn, classes = image_weights(matches, weights), len(matches.category_ids)
    kept = np.flatnonzero((matches.score > score_threshold) & (matches.outcome[:, 0, 0] >= 0))
    score, image, category = matches.score[kept], matches.image[kept], matches.category[kept]
    hit = (matches.outcome[kept, 0, 0] == TRUE_POSITIVE).astype(np.float64)

    at = _bin(score, bins)
    count, scores, hits = (add_up(at, image, bins, drawn, amount) for amount in (None, score, hit))
    d_ece = _divide(np.abs(hits - scores).sum(0), count.sum(0))

    overlap = hit * matches.detail("partner_iou")[kept]
    group = category * la_bins + _bin(score, la_bins)
    gap = add_up(group, image, classes * la_bins, drawn, overlap - score).reshape(classes, la_bins, -1)
    own = _divide(np.abs(gap).sum(1), add_up(category, image, classes, drawn))
    present = ~np.isnan(own)
    la_ece = _divide(np.where(present, own, 0).sum(0), present.sum(0))
    confidence, precision = _divide(scores, count).T, _divide(hits, count).T
    return Calibration(d_ece, la_ece, own.T, count.T, confidence, precision, score_threshold, bins, la_bins)


def _bin(score: np.ndarray, bins: int) -> np.ndarray:
    """Return (N,) the bin of each score: equal widths from 0 to 1, upper bounds included, and 0 in the first."""
    return np.clip(np.ceil(score * bins).astype(np.int64) - 1, 0, bins - 1)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)
