"""Write a comparison: comparison.json, .csv, .md, and a self-contained index.html."""

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from backbones.core.files import save_json, save_text
from comparison.bootstrap import AP_NAMES
from comparison.failures import FAILED, backbone_failure, detector_failure
from comparison.metrics import ARROW, BY_NAME, DETECTORS, GROUPS, METRICS
from comparison.page import figures
from comparison.page.gallery import build_gallery
from comparison.row import Row
from comparison.tables.formats import (
    CLAIM,
    best_of,
    display_name,
    excludes_zero,
    format_difference,
    format_metric,
    format_number,
    groups_of,
    measured_names,
    rows_with_difference,
)
from comparison.tables.markdown import markdown, markdown_verdicts
from comparison.tables.spreadsheet import csv_text
from comparison.tables.verdicts import MEANING, describe_variances, interval_of, verdict_of

TEMPLATE = "page.html"
DETECTION_BARS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "ARs", "ARm", "ARl")
BACKBONE_BARS = (
    *("top1", "top1_shifted", "nll", "ece15", "context_average_confidence", "objectness_deviation"),
    *("max_box_acc", "max_box_acc_v2", "pointing", "energy_in_box"),
)
METHOD_NAMES = ("AP", "AP50", "APs", "APm", "APl", "AR100", "VOC_mAP50", "top1", "top1_shifted", "ece15")


def save_comparison(output_dir: str | Path, comparison: Mapping[str, Any], rows: Sequence[Row]) -> Path:
    """Write all four files and return the path of index.html."""
    folder = Path(output_dir)
    save_json(folder / "comparison.json", comparison)
    save_text(folder / "comparison.csv", csv_text(comparison))
    text = [markdown(comparison).rstrip(), *markdown_verdicts(comparison)]
    save_text(folder / "comparison.md", "\n\n".join(text) + "\n")
    save_text(folder / "index.html", render_page(comparison, build_gallery(rows)))
    return folder / "index.html"


def render_page(comparison: Mapping[str, Any], gallery: Mapping[str, Any] | None = None) -> str:
    """Render the page as HTML text; `gallery`: result of `build_gallery`."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = files("comparison.page").joinpath("templates", TEMPLATE).read_text(encoding="utf-8")
    rows = comparison["rows"]
    colours = figures.colour_of_rows(rows)
    colours |= {row["backbone_name"]: colours[row["name"]] for row in rows}
    return environment.from_string(source).render(
        comparison=comparison,
        groups=[
            _detection(protocol, members, colours, comparison["level"]) for protocol, members in groups_of(comparison)
        ],
        backbones=_backbones(rows, colours),
        gallery=gallery,
        legend=[(group, [m for m in METRICS if m.group == group]) for group in GROUPS],
        arrow=ARROW,
        by_name=BY_NAME,
        claim=CLAIM,
        failed=FAILED,
        without=sum(not row["stages"] for row in rows),
        provenance=_provenance(rows),
        method_names=measured_names(rows, METHOD_NAMES),
        methods=[
            _method(method, rows, measured_names(rows, METHOD_NAMES))
            | {"interval": interval_of(method, comparison), "said": verdict_of(method, comparison)}
            for method in comparison["methods"]
        ],
        meaning=" ".join([MEANING.format(primary=comparison["primary"]), *describe_variances(comparison)]),
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
        "bars": [figures.bar_panel(rows, name, colours) for name in measured_names(rows, bars)],
    }


def _backbones(rows: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> dict[str, Any]:
    """Build the page's section on the backbones: the first row of each, named without the detector's seed."""
    firsts: dict[Any, Mapping[str, Any]] = {}
    for row in reversed(rows):
        key = row["hash"] or (row["label"], row["seed"])
        if row["stages"] or key not in firsts:
            firsts[key] = row
    shown = [row for row in reversed(firsts.values()) if row["stages"] or backbone_failure(row)]
    wanted = [m.name for m in METRICS if m.group not in DETECTORS]
    named = [{**row, "name": row["backbone_name"]} for row in shown]
    return _section(named, colours, wanted, BACKBONE_BARS, backbone_failure)


def _by_chance(compared: Sequence[Mapping[str, Any]], names: Sequence[str], level: float) -> str:
    """Say how many intervals exclude 0, and how many would if no row differed; "" for a single one."""
    cells = [row["difference_to_baseline"][name] for row in compared for name in names]
    cells = [cell for cell in cells if cell["low"] is not None]
    excluding, expected = sum(map(excludes_zero, cells)), len(cells) * (1 - level)
    text = f"{excluding} of {len(cells)} intervals exclude 0; about {expected:.1f} would by chance if no row differed."
    return text if len(cells) > 1 else ""


def _detection(
    protocol: str | None, rows: Sequence[Mapping[str, Any]], colours: Mapping[str, str], level: float
) -> dict[str, Any]:
    """Build the page's section on detection under one protocol; level: of the intervals."""
    compared = rows_with_difference(rows)
    forest = [n for n in AP_NAMES if any(row["difference_to_baseline"][n]["value"] is not None for row in compared)]
    scale = figures.forest_scale(compared, forest)
    wanted = [m.name for m in METRICS if m.group in DETECTORS]
    section = _section(rows, colours, wanted, DETECTION_BARS, detector_failure)
    return section | {
        "protocol": protocol,
        "differences": {
            "names": forest,
            "baseline": sorted({row["baseline"] for row in compared}),
            "findings": [_finding(row) for row in compared if row["difference_to_baseline"]["AP"]["low"] is not None],
            "rows": [(display_name(row), [_difference_cell(row, name) for name in forest]) for row in compared],
            "chance": _by_chance(compared, forest, level),
            "figures": [figures.forest_panel(compared, name, colours, scale) for name in forest],
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


def _method(method: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Build the line of a method over seeds, its cells as (text, how many seeds if some failed)."""
    own = [row for row in rows if (row["label"], row["protocol"]) == (method["label"], method["protocol"])]
    failed = any(row["failures"] for row in rows)
    cells = []
    for name in ("", *names):
        value = method["metrics"][name] if name else method["difference_to_baseline"]["AP"]
        text = format_number(value["mean"], signed=not name)
        if value["deviation"] is not None:
            text += f" ± {format_number(value['deviation'])}"
        if value["mean"] is None and FAILED in (format_metric(row, name or "AP") for row in own):
            text = FAILED
        few = failed and 0 < value["count"] < len(method["seeds"])
        cells.append((text, f"{value['count']} of {method['planned']} seeds" if few else ""))
    return {**method, "cells": cells}


def _provenance(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return protocol, data and folder per row and stage."""
    return [
        {"name": row["name"], "hash": row["hash"], "stage": name, **stage, "data": _flat(stage["data"])}
        for row in rows
        for name, stage in row["stages"].items()
    ]


def _flat(data: Any, prefix: str = "") -> str:
    """Format a nested description as one line: "val: name scenes, images 500"."""
    if isinstance(data, bool):
        data = "yes" if data else "no"
    if not isinstance(data, Mapping):
        return f"{prefix} {data}".strip()
    inner = [_flat(value, str(key).replace("_", " ")) for key, value in data.items() if value is not None]
    return f"{prefix}: {', '.join(inner)}" if prefix else "; ".join(inner)
