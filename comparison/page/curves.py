"""Curves as inline SVG, in the style of `comparison.page.figures`: over the unit square, or other limits."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from comparison.page.figures import Scale

MOST_BANDS = 2  # curves whose bands are all visible; of more, those of the curves that are `strong`, or pointed at
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 286, 40, 330, 40, 246
LEGEND_LINE = 15


class Curve(NamedTuple):
    """A line: points (x, y).

    band: (x, low, high), the region around the line; strong: its band is visible among those of many curves.
    """

    label: str
    colour: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    strong: bool = False


class NumberTable(NamedTuple):
    """The numbers of a figure: lines are (method, colour, texts), one text per column."""

    title: str
    columns: list[str]
    lines: list[tuple[str, str, list[str]]]


class Axes(NamedTuple):
    """Limits (low, high) of both axes."""

    x: tuple[float, float] = (0.0, 1.0)
    y: tuple[float, float] = (0.0, 1.0)

    def place(self, x: float, y: float) -> str:
        """Return the position of a point in pixels, "x y"."""
        return f"{self.column(x)} {self.line(y)}"

    def column(self, x: float) -> float:
        """Return the horizontal position in pixels."""
        return round(LEFT + (RIGHT - LEFT) * (x - self.x[0]) / (self.x[1] - self.x[0]), 1)

    def line(self, y: float) -> float:
        """Return the vertical position in pixels."""
        return round(BOTTOM - (BOTTOM - TOP) * (y - self.y[0]) / (self.y[1] - self.y[0]), 1)


UNIT = Axes()


def axes_of(curves: Sequence[Curve], *, from_zero: bool = False) -> Axes:
    """Return limits that hold all curves and bands; the first x is 0.

    from_zero: also the lowest y.
    """
    values = [y for curve in curves for _, y in curve.points]
    values += [y for curve in curves for _, *limits in curve.band for y in limits]
    low, high = 0.0 if from_zero else min(values), max(values)
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 0.05
    right = max(x for curve in curves for x, _ in curve.points)
    return Axes((0.0, right or 1.0), (low if from_zero else low - margin, high + margin))


def curve_panel(
    title: str, x_title: str, y_title: str, curves: Sequence[Curve], *, diagonal: bool = False, axes: Axes = UNIT
) -> str:
    """Draw curves with a legend.

    Args:
        diagonal: draw the line x = y.
    """
    lines = (len(curves) + 1) // 2
    height = HEIGHT + LEGEND_LINE * lines
    said = "; ".join(f"{curve.label}: {_summary(curve, axes)}" for curve in curves)
    name, meaning = escape(f"{title}: {said}", quote=True), escape(f"{title}: {y_title} over {x_title}")
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg" '
        f'aria-label="{name}"><title>{meaning}</title>'
        f'<text x="0" y="15" class="t">{escape(title)}</text>',
        *_grid(axes),
        f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 28}" class="k" text-anchor="middle">{escape(x_title)}</text>'
        f'<text x="{LEFT}" y="{TOP - 5}" class="k" text-anchor="start">{escape(y_title)}</text>',
    ]
    if diagonal:
        parts.append(f'<path d="M{axes.place(0, 0)}L{axes.place(1, 1)}" class="zero" stroke-dasharray="4 3"/>')
    few = sum(bool(curve.band) for curve in curves) <= MOST_BANDS
    parts += [_draw(curve, axes, number, visible=few or curve.strong) for number, curve in enumerate(curves)]
    return "".join(parts) + "</svg>"


def _draw(curve: Curve, axes: Axes, number: int, *, visible: bool) -> str:
    """Draw a curve, its band and its line of the legend, as a group; a band that is not visible has no opacity."""
    path = "L".join(axes.place(x, y) for x, y in curve.points)
    x, y = LEFT + 150 * (number % 2), HEIGHT + LEGEND_LINE * (number // 2)
    band = ""
    if curve.band:
        edge = [(x, high) for x, _, high in curve.band] + [(x, low) for x, low, _ in reversed(curve.band)]
        outline = "L".join(axes.place(x, min(max(y, axes.y[0]), axes.y[1])) for x, y in edge)
        band = f'<path d="M{outline}Z" fill="{curve.colour}" fill-opacity="{0.18 if visible else 0}" class="band"/>'
    return (
        f'<g class="curve">{band}<path d="M{path}" fill="none" stroke="{curve.colour}" stroke-width="1.8">'
        f"<title>{escape(curve.label)}</title></path>"
        f'<rect x="{x}" y="{y - 8}" width="148" height="{LEGEND_LINE}" fill-opacity="0"/>'
        f'<path d="M{x} {y}h16" stroke="{curve.colour}" stroke-width="3"/>'
        f'<text x="{x + 22}" y="{y + 4}" class="k">{escape(curve.label[:22])}</text></g>'
    )


def _grid(axes: Axes) -> list[str]:
    parts = []
    for tick in _ticks(axes.x):
        x = axes.column(tick)
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}" class="grid"/>'
            f'<text x="{x}" y="{BOTTOM + 13}" class="k" text-anchor="middle">{_tick_text(tick)}</text>'
        )
    for tick in _ticks(axes.y):
        y = axes.line(tick)
        parts.append(
            f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}" class="grid"/>'
            f'<text x="{LEFT - 5}" y="{y + 4}" class="k" text-anchor="end">{_tick_text(tick)}</text>'
        )
    return parts


def _ticks(limits: tuple[float, float]) -> list[float]:
    return [0.0, 0.25, 0.5, 0.75, 1.0] if limits == (0.0, 1.0) else Scale(*limits).ticks().tolist()


def _tick_text(tick: float) -> str:
    text = f"{tick / 1000:g}k" if abs(tick) >= 10_000 else f"{tick:g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _summary(curve: Curve, axes: Axes) -> str:
    """Return the points nearest to a quarter, half and three quarters of the x axis."""
    wanted = [axes.x[0] + share * (axes.x[1] - axes.x[0]) for share in (0.25, 0.5, 0.75)]
    found = [min(curve.points, key=lambda point: abs(point[0] - x)) for x in wanted]
    if axes == UNIT:
        return ", ".join(f"{y:.2f} at {x:.2f}" for x, y in found)
    return ", ".join(f"{y:.3g} at {x:.4g}" for x, y in found)
