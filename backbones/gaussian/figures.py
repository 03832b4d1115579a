"""Figures of the study, drawn from the stacked replicates, each with a caption beside the paper's.

Figs. 1, 5 to 8 and 11 follow the captions and the text of the paper; captions here state where it is not clear.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backbones.gaussian.candidates import LARGEST_AMOUNT, Candidate
from backbones.gaussian.curve import KINDS, TEACHERS, Curve, build_curve, curve_amount, fit_curves, sine_amount
from backbones.gaussian.published import Histogram, PublishedCurve
from backbones.gaussian.task import DIFFERENT, NORMAL, SETUPS, Task

# Okabe and Ito's colours, which colour-blind readers can distinguish.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
PAPER = "#222222"  # colour of published lines
COLOUR = dict(zip(KINDS, COLOURS[:2], strict=True))
FITTED = "largest"  # kind of the bins that the curves are fitted to, as those are close to the published line
KIND = {"true": "true class", "largest": "largest probability"}
TITLES = {"bayes": "Bayes-Optimal", "hard": "No LS", "hard_scaled": "No LS + TempS", "ls": "Standard LS"}
Curves = Mapping[tuple[str, str, str], Curve]  # by set-up, teacher and kind
Grid = Mapping[tuple[float, float], float]
LARGEST = (
    "The paper speaks of the true class, but no value of its Fig. 8 is below 1/3, the least that the largest of three "
    "probabilities can be, and its shares are those of the largest one; so both are shown."
)


class StudyFigure(NamedTuple):
    """A figure; name: that of its file; title and caption: its text on the page."""

    name: str
    title: str
    caption: str
    figure: Figure


class Published(NamedTuple):
    """Published values; tuned: P1 and P2 of the text's curve."""

    grid: Grid
    curves: Mapping[tuple[str, str], PublishedCurve]
    histograms: Mapping[str, Histogram]
    tuned: tuple[float, float]


def draw_figures(study: Mapping[str, np.ndarray], published: Published) -> list[StudyFigure]:
    """Draw every figure that has data."""
    figures = [
        _density(
            "figure_1",
            NORMAL,
            "Figure 1: the task",
            "Density of the points of all classes: six Gaussians of unit variance, of which each class has a dense one "
            "with 80 % of its points and a sparse one with 20 %. Lines: where the Bayes-optimal class changes.",
        ),
        _with_and_without(study),
    ]
    curves = study_curves(study)
    if curves:
        separate = _density(
            "figure_5",
            DIFFERENT,
            "Figure 5: the task with other distances between the classes",
            "Density of the points of all classes in the set-up “Different data set” of Figs. 6 and 7. The paper "
            "states no numbers: the means are read from its figure, where the variance looks as in Fig. 1.",
        )
        figures += [_best_amounts(curves, published), separate]
        figures += [_setups(curves, teacher, published) for teacher in TEACHERS]
    figures.append(_histograms(study, published.histograms))
    ours = figure11(study)
    if set(ours) & set(published.grid):
        figures.append(_grid(ours, published.grid))
    return figures


def study_curves(study: Mapping[str, np.ndarray]) -> Curves:
    """Return the curves of the bins added over replicates; empty if the family "curves" was not run."""
    count, sums = (study[key].sum(axis=0) for key in ("curve_count", "curve_sums"))
    if not len(study["curve_eps"]):
        return {}
    return {
        (setup.name, teacher, kind): build_curve(count[v, t, k], sums[v, t, k], study["curve_eps"])
        for v, setup in enumerate(SETUPS)
        for t, teacher in enumerate(TEACHERS)
        for k, kind in enumerate(KINDS)
    }


def figure11(study: Mapping[str, np.ndarray]) -> dict[tuple[float, float], tuple[float, float]]:
    """Return (P1, P2) -> mean test cross-entropy of ILS1 with these values, and its standard error."""
    found = {}
    for c, name in enumerate(study["candidates"].tolist()):
        method, *settings = name.split()
        if method != Candidate("ils1").method:
            continue
        p1, p2 = (float(setting.split("=")[1]) for setting in settings)
        values = study["test_ce"][:, c]
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
        found[p1, p2] = float(values.mean()), float(error)
    return found


