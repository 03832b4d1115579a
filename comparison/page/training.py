"""The page's section on training curves: the mean of a method with its lowest and highest run."""

from collections.abc import Mapping, Sequence
from typing import Any

from comparison.page.curves import Curve, NumberTable, axes_of, curve_panel
from comparison.page.figures import Figure
from comparison.tables.formats import MISSING, format_number

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the iterations, in the table


def training_section(entries: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return figures and tables of "training" of comparison.json; colours: by label."""
    found = []
    for entry in entries:
        stage, name = entry["stage"], entry["name"]
        called = "Detectors" if stage == "detection" else "Backbones"
        drawn = [(curve, _curves(curve["methods"], colours)) for curve in entry["curves"]]
        found.append(
            {
                "title": f"{called}, {'validated on ' * (stage != 'detection')}{name}" if name else called,
                "figures": [_figure(entry, curve, lines) for curve, lines in drawn],
                "tables": [_table(curve, colours) for curve, _ in drawn],
            }
        )
    return found


def _curves(methods: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> list[Curve]:
    return [
        Curve(
            one["label"],
            colours[one["label"]],
            [(x, mean) for x, mean, *_ in one["points"]],
            [(x, low, high) for x, _, low, high in one["points"]] if one["runs"] > 1 else (),
        )
        for one in methods
    ]


def _figure(entry: Mapping[str, Any], curve: Mapping[str, Any], lines: Sequence[Curve]) -> Figure:
    panel = curve_panel(curve["title"], "iteration", "mean and range of the runs", lines, axes=axes_of(lines))
    return Figure(f"training-{entry['stage']}-{entry['name']}-{curve['quantity']}", panel)


def _table(curve: Mapping[str, Any], colours: Mapping[str, str]) -> NumberTable:
    """Return the numbers nearest to some iterations; none where the next one is further away than a tenth."""
    last = max(one["points"][-1][0] for one in curve["methods"])
    wanted = [share * last for share in SHARES]
    lines = []
    for one in curve["methods"]:
        nearest = [min(one["points"], key=lambda point: abs(point[0] - x)) for x in wanted]
        texts = [
            _text(point, one["runs"]) if abs(point[0] - x) <= 0.1 * last else MISSING
            for point, x in zip(nearest, wanted, strict=True)
        ]
        lines.append((f"{one['label']} ({one['runs']})", colours[one["label"]], texts))
    return NumberTable(f"{curve['title']} (runs)", [f"near iteration {x:,.0f}" for x in wanted], lines)


def _text(point: Sequence[float], runs: int) -> str:
    _, mean, low, high = point
    spread = f" [{format_number(low)}, {format_number(high)}]" if runs > 1 else ""
    return f"{format_number(mean)}{spread}"
