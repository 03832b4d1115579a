"""Published numbers of the study, read from docs/paper_tables; none is typed here."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backbones.core.errors import InputError

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "paper_tables"

# Header in the paper's tables -> our column.  The paper's cwECE is that of its code (the ECE within each true class),
# and Table V has the headers of P1 and P2 swapped.
HEADERS = {
    "Acc": "acc",
    "Accuracy": "acc",
    "Acc Dense": "acc_dense",
    "Acc Sparse": "acc_sparse",
    "Cross Entropy": "ce",
    "CrossEntropy": "ce",
    "ECE": "ece15",
    "cwECE": "cwece15_trueclass",
    "Validation Loss": "val_ce",
    "Avg Temp": "temperature",
    "Avg Temperature": "temperature",
    "Avg eps": "eps",
    "Avg Scaling Temp": "t",
    "Avg P1 (column as printed)": "p2",
    "Avg P2 (column as printed)": "p1",
}
METHODS = {
    "Bayes-Optimal": "bayes",
    "No LS": "hard",
    "Standard LS": "ls",
    "Standard LS-0.2": "ls02",
    "ILS1": "ils1",
    "ILS2": "ils2",
    "ILS": "ils",
}
Published = dict[str, dict[str, float]]  # row key -> column -> value, fractions in [0, 1]


def load_tables(folder: Path = FOLDER) -> dict[str, Published]:
    """Load the tables "I", "II", "V" and "VI"."""
    files = {"I": "ils_table1.csv", "II": "ils_table2.csv", "V": "ils_table5.csv", "VI": "ils_table6.csv"}
    return {table: _load_table(folder / name) for table, name in files.items()}


def load_all(folder: Path = FOLDER) -> Published:
    """Load all rows of the four tables, which agree where they overlap."""
    merged: Published = {}
    for table in load_tables(folder).values():
        for key, row in table.items():
            merged[key] = merged.get(key, {}) | row
    return merged


def load_figure11(folder: Path = FOLDER) -> dict[tuple[float, float], float]:
    """Load (P1, P2) -> mean test cross-entropy of ILS1."""
    lines = read_csv(folder / "extra_ils_fig11_grid.csv")
    return {
        (float(line["P1"]), float(header.removeprefix("P2="))): float(value)
        for line in lines
        for header, value in line.items()
        if header.startswith("P2=")
    }


class PublishedCurve(NamedTuple):
    """A curve of Fig. 6 or 7: probability of the teacher and best amount, (B,)."""

    teacher: np.ndarray
    best: np.ndarray


def load_curves(folder: Path = FOLDER) -> dict[tuple[str, str], PublishedCurve]:
    """Load (teacher, set-up) -> curve; Fig. 6 has the Bayes-optimal teacher, Fig. 7 the hard-label one."""
    teachers, curves = {"6": "bayes", "7": "hard_scaled"}, {}
    for line in read_csv(folder / "extra_ils_fig6_fig7_curves.csv"):
        best = np.array(line["Best eps at 50 equally spaced p"].split(), float)
        p = np.linspace(float(line["First p"]), float(line["Last p"]), len(best))
        curves[teachers[line["Figure"]], line["Set-up"]] = PublishedCurve(p, best)
    return curves


class Histogram(NamedTuple):
    """A histogram: edges (B + 1,) and points per bin (B,)."""

    edges: np.ndarray
    count: np.ndarray


def load_histograms(folder: Path = FOLDER) -> dict[str, Histogram]:
    """Load teacher -> histogram of Fig. 8."""
    teachers, found = {"Bayes-Optimal": "bayes", "No LS + TempS": "hard_scaled"}, {}
    for line in read_csv(folder / "extra_ils_fig8_histograms.csv"):
        count = np.array(line["Points in 20 bins"].split(), float)
        edges = np.linspace(float(line["First p"]), float(line["Last p"]), len(count) + 1)
        found[teachers[line["Model"]]] = Histogram(edges, count)
    return found


def load_tuned_curve(folder: Path = FOLDER) -> tuple[float, float]:
    """Load P1 and P2 of the curve that the paper's text states for the synthetic data."""
    for line in read_csv(folder / "prose.csv"):
        values = list(line.values())
        if "Tuned ILS1 curve on synthetic data" in values:
            text = next(value for value in values if value.startswith("P1="))
            p1, p2 = (float(part.split("=")[1]) for part in text.split(","))
            return p1, p2
    raise InputError(f"{folder / 'prose.csv'}: no line 'Tuned ILS1 curve on synthetic data'; restore the file")


def load_suspicions(folder: Path = FOLDER) -> list[dict[str, str]]:
    """Load the wrong or doubtful numbers of the four tables and the text around them."""
    lines = read_csv(folder / "suspected_errors.csv")
    tables = ("ILS I", "ILS V", "ILS Figs. 6 to 8", "ILS I-III, V, VI", "ILS II", "ILS VI")
    return [line for line in lines if next(iter(line.values())) in tables]


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read lines as dicts by header; raise `InputError` for a missing file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; restore the repository's docs folder") from None


def parse_number(text: str) -> float:
    """Parse a number: "78.45%" is 0.7845; "-" and "" are nan."""
    text = text.strip()
    if text in ("", "-"):
        return np.nan
    return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)


def _load_table(path: Path) -> Published:
    table = {}
    for line in read_csv(path):
        key = _row_key(line, path)
        values = {HEADERS[header]: parse_number(text) for header, text in line.items() if header in HEADERS}
        table[key] = {column: value for column, value in values.items() if not np.isnan(value)}
    return table


def _row_key(line: dict[str, str], path: Path) -> str:
    method = METHODS.get(line.get("Method") or line.get("Teacher") or "")
    if method is None:
        raise InputError(f"{path}: a line names neither a method nor a teacher of the study; restore the file")
    if "Teacher" in line:
        return f"distil_{method}"
    if line.get("Validation Set", "All") != "All":
        return f"{method}_on_{line['Validation Set'].lower()}"
    scaled = (line.get("TempS") or line.get("Temp Scaling")) == "Yes"
    return f"{method}_scaled" if scaled else method
