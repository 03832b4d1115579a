"""Report of a study: numbers.json, tables.md, report.html, the four tables as csv, the figures as png."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from backbones.core.files import save_atomic, save_json, save_text
from backbones.core.runs import environment
from backbones.gaussian import published
from backbones.gaussian.curve import KINDS, TEACHERS, fit_curves
from backbones.gaussian.directions import (
    APPEARED,
    BAYES_TOLERANCE,
    OPPOSITE,
    UNDECIDED,
    check_bayes,
    compare_directions,
)
from backbones.gaussian.figures import (
    FITTED,
    KIND,
    TITLES,
    Published,
    StudyFigure,
    draw_figures,
    figure11,
    study_curves,
)
from backbones.gaussian.replicate import BAYES, Settings
from backbones.gaussian.rows import all_rows
from backbones.gaussian.study import describe, load_study
from backbones.gaussian.tables import (
    COLUMN,
    TABLES,
    csv_text,
    finite,
    format_cell,
    format_number,
    markdown_lines,
    markdown_table,
    shown_columns,
    summarize,
    table_rows,
)

# Not results.json: this is not a stage of a backbone, and a comparison of the parent folders must not read it as one.
NUMBERS, MARKDOWN, PAGE = "numbers.json", "tables.md", "report.html"
PIXELS_PER_INCH = 110


def write_report(settings: Settings, folder: str | Path, replicates: int) -> Path:
    """Write all files of the report from the replicates in `folder`, and return the path of the page."""
    folder = Path(folder)
    study = load_study(folder, replicates)
    papers, titles = published.load_all(), row_titles(settings)
    summary = summarize(study, papers)
    numbers = {
        "replicates": replicates,
        "settings": describe(settings),
        "environment": environment(),
        "rows": summary,
        "directions": compare_directions(study, papers, titles),
        "bayes_checks": check_bayes(summary),
        "candidates": _candidates(study),
        "figure11": _figure11(study),
        "curves": _curves(study),
        "curve_means": _curve_means(study),
    }
    figures = draw_figures(
        study,
        Published(
            published.load_figure11(),
            published.load_curves(),
            published.load_histograms(),
            published.load_tuned_curve(),
        ),
    )
    drawn = {figure.name: _png(figure) for figure in figures}
    save_json(folder / NUMBERS, numbers)
    for name, table in TABLES.items():
        if table_rows(table, summary):
            save_text(folder / f"table_{name}.csv", csv_text(table, summary, titles))
    for name, png in drawn.items():
        save_atomic(folder / f"{name}.png", lambda path, png=png: path.write_bytes(png))
    save_text(folder / MARKDOWN, render_markdown(numbers, titles))
    save_text(folder / PAGE, render_page(numbers, titles, figures, drawn))
    return folder / PAGE


def row_titles(settings: Settings) -> dict[str, str]:
    """Return row key -> name in tables, for all possible rows."""
    return {BAYES: "Bayes-Optimal"} | {row.key: row.method for row in all_rows(settings.grids)}


def verdict_sentence(directions: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence with the number of published directions that appeared."""
    count = Counter(entry["verdict"] for entry in directions)
    return (
        f"Of {len(directions)} published directions {count[APPEARED]} appeared, {count[OPPOSITE]} "
        f"{'is' if count[OPPOSITE] == 1 else 'are'} opposite and {count[UNDECIDED]} could not be decided. A direction "
        "is decided if the paired difference over the replicates is at least two standard errors from zero; of so many "
        f"comparisons, about {len(directions) * 0.05:.0f} would be decided by chance alone."
    )


def protocol_sentence(settings: Mapping[str, Any], replicates: int) -> str:
    """Return a description of the protocol in two sentences."""
    recipe, counts = settings["recipe"], settings["per_class"]
    return (
        f"{replicates} replicates; {counts[0]} training, {counts[1]} validation and {counts[2]} test points per class; "
        f"network {'-'.join(map(str, recipe['sizes']))}, Adam with learning rate {recipe['lr']:g}, batch "
        f"{recipe['batch_size']}, at most {recipe['max_epochs']} epochs, stopped after {recipe['patience']} without a "
        "lower validation cross-entropy, best epoch restored. Every network has its own seed."
    )


