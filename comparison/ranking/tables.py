"""Tables of data sets x methods, from csv files or run folders, and their rank statistics.

ranks.json = {"metric", "better": "higher" or "lower", "datasets": [N names], "methods": [k names],
 "values": (N, k), "ranks": (N, k), "mean_ranks": (k,), "friedman": {"chi2", "chi2_p", "f" (null: infinite), "f_p"},
 "nemenyi": {"level", "critical_difference", "groups": [[names without a significant difference]]},
 "wilcoxon_holm": [{"first", "second", "p"}], "missing": [seeds that the means are without]}
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from backbones.core.errors import InputError, suggestion
from comparison.families import difference_of, find_families
from comparison.metrics import BY_NAME
from comparison.protocols import protocol_name
from comparison.ranking.ranks import (
    average_ranks,
    check_table,
    critical_difference,
    friedman,
    indistinct_groups,
    wilcoxon_holm,
)
from comparison.ranking.runs import SCALED_LABEL, Planned, Run, collect_runs, read_plans
from comparison.row import STAGE_ORDER, Row

BETTER = {"higher": 1, "lower": -1}
TRAINED = "pretraining"
# Metric -> the same after temperature scaling, and metrics that scaling does not change.
SCALED = {name: f"{name}_scaled" for name in ("nll", "ece15", "cwece15", "cwece15_trueclass")}
UNSCALED = ("top1", "top5", "top1_shifted", "context_top1")


@dataclass(frozen=True)
class Table:
    """values: (N, k) float64, nan if missing; missing: names of the seeds that the means are without."""

    datasets: list[str]
    methods: list[str]
    values: np.ndarray
    missing: tuple[str, ...] = ()


def load_csv(path: str | Path) -> Table:
    """Load a table with one line per data set.

    A column of numbers is a method; `X rank` beside a column X (a printed rank), `source` and lines that begin with
    "Average" are skipped; the other columns, of text only, together name the data set.

    Raises:
        InputError: not a csv file, a duplicate column, too many cells, a column with numbers and text: skipping a
            method because of one "-" would change the ranks of all others.
    """
    lines = [line for line in _read_csv(path) if not str(next(iter(line.values()))).startswith("Average")]
    names = [name for name in (lines[0] if lines else {}) if name and name != "source"]
    names = [name for name in names if not (name.endswith(" rank") and name.removesuffix(" rank") in names)]
    columns = {name: [_number(line[name]) for line in lines] for name in names}
    for name, cells in columns.items():
        if None in cells and not np.isnan([cell for cell in cells if cell is not None]).all():
            text = lines[cells.index(None)][name]
            raise InputError(f"{path}: column '{name}' has numbers and '{text}'; write numbers only, or text only")
    methods = [n for n, cells in columns.items() if None not in cells and not np.isnan(np.array(cells, float)).all()]
    labels = [" ".join(line[n] or "" for n in names if n not in methods).strip() for line in lines]
    if not methods:
        raise InputError(f"{path} has no column of numbers; a table of ranks needs one per method")
    return Table(
        [label or f"line {i + 2}" for i, label in enumerate(labels)],
        methods,
        np.array([columns[name] for name in methods], dtype=np.float64).T,
    )


def _read_csv(path: str | Path) -> list[dict[str, str]]:
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            lines, names = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"cannot read {path}: {why}; give a csv file with one line per data set") from None
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: column '{name}' is duplicated; give every method its own name")
    for number, line in enumerate(lines, 2):
        if None in line:
            raise InputError(f"{path}: line {number} has more cells than the header; quote text that holds a comma")
    return lines


def _number(cell: str | None) -> float | None:
    """Parse a cell: nan if empty, None for text."""
    try:
        return float(cell) if cell and cell.strip() else np.nan
    except ValueError:
        return None


def collect_table(
    roots: Iterable[str | Path], metric: str, chosen: Sequence[str] = (), scaled: Sequence[str] = ()
) -> Table:
    """Average one metric over seeds, from the results at or below `roots`.

    A line is one protocol (which includes the data) and one network; a column is a label.  A run that a tool measured
    counts with these numbers; if there are such runs, those that were only trained do not count.  Rows "+TempS" have
    their numbers after temperature scaling.

    Args:
        chosen: config keys whose value was chosen separately for each seed, so that seeds can differ in them; those
            that a suite chose are added.
        scaled: labels to add once more as LABEL+TempS.

    Raises:
        InputError: no result has the metric; two backbones have the same label and seed; rows of one label and line
            have different settings; a number after temperature scaling that does not exist.
    """
    roots = list(roots)
    plans = read_plans(roots)
    teachers = frozenset().union(*(plan.teachers for plan in plans))
    runs = [run for run in collect_runs(roots, scaled) if run.row.label not in teachers]
    measured = [(run, stage) for run in runs if (stage := _stage_of(run, metric))]
    if not measured:
        known = {name for run in runs for results in run.row.results.values() for name in results["metrics"]}
        raise InputError(f"no result has a metric '{metric}'{suggestion(metric, known)}")
    if any(stage != TRAINED for _, stage in measured):
        measured = [(run, stage) for run, stage in measured if stage != TRAINED]
    cells: dict[str, dict[str, list[tuple[Row, float]]]] = {}  # line, label: rows and their numbers
    for run, stage in measured:
        line = cells.setdefault(_line_name(run.row, stage, run.row.results[stage]), {})
        line.setdefault(run.row.label, []).append((run.row, _number_of(run, stage, metric)))
    cells = dict(sorted(cells.items()))
    methods = list(dict.fromkeys(method for line in cells.values() for method in line))
    free = [*chosen, *{key for plan in plans for key in plan.chosen}]
    values = [[_mean_over_seeds(line.get(method, []), free) for method in methods] for line in cells.values()]
    missing = find_missing(cells, [run.row for run, _ in measured], plans, scaled)
    return Table(list(cells), methods, np.array(values, dtype=np.float64), tuple(missing))


def _stage_of(run: Run, metric: str) -> str:
    """Return the last stage that measured the metric, "" if none did."""
    stages = [s for s in STAGE_ORDER if run.row.results.get(s, {}).get("metrics", {}).get(metric) is not None]
    return stages[-1] if stages else ""


def _number_of(run: Run, stage: str, metric: str) -> float:
    metrics = run.row.results[stage]["metrics"]
    if not run.scaled or stage != "backbone" or metric in UNSCALED:
        return metrics[metric]
    name = SCALED.get(metric, "")
    if metrics.get(name) is None:
        again = "measure it again" if name else f"rank one of {', '.join(SCALED)}"
        where = run.row.folders[stage]
        raise InputError(f"{where}: '{run.row.label}' has no {metric} after temperature scaling; {again}")
    return metrics[name]


def find_missing(
    cells: Mapping[str, Mapping[str, Sequence[tuple[Row, float]]]],
    rows: Sequence[Row],
    plans: Sequence[Planned],
    scaled: Sequence[str] = (),
) -> list[str]:
    """Name the seeds of methods without a number: those that a suite planned, or that others have on the same line."""
    found = []
    for line, methods in cells.items():
        every = {row.seed for own in methods.values() for row, _ in own}
        for method, own in methods.items():
            lacking = sorted(every - {row.seed for row, _ in own})
            found += [f"{method} seed {seed} on {line}" for seed in lacking]
    for plan in plans:
        folders = [(row, folder.resolve()) for row in rows for folder in row.folders.values()]
        there = {(row.label, row.seed) for row, folder in folders if folder.is_relative_to(plan.folder)}
        named = {**plan.seeds, **{label + SCALED_LABEL: plan.seeds[label] for label in scaled if label in plan.seeds}}
        for label, seeds in named.items():
            lacking = [seed for seed in sorted(seeds) if (label, seed) not in there]
            found += [f"{label} seed {seed} of {plan.folder.name}" for seed in lacking]
    return found


def _mean_over_seeds(found: Sequence[tuple[Row, float]], chosen: Sequence[str]) -> float:
    """Return the mean, nan without rows.  Rows of one backbone (fine-tunings, protocols) are averaged first."""
    by_seed: dict[int, Row] = {}
    for row, _ in found:
        if by_seed.setdefault(row.seed, row).weights != row.weights:
            where = list(row.folders.values())[-1]
            raise InputError(
                f"two backbones are called {row.label} with seed {row.seed}, one in {where}; "
                "give them different labels, or name only one of them"
            )
    families = find_families([replace(row, protocol=None) for row, _ in found], chosen)
    if len(families) > 1:
        raise InputError(f"rows labelled {families[0].label} {difference_of(families)}; give them different labels")
    own = [[value for row, value in found if row.weights == seed.weights] for seed in by_seed.values()]
    return float(np.mean([np.mean(values) for values in own])) if own else np.nan


def _line_name(row: Row, stage: str, results: Mapping[str, Any]) -> str:
    data = [str(split["name"]) for split in results["data"].values() if isinstance(split, Mapping) and "name" in split]
    # Pretraining differs between the methods by design; every other protocol must be the same within a line.
    protocol = "" if stage == "pretraining" else f" ({protocol_name(results)})"
    return f"{data[0] if data else stage} {_network(row)}".strip() + protocol


def _network(row: Row) -> str:
    """Return MODEL.ARCH of the config beside the results, if stated."""
    for folder in row.folders.values():
        path = folder / "config.yaml"
        config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if "ARCH" in (config or {}).get("MODEL", {}):
            return str(config["MODEL"]["ARCH"])
    return ""


def direction(metric: str, wanted: str | None) -> int:
    """Return +1 or -1 from `wanted` ("higher" or "lower"), else the known direction of the metric."""
    known = BY_NAME[metric].better if metric in BY_NAME else 0
    if wanted is None and known == 0:
        raise InputError(f"is a higher or a lower '{metric}' better?  Set --better higher or --better lower")
    return BETTER[wanted] if wanted else known


def rank_table(table: Table, metric: str, better: int, level: float = 0.95) -> dict[str, Any]:
    """Compute the content of ranks.json."""
    check_table(table.values, table.datasets, table.methods)
    ranks = average_ranks(table.values, better=better)
    distance = critical_difference(len(table.methods), len(table.datasets), level)
    groups = indistinct_groups(ranks.mean(axis=0), distance)
    return {
        "metric": metric,
        "better": "higher" if better > 0 else "lower",
        "datasets": table.datasets,
        "methods": table.methods,
        "values": table.values.tolist(),
        "ranks": ranks.tolist(),
        "mean_ranks": ranks.mean(axis=0).tolist(),
        "friedman": {key: value if np.isfinite(value) else None for key, value in friedman(ranks)._asdict().items()},
        "nemenyi": {
            "level": level,
            "critical_difference": distance,
            "groups": [[table.methods[i] for i in group] for group in groups],
        },
        "wilcoxon_holm": [pair._asdict() for pair in wilcoxon_holm(table.values, table.methods)],
        "missing": list(table.missing),
    }


def ranks_text(found: Mapping[str, Any]) -> str:
    """Format for the terminal: methods by mean rank, the tests, and the pairs that differ by Wilcoxon-Holm."""
    order = np.argsort(found["mean_ranks"], kind="stable")
    width = max(map(len, found["methods"]))
    n, test, nemenyi = len(found["datasets"]), found["friedman"], found["nemenyi"]
    f = np.inf if test["f"] is None else test["f"]  # all data sets agree
    lines = [
        f"mean ranks of {found['metric']} ({found['better']} is better) on {n} data sets, ties share their mean rank"
    ]
    lines += [f"  {found['methods'][i]:<{width}}  {found['mean_ranks'][i]:6.2f}" for i in order]
    lines += [
        f"Friedman chi2 {test['chi2']:.2f} (p {test['chi2_p']:.2g}), Iman-Davenport F {f:.2f} (p {test['f_p']:.2g})",
        f"Nemenyi's critical difference at {nemenyi['level']:.0%}: {nemenyi['critical_difference']:.3f}; "
        "no significant difference within:",
        *(f"  {', '.join(group)}" for group in nemenyi["groups"] or [["none"]]),
    ]
    told = [pair for pair in found["wilcoxon_holm"] if pair["p"] < 1 - nemenyi["level"]]
    lines.append(f"Wilcoxon-Holm: {len(told)} of {len(found['wilcoxon_holm'])} pairs differ")
    lines += [f"  {pair['first']} / {pair['second']}: p {pair['p']:.2g}" for pair in told]
    return "\n".join(lines + [f"missing: {name}" for name in found["missing"]])
