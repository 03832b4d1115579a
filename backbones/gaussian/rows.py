"""Rows of the paper's tables: the candidates each chooses from, and the criterion.

A row is measured at T = 1 or, with temperature scaling, at the temperature fitted on its validation points within
`measures.PARITY_BOUNDS`; then the scaled validation cross-entropy is also the criterion (ILS, App. A).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from backbones.gaussian.candidates import LARGEST_AMOUNT, TEACHERS, Candidate, Grids, build_candidates
from backbones.gaussian.families import FAMILIES

PLAIN, SCALED, ON_DENSE, ON_SPARSE = "val_ce", "val_ce_scaled", "val_ce_dense", "val_ce_sparse"


class Row(NamedTuple):
    """A row of a table; key: its name in numbers.json; method: its name in the paper's tables."""

    key: str
    method: str
    member: Callable[[Candidate], bool]
    criterion: str = PLAIN
    scaled: bool = False


def build_rows(grids: Grids, candidates: Sequence[Candidate]) -> list[Row]:
    """Return every row whose whole grid was trained; the part of ILS1's grid in Fig. 11 does not make a row."""
    trained, whole = {c.name for c in candidates}, build_candidates(grids, FAMILIES)
    rows = [row for row in all_rows(grids) if any(map(row.member, candidates))]
    return [row for row in rows if trained >= {c.name for c in whole if row.member(c)}]


def all_rows(grids: Grids) -> list[Row]:
    """Return all rows in the order of the paper's tables."""
    rows = [
        *_pair("hard", "No LS", lambda c: c.method == "hard"),
        *_pair("ls", "Standard LS", lambda c: _is_grid_ls(grids, c)),
        *_pair("ls02", "Standard LS-0.2", lambda c: c.method == "ls" and c.eps == LARGEST_AMOUNT),
        Row("ls_on_dense", "Standard LS, chosen on dense", lambda c: _is_grid_ls(grids, c), ON_DENSE),
        Row("ls_on_sparse", "Standard LS, chosen on sparse", lambda c: _is_grid_ls(grids, c), ON_SPARSE),
        *_pair("ils1", "ILS1", lambda c: c.method == "ils1" and c.p1 in grids.p1 and c.p2 in grids.p2),
        *_pair("sine", "ILS1 sine", lambda c: c.method == "sine"),
        *_pair("ils2", "ILS2", lambda c: c.method == "ils2" and c.t in grids.t),
        *_pair("ils2_text", f"ILS2, {_list(grids.t_text)}", lambda c: c.method == "ils2" and c.t in grids.t_text),
        *_pair("ils", "ILS", lambda c: c.method == "ils" and c.t in grids.t_text),
        *_pair("ils_wide", f"ILS, {_list(grids.t)}", lambda c: c.method == "ils" and c.t in grids.t),
    ]
    names = {"bayes": "Bayes-Optimal", "hard": "No LS", "ls": "Standard LS", "ils": "ILS"}
    for teacher in TEACHERS:
        rows.append(
            Row(f"distil_{teacher}", f"Distilled from {names[teacher]}", lambda c, t=teacher: c.method == f"distil_{t}")
        )
    return rows


def choose(row: Row, candidates: Sequence[Candidate], scores: dict[str, np.ndarray]) -> int:
    """Return the index of the row's candidate with the lowest criterion; of equal ones, the first."""
    members = np.flatnonzero([row.member(c) for c in candidates])
    return int(members[scores[row.criterion][members].argmin()])


def _is_grid_ls(grids: Grids, candidate: Candidate) -> bool:
    return candidate.method == "ls" and candidate.eps in grids.eps


def _list(temperatures: Sequence[float]) -> str:
    return f"T in {{{', '.join(f'{t:g}' for t in temperatures)}}}"


def _pair(key: str, method: str, member: Callable[[Candidate], bool]) -> list[Row]:
    return [Row(key, method, member), Row(f"{key}_scaled", f"{method} + TempS", member, SCALED, scaled=True)]