NOTES = (
    "Each cell: ours ± standard error over the replicates (published).",
    "cwECE: the paper's column is the ECE within each true class, as computed by its code (“true class” here); "
    "“Eq. 2” is the class-wise ECE defined in its text. The published number is shown only beside the former.",
    "TempS rows use the temperature fitted on the validation points within the bounds [0.8, 3.0] of the paper's code; "
    "“T, free” has no such bound.",
    "Teacher's T: the paper's text gives 1, 2, 4, 6 for ILS2 and ILS. The row ILS uses them. Published mean chosen "
    "temperatures of ILS2 (11.48 and 9.63) are above 6, so the row ILS2 uses 1, 2, 4, 8, 16, the paper's grid for real "
    "data; those of ILS (2.91 and 2.73) are not. An additional row of each has the other grid.",
    "ILS1 sine: the amount is 0.1 (sin(P2 (p - P1)) + 1), which the paper calls slightly worse than Eq. 3, without "
    "numbers and without a grid; P1 is of 0.8 to 0.99 and P2 of 1 to 6, the ranges of its Sec. IV-A, 30 curves as for "
    "ILS1.",
    "Table V of the paper has the headers of P1 and P2 swapped; they are corrected here.",
)
CURVE_TITLE = "Figures 4, 6 and 7 in numbers: mean best amount of smoothing, normal set-up"
OTHER_CWECE = "† The paper's cwECE is the ECE within each true class; our Eq. 2 is compared with its direction."


