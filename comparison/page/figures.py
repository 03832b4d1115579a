"""Small figures for the report, as inline SVG without a library: self-contained and accessible to screen readers.

Every figure is a panel 340 units wide, so that the page can place panels side by side on a screen and below each
other on a phone without scaling the text.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from comparison.metrics import ARROW, BY_NAME
from comparison.tables.formats import excludes_zero, format_difference, format_metric, format_number, short_name

WIDTH, LINE, TOP, BOTTOM = 340, 24, 30, 22
PLOT_LEFT, PLOT_RIGHT = 118, 286
LETTERS, MOST_LETTERS = 15, 60  # of one line of a label, of all its lines
LABEL_LINE = 13  # height of one line of a label
# Okabe and Ito's palette, safe for colour-blind readers; black is the baseline, grey random initialisation.
BASELINE_COLOUR, RANDOM_COLOUR = "#222222", "#9a9a9a"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A900")


class Figure(NamedTuple):
    """A drawing and the name of its file; `comparison.page.export` writes it as SVG and PDF."""

    name: str
    svg: str


class Bar(NamedTuple):
    """One line of a panel; short: the drawn label, which is wrapped; low, high: interval, or None."""

    label: str
    short: str
    value: float | None
    low: float | None
    high: float | None
    colour: str
    strong: bool = True


def colour_of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return display name -> colour; one colour per label, for all seeds; the baseline has that of the text."""
    baselines = {row["label"] for row in rows if row["is_baseline"]}
    coloured = [row for row in rows if row["method"] != "random" and not row["is_baseline"]]
    labels = [row["label"] for row in coloured if row["stages"]]
    labels += [row["label"] for row in coloured if row["label"] not in baselines]  # without results: the last colours
    palette = {label: COLOURS[n % len(COLOURS)] for n, label in enumerate(dict.fromkeys(labels))}
    return {
        row["name"]: RANDOM_COLOUR if row["method"] == "random" else palette.get(row["label"], "currentColor")
        for row in rows
    }


class Scale(NamedTuple):
    """Linear scale that maps [low, high] to the plotting area of a panel."""

    low: float
    high: float

    def x(self, value: float) -> float:
        """Return the position in pixels of a value, clipped to the plotting area."""
        share = (value - self.low) / (self.high - self.low)
        return round(PLOT_LEFT + (PLOT_RIGHT - PLOT_LEFT) * min(max(share, 0.0), 1.0), 1)

    def ticks(self) -> np.ndarray:
        """Return 3 to 6 round numbers within the scale."""
        fifth = (self.high - self.low) / 5
        power = 10.0 ** np.floor(np.log10(fifth))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= fifth * 0.999)
        first, last = np.ceil(self.low / step - 1e-9), np.floor(self.high / step + 1e-9)
        return np.round(np.arange(first, last + 1) * step, 10) + 0.0  # no -0


def bar_panel(rows: Sequence[Mapping[str, Any]], name: str, colours: Mapping[str, str]) -> str:
    """Draw bars of one metric, with intervals if known."""
    bars = []
    for row in rows:
        interval = row["intervals"].get(name, {})
        low, high = interval.get("low"), interval.get("high")
        called = row["name"], short_name(row, MOST_LETTERS)
        bars.append(Bar(*called, row["metrics"][name], low, high, colours[row["name"]]))
    metric, largest = BY_NAME[name], max([x for bar in bars for x in (bar.value, bar.high) if x], default=1.0)
    texts = [format_metric(row, name) for row in rows]
    title = f"{metric.title} {ARROW[metric.better]}".strip()
    return _panel(title, metric.meaning, bars, texts, Scale(0.0, 1.04 * largest), _draw_bar)


