"""The best smoothing amount for each probability of a teacher (ILS, Sec. IV-A: 50 bins on [0.2, 1]), and histograms.

A teacher is the Bayes-optimal model or the hard-label network with temperature scaling.  A probability is that of the
true class, as the paper's text says, or the largest one, which the published Figs. 6 and 8 agree with.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import least_squares

from backbones.gaussian.candidates import LARGEST_AMOUNT
from backbones.methods.functional import instance_amount, instance_amount_sine

BINS, LOWEST = 50, 0.2
TEACHERS = ("bayes", "hard_scaled")
KINDS = ("true", "largest")  # of probabilities
HISTOGRAM_BINS = 60  # on [0, 1]; 20 of the 40 above 1/3 are as wide as those of ILS Fig. 8
HISTOGRAMS = (*KINDS, "every")  # and the probabilities of all classes


def bin_sums(teacher: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points per bin of the teacher's p_t (n,), (BINS,), and the sum per bin of each column, (C, BINS)."""
    index = np.minimum((teacher - LOWEST) / (1 - LOWEST) * BINS, BINS - 1)
    used = index >= 0
    index = index[used].astype(np.int64)
    sums = [np.bincount(index, weights=column[used], minlength=BINS) for column in columns]
    return np.bincount(index, minlength=BINS), np.stack(sums)


def kinds_of(log_p: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Return the probability of each of `KINDS`, (n,), from log-probabilities (n, K)."""
    return [np.exp(log_p[np.arange(len(labels)), labels]), np.exp(log_p.max(axis=1))]


def curve_sums(
    teachers: Sequence[np.ndarray], students: Sequence[np.ndarray], labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the `bin_sums` of teachers and kinds, (2, 2, BINS) and (2, 2, 1 + E, BINS), from log-probabilities (n, K).

    The columns are the teacher and the student of each amount.
    """
    columns = zip(*(kinds_of(log_p, labels) for log_p in students), strict=True)  # by kind
    by_kind = [np.stack(column) for column in columns]
    found = [
        [bin_sums(own, np.stack([own, *column])) for own, column in zip(kinds_of(log_p, labels), by_kind, strict=True)]
        for log_p in teachers
    ]
    counts, sums = (np.array([[pair[i] for pair in kinds] for kinds in found]) for i in (0, 1))
    return counts, sums


def histograms(log_p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return counts per bin for each of `HISTOGRAMS`, (3, HISTOGRAM_BINS), from log-probabilities (n, K)."""
    values = [*kinds_of(log_p, labels), np.exp(log_p).ravel()]
    return np.array([np.histogram(p, HISTOGRAM_BINS, (0, 1))[0] for p in values])


class Curve(NamedTuple):
    """Per non-empty bin: mean probability of the teacher and of the student of each amount, and the best amount.

    teacher, best: (B,); eps: (E,); students: (E, B); count: (B,) points over all replicates.
    """

    count: np.ndarray
    teacher: np.ndarray
    eps: np.ndarray
    students: np.ndarray
    best: np.ndarray


def build_curve(count: np.ndarray, sums: np.ndarray, eps: np.ndarray) -> Curve:
    """Build the curve from `bin_sums` added over replicates.

    The columns are the teacher and the student of each amount.  The best amount of a bin is the one whose students'
    mean probability is closest to the teacher's.
    """
    used = count > 0
    teacher, *students = sums[:, used] / count[used]
    students = np.stack(students)
    return Curve(count[used], teacher, eps, students, eps[np.abs(students - teacher).argmin(axis=0)])


def curve_amount(p_true: np.ndarray, p1: float, p2: float) -> np.ndarray:
    """Return the amount of ILS1 (Eq. 3)."""
    return instance_amount(torch.from_numpy(p_true), p1, p2, LARGEST_AMOUNT).numpy()


def sine_amount(p_true: np.ndarray, p1: float, p2: float) -> np.ndarray:
    """Return the amount of the sinusoidal variant."""
    return instance_amount_sine(torch.from_numpy(p_true), p1, p2).numpy()


def fit_curves(curve: Curve) -> Mapping[str, tuple[float, float]]:
    """Fit (P1, P2) of both curves to the best amounts by least squares, with bins weighted by their points."""
    weight = np.sqrt(curve.count / curve.count.sum())

    def fit(amount, start: tuple[float, float]) -> tuple[float, float]:
        found = least_squares(lambda p: weight * (amount(curve.teacher, *p) - curve.best), start)
        return float(found.x[0]), float(found.x[1])

    starts = [(p1, p2) for p1 in (0.2, 0.8) for p2 in (-6.0, -3.0, 3.0, 6.0)]
    fitted = [fit(sine_amount, start) for start in starts]
    error = [np.sum((weight * (sine_amount(curve.teacher, *p) - curve.best)) ** 2) for p in fitted]
    return {"ils1": fit(curve_amount, (0.8, 2.0)), "sine": fitted[int(np.argmin(error))]}