def _density(name: str, task: Task, title: str, caption: str) -> StudyFigure:
    low, high = (f(np.concatenate([task.dense, task.sparse]), axis=0) for f in (np.min, np.max))
    x, y = (np.linspace(a - 3, b + 3, 241) for a, b in zip(low, high, strict=True))
    plane = np.stack(np.meshgrid(x, y), axis=2)
    joint = task.log_joint(plane.reshape(-1, 2)).reshape(*plane.shape[:2], -1)
    density = np.exp(joint).mean(axis=2)
    figure = Figure(figsize=(1.6 + 3.9 * np.ptp(x) / np.ptp(y), 4.4), layout="constrained")
    axes = figure.subplots()
    figure.colorbar(axes.pcolormesh(x, y, density, cmap="viridis"), label="density")
    axes.contour(x, y, density, levels=density.max() * np.arange(1, 8) / 8, colors="white", linewidths=0.6)
    for k, means in enumerate(np.stack([task.dense, task.sparse], axis=1)):
        lead = joint[..., k] - np.delete(joint, k, axis=2).max(axis=2)
        axes.contour(x, y, lead, levels=[0], colors=COLOURS[1], linewidths=1)
        for mean in np.unique(means, axis=0):
            axes.annotate(f"class {k + 1}", mean, (0, 9), textcoords="offset points", ha="center", color="white")
            axes.plot(*mean, marker="+", color="white", markersize=9)
    axes.set(xlabel="x1", ylabel="x2", aspect="equal")
    return StudyFigure(name, title, caption, figure)


def _with_and_without(study: Mapping[str, np.ndarray]) -> StudyFigure:
    rows = study["histogram_rows"].tolist()
    count = study["histograms"].sum(axis=0)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for kind, (axes, title) in enumerate(zip(panels, ("True class", "Largest probability"), strict=True)):
        for key, colour, dash in (("hard", COLOURS[0], "-"), ("ls", COLOURS[1], "-"), ("bayes", PAPER, ":")):
            if key in rows:
                share = _merged(count[rows.index(key), kind])
                edges = np.linspace(0, 1, len(share) + 1)
                axes.stairs(100 * share, edges, color=colour, linestyle=dash, linewidth=1.6, label=TITLES[key])
        axes.set(xlabel="probability", title=title, xlim=(0, 1), yscale="log")
        axes.grid(color="#dfe3e8", linewidth=0.6)
    panels[0].set_ylabel("% of the test points")
    panels[0].legend()
    caption = (
        "Shares of the test points of all replicates in 30 bins of the predicted probability: networks trained on hard "
        "labels and with label smoothing (the amount chosen by validation, T = 1), and Bayes. Logarithmic axis."
    )
    return StudyFigure("figure_2", "Figure 2: probabilities with and without label smoothing", caption, figure)


def _best_amounts(curves: Curves, published: Published) -> StudyFigure:
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    setup, teacher = SETUPS[0].name, TEACHERS[0]
    _draw_curve(axes, curves, setup, teacher, published)
    x, fitted = np.linspace(0.2, 1, 200), fit_curves(curves[setup, teacher, FITTED])
    lines = {
        "ILS1, the paper's": (curve_amount, published.tuned, COLOURS[4], "-"),
        "ILS1, fitted to ours": (curve_amount, fitted["ils1"], COLOURS[4], ":"),
        "sine, fitted to ours": (sine_amount, fitted["sine"], COLOURS[2], ":"),
    }
    for name, (amount, (p1, p2), colour, dash) in lines.items():
        label = f"{name}: P1 {p1:.2f}, P2 {p2:.2f}"
        axes.plot(x, amount(x, p1, p2), color=colour, linestyle=dash, label=label)
    axes.set(xlabel="probability of the Bayes-optimal model", ylabel="amount of smoothing", ylim=(-0.01, 0.26))
    axes.legend(fontsize=8.5, ncols=2, loc="upper right")
    caption = (
        "For each of 50 bins of the Bayes-optimal model's probability: the amount of label smoothing whose students' "
        "mean probability is closest to the model's, over the test points of all replicates; the area of a dot shows "
        f"the number of points. {LARGEST} The published line is that of Fig. 6. ILS1 is Eq. 3, min(0.2, P2 (p - P1)²); "
        "the sine is 0.1 (sin(P2 (p - P1)) + 1). Both are fitted to the bins of the largest probability, weighted by "
        "their points."
    )
    return StudyFigure("figure_4", "Figure 4: the best amount for each probability of Bayes", caption, figure)


