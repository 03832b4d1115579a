"""Calibration errors as the package pycalib computes them: those of the tables of adaptive label smoothing.

They are not those of `calibration.py`: bins lie on [1/K, 1], a bin stands for its nominal centre and not for its
mean confidence, and its benchmark reports means over random subsets.  They can be smaller than |accuracy - confidence|.

Letters: n samples, K classes, N bins; p (n, K) probabilities.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class PycalibBins(NamedTuple):
    """Each (N,); accuracy is nan in an empty bin."""

    count: np.ndarray
    accuracy: np.ndarray
    centre: np.ndarray


class Subsample(NamedTuple):
    """Random subsets of the samples, each drawn without replacement; pycalib's ImageNet script takes 10 of 10,000."""

    splits: int
    size: int
    seed: int = 0


def pycalib_bins(p: np.ndarray, labels: np.ndarray, bins: int = 100) -> PycalibBins | None:
    """Bins on [1/K, 1], K the number of classes that occur in labels or predictions; None if that is one class."""
    predicted, confidence = p.argmax(axis=1), p.max(axis=1)
    lowest = 1 / max(1, len(np.union1d(labels, predicted)))
    if not lowest < 1:
        return None
    grid = {"bins": bins, "range": (lowest, 1.0)}
    count = np.histogram(confidence, **grid)[0]
    right = np.histogram(confidence, weights=(predicted == labels).astype(np.float64), **grid)[0]
    # NOTE: not the true centres (those are lowest + (1 - lowest)(b + 1/2)/N), but pycalib's; equal for large K.
    centres = np.linspace(lowest + 1 / (2 * bins), 1 - 1 / (2 * bins), bins)
    with np.errstate(invalid="ignore"):
        return PycalibBins(count, right / count, centres)


def ece_pycalib(p: np.ndarray, labels: np.ndarray, bins: int = 100) -> float:
    """pycalib's expected calibration error."""
    count, gaps = _gaps(p, labels, bins)
    return float(np.average(gaps, weights=count)) if len(gaps) else np.nan


def mce_pycalib(p: np.ndarray, labels: np.ndarray, bins: int = 100) -> float:
    """pycalib's maximum calibration error: the largest gap of a non-empty bin, on the bins of `ece_pycalib`."""
    _, gaps = _gaps(p, labels, bins)
    return float(gaps.max()) if len(gaps) else np.nan


PYCALIB: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "ece15_pycalib": lambda p, t: ece_pycalib(p, t, 15),
    "ece100_pycalib": lambda p, t: ece_pycalib(p, t, 100),
    "mce100_pycalib": lambda p, t: mce_pycalib(p, t, 100),
}


def pycalib_metrics(
    p: np.ndarray, labels: np.ndarray, subsample: Subsample
) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation (n - 1) over random subsets of the `*_pycalib` numbers, as pycalib reports them.

    All samples once, with a deviation of nan, where there are no more than a subset holds.
    """
    rng, n = np.random.default_rng(subsample.seed), len(labels)
    if n <= subsample.size:
        return {name: metric(p, labels) for name, metric in PYCALIB.items()}, dict.fromkeys(PYCALIB, np.nan)
    chosen = [rng.permutation(n)[: subsample.size] for _ in range(subsample.splits)]
    found = {name: [metric(p[i], labels[i]) for i in chosen] for name, metric in PYCALIB.items()}
    deviation = {name: float(np.std(v, ddof=1)) if len(v) > 1 else np.nan for name, v in found.items()}
    return {name: float(np.mean(values)) for name, values in found.items()}, deviation


def _gaps(p: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts and gaps of the non-empty bins."""
    table = pycalib_bins(p, labels, bins)
    if table is None:
        return np.empty(0), np.empty(0)
    used = table.count > 0
    return table.count[used], np.abs(table.accuracy - table.centre)[used]
