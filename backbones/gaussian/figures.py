"""Figures of the study, drawn from the stacked replicates, each with a caption.

The published text gives the data of the curve (Figs. 4, 6, 7) and of the grid (Fig. 11), but does not always state what
a figure shows; captions state where the choice is ours.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from backbones.gaussian.candidates import LARGEST_AMOUNT, Candidate
from backbones.gaussian.curve import Curve, build_curve, curve_amount, fit_curves, sine_amount
from backbones.gaussian.replicate import MAP_X, MAP_Y, Settings, draw_data
from backbones.gaussian.task import DENSE_MEANS, SPARSE_MEANS, log_posterior

# Okabe and Ito's colours, which colour-blind readers can distinguish.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
SHOWN_POINTS = 400  # test points shown per class on average, few enough to keep the components visible


class StudyFigure(NamedTuple):
    """A figure; name: that of its file; title and caption: its text on the page."""

    name: str
    title: str
    caption: str
    figure: Figure


def draw_figures(
    study: Mapping[str, np.ndarray],
    settings: Settings,
    grid: Mapping[tuple[float, float], float],
    tuned: tuple[float, float],
    titles: Mapping[str, str],
) -> list[StudyFigure]:
    """Draw every figure that has data; `grid`: published values of Fig. 11; `tuned`: P1 and P2 of the text's curve."""
    figures = [_task(settings)]
    curve = study_curve(study)
    if curve is not None:
        figures += [_best_amounts(curve, tuned), _students(curve), _fitted(curve)]
    figures.append(_maps(study, titles))
    ours = figure11(study)
    if set(ours) & set(grid):
        figures.append(_grid(ours, grid))
    return figures


def study_curve(study: Mapping[str, np.ndarray]) -> Curve | None:
    """Return the curve of the bins added over replicates; None if label smoothing was not run."""
    if not len(study["curve_eps"]):
        return None
    return build_curve(study["curve_count"].sum(axis=0), study["curve_sums"].sum(axis=0), study["curve_eps"])


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


def _task(settings: Settings) -> StudyFigure:
    test = draw_data(settings, 0).test
    chosen = np.random.default_rng(0).permutation(len(test.labels))[: 3 * SHOWN_POINTS]
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    plane = np.stack(np.meshgrid(MAP_X, MAP_Y), axis=2)
    best = log_posterior(plane.reshape(-1, 2)).argmax(axis=1).reshape(plane.shape[:2])
    axes.pcolormesh(MAP_X, MAP_Y, best, cmap=ListedColormap(COLOURS[:3]), vmin=0, vmax=2, alpha=0.15, linewidth=0)
    for k, colour in enumerate(COLOURS[:3]):
        for dense, marker in ((True, "o"), (False, "^")):
            x = test.x[chosen][(test.labels[chosen] == k) & (test.dense[chosen] == dense)]
            axes.scatter(x[:, 0], x[:, 1], s=9, marker=marker, color=colour, linewidths=0)
        for mean in (DENSE_MEANS[k], SPARSE_MEANS[k]):
            axes.plot(*mean, marker="+", color=colour, markersize=14, markeredgewidth=2.5)
    axes.set(xlabel="x1", ylabel="x2", xlim=(MAP_X[0], MAP_X[-1]), ylim=(MAP_Y[0], MAP_Y[-1]))
    caption = (
        "Test points of the first replicate (circles dense, triangles sparse; colour is the class; + the means) over "
        "the regions in which the Bayes-optimal classifier chooses each class. We assume that the paper's Fig. 2 shows "
        "the task."
    )
    return StudyFigure("figure_2", "Figure 2: the task", caption, figure)


def _best_amounts(curve: Curve, tuned: tuple[float, float]) -> StudyFigure:
    figure, axes = _curve_axes()
    _scatter_best(axes, curve)
    x = np.linspace(0.2, 1, 200)
    axes.plot(x, curve_amount(x, *tuned), color=COLOURS[4], label="ILS1, the paper's P1 and P2")
    axes.legend()
    caption = (
        "For each of 50 bins of the teacher's calibrated probability of the true class: the amount of label smoothing "
        "whose students' mean probability is closest to the teacher's, over the test points of all replicates; the "
        f"area of a dot shows the number of points. The line is Eq. 3 with the paper's P1 = {tuned[0]:g} and P2 = "
        f"{tuned[1]:g}. The paper does not state over which points the means are taken."
    )
    return StudyFigure("figure_4", "Figure 4: the best amount for each confidence of the teacher", caption, figure)


