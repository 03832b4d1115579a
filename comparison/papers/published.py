"""Published numbers of a table of docs/papers.yaml, to be shown beside ours; they enter no number of the comparison.

A table is named as in docs/papers.yaml; a part after ":" selects one of its columns (ols_table1:resnet34), or the row
whose columns are the methods (ils_table3:LeNet | CIFAR10).  Numbers stay text, as printed.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backbones.core.config import load_yaml
from backbones.core.errors import InputError, suggestion
from comparison.metrics import BY_NAME
from comparison.papers import rows as papers
from comparison.papers.rows import Line, Table, Training
from comparison.papers.suites import is_shown_beside, suite_rows

ROOT = Path(__file__).resolve().parents[2]
_EXPRESSION = re.compile(r"(?P<percent>100 )?(?P<rest>\(1 - )?(?P<name>\w+)")
_SCALED = "TempS"  # rows after temperature scaling, whose likelihood and calibration are other metrics of ours
_SCALE = {"network": "MODEL.ARCH", "epochs": "SOLVER.MAX_EPOCH", "iterations": "SOLVER.MAX_ITER"}


class Cell(NamedTuple):
    """A published number: the row of the suite, the row and column of the paper, our metric in words, the text."""

    label: str
    printed: str
    column: str
    meaning: str
    text: str


def read_published(name: str, root: Path = ROOT) -> dict[str, Any] | None:
    """Return "published" of comparison.json; None if docs/ is not there, as in an installed package.

    Raises:
        InputError: unknown table or part, or a table without a suite.
    """
    if not (root / papers.SOURCE).is_file():
        return None
    key, _, part = name.partition(":")
    source, tables = papers.load_papers(root)
    table = {table.key: table for table in tables}.get(key)
    if table is None or not is_shown_beside(table):
        known = [t.key for t in tables if is_shown_beside(t)]
        raise InputError(f"--paper: no table '{key}' with a suite in {papers.SOURCE}{suggestion(key, known)}")
    by_rows = "base" in table.spec["suite"]
    parts = [t.row for t in table.trainings] if by_rows else list(table.spec.get("columns") or [""])
    if part not in parts:
        raise InputError(
            f"--paper {key}: its parts are {', '.join(parts) or 'none'}, not '{part}'{suggestion(part, parts)}"
        )
    if by_rows:
        training = next(t for t in table.trainings if t.row == part)
        cells, trainings = list(_across(table, part)), {}
    else:
        rows = suite_rows(table, tables, part)
        cells, training = list(_down(table, rows, part)), None
        trainings = {label: one for label, (_, one) in rows.items()}
    tuned = _iterations(root, table)
    scales = {cell.label: _scale(root, source, trainings.get(cell.label, training), tuned) for cell in cells}
    if "label" in table.spec["suite"]:  # the rows are students
        scales = {label: f"teacher: {scale}" for label, scale in scales.items()}
    return _assembled(name, f"{table.title}: {table.spec['title']}{f', {part}' if part else ''}", cells, scales)


def missing_note(name: str, published: Mapping[str, Any] | None) -> list[str]:
    """Return the note on a table that was asked for and is not there."""
    if not name or published is not None:
        return []
    return [f"Published numbers ({name}) are not shown: {papers.SOURCE} is part of the repository, not of the package."]


def scale_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"network", "epochs", "iterations"} of a result, by the settings of its protocol; None if unknown."""
    settings = results["protocol"].get("settings") or {}
    values = {name: settings.get(key) for name, key in _SCALE.items()}
    return {name: value if isinstance(value, str | int) else None for name, value in values.items()}


def _down(table: Table, rows: Mapping[str, tuple[str, Training]], column: str) -> Iterator[Cell]:
    """Yield the cells of a table whose rows are the methods; of several validation sets, those of the first."""
    metrics = table.spec.get("metrics", {})
    for label, (row, _) in rows.items():
        line = table.lines(row)[0]
        shown = table.spec["columns"][column]["show"] if column else list(metrics)
        for name, text in papers.published(line, shown):
            meaning = [m for key, m in metrics.items() if name == key or name.endswith(f" {key}") or len(metrics) == 1]
            if meaning:
                yield Cell(label, row, name, str(meaning[0]), text)


def _across(table: Table, row: str) -> Iterator[Cell]:
    """Yield the cells of a row whose columns are the methods: of a file per metric, or named "METRIC METHOD"."""
    metrics, form = table.spec["metrics"], table.spec["suite"].get("label", "{}")
    lines: list[Line] = [line for file in table.files.values() for line in file if table.label(line) == row]
    skipped = {*table.spec["label"], "source", "note"}
    for number, line in enumerate(lines):
        for column, text in line.items():
            if column in skipped or column.endswith(" rank"):
                continue
            if len(lines) == len(metrics):
                key, method = list(metrics)[number], column
            else:
                key = next(key for key in metrics if column.startswith(f"{key} "))
                method = column.removeprefix(f"{key} ")
            yield Cell(form.format(method), f"{row}, {method}", key, str(metrics[key]), text)


def _assembled(name: str, title: str, cells: list[Cell], scales: Mapping[str, str]) -> dict[str, Any]:
    """Return the entry, with the numbers whose meaning is that of a metric of the comparison."""
    columns: dict[str, dict[str, Any]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for cell in cells:
        found = _EXPRESSION.match(cell.meaning)
        if not found or found["name"] not in BY_NAME or not cell.text:
            continue
        if _SCALED in cell.meaning and cell.label.endswith(_SCALED):
            continue
        factor = 100 if found["percent"] else 1
        own = {"name": cell.column, "metric": found["name"], "times": factor, "complement": bool(found["rest"])}
        columns.setdefault(cell.column, own)
        empty = {"label": cell.label, "printed": cell.printed, "scale": scales[cell.label], "texts": {}}
        rows.setdefault(cell.label, empty)["texts"][cell.column] = cell.text
    return {"paper": name, "title": title, "columns": list(columns.values()), "rows": list(rows.values())}


def _scale(root: Path, source: Mapping[str, Any], training: Training | None, tuned: str) -> str:
    if training is None:
        return tuned
    data = source["data"][training.data]
    epochs = papers.epochs_of(root, source, training)
    return f"{data['says']}, {data['images']:,} images an epoch; {training.network}, {epochs} epochs{tuned}"


def _iterations(root: Path, table: Table) -> str:
    """Return how a table with detectors fine-tunes them; "" for others."""
    if "detection" not in table.spec:
        return ""
    solver = load_yaml(root / table.spec["detection"]).get("SOLVER", {})
    return f"; fine-tuned {solver['MAX_ITER']:,} iterations" if "MAX_ITER" in solver else ""
