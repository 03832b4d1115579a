"""Tables of docs/papers.yaml, joined with the published numbers of docs/paper_tables.

A *line* is a line of a csv file, a *row* is the lines with the same label (for example one per validation set), and a
*training* has one config.  Published numbers stay text, as in the csv files.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.core.config import load_yaml
from backbones.core.errors import InputError, suggestion

SOURCE, NUMBERS, CONFIGS = "docs/papers.yaml", "docs/paper_tables", "configs/pretrain"
SUSPECTED, PROSE = "suspected_errors.csv", "prose.csv"
ROMAN = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")
SEPARATOR = " | "
TABLE_KEYS = (
    *("title", "csv", "label", "lines", "rows", "columns", "file", "headline", "data", "network", "method"),
    *("detection", "measure", "metrics", "errors", "suite", "exclude", "notes", "source", "prose", "place"),
)

Line = Mapping[str, str]


@dataclass(frozen=True)
class Training:
    """A config: its parts below configs/pretrain, its table cell, and the lines with its published numbers.

    changes: keys set in the config. arguments: arguments of its command. show: columns that its header quotes.
    """

    paper: str
    name: str
    row: str
    column: str
    data: str
    network: str
    method: str
    changes: dict[str, Any]
    arguments: str
    show: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def config(self) -> str:
        """Its file, relative to the root of the repository."""
        return f"{CONFIGS}/papers/{self.paper}/{self.name}.yaml"

    @property
    def run(self) -> str:
        """The output folder of its command."""
        return f"runs/papers/{self.paper}/{self.name}"


@dataclass
class Table:
    """A published table: its entry in the source, its csv files, its trainings and their cells.

    cells: (row, column) -> name of a training of this paper, possibly of another table, or path of a config that is
    written by hand; the column is "" if a row has one training.
    prose: lines of prose.csv with its numbers.
    """

    key: str
    spec: Mapping[str, Any]
    files: dict[str, list[Line]]
    trainings: list[Training] = field(default_factory=list)
    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    prose: list[Line] = field(default_factory=list)

    @property
    def paper(self) -> str:
        """Return the key of the paper, such as ols."""
        return self.key.split("_")[0]

    @property
    def title(self) -> str:
        """ "OLS, Table IX", or "OLS, Sec. IV-E" for numbers of the running text."""
        if "place" in self.spec:
            return f"{self.paper.upper()}, {self.spec['place']}"
        number = int(self.key.rpartition("table")[2])
        return f"{self.paper.upper()}, Table {number if self.paper == 'als' else ROMAN[number]}"

    def label(self, line: Line) -> str:
        """Return the label of a line's row."""
        return SEPARATOR.join(line[column] for column in self.spec["label"])

    def lines(self, row: str) -> list[Line]:
        """Return the lines of a row in the first file."""
        return [line for lines in list(self.files.values())[:1] for line in lines if self.label(line) == row]


def load_papers(root: Path) -> tuple[dict[str, Any], list[Table]]:
    """Load the source and its tables.

    Raises:
        InputError: unknown key, a row missing in the csv or in the source, a reference to an unknown config.
    """
    source = load_yaml(root / SOURCE)
    tables = [_table(root, key, spec) for key, spec in source["tables"].items()]
    for table in tables:
        _add_trainings(table, source)
    known = {(t.paper, training.name) for t in tables for training in t.trainings}
    for table in tables:
        for (row, _), name in table.cells.items():
            if name.endswith(".yaml"):
                _check_file(root, table.key, name)
            elif (table.paper, name) not in known:
                hint = suggestion(name, [n for paper, n in known if paper == table.paper])
                raise InputError(f"{SOURCE}: {table.key}: {row}: unknown config '{name}'{hint}")
    return source, tables


