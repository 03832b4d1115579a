"""The best smoothing amount for each confidence of the teacher (ILS, Sec. IV-A: 50 bins on [0.2, 1])."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import least_squares

from backbones.gaussian.candidates import LARGEST_AMOUNT
from backbones.methods.functional import instance_amount, instance_amount_sine

BINS, LOWEST = 50, 0.2


def bin_sums(teacher: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points per bin of the teacher's p_t (n,), (BINS,), and the sum per bin of each column, (C, BINS)."""
    index = np.minimum((teacher - LOWEST) / (1 - LOWEST) * BINS, BINS - 1)
    used = index >= 0
    index = index[used].astype(np.int64)
    sums = [np.bincount(index, weights=column[used], minlength=BINS) for column in columns]
    return np.bincount(index, minlength=BINS), np.stack(sums)


class Curve(NamedTuple):
    """Per non-empty bin: mean p_t of the teacher, of Bayes and of the student of each amount, and the best amount.

    teacher, bayes, best: (B,); eps: (E,); students: (E, B); count: (B,) points over all replicates.
    """

    count: np.ndarray
    teacher: np.ndarray
    bayes: np.ndarray
    eps: np.ndarray
    students: np.ndarray
    best: np.ndarray


def build_curve(count: np.ndarray, sums: np.ndarray, eps: np.ndarray) -> Curve:
    """Build the curve from `bin_sums` added over replicates.

    The columns are the teacher, Bayes and the student of each amount.  The best amount of a bin is the one whose
    students' mean p_t is closest to the teacher's.
    """
    used = count > 0
    teacher, bayes, *students = sums[:, used] / count[used]
    students = np.stack(students)
    return Curve(count[used], teacher, bayes, eps, students, eps[np.abs(students - teacher).argmin(axis=0)])


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
