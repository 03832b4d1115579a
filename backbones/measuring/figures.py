"""Drawing of the papers' classifier figures: every function takes plain numbers and returns a matplotlib figure.

Reliability diagrams (ALS Fig. 2), samples per class (ALS Fig. 5), class activation maps of several backbones (ALS
Figs. 6 to 8), features in the plane (OLS Fig. 3), training curves (OLS Fig. 4), a metric over an option (OLS Fig. 5).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backbones.measuring.gallery import RIGHT, WRONG, Tile

# Okabe and Ito's colours, which colour-blind readers can distinguish, as in the report of a comparison.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A900", "#222222")
FAINT, GRID = "#6a737d", "#dfe3e8"
FEWEST = 10  # smallest number of samples of a bin that is drawn: fewer are not informative
COLUMNS = 4


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=120, facecolor="white", layout="constrained")


def _tidy(axes: Axes, xlabel: str, ylabel: str, title: str = "") -> None:
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    if title:
        axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8, color=FAINT)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_reliability(panels: Sequence[Mapping], variant: str) -> Figure:
    """Draw one diagram per backbone, with the counts of its bins below it; above the diagonal is underconfident.

    panels: {"label", "ece", "low", "count", "accuracy", "confidence"}, the last three with one number per bin, None if
        empty; "low": the left end of the bins, whose right end is 1.
    variant: "standard" (bars of bins with at least `FEWEST` samples, points at their mean confidence) or "pycalib"
        (steps over all bins; an empty bin is on the diagonal).
    """
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(3.1 * columns, 4.1 * rows)
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=(3, 1) * rows, sharex=True)
    for n, panel in enumerate(panels):
        upper, lower = grid[2 * (n // columns), n % columns], grid[2 * (n // columns) + 1, n % columns]
        count = np.array(panel["count"])
        edges = np.linspace(panel["low"], 1, len(count) + 1)
        accuracy, confidence = (np.array(panel[key], dtype=np.float64) for key in ("accuracy", "confidence"))
        if variant == "pycalib":
            upper.stairs(np.where(count > 0, accuracy, confidence), edges, color=COLOURS[0], linewidth=1.3)
        else:
            shown = count >= FEWEST
            left, widths = edges[:-1][shown], np.diff(edges)[shown]
            upper.bar(left, accuracy[shown], widths, align="edge", color="#9cc9e3", edgecolor=COLOURS[0], linewidth=0.8)
            upper.plot(confidence[shown], accuracy[shown], "o", color=COLOURS[4], markersize=3.5)
        upper.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
        upper.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        _tidy(upper, "", "accuracy", f"{panel['label']}   ECE {panel['ece']:.3f}")
        lower.stairs(count, edges, fill=True, color=GRID, edgecolor=FAINT)
        _tidy(lower, "confidence", "images")
    for axes in grid.T.reshape(-1, 2)[[c * rows + r for r in range(rows) for c in range(columns)]][len(panels) :].flat:
        axes.set_visible(False)
    return figure


def draw_histogram(counts: Mapping[str, Sequence[int]]) -> Figure:
    """Draw the samples per class, the most frequent class first, one line per split."""
    figure = _figure(6.4, 3.8)
    axes = figure.subplots()
    for colour, (split, values) in zip(COLOURS, counts.items(), strict=False):
        ordered = np.sort(np.asarray(values))[::-1]
        text = f"{split}: {len(ordered)} classes, {ordered.min()} to {ordered.max()}, {ordered.sum():,} in total"
        axes.stairs(ordered, np.arange(len(ordered) + 1), color=colour, linewidth=1.5, label=text)
    _tidy(axes, "classes, the most frequent first", "samples")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    return figure


def draw_maps(rows: Sequence[Sequence[Tile]], labels: Sequence[str], title: str) -> Figure:
    """Draw one row per image: the image, then its map and three most probable classes for each backbone."""
    columns = 1 + len(labels)
    figure = _figure(1.9 * columns, 2.45 * len(rows) + 0.5)
    figure.suptitle(title, fontsize=10)
    for r, (line, tiles) in enumerate(zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True)):
        for axes, image in zip(line, (tiles[0].image, *(tile.overlay for tile in tiles)), strict=True):
            axes.imshow(image)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_xlabel(f"{tiles[0].label}\n\n", fontsize=9, fontweight="bold")
        for axes, tile, label in zip(line[1:], tiles, labels, strict=True):
            said = "\n".join(f"{name[:16]} {p:.2f}" for name, p in tile.top3)
            axes.set_xlabel(said, fontsize=8, color=RIGHT if tile.top3[0][0] == tile.label else WRONG)
            if r == 0:
                axes.set_title(label, fontsize=10)
    return figure


def draw_embedding(panels: Sequence[Mapping]) -> Figure:
    """Draw points in the plane, coloured by class; panels: {"label", "points" (n, 2), "classes" (n,), "names"}."""
    figure = _figure(3.6 * len(panels), 4.1)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        points, classes = np.array(panel["points"]), np.array(panel["classes"])
        for k, name in enumerate(panel["names"]):
            chosen, marker = classes == k, "ov^sDP"[k // len(COLOURS) % 6]
            colour = COLOURS[k % len(COLOURS)]
            axes.plot(*points[chosen].T, marker, color=colour, markersize=3.4, alpha=0.8, label=name)
        axes.set_title(panel["label"], fontsize=10, loc="left")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(GRID)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8, frameon=False, markerscale=1.6)
    return figure


def draw_soft_labels(panels: Sequence[Mapping]) -> Figure:
    """Draw the soft label of each class: its own share, then those of the classes that it is most confused with.

    panels: of `backbones.measuring.figure_data.soft_label_panels`.
    """
    figure = _figure(6.4, sum(0.3 * len(panel["rows"]) + 1 for panel in panels))
    heights = [len(panel["rows"]) + 2 for panel in panels]
    grid = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        rows = panel["rows"]
        y, left = np.arange(len(rows)), np.array([row["own"] for row in rows])
        axes.barh(y, left, color=COLOURS[0])
        for place in range(len(rows[0]["others"])):
            shares = np.array([row["others"][place][1] for row in rows])
            axes.barh(y, shares, left=left, color=COLOURS[1 + place], edgecolor="white")
            left = left + shares
        for height, row in enumerate(rows):
            said = ", ".join(f"{name[:16]} {share:.3f}" for name, share in row["others"][:2])
            axes.annotate(said, (1.01, height), va="center", fontsize=7, color=FAINT, annotation_clip=False)
        axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
        axes.set_yticks(y, [row["class"][:20] for row in rows])
        _tidy(axes, "share in the soft label: its class, then those most confused with it", "", panel["label"])
    return figure


def draw_curves(runs: Sequence[Mapping], name: str) -> Figure:
    """Draw per run a solid training curve, a dashed one of validation or test, and a dot for its last number.

    runs: {"label", "train" and "val": {"iteration", "value"} or one of them None, "last": number or None}.
    """
    figure = _figure(6.4, 4.0)
    axes = figure.subplots()
    for colour, run in zip(COLOURS * (1 + len(runs) // len(COLOURS)), runs, strict=False):
        drawn = [(run["train"], "-"), (run["val"], "--")]
        drawn = [(curve, style) for curve, style in drawn if curve]
        for n, (curve, style) in enumerate(drawn):
            label = "" if n else run["label"]
            axes.plot(curve["iteration"], curve["value"], color=colour, linewidth=1.4, linestyle=style, label=label)
        if run["last"] is not None:
            axes.plot(drawn[0][0]["iteration"][-1], run["last"], "o", color=colour, markersize=6)
    _tidy(axes, "iteration", name, "lines: training; dots and dashes: validation or test")
    axes.legend(fontsize=8, frameon=False)
    return figure


def draw_ablation(points: Sequence[Mapping], key: str, metric: str) -> Figure:
    """Draw a metric over an option: {"value", "mean", "deviation" or None}, with an error bar for several seeds."""
    figure = _figure(5.4, 3.8)
    axes = figure.subplots()
    x = [point["value"] for point in points]
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in x)
    places = x if numeric else list(range(len(x)))
    deviations = [point["deviation"] or 0 for point in points]
    axes.errorbar(places, [p["mean"] for p in points], deviations, fmt="o-", color=COLOURS[0], capsize=3, linewidth=1.4)
    if not numeric:
        axes.set_xticks(places, [str(value) for value in x])
    elif min(x) > 0 and max(x) / min(x) > 30:
        axes.set_xscale("log", base=2)
    _tidy(axes, key, metric)
    return figure
