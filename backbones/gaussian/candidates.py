"""What is trained in a replicate: the candidates of every row's grid, and the soft targets that each learns from.

A candidate is one network with fixed hyper-parameters; a row of a table chooses among candidates (`rows`).
"""

import itertools
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from backbones.core.errors import InputError, suggestion
from backbones.gaussian.measures import log_softmax
from backbones.gaussian.task import CLASSES
from backbones.methods.functional import smooth_labels

LARGEST_AMOUNT = 0.2  # of ILS Eq. 3


@dataclass(frozen=True)
class Candidate:
    """One network: its method and, where the method has them, its hyper-parameters (nan otherwise).

    method: "hard", "ls", "ils1", "ils2", "ils", or "distil_<teacher>" with the teachers of Tables II and VI.
    eps: smoothing amount, over all classes in "ls" (y_t = 1 - eps + eps/K), over the wrong ones in "ils2".
    p1, p2: shift and coefficient of the curve that gives the amount from the teacher (ILS Eq. 3).
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
        """A number of its own: a candidate's seed does not depend on what else is trained."""
        return zlib.crc32(self.name.encode())


@dataclass(frozen=True)
class Grids:
    """Hyper-parameters that are tried (ILS, App. A); `figure_*` is the grid of Fig. 11."""

    eps: tuple[float, ...] = (0.001, 0.005, 0.01, 0.03, 0.05, 0.07, 0.09, 0.11, 0.13, 0.15, 0.17, 0.19)
    p1: tuple[float, ...] = (0.75, 0.775, 0.8, 0.825, 0.85)
    p2: tuple[float, ...] = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    # NOTE: differs from the paper, whose text says T in `t_text` while its mean chosen T is above all of these: `t` is
    # the grid of the paper's real data, and ILS2 is reported with `t_text` as well.
    t: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    t_text: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0)
    figure_p1: tuple[float, ...] = tuple(0.7 + 0.025 * i for i in range(12))
    figure_p2: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0, 8.0, 10.0)


QUICK = Grids(
    eps=(0.01, 0.1), p1=(0.8,), p2=(1.0, 2.0), t=(1.0, 16.0), t_text=(1.0,), figure_p1=(0.7, 0.8), figure_p2=(1.0,)
)

FAMILIES = ("ls", "ils1", "ils2", "ils", "distillation", "figure11")
TEACHERS = ("bayes", "hard", "ls", "ils")


def check_families(chosen: Iterable[str]) -> tuple[str, ...]:
    """The chosen families in their usual order; an unknown one is an `InputError`."""
    chosen = list(chosen)
    for name in chosen:
        if name not in FAMILIES:
            raise InputError(f"--rows: there is no family '{name}'{suggestion(name, FAMILIES)}")
    return tuple(name for name in FAMILIES if name in chosen)


def build_candidates(grids: Grids, families: Sequence[str]) -> list[Candidate]:
    """Every student that needs no student before it, each once (grids overlap)."""
    curve = itertools.product(grids.p1, grids.p2)
    members = {
        "ls": [Candidate("ls", eps=eps) for eps in (*grids.eps, LARGEST_AMOUNT)],
        "ils1": [Candidate("ils1", p1=p1, p2=p2) for p1, p2 in itertools.product(grids.p1, grids.p2)],
        "ils2": [Candidate("ils2", eps=e, t=t) for e in grids.eps for t in sorted({*grids.t, *grids.t_text})],
        "ils": [Candidate("ils", p1=p1, p2=p2, t=t) for (p1, p2), t in itertools.product(curve, grids.t)],
        "distillation": [Candidate("distil_bayes"), Candidate("distil_hard")],
        "figure11": [Candidate("ils1", p1=round(p1, 3), p2=p2) for p1 in grids.figure_p1 for p2 in grids.figure_p2],
    }
    return list({c.name: c for family in families for c in members[family]}.values())


# ---- targets -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Teacher:
    """What the students of a replicate may learn from, at the training points: all (n, K) float64 unless said.

    calibrated: probabilities of the hard-label network after temperature scaling; they give the amount.
    logits: its raw logits; they give the distribution.
    posterior: Bayes'.
    """

    labels: np.ndarray  # (n,) int64
    calibrated: np.ndarray
    logits: np.ndarray
    posterior: np.ndarray


def curve_amount(p_true: np.ndarray, p1: np.ndarray | float, p2: np.ndarray | float) -> np.ndarray:
    """ILS Eq. 3: min(0.2, P2 (p_t - P1)^2), P1 the shift and P2 the coefficient."""
    return np.minimum(LARGEST_AMOUNT, p2 * (p_true - p1) ** 2)


def instance_distribution(labels: np.ndarray, logits: np.ndarray, amount: np.ndarray, t: np.ndarray) -> np.ndarray:
    """ILS Eq. 4 without its division by zero: y_t = 1 - a, y_j = a softmax over j != t of z_j / T.

    labels (n,), logits (n, K), amount (J, n), t (J,); returns (J, n, K).
    """
    wrong = np.where(np.arange(logits.shape[1]) == labels[:, None], -np.inf, logits) / t[:, None, None]
    share = np.exp(wrong - wrong.max(axis=2, keepdims=True))
    own = np.arange(logits.shape[1]) == labels[:, None]
    return np.where(own, 1 - amount[..., None], amount[..., None] * share / share.sum(axis=2, keepdims=True))


def build_targets(candidates: Sequence[Candidate], teacher: Teacher) -> np.ndarray:
    """Targets (J, n, K) float64 of each candidate."""
    p_true = teacher.calibrated[np.arange(len(teacher.labels)), teacher.labels]
    eps, p1, p2, t = (np.array([getattr(c, key) for c in candidates])[:, None] for key in ("eps", "p1", "p2", "t"))
    amount = np.where(np.isnan(p1), np.broadcast_to(np.nan_to_num(eps), (len(eps), len(p_true))), 0)
    amount = np.where(np.isnan(p1), amount, curve_amount(p_true, np.nan_to_num(p1), np.nan_to_num(p2)))
    labels = torch.from_numpy(teacher.labels).repeat(len(candidates))
    smooth = smooth_labels(labels, CLASSES, torch.from_numpy(amount.ravel()), "all", torch.float64)
    targets = smooth.view(*amount.shape, CLASSES).numpy()
    instance = ~np.isnan(t[:, 0])
    if instance.any():
        targets[instance] = instance_distribution(teacher.labels, teacher.logits, amount[instance], t[instance, 0])
    distilled = {"distil_bayes": teacher.posterior, "distil_hard": np.exp(log_softmax(teacher.logits[None])[0])}
    for row, candidate in enumerate(candidates):
        if candidate.method in distilled:
            targets[row] = distilled[candidate.method]
    return targets
