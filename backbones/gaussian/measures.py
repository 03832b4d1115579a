"""Measures of many networks on the same points at once, defined as in `backbones.measuring.calibration`.

Letters: J networks, n points, K classes; everything is float64.
"""

import numpy as np

from backbones.gaussian.task import Points

BINS = 15
T_BOUNDS = (0.05, 20.0)
BISECTIONS = 36  # precision 1e-10 in log T, in which the bounds are 6.0 apart
PARITY_BOUNDS = (0.8, 3.0)  # bounds in the paper's code; the lower one is active in its label smoothing rows
MEASURES = ("acc", "acc_dense", "acc_sparse", "ce", "ece15", "cwece15", "cwece15_trueclass")


def log_softmax(logits: np.ndarray, temperature: np.ndarray | float = 1.0) -> np.ndarray:
    """Return log-probabilities (J, n, K) float64 of logits (J, n, K) divided by temperatures (J,)."""
    z = logits.astype(np.float64) / np.reshape(temperature, (-1, 1, 1))
    z -= z.max(axis=2, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=2, keepdims=True))


def cross_entropy(log_p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean of -log p_t, (J,); nan without points."""
    return -_mean(log_p[:, np.arange(len(labels)), labels])


def measure(log_p: np.ndarray, points: Points) -> np.ndarray:
    """Return `MEASURES` of log-probabilities (J, n, K), as (J, 7); nan for a subset without points."""
    p = np.exp(log_p)
    confidence, right = p.max(axis=2), p.argmax(axis=2) == points.labels
    kinds = np.arange(p.shape[2])
    of_class = points.labels == kinds[:, None]  # (K, n)
    own = [_gap(confidence[:, member], right[:, member]) for member in of_class if member.any()]
    columns = {
        "acc": right.mean(axis=1),
        "acc_dense": _mean(right[:, points.dense]),
        "acc_sparse": _mean(right[:, ~points.dense]),
        "ce": cross_entropy(log_p, points.labels),
        "ece15": _gap(confidence, right),
        "cwece15": np.mean([_gap(p[:, :, k], of_class[k]) for k in kinds], axis=0),
        "cwece15_trueclass": np.mean(own, axis=0),
    }
    return np.stack([columns[name] for name in MEASURES], axis=1)


def _gap(scores: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Return the sum over bins of n_b/n |hit rate - mean score|, (J,), for scores (J, n) and hits (J, n) or (n,).

    n_b cancels, so that a bin contributes the absolute sum of its hits minus scores, over n.
    """
    index = (np.ceil(scores * BINS) - 1).clip(0, BINS - 1).astype(np.int64)
    index += BINS * np.arange(len(scores))[:, None]
    sums = np.bincount(index.ravel(), weights=(hits - scores).ravel(), minlength=BINS * len(scores))
    return np.abs(sums.reshape(-1, BINS)).sum(axis=1) / scores.shape[1]


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=1) if values.shape[1] else np.full(len(values), np.nan)


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return temperatures (J,) in `T_BOUNDS` that minimise each network's NLL of softmax(z / T); logits (J, n, K).

    The NLL is convex in b = 1/T and its slope is the mean of E_p[z] - z_t: log b is bisected by the sign of the slope,
    which ends at a bound if the optimum is beyond it.  For narrower bounds, clip the result.
    """
    z = logits.astype(np.float64)
    z -= z[:, np.arange(len(labels)), labels][..., None]  # so that small slopes are not lost to rounding
    low, high = (np.full(len(z), -np.log(bound)) for bound in reversed(T_BOUNDS))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        rising = (np.exp(log_softmax(z, np.exp(-middle))) * z).sum(axis=(1, 2)) > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    return np.exp(-(low + high) / 2)
