"""Paired bootstrap intervals of the numbers of a row, and of the differences of two rows.

The input is the per-image data of a stage (`backbones.core.matches`, `backbones.core.per_image`).  A resample draws as
many images as the data set has, with replacement; it is a vector of weights, the number of times that each image was
drawn.  All rows of a table use the SAME resamples, so that the difficulty of the drawn images cancels in the difference
of two rows.  The interval is the percentile interval of centred draws (`interval`).  It covers the sampling of images,
not the variation between training seeds.

The resamples and the numbers on them are in `comparison.resampling`: `draws`, `weighted` (AP and AR), `voc` (mAP by
VOC's definitions), `per_image` (classifiers), `files` (all files of a row).
Letters: R resamples, I images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from backbones.core.matches import Matches
from comparison.resampling.draws import Drawn, draw, resample_images
from comparison.resampling.weighted import average_precision, average_recall, summary

AP_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
AR_NAMES = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
__all__ = [
    "AP_NAMES",
    "AR_NAMES",
    "Resampled",
    "average_precision",
    "average_recall",
    "difference",
    "interval",
    "paired_bootstrap",
    "resample_images",
    "resample_rows",
    "summary",
]


@dataclass(frozen=True)
class Resampled:
    """Numbers of one row: on the original images (name -> float), and on the resamples (name -> (R,)).

    images: name -> identity of the images; draws of two rows are paired where it is the same.
    matches: the detections, of a row that has any.
    """

    value: dict[str, float]
    draws: dict[str, np.ndarray]
    images: dict[str, str]
    matches: Matches | None = None


def resample_rows(
    rows: Sequence[Matches], *, resamples: int = 1000, seed: int = 0, draw_row: Callable[..., Drawn] = draw
) -> list[Resampled]:
    """Compute every row on the same resamples; raise `InputError` if two rows have different ground truth.

    Numbers that were computed before are read from the file beside matches.npz (`comparison.resampling.draws`).

    draw_row: `draw`, or `draw_voc` for matches by VOC's rule.
    """
    for other in rows[1:]:
        _check_same_ground_truth(rows[0], other)
    found = []
    for row in rows:
        value, draws = draw_row(row, resamples=resamples, seed=seed)
        found.append(Resampled(value, draws, dict.fromkeys(value, _identity(row)), row))
    return found


def _identity(row: Matches) -> str:
    """Return the same text for matches that `_check_same_ground_truth` accepts."""
    parts = (row.image_ids, row.category_ids, row.object_image, row.object_category, row.object_counts.sum(0))
    return fingerprint(str(row.score_threshold), *(part.astype(np.int64) for part in parts))


def interval(value: float, draws: np.ndarray, level: float = 0.95, *, centred: bool = False) -> dict[str, float]:
    """{"value", "low", "high"}: percentile interval; NaN resamples are excluded.

    centred: shift the resamples so that their mean is the value.  AP of a resample is biased upwards (its envelope
    takes maxima), and so are errors of calibration and shares at the best threshold; in the difference of two rows, the
    biases cancel only in part.
    """
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return {"value": value, "low": float("nan"), "high": float("nan")}
    if centred:
        draws = draws - draws.mean() + value
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return {"value": value, "low": float(low), "high": float(high)}


def difference(a: Resampled, b: Resampled, name: str = "AP", level: float = 0.95) -> dict[str, float]:
    """Return {"value", "low", "high"} of a minus b, from centred draws; low and high are NaN on different images."""
    value = a.value[name] - b.value[name]
    if a.images[name] != b.images[name]:
        return {"value": value, "low": float("nan"), "high": float("nan")}
    return interval(value, a.draws[name] - b.draws[name], level, centred=True)


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
