"""The tables and panels of single runs: detection under one protocol, and the backbones alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from comparison.bootstrap import AP_NAMES
from comparison.failures import backbone_failure, detector_failure
from comparison.metrics import BY_NAME, DETECTORS, GROUPS, METRICS
from comparison.page import figures
from comparison.page.figures import Figure
from comparison.tables.formats import (
    best_of,
    display_name,
    excludes_zero,
    format_difference,
    format_number,
    measured_names,
    rows_with_difference,
)

DETECTION_BARS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "ARs", "ARm", "ARl")
BACKBONE_BARS = (
    *("top1", "top1_shifted", "nll", "ece15", "context_average_confidence", "context_average_confidence_scaled"),
    *("context_top1", "objectness_deviation", "max_box_acc", "max_box_acc_v2", "pointing", "energy_in_box"),
)


def _section(
    rows: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str],
    wanted: Sequence[str],
    bars: Sequence[str],
    failure_of: Callable[[Mapping[str, Any]], str],
) -> dict[str, Any]:
    """Build a table of the wanted metrics that at least one row has, and the bar panels.

    Args:
        failure_of: text in place of all numbers of a row; "" for none.
    """
    names = measured_names(rows, wanted)
    best = {name: best_of(rows, name) for name in names}
    spans = [(group, sum(BY_NAME[name].group == group for name in names)) for group in GROUPS]
    failures = list(map(failure_of, rows))
    return {
        "metrics": [BY_NAME[name] for name in names],
        "cautions": [
            (BY_NAME[name].title, BY_NAME[name].by_construction)
            for name in measured_names(rows, bars)
            if BY_NAME[name].by_construction
        ],
        "failed": any(failures),
        "spans": [(group, span) for group, span in spans if span],
        "table": [
            (
                display_name(row),
                row["is_baseline"],
                colours[row["name"]],
                [_cell(row, name, best[name]) for name in names],
                failure.partition(": "),
            )
            for row, failure in zip(rows, failures, strict=True)
        ],
        "bars": [Figure(f"{name}-bars", figures.bar_panel(rows, name, colours)) for name in measured_names(rows, bars)],
    }


def backbones_section(rows: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> dict[str, Any]:
    """Build the page's section on the backbones: the first row of each, named without the detector's seed.

    Backbones without any measure are only named ("unmeasured").
    """
    firsts: dict[Any, Mapping[str, Any]] = {}
    for row in reversed(rows):
        key = row["hash"] or (row["label"], row["seed"])
        if row["stages"] or key not in firsts:
            firsts[key] = row
    shown = [row for row in reversed(firsts.values()) if row["stages"] or backbone_failure(row)]
    wanted = [m.name for m in METRICS if m.group not in DETECTORS]
    named = [{**row, "name": row["backbone_name"]} for row in shown]
    known = [row for row in named if backbone_failure(row) or any(row["metrics"][name] is not None for name in wanted)]
    return _section(known, colours, wanted, BACKBONE_BARS, backbone_failure) | {
        "dots": dots_panels(known, BACKBONE_BARS, colours),
        "unmeasured": [row["name"] for row in named if row not in known],
    }


def dots_panels(rows: Sequence[Mapping[str, Any]], names: Sequence[str], colours: Mapping[str, str]) -> list[Figure]:
    """Draw every row as a dot behind the mean of its label, one panel per number that a row has."""
    panels = []
    for name in names:
        lines: dict[str, dict[str, Any]] = {}
        for row in rows:
            if row["metrics"][name] is not None:
                empty = {"label": row["label"], "colour": colours[row["name"]], "values": [], "tips": []}
                line = lines.setdefault(row["label"], empty)
                line["values"].append(row["metrics"][name])
                line["tips"].append(f"{display_name(row)}: {format_number(row['metrics'][name])}")
        panels += [Figure(f"{name}-runs", figures.dots_panel(list(lines.values()), name))] if lines else []
    return panels


def by_chance(differences: Iterable[Mapping[str, Any]], level: float) -> str:
    """Say how many intervals exclude 0, and how many would if nothing differed; "" for a single interval."""
    known = [difference for difference in differences if difference["low"] is not None]
    excluding, expected = sum(map(excludes_zero, known)), len(known) * (1 - level)
    text = f"{excluding} of {len(known)} intervals exclude 0; by chance alone, about {expected:.1f} would."
    return text if len(known) > 1 else ""


def detection_section(
    protocol: str | None, rows: Sequence[Mapping[str, Any]], colours: Mapping[str, str], level: float
) -> dict[str, Any]:
    """Build the page's section on detection under one protocol; level: of the intervals."""
    compared = rows_with_difference(rows)
    forest = [n for n in AP_NAMES if any(row["difference_to_baseline"][n]["value"] is not None for row in compared)]
    wanted = [m.name for m in METRICS if m.group in DETECTORS]
    section = _section(rows, colours, wanted, DETECTION_BARS, detector_failure)
    return section | {
        "protocol": protocol,
        "differences": {
            "names": forest,
            "baseline": sorted({row["baseline"] for row in compared}),
            "findings": [_finding(row) for row in compared if row["difference_to_baseline"]["AP"]["low"] is not None],
            "rows": [(display_name(row), [_difference_cell(row, name) for name in forest]) for row in compared],
            "chance": by_chance((row["difference_to_baseline"][name] for row in compared for name in forest), level),
            "figures": [
                Figure(f"{name}-differences-of-runs", figures.forest_panel(compared, name, colours)) for name in forest
            ],
        },
    }


def _cell(row: Mapping[str, Any], name: str, best: str | None) -> tuple[str, bool]:
    text = format_number(row["metrics"][name])
    return text, text == best


def _difference_cell(row: Mapping[str, Any], name: str) -> tuple[str, str, bool]:
    difference = row["difference_to_baseline"][name]
    value, _, interval = format_difference(difference).partition(" ")
    return value, interval, excludes_zero(difference)


def _finding(row: Mapping[str, Any]) -> tuple[str, str]:
    """Describe the AP difference of a row in words."""
    difference = row["difference_to_baseline"]["AP"]
    verdict = f"not distinguishable from {row['baseline']}: the interval includes 0"
    if excludes_zero(difference):
        side = "above" if difference["value"] > 0 else "below"
        verdict = f"{side} {row['baseline']} on these images, for these two networks"
    return display_name(row), f"{format_difference(difference)}, {verdict}"