def read_numbers(root: Path, name: str) -> list[Line]:
    """Read the lines of one file of docs/paper_tables; every cell is text."""
    path = root / NUMBERS / name
    if not path.is_file():
        raise InputError(f"{SOURCE}: {NUMBERS}/{name} does not exist; name a file of that folder")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _table(root: Path, key: str, spec: Mapping[str, Any]) -> Table:
    for name in spec:
        if name not in TABLE_KEYS:
            raise InputError(f"{SOURCE}: {key}: unknown key '{name}'{suggestion(name, TABLE_KEYS)}")
    names = [spec["csv"]] if isinstance(spec["csv"], str) else spec["csv"]
    table = Table(key, spec, {name: read_numbers(root, name) for name in names if name})
    for name, lines in table.files.items():
        missing = [c for c in (*spec["label"], *_shown(spec)) if c not in lines[0]]
        if missing:
            raise InputError(f"{SOURCE}: {key}: {NUMBERS}/{name} has no column '{missing[0]}'")
        if "rows" in spec:
            _check_rows(key, name, {table.label(line) for line in lines}, [*spec["rows"], *spec.get("exclude", {})])
    if "detection" in spec:
        _check_file(root, key, spec["detection"])
    table.prose += [_prose_line(root, table, quantity) for quantity in spec.get("prose", [])]
    return table


def _check_file(root: Path, key: str, name: str) -> None:
    if not (root / name).is_file():
        raise InputError(f"{SOURCE}: {key}: {name} does not exist; name a file below configs")


def _prose_line(root: Path, table: Table, quantity: str) -> Line:
    lines = {line["quantity"]: line for line in read_numbers(root, PROSE) if line["paper"] == table.paper.upper()}
    if quantity not in lines:
        raise InputError(f"{SOURCE}: {table.key}: {PROSE} has no '{quantity}'{suggestion(quantity, lines)}")
    return lines[quantity]


def _shown(spec: Mapping[str, Any]) -> list[str]:
    return [*spec.get("headline", []), *(c for column in spec.get("columns", {}).values() for c in column["show"])]


def _check_rows(key: str, name: str, published: set[str], mapped: Sequence[str]) -> None:
    for row in published.difference(mapped):
        raise InputError(f"{SOURCE}: {key}: the row '{row}' of {name} is neither in rows nor in exclude; add it")
    for row in mapped:
        if row not in published:
            raise InputError(f"{SOURCE}: {key}: {name} has no row '{row}'{suggestion(row, published)}")


def _add_trainings(table: Table, source: Mapping[str, Any]) -> None:
    spec, prefix = table.spec, table.key.partition("_")[2]
    for row, entry in spec.get("rows", {}).items():
        for column, own in (spec.get("columns") or {"": {}}).items():
            if "use" in entry or "config" in entry:
                table.cells[row, column] = entry.get("use") or entry["config"]
                continue
            parts = {name: entry.get(name, own.get(name, spec.get(name))) for name in ("data", "network", "method")}
            parts["method"] = entry.get("methods", {}).get(column, parts["method"])
            missing = [name for name, value in parts.items() if not value]
            if missing or "name" not in entry or parts["data"] not in source["data"]:
                what = f"data '{parts['data']}'" if not missing else f"its {', '.join(missing) or 'name'}"
                raise InputError(f"{SOURCE}: {table.key}: {row}: {what} is missing; add it")
            pattern = spec.get("file", "{row}")
            training = Training(
                table.paper,
                f"{prefix}_{pattern.format(row=entry['name'], column=column)}",
                row,
                column,
                **parts,
                changes=entry.get("set", {}),
                arguments=entry.get("arguments", ""),
                show=tuple(own.get("show") or spec.get("headline") or _number_columns(table, row)),
                lines=tuple(table.lines(row)),
            )
            table.trainings.append(training)
            table.cells[row, column] = training.name


def _number_columns(table: Table, row: str) -> list[str]:
    """Return the columns of the first file that hold numbers, except ranks."""
    skipped = {*table.spec.get("label", []), table.spec.get("lines"), "source", "note"}
    lines = table.lines(row)
    return [c for c in (lines[0] if lines else []) if c not in skipped and not c.endswith(" rank")]


