"""Comparison with published directions, from paired differences of two rows over the replicates.

A direction is the sign of the difference of the published numbers.  If our paired difference is at least two standard
errors from zero, the direction has appeared or is opposite; otherwise it is not decided.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from backbones.gaussian.published import Published
from backbones.gaussian.replicate import COLUMNS
from backbones.gaussian.study import mean_and_error
from backbones.gaussian.tables import COLUMN, finite

APPEARED, OPPOSITE, UNDECIDED = "appeared", "opposite", "not decided"
ERRORS = 2.0  # standard errors from zero from which a direction is decided
TRUE_CLASS, EQ2 = "cwece15_trueclass", "cwece15"


class Pair(NamedTuple):
    """`column` of row `first` minus that of row `second`."""

    column: str
    first: str
    second: str


PAIRS = (
    # label smoothing against hard labels
    Pair("ce", "ls", "hard"),
    Pair("ce", "ls_scaled", "hard_scaled"),
    Pair("acc", "ls", "hard"),
    Pair("acc_dense", "ls", "hard"),
    Pair("acc_sparse", "ls", "hard"),
    Pair("ece15", "ls", "hard"),
    Pair(TRUE_CLASS, "ls", "hard"),
    Pair(EQ2, "ls", "hard"),
    Pair(TRUE_CLASS, "ls_scaled", "hard_scaled"),
    Pair(EQ2, "ls_scaled", "hard_scaled"),
    # amount of smoothing, and temperature
    Pair("ce", "ls02", "ls"),
    Pair("ece15", "ls02", "ls"),
    Pair("ce", "hard_scaled", "hard"),
    Pair("ce", "ls_scaled", "ls"),
    Pair("eps", "ls_scaled", "ls"),
    Pair("temperature", "ls02_scaled", "hard_scaled"),
    # different amounts for the dense and the sparse part
    Pair("eps", "ls_on_sparse", "ls_on_dense"),
    Pair("acc_dense", "ls_on_sparse", "ls_on_dense"),
    Pair("acc_sparse", "ls_on_sparse", "ls_on_dense"),
    # instance-based label smoothing
    *(Pair("ce", method, "ls") for method in ("ils1", "ils2", "ils")),
    *(Pair("ce", f"{method}_scaled", "ls_scaled") for method in ("ils1", "ils2", "ils")),
    *(Pair("val_ce", method, "ls") for method in ("ils1", "ils2", "ils")),
    *(Pair("acc", method, "ls") for method in ("ils1", "ils2", "ils")),
    *(Pair("ece15", method, "ls") for method in ("ils1", "ils2", "ils")),
    *(Pair(column, method, "ls") for method in ("ils1", "ils2", "ils") for column in (TRUE_CLASS, EQ2)),
    Pair("ce", "ils", "ils1"),
    Pair("ce", "ils", "ils2"),
    Pair("val_ce", "ils", "ils1"),
    Pair(TRUE_CLASS, "ils", "ils1"),
    # distillation
    Pair("ce", "distil_bayes", "distil_hard"),
    Pair("ce", "distil_ls", "distil_hard"),
    Pair("acc", "distil_ls", "distil_hard"),
    Pair(TRUE_CLASS, "distil_ls", "distil_hard"),
    Pair("ce", "distil_ils", "distil_hard"),
    Pair("ce", "distil_ils", "distil_ls"),
    Pair("acc", "distil_ils", "distil_ls"),
    Pair("ece15", "distil_ils", "distil_hard"),
)


def compare_directions(
    study: Mapping[str, np.ndarray], published: Published, titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return an entry per pair whose rows were run: statement, difference, standard error, published, verdict."""
    rows = study["rows"].tolist()
    found = []
    for pair in PAIRS:
        if pair.first not in rows or pair.second not in rows:
            continue
        column = study["values"][:, :, COLUMNS.index(pair.column)]
        mean, error = mean_and_error(column[:, rows.index(pair.first)] - column[:, rows.index(pair.second)])
        # The paper has one cwECE, so Eq. 2 is compared with its direction, too.
        there = TRUE_CLASS if pair.column == EQ2 else pair.column
        paper = published[pair.first][there] - published[pair.second][there]
        found.append(
            {
                **pair._asdict(),
                "statement": _statement(pair, paper, titles),
                "difference": finite(float(mean)),
                "se": finite(float(error)),
                "n": len(column),
                "published": paper,
                "same_quantity": pair.column == there,
                "verdict": verdict(float(mean), float(error), paper),
            }
        )
    return found


def verdict(difference: float, error: float, published: float) -> str:
    """Return appeared, opposite or not decided; the latter also without a standard error."""
    if not (np.isfinite(error) and abs(difference) >= ERRORS * error and difference * published != 0):
        return UNDECIDED
    return APPEARED if difference * published > 0 else OPPOSITE


def _statement(pair: Pair, published: float, titles: Mapping[str, str]) -> str:
    side = "lower" if published < 0 else "higher"
    what = COLUMN[pair.column].title.removesuffix(" %")
    return f"{what} of {titles[pair.first]} is {side} than that of {titles[pair.second]}"


# The Bayes-optimal classifier needs no training, so it checks the task and the measures.
BAYES_TOLERANCE = {"acc": 0.003, "acc_dense": 0.003, "acc_sparse": 0.003, "ce": 0.003}


def check_bayes(summary: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Compare our Bayes-optimal row with the published one, with the allowed tolerance."""
    checks = []
    for column, tolerance in BAYES_TOLERANCE.items():
        cell = summary["bayes"][column]
        checks.append({"column": column, **cell, "tolerance": tolerance, "kept": abs(cell["difference"]) <= tolerance})
    return checks
