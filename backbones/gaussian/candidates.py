"""Candidates of a replicate: the networks of every row's grid, and the soft targets of each.

A candidate is one network with fixed hyper-parameters; a row of a table chooses among candidates (`rows`).
"""

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from backbones.gaussian.task import CLASSES
from backbones.methods.functional import instance_amount, instance_amount_sine, instance_targets, smooth_labels

LARGEST_AMOUNT = 0.2  # largest amount in ILS Eq. 3


@dataclass(frozen=True)
class Candidate:
    """One network: its method and the method's hyper-parameters (nan for those that it does not have).

    method: "hard", "ls", "ils1", "sine", "ils2", "ils", or "distil_<teacher>" with the teachers of Tables II and VI.
    eps: smoothing amount, over all classes in "ls" (y_t = 1 - eps + eps/K), over the wrong ones in "ils2".
    p1, p2: shift and coefficient of the curve that gives the amount from the teacher (ILS Eq. 3, or the sine).
    t: temperature of the teacher's distribution over the wrong classes (ILS Eq. 4).
    """

    method: str
    eps: float = np.nan
    p1: float = np.nan
    p2: float = np.nan
    t: float = np.nan

    @property
    def name(self) -> str:
        """Method and hyper-parameters, such as "ils1 p1=0.8 p2=2"."""
        settings = {"eps": self.eps, "p1": self.p1, "p2": self.p2, "t": self.t}
        return " ".join([self.method, *(f"{k}={v:g}" for k, v in settings.items() if not np.isnan(v))])

    def seed_key(self) -> int:
        """Return a number from the name, so that a candidate's seed does not depend on other candidates."""
        return zlib.crc32(self.name.encode())


@dataclass(frozen=True)
class Grids:
    """Hyper-parameter grids (ILS, App. A); `figure_*` is the grid of Fig. 11, `curve_eps` that of Figs. 4, 6 and 7."""

    eps: tuple[float, ...] = (0.001, 0.005, 0.01, 0.03, 0.05, 0.07, 0.09, 0.11, 0.13, 0.15, 0.17, 0.19)
    p1: tuple[float, ...] = (0.75, 0.775, 0.8, 0.825, 0.85)
    p2: tuple[float, ...] = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    t_text: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0)
    # NOTE: differs from the paper for ILS2 alone: its mean chosen T, 11.48 and 9.63, is above all of `t_text`, so its
    # rows use the paper's grid for real data.  The row ILS uses `t_text`; each has a second row with the other grid.
    t: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    # The ranges of ILS Sec. IV-A, which names the sine without a grid; 30 curves as for ILS1.
    sine_p1: tuple[float, ...] = (0.8, 0.85, 0.9, 0.95, 0.99)
    sine_p2: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    figure_p1: tuple[float, ...] = tuple(0.7 + 0.025 * i for i in range(12))
    figure_p2: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0, 8.0, 10.0)
    curve_eps: tuple[float, ...] = (0.001, 0.005, *(round(0.01 * i, 2) for i in range(1, 21)))


QUICK = Grids(
    eps=(0.01, 0.1),
    p1=(0.8,),
    p2=(1.0, 2.0),
    t_text=(1.0,),
    t=(1.0, 16.0),
    sine_p1=(0.99,),
    sine_p2=(3.0, 6.0),
    figure_p1=(0.7, 0.8),
    figure_p2=(1.0,),
    curve_eps=(0.01, 0.2),
)

TEACHERS = ("bayes", "hard", "ls", "ils")


def build_candidates(grids: Grids, families: Sequence[str]) -> list[Candidate]:
    """Build every candidate that does not learn from another candidate, each once, as grids overlap."""
    curve, both_t = itertools.product(grids.p1, grids.p2), sorted({*grids.t, *grids.t_text})
    members = {
        "ls": [Candidate("ls", eps=eps) for eps in (*grids.eps, LARGEST_AMOUNT)],
        "ils1": [Candidate("ils1", p1=p1, p2=p2) for p1, p2 in itertools.product(grids.p1, grids.p2)],
        "sine": [Candidate("sine", p1=p1, p2=p2) for p1, p2 in itertools.product(grids.sine_p1, grids.sine_p2)],
        "ils2": [Candidate("ils2", eps=e, t=t) for e in grids.eps for t in both_t],
        "ils": [Candidate("ils", p1=p1, p2=p2, t=t) for (p1, p2), t in itertools.product(curve, both_t)],
        "distillation": [Candidate("distil_bayes"), Candidate("distil_hard")],
        "figure11": [Candidate("ils1", p1=round(p1, 3), p2=p2) for p1 in grids.figure_p1 for p2 in grids.figure_p2],
        "curves": curve_candidates(grids),
    }
    return list({c.name: c for family in families for c in members[family]}.values())


def curve_candidates(grids: Grids) -> list[Candidate]:
    """Build the students of the curves of best amounts."""
    return [Candidate("ls", eps=eps) for eps in grids.curve_eps]


# ---- targets -----------------------------------------------------------------------------------


class Teacher(NamedTuple):
    """What the students of a replicate can learn from at the training points; (n, K) float64 unless stated.

    logits: logits of the hard-label network, which determine the distribution.
    calibrated: its probabilities after temperature scaling, which determine the amount.
    posterior: the Bayes posterior.
    """

    labels: np.ndarray  # (n,) int64
    logits: np.ndarray
    calibrated: np.ndarray
    posterior: np.ndarray


def build_targets(candidates: Sequence[Candidate], teacher: Teacher) -> np.ndarray:
    """Return the targets (J, n, K) float64 of the candidates."""
    labels, logits, calibrated, posterior = map(torch.from_numpy, teacher)
    p_true = calibrated.gather(1, labels[:, None])[:, 0]
    given = {"distil_bayes": posterior, "distil_hard": logits.softmax(dim=1)}

    def target(candidate: Candidate) -> Tensor:
        if candidate.method in given:
            return given[candidate.method]
        amount = torch.full_like(p_true, 0.0 if np.isnan(candidate.eps) else candidate.eps)
        if candidate.method == "sine":
            amount = instance_amount_sine(p_true, candidate.p1, candidate.p2)
        elif not np.isnan(candidate.p1):
            amount = instance_amount(p_true, candidate.p1, candidate.p2, LARGEST_AMOUNT)
        if np.isnan(candidate.t):
            return smooth_labels(labels, CLASSES, amount, "all", torch.float64)
        return instance_targets(labels, logits, amount, candidate.t)

    return torch.stack([target(candidate) for candidate in candidates]).numpy()
