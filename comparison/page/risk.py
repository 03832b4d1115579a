"""The page's section on the confidence of the classifiers: risk-coverage and reliability, per set of images."""

from collections.abc import Mapping, Sequence
from typing import Any

from comparison.page.curves import UNIT, Axes, Curve, NumberTable, axes_of, curve_panel
from comparison.page.figures import Figure
from comparison.tables.formats import format_number

COVERAGES = (10, 30, 50, 70, 90, 100)  # of the table, in percent
LEAST_IMAGES = 10  # of a bin that is drawn


def risk_section(entries: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return figures and tables of "classifiers" of comparison.json; colours: by label."""
    found = []
    for number, entry in enumerate(entries):
        methods = entry["methods"]
        risks = [
            Curve(m["label"], colours[m["label"]], [((n + 1) / 100, risk) for n, risk in enumerate(m["risk"])])
            for m in methods
        ]
        reliable = [Curve(m["label"], colours[m["label"]], _reliability(m)) for m in methods]
        reliable = [curve for curve in reliable if curve.points]
        suffix = f"-{number + 1}" if len(entries) > 1 else ""
        limits = Axes(UNIT.x, axes_of(risks, from_zero=True).y)
        title, parts = "Risk of the most confident images", ("coverage", "share of errors")
        figures = [Figure(f"classifiers-risk{suffix}", curve_panel(title, *parts, risks, axes=limits))]
        if reliable:
            panel = curve_panel("Reliability of the classifiers", "confidence", "accuracy", reliable, diagonal=True)
            figures.append(Figure(f"classifiers-reliability{suffix}", panel))
        found.append({**entry, "figures": figures, "tables": [_risks(methods, colours), _bins(methods, colours)]})
    return found


def _reliability(method: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [(one["confidence"], one["accuracy"]) for one in method["bins"] if one["count"] >= LEAST_IMAGES]


def _risks(methods: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> NumberTable:
    columns = [f"coverage {share} %" for share in COVERAGES] + ["AURC ↓"]
    lines = [
        (
            m["label"],
            colours[m["label"]],
            [format_number(v) for v in (*(m["risk"][s - 1] for s in COVERAGES), m["aurc"])],
        )
        for m in methods
    ]
    return NumberTable("Share of errors among the most confident images", columns, lines)


def _bins(methods: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> NumberTable:
    """Return a column per method; a line per bin is too long for a phone, so the bins are the columns."""
    most = max(len(m["bins"]) for m in methods)
    lines = []
    for m in methods:
        texts = [f"{one['confidence']:.2f}: {one['accuracy']:.2f} ({one['count']:,})" for one in m["bins"]]
        lines.append((m["label"], colours[m["label"]], texts + [""] * (most - len(texts))))
    return NumberTable("Confidence: accuracy (images), bin by bin", [f"bin {n + 1}" for n in range(most)], lines)
