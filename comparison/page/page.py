"""Write a comparison: tables in four forms, the figures, and a self-contained index.html."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from backbones.core.files import save_json, save_text
from comparison.histories import POINTS
from comparison.method_names import explain_methods
from comparison.metrics import ARROW, BY_NAME, GROUPS, Metric, explain_scores
from comparison.page import figures
from comparison.page.answers import first_screen, test_set
from comparison.page.diagnosis import diagnosis_section
from comparison.page.export import FIGURES, save_figures
from comparison.page.figures import Figure
from comparison.page.gallery import build_gallery
from comparison.page.images import LABELLED, LEAST_SCORE, Reader, influential_images
from comparison.page.provenance import describe_loading, describe_stages, gather_warnings
from comparison.page.published import published_section
from comparison.page.risk import LEAST_IMAGES, risk_section
from comparison.page.runs import DETECTION_BARS, backbones_section, by_chance, detection_section, dots_panels
from comparison.page.training import training_section
from comparison.page.variances import SEEDS, variances_section
from comparison.row import Row
from comparison.tables.formats import CLAIM, describe_cover, format_difference, groups_of, measured_names
from comparison.tables.latex import latex
from comparison.tables.markdown import markdown_text
from comparison.tables.spreadsheet import csv_text
from comparison.tables.verdicts import MEANING

TEMPLATE, PAGE = "page.html", "index.html"
# Sign of a verdict -> class of its colour.
_STATES = {"▲": "better", "▼": "worse", "=": "", "?": ""}


def save_comparison(
    output_dir: str | Path, comparison: Mapping[str, Any], rows: Sequence[Row], read: Reader | None = None
) -> Path:
    """Write comparison.json, .csv, .md, .tex, the figures, and index.html, whose path is returned.

    read: reader of images (`comparison.page.images`); None: none are shown.
    """
    folder = Path(output_dir)
    save_json(folder / "comparison.json", comparison)
    save_text(folder / "comparison.csv", csv_text(comparison))
    save_text(folder / "comparison.md", markdown_text(comparison))
    save_text(folder / "comparison.tex", latex(comparison))
    sections, images = build_sections(comparison), influential_images(comparison, read)
    save_text(folder / PAGE, render_page(comparison, sections, build_gallery(rows), images))
    save_figures(folder / FIGURES, _figures(sections))
    return folder / PAGE


def build_sections(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows, section by section; figures are lists of `Figure`."""
    rows = comparison["rows"]
    colours = figures.colour_of_rows(rows)
    colours |= {row["backbone_name"]: colours[row["name"]] for row in rows}
    labels = {row["label"]: colours[row["name"]] for row in rows}
    first = first_screen(comparison, colours)
    return {
        "first": first,
        "chance": by_chance(_shown_differences(comparison, first["tables"]), comparison["level"]),
        "spreads": _spreads(comparison, colours),
        "forests": _forests(comparison, colours),
        "groups": [
            detection_section(protocol, members, colours, comparison["level"])
            for protocol, members in groups_of(comparison)
        ],
        "diagnosis": [diagnosis_section(entry, labels) for entry in comparison["diagnosis"]],
        "variances": variances_section(comparison),
        "backbones": backbones_section(rows, colours),
        "classifiers": risk_section(comparison["classifiers"], labels),
        "training": training_section(comparison["training"], labels),
        "published": published_section(comparison),
        "provenance": describe_stages(rows),
        "loadings": describe_loading(rows),
        "warnings": gather_warnings(comparison["warnings"]),
    }


def render_page(
    comparison: Mapping[str, Any],
    sections: Mapping[str, Any],
    gallery: Mapping[str, Any] | None = None,
    images: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Render the page as HTML text.

    Args:
        sections: result of `build_sections`; gallery: of `build_gallery`; images: of `influential_images`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("comparison.page"),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        **sections,
        comparison=comparison,
        question=question_of(comparison["rows"], sections["backbones"]["metrics"]),
        over_seeds=bool(comparison["methods"]),
        several_seeds=any(one["over_seeds"]["values"] for part in comparison["diagnosis"] for one in part["methods"]),
        state_of=_STATES,
        inline=figures.inline_interval,
        text_of=format_difference,
        gallery=gallery,
        images=images,
        least_score=LEAST_SCORE,
        labelled=LABELLED,
        least_images=LEAST_IMAGES,
        training_points=POINTS,
        planned_seeds=SEEDS,
        legend=_legend(comparison),
        arrow=ARROW,
        by_name=BY_NAME,
        claim=CLAIM,
        names=explain_methods(comparison["rows"]),
        meaning=MEANING.format(primary=comparison["primary"]),
    )