def _students(curve: Curve) -> StudyFigure:
    figure, axes = _curve_axes("mean p of the true class")
    shown = np.linspace(0, len(curve.eps) - 1, min(4, len(curve.eps))).round().astype(int)
    for number, e in enumerate(shown):
        axes.plot(curve.teacher, curve.students[e], color=COLOURS[number], label=f"students, eps {curve.eps[e]:g}")
    axes.plot(curve.teacher, curve.bayes, color="#222222", linestyle="--", label="Bayes")
    axes.plot([0.2, 1], [0.2, 1], color="#9a9a9a", linewidth=0.8, label="teacher")
    axes.legend()
    caption = (
        "Mean probability of the true class for students of several amounts, and for Bayes, in the bins of Fig. 4: "
        "where a student's line crosses the grey one, its amount is the best of the bin. We assume that the paper's "
        "Fig. 6 shows this."
    )
    return StudyFigure("figure_6", "Figure 6: students' and teacher's probability of the true class", caption, figure)


def _fitted(curve: Curve) -> StudyFigure:
    figure, axes = _curve_axes()
    _scatter_best(axes, curve)
    fitted, x = fit_curves(curve), np.linspace(0.2, 1, 200)
    lines = {"ils1": curve_amount(x, *fitted["ils1"]), "sine": sine_amount(x, *fitted["sine"])}
    for number, (name, y) in enumerate(lines.items()):
        p1, p2 = fitted[name]
        label = f"{'ILS1' if name == 'ils1' else 'sine'}: P1 {p1:.2f}, P2 {p2:.2f}"
        axes.plot(x, y, color=COLOURS[(4, 2)[number]], linestyle="-" if name == "ils1" else "--", label=label)
    axes.legend()
    caption = (
        "The bins of Fig. 4 with the curve of ILS1, min(0.2, P2 (p - P1)²), and the sine variant that the paper "
        "mentions, 0.1 (sin(P2 (p - P1)) + 1), each fitted by least squares with bins weighted by their points. We "
        "assume that the paper's Fig. 7 compares the two; the fit is ours."
    )
    return StudyFigure("figure_7", "Figure 7: two curves through the best amounts", caption, figure)


def _maps(study: Mapping[str, np.ndarray], titles: Mapping[str, str]) -> StudyFigure:
    plane = np.stack(np.meshgrid(MAP_X, MAP_Y), axis=2).reshape(-1, 2)
    maps = {"Bayes-Optimal": np.exp(log_posterior(plane))}
    maps |= {titles[key]: p for key, p in zip(study["map_rows"].tolist(), study["maps"], strict=True)}
    lines = (len(maps) + 1) // 2
    figure = Figure(figsize=(9, 2.7 * lines), layout="constrained")
    axes = figure.subplots(lines, 2, squeeze=False).ravel()
    for axis in axes[len(maps) :]:
        axis.set_axis_off()
    shape, drawn = (len(MAP_Y), len(MAP_X)), []
    for axis, (title, p) in zip(axes, maps.items(), strict=False):
        confidence = p.max(axis=1).reshape(shape)
        drawn.append(axis.pcolormesh(MAP_X, MAP_Y, confidence, cmap="viridis", vmin=1 / 3, vmax=1))
        axis.contour(MAP_X, MAP_Y, p.argmax(axis=1).reshape(shape), levels=[0.5, 1.5], colors="white", linewidths=1.2)
        axis.set_title(title, fontsize=10)
    figure.colorbar(drawn[0], ax=axes.tolist(), label="confidence")
    caption = (
        "Confidence (largest probability) over the plane and borders of the predicted class, for the networks chosen "
        "in the first replicate, without temperature scaling. The content of the paper's Fig. 8 is not known to us; "
        "this is our choice."
    )
    return StudyFigure("figure_8", "Figure 8: confidence over the plane", caption, figure)


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


def _curve_axes(label: str = "amount of smoothing") -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="teacher's calibrated p of the true class", ylabel=label, xlim=(0.18, 1.02))
    axes.grid(color="#dfe3e8", linewidth=0.6)
    return figure, axes


def _scatter_best(axes, curve: Curve) -> None:
    area = 12 + 160 * np.sqrt(curve.count / curve.count.max())
    axes.scatter(curve.teacher, curve.best, s=area, color=COLOURS[0], alpha=0.55, linewidths=0, label="best of the bin")
    axes.set_ylim(-0.01, LARGEST_AMOUNT + 0.02)
