"""Calibration of a classifier: the difference between its confidence and its accuracy.

Everything is computed in float64 and over all samples (no mean of batch means).

Letters: n samples, K classes, N bins; p (n, K) probabilities, log_p (n, K) their natural logarithms,
t the label, c = max_k p_k the confidence, h = 1 if the first argmax of p is t ("right"), else 0.

Two families of calibration errors share a name in the literature and are kept apart here: the standard one (bins on
[0, 1], a bin is represented by its mean confidence) and the one of the package pycalib (`*_pycalib`, in
`backbones.measuring.pycalib`), which the tables of adaptive label smoothing report.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from backbones.measuring.pycalib import PYCALIB

Closed = Literal["right", "left"]
WIDE_BOUNDS = (0.05, 20.0)  # bounds of a fitted temperature
PARITY_BOUNDS = (0.8, 3.0)  # bounds in the code of Maher & Kull 2021


class Reliability(NamedTuple):
    """Bins of a reliability diagram; each array is (N,), accuracy and confidence are nan in an empty bin."""

    count: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray

    def gaps(self) -> np.ndarray:
        """Return |accuracy - mean confidence| per bin, (N,), 0 in an empty bin."""
        return np.abs(np.nan_to_num(self.accuracy - self.confidence))


# ---- accuracy and proper scores ----------------------------------------------------------------


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities (n, K) float64, without clipping: finite wherever the logits are."""
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def topk_accuracy(p: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return the share of samples whose label is among the k largest p; ties go to the lower class."""
    return _mean(among_largest(p, labels, k))


def among_largest(p: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Return whether the label of each sample is among the k largest p, (n,)."""
    own = np.take_along_axis(p, labels[:, None], axis=1)
    earlier = np.arange(p.shape[1]) < labels[:, None]
    rank = ((p > own) | ((p == own) & earlier)).sum(axis=1)
    return rank < k


def accuracy(p: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of samples whose first argmax is the label."""
    return _mean(p.argmax(axis=1) == labels)


def nll(log_p: np.ndarray, labels: np.ndarray) -> float:
    """Return the negative log-likelihood in nats: mean of -log p_t."""
    return _mean(nll_per_image(log_p, labels))


def nll_per_image(log_p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -log p_t in nats, (n,)."""
    return -np.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]


def brier(p: np.ndarray, labels: np.ndarray) -> float:
    """Return the Brier score: mean over samples of sum_k (p_k - [k = t])^2, in [0, 2]."""
    own = np.take_along_axis(p, labels[:, None], axis=1)[:, 0]
    return _mean((p * p).sum(axis=1) - 2 * own + 1)


def confidence_statistics(p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return mean confidence, overconfidence (mean c of wrong samples) and underconfidence (mean 1 - c of right ones).

    A statistic over no samples is nan.  average = accuracy (1 - under) + (1 - accuracy) over.
    """
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    return {
        "average_confidence": _mean(confidence),
        "overconfidence": _mean(confidence[~right]),
        "underconfidence": _mean(1 - confidence[right]),
    }


# ---- calibration errors ------------------------------------------------------------------------


def reliability(scores: np.ndarray, hits: np.ndarray, bins: int, closed: Closed = "right") -> Reliability:
    """Sort samples into N equal bins on [0, 1] by their score.

    Args:
        scores: (n,) in [0, 1].
        hits: (n,) bool, the event whose probability the score states.
        closed: which end of a bin belongs to it; the outermost bins include both ends.
    """
    index = number_bins(scores, bins, closed)
    count = np.bincount(index, minlength=bins)
    sums = [np.bincount(index, weights=values, minlength=bins) for values in (hits, scores)]
    with np.errstate(invalid="ignore"):
        return Reliability(count, *(total / count for total in sums))


def number_bins(scores: np.ndarray, bins: int = 15, closed: Closed = "right") -> np.ndarray:
    """Return the bin of each score, (n,) int64 from 0, as `reliability` sorts them."""
    scaled = scores * bins
    index = np.ceil(scaled) - 1 if closed == "right" else np.floor(scaled)
    return index.clip(0, bins - 1).astype(np.int64)


def ece(p: np.ndarray, labels: np.ndarray, bins: int = 15, closed: Closed = "right") -> float:
    """Return the expected calibration error: sum_b n_b/n |accuracy_b - confidence_b| (Guo et al. 2017)."""
    return _weighted_gap(_confidence_bins(p, labels, bins, closed))


def mce(p: np.ndarray, labels: np.ndarray, bins: int = 15, closed: Closed = "right") -> float:
    """Return the maximum calibration error: the largest gap of a non-empty bin.

    At N = 100 it is determined by nearly empty bins: report `mce_bin_count` beside it, and do not rank by it.
    """
    return float(_confidence_bins(p, labels, bins, closed).gaps().max()) if len(labels) else np.nan


def mce_bin_count(p: np.ndarray, labels: np.ndarray, bins: int = 15, closed: Closed = "right") -> int:
    """Return the number of samples in the bin that determines the maximum calibration error."""
    table = _confidence_bins(p, labels, bins, closed)
    return int(table.count[table.gaps().argmax()])


def cwece(p: np.ndarray, labels: np.ndarray, bins: int = 15, closed: Closed = "right") -> float:
    """Return the class-wise ECE (Kull et al. 2019): the mean over the classes of the ECE of p_k over all samples."""
    gaps = [_weighted_gap(reliability(p[:, k], labels == k, bins, closed)) for k in range(p.shape[1])]
    return float(np.mean(gaps))


def cwece_trueclass(p: np.ndarray, labels: np.ndarray, bins: int = 15, closed: Closed = "right") -> float:
    """Return the mean over true classes of the confidence ECE within the class, called class-wise ECE in ILS's code.

    Not a calibration error (conditioning on the true class makes it positive for a perfect model); only for comparison
    with the tables of Maher & Kull 2021.
    """
    gaps = [ece(p[labels == k], labels[labels == k], bins, closed) for k in np.unique(labels)]
    return _mean(np.array(gaps))


def _confidence_bins(p: np.ndarray, labels: np.ndarray, bins: int, closed: Closed) -> Reliability:
    return reliability(p.max(axis=1), p.argmax(axis=1) == labels, bins, closed)


def _weighted_gap(table: Reliability) -> float:
    total = table.count.sum()
    return float((table.count * table.gaps()).sum() / total) if total else np.nan


def _mean(values: np.ndarray) -> float:
    """Return the mean, or nan without numpy's warning if there are no values."""
    return float(np.mean(values)) if values.size else np.nan


# ---- temperature scaling -----------------------------------------------------------------------


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, bounds: tuple[float, float] = WIDE_BOUNDS, tolerance: float = 1e-6
) -> float:
    """Return the temperature T that minimises the NLL of softmax(logits / T).

    The NLL is convex in 1/T, so a bounded scalar search on log T finds the optimum (or the bound).
    `bounds=PARITY_BOUNDS` reproduces Maher & Kull 2021, whose lower bound is active in their label smoothing rows.
    """
    z = np.asarray(logits, dtype=np.float64)
    found = minimize_scalar(
        lambda log_t: nll(log_softmax(z / np.exp(log_t)), labels),
        bounds=tuple(np.log(bounds)),
        method="bounded",
        options={"xatol": tolerance},
    )
    return float(np.exp(found.x))


def cross_fit_temperature(
    logits: np.ndarray, labels: np.ndarray, seed: int = 0, bounds: tuple[float, float] = WIDE_BOUNDS
) -> tuple[float, np.ndarray]:
    """Scale each sample with a temperature that was fitted on other samples (`temperatures_of`).

    Returns:
        The mean of the two temperatures, and the scaled log-probabilities (n, K) in the given order; nan for fewer than
        two samples.
    """
    temperatures = temperatures_of(logits, labels, seed, bounds)
    scaled = log_softmax(np.asarray(logits, dtype=np.float64) / temperatures[:, None])
    return mean_temperature(temperatures), scaled


def temperatures_of(
    logits: np.ndarray,
    labels: np.ndarray,
    seed: int = 0,
    bounds: tuple[float, float] = WIDE_BOUNDS,
    fit: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Return the temperature of each sample, (n,), which was fitted on other samples; nan for fewer than two.

    fit: logits and labels to fit one temperature on; if None, the samples are permuted (with `seed`) and split into two
        halves, and each half has the temperature fitted on the other.
    """
    if len(labels if fit is None else fit[1]) < 2:
        return np.full(len(labels), np.nan)
    if fit is not None:
        return np.full(len(labels), fit_temperature(*fit, bounds))
    z = np.asarray(logits, dtype=np.float64)
    order = np.random.default_rng(seed).permutation(len(labels))
    halves, temperatures = (order[0::2], order[1::2]), np.empty(len(labels))
    for fitted, held_out in (halves, halves[::-1]):
        temperatures[held_out] = fit_temperature(z[fitted], labels[fitted], bounds)
    return temperatures


def mean_temperature(temperatures: np.ndarray) -> float:
    """Return the mean of the one or two temperatures of all samples."""
    return _mean(np.unique(temperatures))


# ---- all of it ---------------------------------------------------------------------------------

_OF_PROBABILITIES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "brier": brier,
    "ece15": lambda p, t: ece(p, t, 15),
    "ece100": lambda p, t: ece(p, t, 100),
    "mce15": lambda p, t: mce(p, t, 15),
    "mce100": lambda p, t: mce(p, t, 100),
    "cwece15": lambda p, t: cwece(p, t, 15),
    "cwece15_trueclass": lambda p, t: cwece_trueclass(p, t, 15),
}


def calibration_metrics(log_p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return all metrics of this module that need no fitting, by their names in results.json.

    Args:
        log_p: (n, K) float64 log-probabilities (`log_softmax(logits)`).
        labels: (n,) int64.
    """
    p = np.exp(log_p)
    metrics = {"top1": accuracy(p, labels), "top5": topk_accuracy(p, labels, 5), "nll": nll(log_p, labels)}
    metrics |= {name: metric(p, labels) for name, metric in (_OF_PROBABILITIES | PYCALIB).items()}
    return metrics | confidence_statistics(p, labels)


def scaled_metrics(
    log_p: np.ndarray,
    labels: np.ndarray,
    seed: int = 0,
    fit: tuple[np.ndarray, np.ndarray] | None = None,
    temperatures: np.ndarray | None = None,
) -> dict[str, float]:
    """Return `temperature`, and `nll`, `ece15`, `cwece15` and `cwece15_trueclass` with the suffix `_scaled`.

    `temperature_parity` and `nll_scaled_parity` use `PARITY_BOUNDS`.

    seed, fit: as of `temperatures_of`; temperatures: its result, if known.
    """
    metrics = {}
    for suffix, bounds in (("", WIDE_BOUNDS), ("_parity", PARITY_BOUNDS)):
        own = temperatures if temperatures is not None and not suffix else None
        own = temperatures_of(log_p, labels, seed, bounds, fit) if own is None else own
        known, scaled = len(own) > 0 and not np.isnan(own[0]), log_softmax(log_p / own[:, None])
        metrics[f"temperature{suffix}"] = mean_temperature(own)
        metrics[f"nll_scaled{suffix}"] = nll(scaled, labels) if known else np.nan
        if not suffix:
            for name in ("ece15", "cwece15", "cwece15_trueclass"):
                value = _OF_PROBABILITIES[name](np.exp(scaled), labels) if known else np.nan
                metrics[f"{name}_scaled"] = value
    return metrics
