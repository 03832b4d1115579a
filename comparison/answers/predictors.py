"""Which cheap number of a classifier predicts the AP of the detector: rank correlations with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 1000
LEVEL = 0.95
# Fewer backbones, or methods, give no interval that means anything.
FEWEST, FEWEST_METHODS = 6, 3


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a number and AP over backbones, in [-1, 1], with an interval."""

    metric: str
    value: float
    low: float
    high: float
    backbones: int
    methods: int


def correlate(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], target: str = "AP") -> list[Correlation]:
    """Return the correlation of each metric with `target` over rows of one comparison, strongest first.

    Backbones of one method are alike, so the interval is a bootstrap in two stages: it draws methods, then backbones of
    each.  Metrics that fewer than FEWEST backbones of FEWEST_METHODS methods have are left out, and constant ones.

    Args:
        rows: rows of a comparison.json under one protocol.
    """
    found = []
    for metric in metrics:
        table = _numbers(rows, metric, target)
        pairs = np.concatenate([np.empty((0, 2)), *table])
        if len(pairs) >= FEWEST and len(table) >= FEWEST_METHODS and np.ptp(pairs, axis=0).all():
            low, high = _interval(table)
            found.append(Correlation(metric, _spearman(pairs), low, high, len(pairs), len(table)))
    return sorted(found, key=lambda one: -abs(one.value))


def _numbers(rows: Sequence[Mapping[str, Any]], metric: str, target: str) -> list[np.ndarray]:
    """Return (metric, target) of every backbone that has both, (S, 2) per label."""
    by_label: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        pair = row["metrics"].get(metric), row["metrics"].get(target)
        if None not in pair:
            by_label.setdefault(row["label"], []).append(pair)  # type: ignore[arg-type]  # not None
    return [np.array(pairs, dtype=float) for pairs in by_label.values()]


def _interval(table: Sequence[np.ndarray]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES):
        methods = [table[index] for index in rng.integers(len(table), size=len(table))]
        draws.append(_spearman(np.concatenate([one[rng.integers(len(one), size=len(one))] for one in methods])))
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _spearman(pairs: np.ndarray) -> float:
    """Return the correlation of the two columns of (N, 2); NaN if one is constant."""
    if not np.ptp(pairs, axis=0).all():
        return float("nan")
    return float(np.corrcoef(stats.rankdata(pairs, axis=0), rowvar=False)[0, 1])  # five times faster than spearmanr
