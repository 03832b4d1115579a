"""Tables I, II, V and VI of ILS, with the study's numbers beside the published ones."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backbones.gaussian.published import Published
from backbones.gaussian.replicate import COLUMNS
from backbones.gaussian.study import mean_and_error


class Column(NamedTuple):
    """Format of a column; title: its header; scale: factor for display; digits: decimal places."""

    title: str
    scale: float = 1.0
    digits: int = 4


COLUMN = {
    "temperature": Column("T", digits=3),
    "temperature_free": Column("T, free", digits=3),
    "val_ce": Column("val CE"),
    "acc": Column("ACC %", 100, 2),
    "acc_dense": Column("ACC dense %", 100, 2),
    "acc_sparse": Column("ACC sparse %", 100, 2),
    "ce": Column("CE"),
    "ece15": Column("ECE-15"),
    "cwece15_trueclass": Column("cwECE, true class"),
    "cwece15": Column("cwECE, Eq. 2"),
    "t": Column("teacher's T", digits=2),
    "eps": Column("eps", digits=3),
    "p1": Column("P1", digits=3),
    "p2": Column("P2", digits=2),
    "epoch": Column("epoch", digits=1),
}

_CALIBRATION = ("ce", "ece15", "cwece15_trueclass", "cwece15")
_ACCURACY = ("acc", "acc_dense", "acc_sparse")
_COMMON = ("bayes", "hard", "hard_scaled", "ls", "ls_scaled", "ls02", "ls02_scaled")
_ILS = tuple(
    f"{key}{end}" for key in ("ils1", "sine", "ils2", "ils2_text", "ils", "ils_wide") for end in ("", "_scaled")
)


class Table(NamedTuple):
    """Rows and columns of a table of the paper; `columns` adds our second cwECE and free temperature."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]


_DISTILLED = ("distil_bayes", "distil_hard", "distil_ls")
TABLES = {
    "I": Table(
        "Table I: label smoothing on the synthetic task",
        (*_COMMON, "ls_on_dense", "ls_on_sparse"),
        (*_ACCURACY, *_CALIBRATION, "temperature", "eps"),
    ),
    "II": Table("Table II: self-distillation", _DISTILLED, ("acc", *_CALIBRATION)),
    "V": Table(
        "Table V: instance-based label smoothing",
        (*_COMMON, *_ILS),
        ("temperature", "temperature_free", "val_ce", *_ACCURACY, *_CALIBRATION, "t", "eps", "p1", "p2", "epoch"),
    ),
    "VI": Table("Table VI: self-distillation, with ILS", (*_DISTILLED, "distil_ils"), ("acc", *_CALIBRATION)),
}
NO_ERROR = 1e-12  # a constant has a standard error up to this, due to rounding
Summary = Mapping[str, Mapping[str, Mapping[str, Any]]]


def summarize(study: Mapping[str, np.ndarray], published: Published) -> Summary:
    """Return row -> column -> {mean, se, n, published, difference}; None for missing numbers."""
    mean, error = mean_and_error(study["values"])
    summary = {}
    for r, key in enumerate(study["rows"].tolist()):
        known = published.get(key, {})
        summary[key] = {
            column: _cell(mean[r, c], error[r, c], len(study["values"]), known.get(column))
            for c, column in enumerate(COLUMNS)
        }
    return summary


def _cell(mean: float, error: float, count: int, published: float | None) -> dict[str, Any]:
    value = finite(mean)
    difference = value - published if value is not None and published is not None else None
    return {"mean": value, "se": finite(error), "n": count, "published": published, "difference": difference}


def finite(value: float) -> float | None:
    """Return a float, or None for nan, which JSON lacks."""
    return float(value) if np.isfinite(value) else None


def table_rows(table: Table, summary: Summary) -> list[str]:
    """Return the rows of a table that were run."""
    return [key for key in table.rows if key in summary]


def csv_text(table: Table, summary: Summary, titles: Mapping[str, str]) -> str:
    """Return a csv with one line per row: for each column ours, its standard error, published and difference."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["row", "method", "replicates"]
        + [f"{column}{end}" for column in table.columns for end in ("", "_se", "_published", "_difference")]
    )
    for key in table_rows(table, summary):
        cells = [summary[key][column] for column in table.columns]
        numbers = [cell[part] for cell in cells for part in ("mean", "se", "published", "difference")]
        count = cells[0]["n"]
        writer.writerow([key, titles[key], count] + ["" if n is None else f"{n:.6g}" for n in numbers])
    return stream.getvalue()


def shown_columns(table: Table, summary: Summary) -> list[str]:
    """Return the columns in which at least one row has a number."""
    rows = table_rows(table, summary)
    return [c for c in table.columns if any(summary[key][c]["mean"] is not None for key in rows)]


def markdown_table(table: Table, summary: Summary, titles: Mapping[str, str]) -> str:
    """Return a markdown table with "ours ± standard error (published)" in each cell."""
    columns = shown_columns(table, summary)
    lines = [["Method", *(COLUMN[column].title for column in columns)]]
    for key in table_rows(table, summary):
        texts = [format_cell(column, summary[key][column]) for column in columns]
        lines.append([titles[key], *(f"{ours} {paper}".strip() for ours, paper in texts)])
    return markdown_lines(lines)


def markdown_lines(lines: Sequence[Sequence[str]]) -> str:
    """Return a markdown table; the first line is the header."""
    texts = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([texts[0], "|" + " --- |" * len(lines[0]), *texts[1:]])


def format_cell(column: str, cell: Mapping[str, Any]) -> tuple[str, str]:
    """Return ("ours ± error", "(published)"), each empty if missing."""
    ours = format_number(column, cell["mean"])
    if ours and (cell["se"] or 0) > NO_ERROR:
        ours += f" ± {format_number(column, cell['se'])}"
    paper = format_number(column, cell["published"])
    return ours, f"({paper})" if paper else ""


def format_number(column: str, value: float | None, sign: bool = False) -> str:
    """Format a number in the scale and with the digits of its column."""
    how = COLUMN[column]
    return "" if value is None else f"{value * how.scale:{'+' if sign else ''}.{how.digits}f}"