def forest_panel(rows: Sequence[Mapping[str, Any]], name: str, colours: Mapping[str, str]) -> str:
    """Draw differences to the baseline with intervals, on a scale of their own.

    Filled if the interval excludes 0, else hollow.
    """
    scale = forest_scale(rows, [name])
    bars, said = [], []
    for row in rows:
        difference = row["difference_to_baseline"][name]
        value, low, high = (difference[key] for key in ("value", "low", "high"))
        called = row["name"], short_name(row, MOST_LETTERS)
        bars.append(Bar(*called, value, low, high, colours[row["name"]], excludes_zero(difference)))
        said.append(f"{row['name']} {format_difference(difference)}")
    texts = [format_number(bar.value, signed=True) for bar in bars]
    return _panel(f"{BY_NAME[name].title}, row minus baseline", "; ".join(said), bars, texts, scale, _draw_point)


def forest_scale(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Scale:
    """Return a scale for the differences in some numbers, including 0.

    Random initialisation is ignored unless it is alone, as its large difference would compress the other rows.
    """
    pretrained = [row for row in rows if row["method"] != "random"] or rows
    differences = [row["difference_to_baseline"][name] for row in pretrained for name in names]
    known = [d[key] for d in differences for key in ("value", "low", "high") if d[key] is not None]
    low, high = min([*known, 0.0]), max([*known, 0.0])
    margin = max(0.06 * (high - low), 0.002)
    return Scale(low - margin, high + margin)


def dots_panel(lines: Sequence[Mapping[str, Any]], name: str) -> str:
    """Draw the number of every run as a dot behind the mean of its method.

    Args:
        lines: {"label", "colour", "values"} per method, and "tips" per value.
    """
    known = [value for line in lines for value in line["values"]]
    low, high = min(known), max(known)
    margin = max(0.08 * (high - low), 0.002)
    metric = BY_NAME[name]
    means = [float(np.mean(line["values"])) if line["values"] else None for line in lines]
    bars = [
        Bar(line["label"], _cut(line["label"]), mean, None, None, line["colour"])
        for line, mean in zip(lines, means, strict=True)
    ]
    dots = {line["label"]: list(zip(line["values"], line["tips"], strict=True)) for line in lines}

    def draw(bar: Bar, y: float, scale: Scale) -> str:
        parts = [
            f'<circle cx="{scale.x(value)}" cy="{y}" r="4" fill="{bar.colour}" fill-opacity="0.4">'
            f"<title>{escape(tip)}</title></circle>"
            for value, tip in dots[bar.label]
        ]
        x = scale.x(bar.value or 0.0)
        return "".join(parts) + f'<path d="M{x} {y - 8}V{y + 8}" stroke="{bar.colour}" stroke-width="3"/>'

    title = f"{metric.title} {ARROW[metric.better]}".strip()
    texts = list(map(format_number, means))
    return _panel(title, f"{metric.meaning}; dots are runs", bars, texts, Scale(low - margin, high + margin), draw)


def _cut(label: str) -> str:
    return label if len(label) <= MOST_LETTERS else label[: MOST_LETTERS - 1] + "…"


def inline_interval(difference: Mapping[str, float | None], scale: Scale, colour: str) -> str:
    """Draw a difference with its interval and the line of 0, as a small figure within a cell of a table.

    The texts of the cell say the same, so that it is hidden from screen readers.
    """
    width, height = 130, 18

    def x(value: float) -> float:
        share = (value - scale.low) / (scale.high - scale.low)
        return round(4 + (width - 8) * min(max(share, 0.0), 1.0), 1)

    value, low, high = difference["value"], difference["low"], difference["high"]
    assert value is not None
    parts = [f'<path d="M{x(0.0)} 1V{height - 1}" class="zero"/>']
    if low is not None and high is not None:
        parts.append(f'<path d="M{x(low)} 9H{x(high)}" stroke="{colour}" stroke-width="2"/>')
    fill = colour if excludes_zero(difference) else "var(--page)"
    parts.append(f'<circle cx="{x(value)}" cy="9" r="4" fill="{fill}" stroke="{colour}" stroke-width="2"/>')
    return f'<svg class="inline" viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(parts)}</svg>'


def common_scale(differences: Sequence[Mapping[str, float | None]]) -> Scale:
    """Return a scale for inline figures that includes 0 and all intervals."""
    found = [d[key] for d in differences for key in ("value", "low", "high")]
    known = [value for value in found if value is not None]
    low, high = min([*known, 0.0]), max([*known, 0.0])
    margin = max(0.04 * (high - low), 0.002)
    return Scale(low - margin, high + margin)


Draw = Callable[[Bar, float, Scale], str]


def _panel(title: str, meaning: str, bars: Sequence[Bar], texts: Sequence[str], scale: Scale, draw: Draw) -> str:
    """Draw a panel: title, scale, and one line per bar, higher for a label of several lines."""
    wrapped = [textwrap.wrap(bar.short, LETTERS) or [""] for bar in bars]
    heights = [LINE + LABEL_LINE * (len(lines) - 1) for lines in wrapped]
    height = TOP + sum(heights) + BOTTOM
    numbers = "; ".join(f"{bar.label} {text}" for bar, text in zip(bars, texts, strict=True))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg" '
        f'aria-label="{escape(f"{title}: {numbers}", quote=True)}"><title>{escape(f"{title}: {meaning}")}</title>'
        f'<text x="0" y="15" class="t">{escape(title)}</text>'
    ]
    ticks = scale.ticks()
    for tick in ticks:
        x, kind = scale.x(tick), "zero" if tick == 0 else "grid"
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{TOP - 4}" y2="{height - BOTTOM}" class="{kind}"/>'
            f'<text x="{x}" y="{height - 7}" class="k" text-anchor="middle">{_tick_text(tick, ticks)}</text>'
        )
    for n, (bar, text, lines) in enumerate(zip(bars, texts, wrapped, strict=True)):
        y = TOP + sum(heights[:n]) + heights[n] / 2
        first = y + 4 - LABEL_LINE * (len(lines) - 1) / 2
        for number, line in enumerate(lines):
            parts.append(
                f'<text x="{PLOT_LEFT - 6}" y="{first + LABEL_LINE * number}" text-anchor="end">{escape(line)}</text>'
            )
        parts.append(f'<text x="{WIDTH}" y="{y + 4}" class="v" text-anchor="end">{text}</text>')
        if bar.value is not None:
            parts.append(draw(bar, y, scale))
    return "".join(parts) + "</svg>"


