"""Curves over the unit square as inline SVG, in the style of `comparison.page.figures`."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

MOST_BANDS = 2  # curves whose bands are all visible; of more, those of the curves that are `strong`, or pointed at
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 286, 34, 330, 40, 246
LEGEND_LINE = 15


class Curve(NamedTuple):
    """A line: points (x, y) in [0, 1].

    band: (x, low, high), the interval around the line; strong: its band is visible among those of many curves.
    """

    label: str
    colour: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    strong: bool = False


def curve_panel(title: str, x_title: str, y_title: str, curves: Sequence[Curve], *, diagonal: bool = False) -> str:
    """Draw curves with a legend.

    Args:
        diagonal: draw the line x = y.
    """
    lines = (len(curves) + 1) // 2
    height = HEIGHT + LEGEND_LINE * lines
    said = "; ".join(f"{curve.label}: {_summary(curve)}" for curve in curves)
    name, meaning = escape(f"{title}: {said}", quote=True), escape(f"{title}: {y_title} over {x_title}")
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg" '
        f'aria-label="{name}"><title>{meaning}</title>'
        f'<text x="0" y="15" class="t">{escape(title)}</text>'
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _x(tick), _y(tick)
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}" class="grid"/>'
            f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}" class="grid"/>'
            f'<text x="{x}" y="{BOTTOM + 13}" class="k" text-anchor="middle">{tick:g}</text>'
            f'<text x="{LEFT - 5}" y="{y + 4}" class="k" text-anchor="end">{tick:g}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 28}" class="k" text-anchor="middle">{escape(x_title)}</text>'
        f'<text x="{LEFT}" y="{TOP - 5}" class="k" text-anchor="start">{escape(y_title)}</text>'
    )
    if diagonal:
        parts.append(f'<path d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}" class="zero" stroke-dasharray="4 3"/>')
    few = sum(bool(curve.band) for curve in curves) <= MOST_BANDS
    parts += [_draw(curve, number, visible=few or curve.strong) for number, curve in enumerate(curves)]
    return "".join(parts) + "</svg>"


def _draw(curve: Curve, number: int, *, visible: bool) -> str:
    """Draw a curve, its band and its line of the legend, as a group; a band that is not visible has no opacity."""
    path = "L".join(f"{_x(x)} {_y(y)}" for x, y in curve.points)
    x, y = LEFT + 150 * (number % 2), HEIGHT + LEGEND_LINE * (number // 2)
    band = ""
    if curve.band:
        edge = [(x, high) for x, _, high in curve.band] + [(x, low) for x, low, _ in reversed(curve.band)]
        outline = "L".join(f"{_x(x)} {_y(min(max(y, 0.0), 1.0))}" for x, y in edge)
        band = f'<path d="M{outline}Z" fill="{curve.colour}" fill-opacity="{0.18 if visible else 0}" class="band"/>'
    return (
        f'<g class="curve">{band}<path d="M{path}" fill="none" stroke="{curve.colour}" stroke-width="1.8">'
        f"<title>{escape(curve.label)}</title></path>"
        f'<rect x="{x}" y="{y - 8}" width="148" height="{LEGEND_LINE}" fill-opacity="0"/>'
        f'<path d="M{x} {y}h16" stroke="{curve.colour}" stroke-width="3"/>'
        f'<text x="{x + 22}" y="{y + 4}" class="k">{escape(curve.label[:22])}</text></g>'
    )


def _x(value: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * value, 1)


def _y(value: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * value, 1)


def _summary(curve: Curve) -> str:
    """Return the points nearest to x = 0.25, 0.5 and 0.75."""
    found = [min(curve.points, key=lambda point: abs(point[0] - x)) for x in (0.25, 0.5, 0.75)]
    return ", ".join(f"{y:.2f} at {x:.2f}" for x, y in found)