def render_markdown(numbers: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """Return the text of tables.md."""
    parts = [
        "# Synthetic study of instance-based label smoothing",
        protocol_sentence(numbers["settings"], numbers["replicates"]),
    ]
    parts += ["\n".join(f"- {note}" for note in NOTES), "## Which published directions appeared"]
    parts.append(verdict_sentence(numbers["directions"]))
    lines = [["Published direction", "verdict", "ours ± s.e.", "published"]]
    lines += [list(direction_texts(entry)) for entry in numbers["directions"]]
    parts += [markdown_lines(lines), OTHER_CWECE]
    for table in TABLES.values():
        if table_rows(table, numbers["rows"]):
            parts += [f"## {table.title}", markdown_table(table, numbers["rows"], titles)]
    if numbers["curve_means"]:
        parts += [f"## {CURVE_TITLE}", markdown_lines(curve_texts(numbers["curve_means"]))]
    return "\n\n".join(parts).rstrip() + "\n"


def direction_texts(entry: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return statement, verdict, our difference with its error, and the published difference."""
    column = entry["column"]
    ours = format_number(column, entry["difference"], sign=True)
    if entry["se"] is not None:
        ours += f" ± {format_number(column, entry['se'])}"
    paper = format_number(column, entry["published"], sign=True)
    return entry["statement"], entry["verdict"], ours, paper if entry["same_quantity"] else f"{paper} †"


def render_page(
    numbers: Mapping[str, Any], titles: Mapping[str, str], figures: Sequence[StudyFigure], drawn: Mapping[str, bytes]
) -> str:
    """Return report.html, which needs no other file."""
    env = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    source = files("backbones.gaussian").joinpath("templates", PAGE).read_text(encoding="utf-8")
    return env.from_string(source).render(
        protocol=protocol_sentence(numbers["settings"], numbers["replicates"]),
        verdicts=verdict_sentence(numbers["directions"]),
        notes=NOTES,
        other_cwece=OTHER_CWECE,
        directions=[direction_texts(entry) for entry in numbers["directions"]],
        bayes=[_check_texts(check) for check in numbers["bayes_checks"]],
        tables=[_page_table(table, numbers["rows"], titles) for table in TABLES.values()],
        curve_title=CURVE_TITLE,
        curves=curve_texts(numbers["curve_means"]),
        suspicions=published.load_suspicions(),
        figures=[(p.title, p.caption, base64.b64encode(drawn[p.name]).decode()) for p in figures],
        environment=numbers["environment"],
    )


def _page_table(table: Any, summary: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, Any]:
    columns = shown_columns(table, summary)
    rows = table_rows(table, summary)
    return {
        "title": table.title,
        "columns": [COLUMN[column].title for column in columns],
        "rows": [(titles[key], [format_cell(column, summary[key][column]) for column in columns]) for key in rows],
    }


def _check_texts(check: Mapping[str, Any]) -> tuple[str, str, str, str, bool]:
    column = check["column"]
    numbers = (format_number(column, check["mean"]), format_number(column, check["published"]))
    return COLUMN[column].title, *numbers, format_number(column, BAYES_TOLERANCE[column]), check["kept"]


def _candidates(study: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """Return the means over replicates of every candidate."""
    columns = ("val_ce", "val_ce_scaled", "test_ce", "temperature_free", "epoch")
    means = {column: study[column].mean(axis=0) for column in columns}
    names = study["candidates"].tolist()
    return {name: {column: finite(means[column][c]) for column in columns} for c, name in enumerate(names)}


def _figure11(study: Mapping[str, np.ndarray]) -> list[dict[str, float | None]]:
    paper = published.load_figure11()
    return [
        {"p1": p1, "p2": p2, "ce": ce, "se": finite(error), "published": paper.get((p1, p2))}
        for (p1, p2), (ce, error) in sorted(figure11(study).items())
    ]


def _curves(study: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the bins of Figs. 4, 6 and 7 by set-up, teacher and kind, and (P1, P2) of the fits of Fig. 4."""
    curves, found = study_curves(study), {}
    for (setup, teacher, kind), curve in curves.items():
        bins = {key: value.tolist() for key, value in curve._asdict().items()}
        found.setdefault(setup, {}).setdefault(teacher, {})[kind] = bins
    return found | ({"fitted": dict(fit_curves(curves["normal", "bayes", FITTED]))} if curves else {})


def _curve_means(study: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return the mean best amount of the bins of each tenth of the probability, ours and published."""
    ours, papers = study_curves(study), published.load_curves()
    columns = {}
    for teacher in TEACHERS if ours else ():
        columns |= {(teacher, kind): ours["normal", teacher, kind] for kind in KINDS}
        columns[teacher, "published"] = papers[teacher, "normal"]
    return [
        {"teacher": teacher, "kind": kind, "mean": [_mean_in(curve, start / 10) for start in range(2, 10)]}
        for (teacher, kind), curve in columns.items()
    ]


def _mean_in(curve: Any, start: float) -> float | None:
    """Return the mean best amount of the bins in [start, start + 0.1), the last one closed; None without bins."""
    inside = (curve.teacher >= start) & (curve.teacher < (start + 0.1 if start < 0.9 else np.inf))
    return finite(curve.best[inside].mean()) if inside.any() else None


def curve_texts(means: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the table of the curves' means; the first line is the header."""
    header = ["Teacher's probability from", *(f"{start / 10:g}" for start in range(2, 10))]
    names = {kind: f"ours, {text}" for kind, text in KIND.items()} | {"published": "published"}
    texts = [["" if mean is None else f"{mean:.3f}" for mean in entry["mean"]] for entry in means]
    titles = [f"{TITLES[entry['teacher']]}: {names[entry['kind']]}" for entry in means]
    return [header, *([title, *line] for title, line in zip(titles, texts, strict=True))]


def _png(figure: StudyFigure) -> bytes:
    stream = io.BytesIO()
    figure.figure.savefig(stream, format="png", dpi=PIXELS_PER_INCH)
    return stream.getvalue()
