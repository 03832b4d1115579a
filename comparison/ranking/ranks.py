"""Average ranks of methods over data sets, and tests whether they differ (Demsar 2006, JMLR 7).

Friedman's test asks whether the methods differ at all, Nemenyi's critical difference which of them do.  The rows of
such a table share data and code, so they are not independent, and paired columns (the same model with and without
temperature scaling) inflate k: the p values are only indicative.  `wilcoxon_holm` adds a pairwise test whose result
for two methods does not depend on the values of the others.

Letters: N data sets (or pairs of data set and network), k methods.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import stats

from backbones.core.errors import InputError
from comparison.verdicts.words import holm


class Friedman(NamedTuple):
    """chi2 with k - 1 degrees of freedom, and Iman and Davenport's F with k - 1 and (k - 1)(N - 1); their p values."""

    chi2: float
    chi2_p: float
    f: float
    f_p: float


class Pair(NamedTuple):
    """Two methods; p: p value of Wilcoxon's signed-rank test, adjusted by Holm."""

    first: str
    second: str
    p: float


def average_ranks(values: np.ndarray, *, better: int) -> np.ndarray:
    """Rank (N, k) values within each data set: (N, k), 1 is the best, ties share their mean rank.

    better: +1 if higher values are better, -1 if lower ones are.
    """
    return stats.rankdata(-better * np.asarray(values, dtype=np.float64), axis=1)


def check_table(values: np.ndarray, datasets: Sequence[str], methods: Sequence[str]) -> None:
    """Raise `InputError` for a table with a missing cell, which the message names, or too small to be ranked."""
    missing = np.argwhere(~np.isfinite(np.asarray(values, dtype=np.float64)))
    if len(missing):
        row, column = missing[0]
        raise InputError(
            f"{len(missing)} of {np.size(values)} cells have no number, the first is '{methods[column]}' on "
            f"'{datasets[row]}'; ranks need every method on every data set: complete it, or remove one of them"
        )
    if len(datasets) < 2 or len(methods) < 2:
        raise InputError(f"{len(methods)} methods on {len(datasets)} data sets; ranks need at least 2 of each")


def friedman(ranks: np.ndarray) -> Friedman:
    """Test that all methods have the same mean rank, from (N, k) ranks.

    chi2 = 12 N / (k (k + 1)) [sum_j R_j^2 - k (k + 1)^2 / 4], divided by 1 - sum_ties (t^3 - t) / (N k (k^2 - 1));
    F = (N - 1) chi2 / (N (k - 1) - chi2), which is less conservative.  If all methods tie everywhere: 0, p = 1.
    """
    n, k = ranks.shape
    counts = [np.unique(row, return_counts=True)[1] for row in ranks]
    ties = sum(float((c**3 - c).sum()) for c in counts) / (n * k * (k * k - 1))
    if ties == 1:
        return Friedman(0.0, 1.0, 0.0, 1.0)
    chi2 = 12 * n / (k * (k + 1)) * ((ranks.mean(axis=0) ** 2).sum() - k * (k + 1) ** 2 / 4) / (1 - ties)
    rest = n * (k - 1) - chi2
    f = (n - 1) * chi2 / rest if rest > 1e-9 else np.inf  # all data sets agree
    return Friedman(
        float(chi2), float(stats.chi2.sf(chi2, k - 1)), float(f), float(stats.f.sf(f, k - 1, (k - 1) * (n - 1)))
    )


def nemenyi_q(methods: int, level: float = 0.95) -> float:
    """Return the quantile of the studentised range of k means with infinitely many degrees of freedom, over sqrt(2)."""
    return float(stats.studentized_range.ppf(level, methods, np.inf) / np.sqrt(2))


def critical_difference(methods: int, datasets: int, level: float = 0.95) -> float:
    """Return the smallest significant difference of mean ranks: CD = q sqrt(k (k + 1) / (6 N)) (Nemenyi 1963)."""
    return nemenyi_q(methods, level) * float(np.sqrt(methods * (methods + 1) / (6 * datasets)))


def indistinct_groups(mean_ranks: np.ndarray, difference: float) -> list[tuple[int, ...]]:
    """Return the bars of a critical-difference diagram: largest sets of methods with mean ranks within `difference`.

    Methods are indices into `mean_ranks`, ordered by rank; sets of one are omitted.
    """
    order = np.argsort(mean_ranks, kind="stable")
    ordered = mean_ranks[order]
    # A gap of exactly the critical difference is not significant; rounding must not decide.
    ends = np.searchsorted(ordered, ordered + difference + 1e-9, side="right")
    groups, last = [], 0
    for start, end in enumerate(ends):
        if end - start > 1 and end > last:
            groups.append(tuple(int(i) for i in order[start:end]))
        last = max(last, end)
    return groups


def wilcoxon_holm(values: np.ndarray, methods: Sequence[str]) -> list[Pair]:
    """Test every pair of methods by Wilcoxon's signed-rank test over data sets, adjusted by Holm; smallest p first."""
    pairs = list(combinations(range(len(methods)), 2))
    raw = np.array([_wilcoxon(values[:, a] - values[:, b]) for a, b in pairs])
    return [
        Pair(methods[pairs[i][0]], methods[pairs[i][1]], float(p))
        for i, p in sorted(enumerate(holm(raw)), key=lambda item: (item[1], raw[item[0]]))
    ]


def _wilcoxon(differences: np.ndarray) -> float:
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
