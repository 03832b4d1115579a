"""How far the stated confidence of a classifier is from its accuracy.

Everything is computed in float64 and over the sample (no mean of batch means).

Letters: n samples, K classes, N bins; p (n, K) probabilities, log_p (n, K) their natural logarithms,
t the label, c = max_k p_k the confidence, h = 1 where the first argmax of p is t ("right"), else 0.

Two families of calibration errors share a name in the literature and never mix here:
the standard one (bins on [0, 1], a bin stands for its mean confidence) and the one of the package
pycalib (`*_pycalib`), which the tables of adaptive label smoothing report.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

Closed = Literal["right", "left"]


class Reliability(NamedTuple):
    """Bins of a reliability diagram; each array is (N,), and accuracy and confidence are nan in an empty bin."""

    count: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray

    def gaps(self) -> np.ndarray:
        """|accuracy - mean confidence| per bin, (N,), 0 in an empty bin."""
        return np.abs(np.nan_to_num(self.accuracy - self.confidence))


# ---- accuracy and proper scores ----------------------------------------------------------------


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities (n, K) float64, without clipping: finite wherever the logits are."""
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def topk_accuracy(p: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of samples whose label is among the k largest p; of equal values the lower class comes first."""
    own = np.take_along_axis(p, labels[:, None], axis=1)
    earlier = np.arange(p.shape[1]) < labels[:, None]
    rank = ((p > own) | ((p == own) & earlier)).sum(axis=1)
    return _mean(rank < k)


def accuracy(p: np.ndarray, labels: np.ndarray) -> float:
    """Share of samples whose first argmax is the label."""
    return _mean(p.argmax(axis=1) == labels)


def nll(log_p: np.ndarray, labels: np.ndarray) -> float:
    """Negative log-likelihood in nats: mean of -log p_t."""
    return _mean(-np.take_along_axis(log_p, labels[:, None], axis=1))


def brier(p: np.ndarray, labels: np.ndarray) -> float:
    """Mean over samples of sum_k (p_k - [k = t])^2, in [0, 2]."""
    own = np.take_along_axis(p, labels[:, None], axis=1)[:, 0]
    return _mean((p * p).sum(axis=1) - 2 * own + 1)


def confidence_statistics(p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean confidence, overconfidence (mean c of the wrong) and underconfidence (mean 1 - c of the right).

    A statistic over no sample at all is nan.  average = accuracy (1 - under) + (1 - accuracy) over.
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
        hits: (n,) bool, what the score predicts.
        closed: which end of a bin belongs to it; the outermost bins hold both ends.
    """
    scaled = scores * bins
    index = np.ceil(scaled) - 1 if closed == "right" else np.floor(scaled)
    index = index.clip(0, bins - 1).astype(np.int64)
    count = np.bincount(index, minlength=bins)
    sums = [np.bincount(index, weights=values, minlength=bins) for values in (hits, scores)]
    with np.errstate(invalid="ignore"):
        return Reliability(count, *(total / count for total in sums))


def ece(p: np.ndarray, labels: np.ndarray, bins: int = 15, closed: Closed = "right") -> float:
    """Expected calibration error: sum_b n_b/n |accuracy_b - confidence_b| (Guo et al. 2017)."""
    return _weighted_gap(_confidence_bins(p, labels, bins, closed))


def mce(p: np.ndarray, labels: np.ndarray, bins: int = 15, closed: Closed = "right") -> float:
    """Maximum calibration error: the largest gap of a non-empty bin.

    At N = 100 near-empty bins decide it: report `mce_bin_count` beside it, and rank nothing by it.
    """
    return float(_confidence_bins(p, labels, bins, closed).gaps().max()) if len(labels) else np.nan


def mce_bin_count(p: np.ndarray, labels: np.ndarray, bins: int = 15, closed: Closed = "right") -> int:
    """Number of samples in the bin that decides the maximum calibration error."""
    table = _confidence_bins(p, labels, bins, closed)
    return int(table.count[table.gaps().argmax()])


def cwece(p: np.ndarray, labels: np.ndarray, bins: int = 15, closed: Closed = "right") -> float:
    """Class-wise ECE (Kull et al. 2019): for each class bin p_k of all samples; mean over the classes."""
    gaps = [_weighted_gap(reliability(p[:, k], labels == k, bins, closed)) for k in range(p.shape[1])]
    return float(np.mean(gaps))


def cwece_trueclass(p: np.ndarray, labels: np.ndarray, bins: int = 15, closed: Closed = "right") -> float:
    """Mean over true classes of the confidence ECE within the class: what ILS's code calls class-wise ECE.

    Not a calibration error (conditioning on the truth makes it positive for a perfect model):
    only for comparison with the tables of Maher & Kull 2021.
    """
    gaps = [ece(p[labels == k], labels[labels == k], bins, closed) for k in np.unique(labels)]
    return _mean(np.array(gaps))


def ece_pycalib(p: np.ndarray, labels: np.ndarray, bins: int = 100) -> float:
    """pycalib's expected calibration error: bins on [1/K, 1], a bin stands for its nominal centre."""
    count, gaps = _pycalib_gaps(p, labels, bins)
    return float(np.average(gaps, weights=count)) if len(gaps) else np.nan


def mce_pycalib(p: np.ndarray, labels: np.ndarray, bins: int = 100) -> float:
    """pycalib's maximum calibration error: the largest gap of a non-empty bin, on the bins of `ece_pycalib`."""
    _, gaps = _pycalib_gaps(p, labels, bins)
    return float(gaps.max()) if len(gaps) else np.nan


def _pycalib_gaps(p: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts and gaps of the non-empty bins; K is the number of classes that occur in labels or predictions."""
    predicted, confidence = p.argmax(axis=1), p.max(axis=1)
    lowest = 1 / max(1, len(np.union1d(labels, predicted)))
    if not lowest < 1:
        return np.empty(0), np.empty(0)  # one class only: no range to bin
    grid = {"bins": bins, "range": (lowest, 1.0)}
    count = np.histogram(confidence, **grid)[0]
    right = np.histogram(confidence, weights=(predicted == labels).astype(np.float64), **grid)[0]
    # NOTE: not the true centres (those are lowest + (1 - lowest)(b + 1/2)/N), but pycalib's; equal for large K.
    centres = np.linspace(lowest + 1 / (2 * bins), 1 - 1 / (2 * bins), bins)
    used = count > 0
    return count[used], np.abs(right[used] / count[used] - centres[used])


def _confidence_bins(p: np.ndarray, labels: np.ndarray, bins: int, closed: Closed) -> Reliability:
    return reliability(p.max(axis=1), p.argmax(axis=1) == labels, bins, closed)


def _weighted_gap(table: Reliability) -> float:
    total = table.count.sum()
    return float((table.count * table.gaps()).sum() / total) if total else np.nan


def _mean(values: np.ndarray) -> float:
    """Mean, and nan without numpy's warning where there is nothing to average."""
    return float(np.mean(values)) if values.size else np.nan


# ---- temperature scaling -----------------------------------------------------------------------


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, bounds: tuple[float, float] = (0.05, 20.0), tolerance: float = 1e-6
) -> float:
    """Temperature T that minimises the NLL of softmax(logits / T).

    The NLL is convex in 1/T, so a bounded scalar search on log T finds the optimum (or the bound).
    `bounds=(0.8, 3.0)` repeats Maher & Kull 2021, whose lower bound is active in their label smoothing rows.
    """
    z = np.asarray(logits, dtype=np.float64)
    found = minimize_scalar(
        lambda log_t: nll(log_softmax(z / np.exp(log_t)), labels),
        bounds=tuple(np.log(bounds)),
        method="bounded",
        options={"xatol": tolerance},
    )
    return float(np.exp(found.x))


def cross_fit_temperature(logits: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[float, np.ndarray]:
    """Temperature scaling without measuring on the samples it was fitted on.

    The samples are permuted (by `seed`) and split in two halves; each half is scaled with the
    temperature fitted on the other.

    Returns:
        the mean of the two temperatures, and the scaled log-probabilities (n, K) in the given order;
        nan for fewer than two samples.
    """
    z = np.asarray(logits, dtype=np.float64)
    if len(labels) < 2:
        return np.nan, np.full_like(z, np.nan)
    order = np.random.default_rng(seed).permutation(len(labels))
    halves = order[0::2], order[1::2]
    scaled, temperatures = np.empty_like(z), []
    for fit, held_out in (halves, halves[::-1]):
        temperatures.append(fit_temperature(z[fit], labels[fit]))
        scaled[held_out] = log_softmax(z[held_out] / temperatures[-1])
    return float(np.mean(temperatures)), scaled


# ---- all of it ---------------------------------------------------------------------------------

_OF_PROBABILITIES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "brier": brier,
    "ece15": lambda p, t: ece(p, t, 15),
    "ece100": lambda p, t: ece(p, t, 100),
    "mce15": lambda p, t: mce(p, t, 15),
    "mce100": lambda p, t: mce(p, t, 100),
    "cwece15": lambda p, t: cwece(p, t, 15),
    "cwece15_trueclass": lambda p, t: cwece_trueclass(p, t, 15),
    "ece15_pycalib": lambda p, t: ece_pycalib(p, t, 15),
    "ece100_pycalib": lambda p, t: ece_pycalib(p, t, 100),
    "mce100_pycalib": lambda p, t: mce_pycalib(p, t, 100),
}


def calibration_metrics(log_p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Every number of this module that needs no further fitting, by its name in results.json.

    Args:
        log_p: (n, K) float64 log-probabilities (`log_softmax(logits)`).
        labels: (n,) int64.
    """
    p = np.exp(log_p)
    metrics = {"top1": accuracy(p, labels), "top5": topk_accuracy(p, labels, 5), "nll": nll(log_p, labels)}
    metrics |= {name: metric(p, labels) for name, metric in _OF_PROBABILITIES.items()}
    return metrics | confidence_statistics(p, labels)


def scaled_metrics(log_p: np.ndarray, labels: np.ndarray, seed: int = 0) -> dict[str, float]:
    """`temperature` and, on held-out halves, `nll_scaled` and `ece15_scaled` (see `cross_fit_temperature`)."""
    temperature, scaled = cross_fit_temperature(log_p, labels, seed)
    if np.isnan(temperature):
        return dict.fromkeys(("temperature", "nll_scaled", "ece15_scaled"), np.nan)
    return {
        "temperature": temperature,
        "nll_scaled": nll(scaled, labels),
        "ece15_scaled": ece(np.exp(scaled), labels, 15),
    }
