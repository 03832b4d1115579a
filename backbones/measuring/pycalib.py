"""Calibration errors of the package pycalib, as reported in the tables of adaptive label smoothing.

They differ from those of `calibration.py`: the bins are on [1/K, 1], a bin is represented by its nominal centre instead
of its mean confidence, and the package's benchmark reports means over random subsets.  They can be smaller than
|accuracy - confidence|.

Letters: n samples, K classes, N bins; p (n, K) probabilities.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class PycalibBins(NamedTuple):
    """Bins of pycalib; each array is (N,), accuracy is nan in an empty bin."""

    count: np.ndarray
    accuracy: np.ndarray
    centre: np.ndarray


class Subsample(NamedTuple):
    """Random subsets of the samples, each drawn without replacement; pycalib's ImageNet script uses 10 of 10,000."""

    splits: int
    size: int
    seed: int = 0


def pycalib_bins(p: np.ndarray, labels: np.ndarray, bins: int = 100) -> PycalibBins | None:
    """Return bins on [1/K, 1], K the number of classes that occur in labels or predictions; None if K is 1."""
    predicted, confidence = p.argmax(axis=1), p.max(axis=1)
    lowest = 1 / max(1, len(np.union1d(labels, predicted)))
    if not lowest < 1:
        return None
    grid = {"bins": bins, "range": (lowest, 1.0)}
    count = np.histogram(confidence, **grid)[0]
    right = np.histogram(confidence, weights=(predicted == labels).astype(np.float64), **grid)[0]
    # NOTE: pycalib's centres, not the true ones, lowest + (1 - lowest)(b + 1/2)/N; equal for large K.
    centres = np.linspace(lowest + 1 / (2 * bins), 1 - 1 / (2 * bins), bins)
    with np.errstate(invalid="ignore"):
        return PycalibBins(count, right / count, centres)


def ece_pycalib(p: np.ndarray, labels: np.ndarray, bins: int = 100) -> float:
    """Return pycalib's expected calibration error."""
    count, gaps = _gaps(p, labels, bins)
    return float(np.average(gaps, weights=count)) if len(gaps) else np.nan


def mce_pycalib(p: np.ndarray, labels: np.ndarray, bins: int = 100) -> float:
    """Return pycalib's maximum calibration error: the largest gap of a non-empty bin, with `ece_pycalib`'s bins."""
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
    """Return the mean and standard deviation (n - 1) of the `*_pycalib` metrics over random subsets, as pycalib does.

    With no more samples than in a subset, all samples are used once and the deviation is nan.
    """
    rng, n = np.random.default_rng(subsample.seed), len(labels)
    if n <= subsample.size:
        return {name: metric(p, labels) for name, metric in PYCALIB.items()}, dict.fromkeys(PYCALIB, np.nan)
    chosen = [rng.permutation(n)[: subsample.size] for _ in range(subsample.splits)]
    found = {name: [metric(p[i], labels[i]) for i in chosen] for name, metric in PYCALIB.items()}
    deviation = {name: float(np.std(v, ddof=1)) if len(v) > 1 else np.nan for name, v in found.items()}
    return {name: float(np.mean(values)) for name, values in found.items()}, deviation


def _gaps(p: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return counts and gaps of the non-empty bins."""
    table = pycalib_bins(p, labels, bins)
    if table is None:
        return np.empty(0), np.empty(0)
    used = table.count > 0
    return table.count[used], np.abs(table.accuracy - table.centre)[used]