def _setups(curves: Curves, teacher: str, published: Published) -> StudyFigure:
    figure = Figure(figsize=(9, 6.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, setup in zip(panels.ravel(), SETUPS, strict=True):
        _draw_curve(axes, curves, setup.name, teacher, published)
        axes.set(title=setup.title, ylim=(-0.01, LARGEST_AMOUNT + 0.02))
    panels[0, 1].legend(fontsize=9, loc="upper right")
    figure.supxlabel(f"probability of {TITLES[teacher]}", fontsize=10)
    figure.supylabel("best amount of smoothing", fontsize=10)
    number, name = (6, "the Bayes-optimal model") if teacher == TEACHERS[0] else (7, "No LS + TempS")
    caption = (
        f"The bins of Fig. 4 with {name} as teacher: the normal set-up, a network of one hidden layer (64 neurons "
        "here; the paper states no width), 200 training points per class instead of 50, and the task of Fig. 5. All "
        "but the first are of at most 10 replicates; the points of the published Fig. 8 are those of 10."
    )
    return StudyFigure(f"figure_{number}", f"Figure {number}: other set-ups, teacher {name}", caption, figure)


def _draw_curve(axes: Axes, curves: Curves, setup: str, teacher: str, published: Published) -> None:
    """Draw our best amounts of both kinds, and the published line."""
    for kind in reversed(KINDS):
        curve = curves[setup, teacher, kind]
        area = 6 + 90 * np.sqrt(curve.count / curve.count.max(initial=1))
        label = f"ours, {KIND[kind]}"
        axes.scatter(curve.teacher, curve.best, s=area, color=COLOUR[kind], alpha=0.6, linewidths=0, label=label)
    if (teacher, setup) in published.curves:
        axes.plot(*published.curves[teacher, setup], color=PAPER, linewidth=1.3, label="published")
    axes.set_xlim(0.18, 1.02)
    axes.grid(color="#dfe3e8", linewidth=0.6)


def _histograms(study: Mapping[str, np.ndarray], published: Mapping[str, Histogram]) -> StudyFigure:
    rows = study["histogram_rows"].tolist()
    count = study["histograms"].sum(axis=0)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, teacher in zip(figure.subplots(1, 2, sharey=True), TEACHERS, strict=True):
        for k, kind in enumerate(KINDS):
            share = _merged(count[rows.index(teacher), k])
            edges = np.linspace(0, 1, len(share) + 1)
            axes.stairs(100 * share, edges, color=COLOUR[kind], fill=kind == "true", label=f"ours, {KIND[kind]}")
        if teacher in published:
            edges, points = published[teacher]
            # Bins of the same width as ours
            share = points / points.sum() / np.diff(edges) / len(_merged(count[0, 0]))
            axes.stairs(100 * share, edges, color=PAPER, linestyle="--", label="published")
        axes.set(title=TITLES[teacher], xlabel="probability", xlim=(0, 1))
        axes.legend(fontsize=9, loc="upper left")
    figure.axes[0].set_ylabel("% of the test points")
    caption = f"Shares of the test points of all replicates in 30 bins of the probability. {LARGEST}"
    return StudyFigure("figure_8", "Figure 8: probabilities of both teachers", caption, figure)


def _merged(count: np.ndarray) -> np.ndarray:
    """Return the shares of the points in bins of twice the width."""
    return count.reshape(-1, 2).sum(axis=1) / count.sum()


def _grid(
    ours: Mapping[tuple[float, float], tuple[float, float]], published: Mapping[tuple[float, float], float]
) -> StudyFigure:
    both = sorted(set(ours) & set(published))
    p1, p2 = (sorted({point[axis] for point in both}) for axis in (0, 1))
    tables = [np.full((len(p1), len(p2)), np.nan) for _ in range(2)]
    for point in both:
        where = p1.index(point[0]), p2.index(point[1])
        tables[0][where], tables[1][where] = ours[point][0], published[point]
    figure = Figure(figsize=(9, 1.6 + 0.36 * len(p1)), layout="constrained")
    error = np.nanmean([ours[point][1] for point in both]) if len(both) else np.nan
    for axis, title, table in zip(figure.subplots(1, 2), ("ours", "published"), tables, strict=True):
        axis.imshow(table, aspect="auto", origin="lower", cmap="viridis_r")
        low, high = np.nanmin(table), np.nanmax(table)
        for row, column in np.ndindex(table.shape):
            dark = table[row, column] > (low + high) / 2
            colour = "white" if dark else "#1c2126"
            axis.text(column, row, f"{table[row, column]:.3f}", ha="center", va="center", fontsize=8, color=colour)
        axis.set(title=title, xlabel="P2", ylabel="P1")
        axis.set_xticks(range(len(p2)), [f"{v:g}" for v in p2])
        axis.set_yticks(range(len(p1)), [f"{v:g}" for v in p1])
    caption = (
        "Mean test cross-entropy of ILS1 with fixed P1 and P2 (not chosen by validation); each panel has its own "
        f"colour scale. Mean standard error of ours: {error:.4f}; much of it is common to all cells, which share the "
        "points of a replicate, so differences between cells have smaller errors."
    )
    return StudyFigure("figure_11", "Figure 11: ILS1 with fixed P1 and P2", caption, figure)