def _draw_bar(bar: Bar, y: float, scale: Scale) -> str:
    width = scale.x(bar.value or 0.0) - scale.x(0.0)
    shape = f'<rect x="{scale.x(0.0)}" y="{y - 7}" width="{width:.1f}" height="14" fill="{bar.colour}"/>'
    return shape + _whisker(bar, y, scale, halo=True)


def _draw_point(bar: Bar, y: float, scale: Scale) -> str:
    value = bar.value or 0.0
    if not scale.low <= value <= scale.high:
        tip, length = (PLOT_LEFT, 9) if value < scale.low else (PLOT_RIGHT, -9)
        return f'<path d="M{tip} {y}l{length} -6v12z" fill="{bar.colour}"/>'
    fill = bar.colour if bar.strong else "var(--page)"
    point = f'<circle cx="{scale.x(value)}" cy="{y}" r="5" fill="{fill}" stroke="{bar.colour}" stroke-width="2"/>'
    return _whisker(bar, y, scale, bar.colour) + point


def _whisker(bar: Bar, y: float, scale: Scale, colour: str = "", *, halo: bool = False) -> str:
    """Draw an interval; colour: "" for that of the text."""
    if bar.low is None or bar.high is None:
        return ""
    low, high = scale.x(bar.low), scale.x(bar.high)
    path = f"M{low} {y}H{high}M{low} {y - 4}V{y + 4}M{high} {y - 4}V{y + 4}"
    behind = f'<path d="{path}" class="halo" stroke-width="4"/>' if halo else ""
    stroke = f'stroke="{colour}" fill="none"' if colour else 'class="whisker"'
    return f'{behind}<path d="{path}" {stroke} stroke-width="1.6"/>'


def _tick_text(tick: float, ticks: np.ndarray) -> str:
    step = ticks[1] - ticks[0]
    digits = max(0, int(-np.floor(np.log10(step) + 1e-9)))
    digits += not np.isclose(step * 10**digits, round(step * 10**digits))  # 0.25
    return f"{tick:.{digits}f}".replace("-", "\N{MINUS SIGN}")
