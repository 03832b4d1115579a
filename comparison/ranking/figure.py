"""The critical-difference diagram (Demsar 2006): methods by mean rank, bars over indistinct groups."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from comparison.page.figures import BASELINE_COLOUR, COLOURS

STEP = 0.34  # inches from line to line
FAINT = "#6a737d"


def draw_ranks(found: Mapping[str, Any]) -> Figure:
    """found: the content of ranks.json (`comparison.ranking.tables`)."""
    methods, ranks = found["methods"], np.array(found["mean_ranks"])
    order, k, groups = np.argsort(ranks, kind="stable"), len(methods), found["nemenyi"]["groups"]
    half = (k + 1) // 2
    down = 0.55 + 0.2 * len(groups)  # of the first label below the axis, in lines
    height = STEP * (half + down + 3.2)
    figure = Figure(figsize=(8.4, height), dpi=120, facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(1 - 0.36 * (k - 1), k + 0.36 * (k - 1)), ylim=(down + half - 0.3, -2.6))
    axes.axis("off")
    axes.plot([1, k], [0, 0], color=BASELINE_COLOUR, linewidth=1.2)
    for tick in range(1, k + 1):
        axes.plot([tick, tick], [0, -0.18], color=BASELINE_COLOUR, linewidth=1)
        axes.text(tick, -0.28, str(tick), ha="center", va="bottom", fontsize=9, color=FAINT)
    for place, i in enumerate(order):
        left = place < half
        y = down + (place if left else k - 1 - place)
        _draw_method(axes, f"{methods[i]}  {ranks[i]:.2f}", float(ranks[i]), y, 1 if left else k, left)
    for line, group in enumerate(groups):
        x = [ranks[methods.index(name)] for name in group]
        axes.plot([min(x) - 0.05, max(x) + 0.05], [0.3 + 0.2 * line] * 2, color=COLOURS[0], linewidth=3.5)
    distance = found["nemenyi"]["critical_difference"]
    axes.errorbar(1 + distance / 2, -1.5, xerr=distance / 2, color=COLOURS[4], capsize=4)
    axes.text(1 + distance / 2, -1.62, f"CD {distance:.2f}", ha="center", va="bottom", fontsize=9, color=COLOURS[4])
    title = (
        f"Mean ranks of {found['metric']} on {len(found['datasets'])} data sets; bars join methods that do not differ"
    )
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_method(axes, text: str, rank: float, y: float, end: int, left: bool) -> None:
    axes.plot([rank, rank, end], [0, y, y], color=FAINT, linewidth=0.9)
    offset = (-4, 0) if left else (4, 0)
    axes.annotate(
        text, (end, y), offset, textcoords="offset points", ha="right" if left else "left", va="center", fontsize=9.5
    )