def question_of(rows: Sequence[Mapping[str, Any]], measured: Sequence[Any]) -> str:
    """Return the title; detectors are compared if they share their backbones, or no classifier is measured."""
    labels = {row["label"] for row in rows}
    if len(labels) == 1:
        return f"How well does {labels.pop()} {'detect' if any(row['protocol'] for row in rows) else 'classify'}?"
    backbones: dict[int | None, set[str | None]] = {}
    for row in rows:
        backbones.setdefault(row["seed"], set()).add(row["hash"])
    several = bool(measured) and any(len(known - {None}) > 1 for known in backbones.values())
    return "Which pretraining gives the better detector?" if several else "Which detector is better?"


def _legend(comparison: Mapping[str, Any]) -> list[tuple[str, list[Metric]]]:
    """Return the numbers that a row has, by group; the meaning of AP says which detections it counts."""
    counted = explain_scores(comparison.get("score_thresholds", ()))
    shown = [BY_NAME[name] for name in measured_names(comparison["rows"])]
    told = [replace(m, meaning=f"{m.meaning}; {counted}") if m.name == "AP" and counted else m for m in shown]
    found = [(group, [metric for metric in told if metric.group == group]) for group in GROUPS]
    return [(group, metrics) for group, metrics in found if metrics]


def _figures(sections: Mapping[str, Any]) -> list[Figure]:
    """Return the figures that the page shows, with the protocol in the names of those that depend on one."""
    found = []
    for part in (*sections["spreads"], *sections["forests"], *sections["diagnosis"]):
        found += [Figure(f"{part['protocol']}-{one.name}", one.svg) for one in part["figures"]]
    if not sections["forests"]:  # single runs
        for group in sections["groups"]:
            drawn = [*group["differences"]["figures"], *group["bars"]]
            found += [Figure(f"{group['protocol'] or ''}-{one.name}", one.svg) for one in drawn]
    for part in (*sections["classifiers"], *sections["training"]):
        found += part["figures"]
    shown = "dots" if sections["spreads"] else "bars"
    return [*found, *(Figure(f"backbone-{one.name}", one.svg) for one in sections["backbones"][shown])]


def _shown_differences(comparison: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the differences of methods in the tables of the first screen."""
    return [
        method["differences"][metric.name]
        for table in tables
        for method in comparison["methods"]
        if method["protocol"] == table["protocol"]
        for metric in table["columns"]
        if metric.name in (method["differences"] or {})
    ]


def _forests(comparison: Mapping[str, Any], colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the panels of the differences of methods to their baseline, per protocol."""
    found = []
    for protocol, rows in groups_of(comparison):
        named = {row["label"]: colours[row["name"]] for row in rows}
        methods = [
            {**method, "name": method["label"], "difference_to_baseline": method["differences"]}
            for method in comparison["methods"]
            if method["protocol"] == protocol and method["differences"]
        ]
        known = {name: [one for one in methods if name in one["differences"]] for name in DETECTION_BARS}
        panels = [
            Figure(f"{name}-differences", figures.forest_panel(own, name, named)) for name, own in known.items() if own
        ]
        if panels:
            baselines = " and ".join(dict.fromkeys(one["baseline"] for one in methods))
            part = {"protocol": protocol or "", "baseline": baselines, "figures": panels}
            found.append(part | {"test": test_set(rows), "cover": _cover(methods)})
    return found


def _cover(methods: Sequence[Mapping[str, Any]]) -> str:
    """Say what the intervals of the panels cover."""
    known = [(method["label"], method["differences"].get(name)) for method in methods for name in DETECTION_BARS]
    return describe_cover({label: (one["over_seeds"], one["over_images"]) for label, one in known if _has_ends(one)})


def _has_ends(difference: Mapping[str, Any] | None) -> bool:
    return difference is not None and difference["low"] is not None


def _spreads(comparison: Mapping[str, Any], colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the panels of all runs as dots, per protocol; none if no method has several runs."""
    groups = groups_of(comparison) if comparison["methods"] else ()
    found = [(protocol or "", dots_panels(rows, DETECTION_BARS, colours)) for protocol, rows in groups]
    return [{"protocol": protocol, "figures": panels} for protocol, panels in found if panels]