def published(line: Line, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of the numbers of a line: a mean with its deviation, a value with its rank."""
    for column in columns:
        stem = column.removesuffix(" mean")
        if column.endswith(" std") and f"{column.removesuffix(' std')} mean" in columns:
            continue
        if stem != column and f"{stem} std" in columns:
            yield stem, f"{line[column]} ± {line[f'{stem} std']}"
        elif line.get(f"{column} rank"):
            yield column, f"{line[column]} ({line[f'{column} rank']})"
        elif not column.endswith(" rank"):
            yield column, line[column]


def said_in_text(table: Table) -> str:
    """Return the numbers that the running text publishes, "mAP gain: 1.1 points (Sec IV-D)"; empty without any."""
    said = [f"{line['quantity']}: {line['value']} {line['unit']}".rstrip() for line in table.prose]
    return "; ".join(f"{text} ({line['location']})" for text, line in zip(said, table.prose, strict=True))


def suspected_errors(root: Path, table: Table) -> list[Line]:
    """Return the entries of suspected_errors.csv on this table."""
    names = {table.title.replace(", Table", ""), *table.spec.get("errors", [])}
    return [error for error in read_numbers(root, SUSPECTED) if error["table"] in names]


def more_likely(training: Training, errors: Sequence[Line], column_title: str) -> str:
    """Return the likely correct numbers of this training by suspected_errors.csv; empty if none is suspected."""
    names = (training.row, training.row.replace(SEPARATOR, " "))
    rows = {f"{name}{suffix}" for name in names for suffix in ("", " V1", " V2")}
    found = [e for e in errors if e["row"] in rows and (not column_title or e["column"] == column_title)]
    return "; ".join(f"{e['column']}: {e['suspected value or reading']}" for e in found)


def parts_of(source: Mapping[str, Any], training: Training) -> list[str]:
    """Return the fragments of a config in the order of `_BASE_`, relative to configs/pretrain."""
    bases = [f"base/{name}.yaml" for name in source["data"][training.data]["base"]]
    return [*bases, f"network/{training.network}.yaml", f"method/{training.method}.yaml"]


def changes_of(source: Mapping[str, Any], training: Training) -> dict[str, Any]:
    """Return the keys that a config sets itself."""
    own = source["data"][training.data].get("set", {})
    return {block: {**own.get(block, {}), **training.changes.get(block, {})} for block in {**own, **training.changes}}


# ---- Cost ----
def multiply_adds(root: Path, network: str) -> float:
    """Return the multiply-adds of a forward pass, from the header of the network's fragment."""
    path = root / CONFIGS / "network" / f"{network}.yaml"
    found = re.search(r"# Cost: ([\d.]+) ([kMG]) multiply-adds forward", path.read_text(encoding="utf-8"))
    if found is None:
        raise InputError(f"{path}: its header does not state '# Cost: N G multiply-adds forward'; add it")
    return float(found[1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[found[2]]


def epochs_of(root: Path, source: Mapping[str, Any], training: Training) -> int:
    """Return the number of epochs of the merged config."""
    trees = [load_yaml(root / CONFIGS / part) for part in parts_of(source, training)]
    solvers = [tree.get("SOLVER", {}) for tree in (*trees, changes_of(source, training))]
    return [int(solver["MAX_EPOCH"]) for solver in solvers if "MAX_EPOCH" in solver][-1]


def gpu_hours(root: Path, source: Mapping[str, Any], training: Training) -> tuple[float, float]:
    """Return (multiply-adds, hours of one V100); backward counts twice, at the rate of the run that ALS reports."""
    cost = source["cost"]
    hours, epochs = _reported(root, cost["csv"], cost)
    work = 3 * multiply_adds(root, cost["network"]) * cost["images"] * epochs
    rate = work / hours
    total = 3 * multiply_adds(root, training.network) * source["data"][training.data]["images"]
    total *= epochs_of(root, source, training) * cost["methods"].get(training.method, 1)
    return total, total / rate


def detection_hours(root: Path, source: Mapping[str, Any], table: Table) -> float:
    """Return the hours of one V100 for fine-tuning one row, as ALS reports; 0 for a table without detection."""
    cost = source["cost"]
    return _reported(root, cost["csv"], cost["detection"])[0] if "detection" in table.spec else 0.0


def _reported(root: Path, name: str, job: Mapping[str, Any]) -> tuple[float, float]:
    """Return (hours of one GPU, epochs) of a job that the paper reports."""
    known = next(line for line in read_numbers(root, name) if line["Job"] == job["job"])
    return float(known["Approx. hours"]) * job["gpus"], float(known["Epochs"])
