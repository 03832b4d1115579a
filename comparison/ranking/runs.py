"""Runs to rank: one for each row of a suite and each seed.

The folder of a suite also holds a training for each point of a grid, which is not a row, and the choice among them: a
copy of the chosen training under the row's label.  Two rows can choose the same training; it is measured once, and its
numbers belong to both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from backbones.core.errors import InputError, suggestion
from comparison.row import Row
from comparison.rows import join_rows, read_compared

SCALED_LABEL = "+TempS"
# Criterion of a grid whose choice is made after temperature scaling (tools/select_run.py).
_SCALED_CHOICE = "nll_fitted"
# File that marks the folder of suites, and the suites in it.
_OWNERS, _SUITES = "suites.json", "config*.yaml"


@dataclass(frozen=True)
class Run:
    """A row of a comparison under the label of one row of the suite; scaled: report numbers after scaling."""

    row: Row
    scaled: bool


@dataclass(frozen=True)
class Planned:
    """Rows of the suites in one folder: label -> seeds.

    chosen: config keys chosen separately for each seed; teachers: labels of rows that no suite compares.
    """

    folder: Path
    seeds: Mapping[str, set[int]]
    chosen: frozenset[str]
    teachers: frozenset[str]


def collect_runs(roots: Iterable[str | Path], scaled: Sequence[str] = ()) -> list[Run]:
    """Return the runs at or below `roots`, without the points of grids.

    Args:
        scaled: labels to add once more as LABEL+TempS, with their numbers after temperature scaling.

    Raises:
        InputError: as of `comparison.rows.collect_rows`; no run has a label in `scaled`.
    """
    found = read_compared(roots)
    points = {path.parent.parent / one["run"] for path, results in found for one in _selection(results)["candidates"]}
    found = [(path, results) for path, results in found if path.parent not in points]
    copies: dict[str, list[tuple[Path, dict]]] = {}  # hash: choices of a training
    for path, results in found:
        if _selection(results)["candidates"]:
            copies.setdefault(results["backbone"]["hash"], []).append((path, results))
    trained = {results["backbone"]["hash"] for _, results in found if _trains(results)}
    dropped = {path for digest, same in copies.items() for path, _ in (same if digest in trained else same[1:])}
    rows = join_rows((path, results) for path, results in found if path not in dropped)
    runs = [run for row in rows for run in _named(row, [results for _, results in copies.get(row.hash, [])])]
    for label in scaled:
        labels = {run.row.label for run in runs}
        if label not in labels:
            raise InputError(f"--scaled {label}: no run has this label{suggestion(label, labels)}")
        own = [run.row for run in runs if run.row.label == label]
        runs += [Run(replace(row, label=label + SCALED_LABEL), scaled=True) for row in own]
    return runs


def _selection(results: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"candidates": [], "by": ""} | results["details"].get("selection", {})


def _trains(results: Mapping[str, Any]) -> bool:
    return results["stage"] == "pretraining" and not _selection(results)["candidates"]


def _named(row: Row, copies: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Return a run for every label of a row: its own, and those of the choices of its training."""
    names = {results["backbone"]["label"]: _selection(results)["by"] for results in copies}
    if len(names) < 2:
        names = {row.label: next(iter(names.values()), "")}
    elif _trains(row.results.get("pretraining", {"stage": "", "details": {}})):
        names = {row.label: ""} | names
    return [
        Run(replace(row, label=label), by == _SCALED_CHOICE or label.endswith(SCALED_LABEL))
        for label, by in names.items()
    ]


def read_plans(roots: Iterable[str | Path]) -> list[Planned]:
    """Return what the suites planned whose folders contain `roots`, or are in them."""
    folders: dict[Path, None] = {}
    for root in map(Path, roots):
        folder = root if root.is_dir() else root.parent
        marked = [path.parent for path in folder.rglob(_OWNERS)]
        above = [parent for parent in (folder, *folder.absolute().parents) if (parent / _OWNERS).is_file()]
        folders |= dict.fromkeys(path.resolve() for path in (*marked, *above[:1]))
    return [_planned(folder) for folder in folders]


def _planned(folder: Path) -> Planned:
    seeds: dict[str, set[int]] = {}
    chosen: set[str] = set()
    teachers: set[str] = set()
    for path in folder.glob(_SUITES):
        suite = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for row in suite.get("ROWS", []):
            if row.get("BACKBONE"):  # random initialisation has no classifier
                continue
            if row.get("SEED_OFFSET"):
                teachers.add(str(row["LABEL"]))
            else:
                seeds.setdefault(str(row["LABEL"]), set()).update(row.get("SEEDS") or suite.get("SEEDS") or [0])
            overrides = [str(text) for text in row.get("OVERRIDES") or []]
            chosen |= {key for key, value in zip(overrides[::2], overrides[1::2], strict=False) if "{chosen:" in value}
            chosen |= (row.get("GRID") or {}).get("KEYS", {}).keys()
    return Planned(folder, seeds, frozenset(chosen), frozenset(teachers - seeds.keys()))
