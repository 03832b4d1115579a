"""Intervals of many numbers at once, from the resamples of images that the verdict uses.

A diagnosis of `matches` with `weights_of(matches, ...)` has the number on the original images first, then those on the
resamples.  Runs on the same images are paired: a difference of two runs, or of means of runs, is that of their arrays.

    weights = weights_of(row, resamples=1000, seed=0)
    gap = bounds(tide(row, weights)["all"]["Loc"] - tide(other, weights)["all"]["Loc"])

Letters: R resamples, I images.
"""

from dataclasses import dataclass

import numpy as np

from backbones.core.matches import Matches
from comparison.resampling.draws import resample_images


@dataclass(frozen=True)
class Bounds:
    """Numbers (...,) with the limits of their intervals, NaN where no resample has a number."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def weights_of(matches: Matches, *, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Return (1 + R, I) weights of the images: every image once, then the verdict's resamples."""
    images = len(matches.image_ids)
    return np.concatenate([np.ones((1, images)), resample_images(images, resamples=resamples, seed=seed)])


def bounds(numbers: np.ndarray, level: float = 0.95, *, centred: bool = True) -> Bounds:
    """Return the percentile intervals of numbers (1 + R, ...), the first of which are those on the original images.

    Resamples without a number are excluded.

    Args:
        centred: shift the resamples so that their mean is the value, as in `comparison.bootstrap.interval`: what takes
            maxima or absolute values (AP, errors of calibration) is biased upwards on resamples.
    """
    value = np.asarray(numbers[0], dtype=np.float64)
    draws = np.reshape(numbers[1:], (len(numbers) - 1, -1))
    levels = [(1 - level) / 2, (1 + level) / 2]
    limits = np.full((2, draws.shape[1]), np.nan)
    whole = ~np.isnan(draws).any(0)
    limits[:, whole] = _limits(draws[:, whole], value.ravel()[whole], levels, centred)
    for column in np.flatnonzero(~whole):
        known = draws[~np.isnan(draws[:, column]), column]
        if len(known):
            limits[:, column] = _limits(known[:, None], value.ravel()[column], levels, centred)[:, 0]
    low, high = limits.reshape(2, *value.shape)
    return Bounds(value, low, high)


def _limits(draws: np.ndarray, value: np.ndarray, levels: list[float], centred: bool) -> np.ndarray:
    """Return (2, n) quantiles of draws (R, n)."""
    return np.quantile(draws - draws.mean(0) + value if centred else draws, levels, axis=0)
