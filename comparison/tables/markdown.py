"""The comparison as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from comparison.bootstrap import AP_NAMES
from comparison.failures import backbone_failure, detector_failure
from comparison.metrics import ARROW, BY_NAME
from comparison.tables.formats import (
    CLAIM,
    best_of,
    display_name,
    format_difference,
    format_metric,
    groups_of,
    measured_names,
    rows_with_difference,
)
from comparison.tables.verdicts import MEANING, describe_variances, verdict_lines


def markdown_text(comparison: Mapping[str, Any]) -> str:
    """Return the content of comparison.md."""
    return "\n\n".join([markdown(comparison).rstrip(), *markdown_verdicts(comparison)]) + "\n"


def markdown(comparison: Mapping[str, Any]) -> str:
    """Format all metrics, with rows as columns (readable with 25 metrics), then the differences in AP."""
    parts = ["# Comparison of backbones", _markdown_list(comparison["notes"])]
    for protocol, rows in groups_of(comparison):
        parts.append(f"## {protocol or 'No detection results'}")
        header = ["", *(display_name(row) for row in rows)]
        body = []
        for name in measured_names(rows):
            best = best_of(rows, name)
            texts = [format_metric(row, name) for row in rows]
            metric = BY_NAME[name]
            body.append([f"{metric.title} {ARROW[metric.better]}".strip(), *(_bold(t, t == best) for t in texts)])
        parts.append(markdown_table(header, body))
        failed = [(row, detector_failure(row) or backbone_failure(row)) for row in rows]
        parts.append(_markdown_list([f"{display_name(row)} {failure}" for row, failure in failed if failure]))
        differences = _markdown_differences(rows)
        if differences:
            parts += [f"Row minus baseline, {comparison['level']:.0%} paired bootstrap over images:", differences]
    parts.append("Bold: best value of its row; this does not imply significance. " + CLAIM)
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_differences(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = rows_with_difference(rows)
    names = [n for n in AP_NAMES if any(row["difference_to_baseline"][n]["value"] is not None for row in shown)]
    if not shown or not names:
        return ""
    body = [[row["name"], *(format_difference(row["difference_to_baseline"][n]) for n in names)] for row in shown]
    return markdown_table(["", *names], body)


def _markdown_list(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}".replace("<", "\\<") for text in texts)


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Format a table; the first column is on the left, all others on the right."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(["---"] + ["---:"] * (len(header) - 1)), *map(line, body)])


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def markdown_verdicts(comparison: Mapping[str, Any]) -> list[str]:
    """Format the same as a heading, a table and a sentence; empty without verdicts."""
    lines = verdict_lines(comparison)
    if not lines:
        return []
    header = ["", f"{comparison['primary']} over seeds", "difference to the baseline", "verdict"]
    said = [MEANING.format(primary=comparison["primary"]), *describe_variances(comparison)]
    return ["## Over seeds", markdown_table(header, lines), " ".join(said)]


def left_aligned(table: str) -> str:
    """Return a table of texts with all columns on the left."""
    head, line, *rest = table.splitlines()
    return "\n".join([head, line.replace("---:", "---"), *rest])
