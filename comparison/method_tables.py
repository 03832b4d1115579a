"""Format the verdicts on methods over seeds and images as text: terminal and Markdown."""

import textwrap
from collections.abc import Mapping
from typing import Any

from comparison.methods import verdict_text
from comparison.tables import LINE_WIDTH, MISSING, format_difference, format_number, markdown_table

MEANING = (
    "Verdicts: intervals cover the sampling of images and the variation between training seeds; better and worse are "
    "corrected for the number of methods (Holm). All numbers but {primary} are exploratory."
)


_SOURCES = {
    "seeds": "between seeds", "fine_tuning": "between fine-tunings of one backbone", "interaction": "seed x image",
    "images": "images", "method_images": "images in a difference",
}  # fmt: skip


def describe_variances(comparison: Mapping[str, Any]) -> list[str]:
    """Say how much each source contributes to the primary number of one run, one sentence per protocol."""
    several = len(comparison["variances"]) > 1
    found = []
    for entry in comparison["variances"]:
        parts = [f"{said} {entry[name] ** 0.5:.4f}" for name, said in _SOURCES.items() if entry[name] is not None]
        under = f" under {entry['protocol']}" if several else ""
        found.append(f"Standard deviations of {entry['metric']} of one run{under}: {', '.join(parts)}.")
    return found


def terminal_verdicts(comparison: Mapping[str, Any]) -> str:
    """Format one line per method: mean, difference, verdict, and what would settle it; "" without verdicts."""
    lines = [row for protocol in _protocols(comparison) for row in _lines(comparison, protocol)]
    if not lines:
        return ""
    widths = [max(len(line[n]) for line in lines) for n in range(3)]
    texts = ["   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)) for line in lines]
    body = [f"{text}   {line[3]}".rstrip() for text, line in zip(texts, lines, strict=True)]
    said = [MEANING.format(primary=comparison["primary"]), *describe_variances(comparison)]
    text = [*body, "", *(textwrap.fill(line, LINE_WIDTH) for line in said)]
    return f"over seeds, {comparison['primary']} and its difference to the baseline:\n\n" + "\n".join(text)


def markdown_verdicts(comparison: Mapping[str, Any]) -> list[str]:
    """Format the same as a heading, a table and a sentence; empty without verdicts."""
    lines = [row for protocol in _protocols(comparison) for row in _lines(comparison, protocol)]
    if not lines:
        return []
    header = ["", f"{comparison['primary']} over seeds", "difference to the baseline", "verdict"]
    said = [MEANING.format(primary=comparison["primary"]), *describe_variances(comparison)]
    return ["## Over seeds", markdown_table(header, lines), " ".join(said)]


def _protocols(comparison: Mapping[str, Any]) -> list[str | None]:
    judged = [method["protocol"] for method in comparison["methods"] if method["verdict"]]
    return list(dict.fromkeys(judged))


def _lines(comparison: Mapping[str, Any], protocol: str | None) -> list[list[str]]:
    methods = [method for method in comparison["methods"] if method["protocol"] == protocol]
    several = f", {protocol}" if len(_protocols(comparison)) > 1 else ""
    return [_line(method, several, comparison) for method in methods]


def _line(method: Mapping[str, Any], several: str, comparison: Mapping[str, Any]) -> list[str]:
    primary = comparison["primary"]
    mean = method["metrics"][primary]
    value = format_number(mean["mean"]) + (f" ± {format_number(mean['deviation'])}" if mean["deviation"] else "")
    name = f"{method['label']} ({method['made_of']}{several})"
    return [name, value, interval_of(method, comparison), verdict_of(method, comparison)]


def interval_of(method: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """Return the difference of the primary number to the baseline, with its interval over seeds and images."""
    difference = (method["differences"] or {}).get(comparison["primary"])
    return format_difference(difference) if difference else MISSING


def verdict_of(method: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """Return the verdict in words, "baseline" for the baseline of other methods."""
    if method["label"] == comparison["baseline"] and method["verdict"] is None:
        return "baseline"
    return verdict_text(method, comparison["baseline"])
