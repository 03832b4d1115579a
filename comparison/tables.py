"""Format the comparison as text: terminal, Markdown and CSV."""

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from comparison.bootstrap import AP_NAMES
from comparison.failures import FAILED, MARK, backbone_failure, detector_failure, failure_text, is_marked
from comparison.metrics import ARROW, BY_NAME, DETECTORS, METRICS, best_value

CLAIM = "A difference whose interval includes 0 is not significant; one seed cannot show which method is better."
MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
DIGITS = 3
TERMINAL_NAMES = (
    *("top1", "top1_shifted", "ece15", "context_average_confidence", "max_box_acc_v2"),
    *("AP", "AP50", "APs", "APm", "APl", "AR100", "VOC_mAP50"),
)
_SHORT = {
    **{"top1_shifted": "shift", "ece15": "ECE", "context_average_confidence": "ctx", "max_box_acc_v2": "box"},
    "VOC_mAP50": "VOC50",
}
LEGEND = (
    "shift: top-1 with independent backgrounds; ctx: confidence on images without their objects; "
    "box: MaxBoxAccV2; VOC50: Pascal VOC's mAP by area, IoU 0.5; others named as in COCO; fractions in [0, 1]."
)
LABEL_WIDTH, LINE_WIDTH, TABLE_WIDTH = 16, 110, 120


def format_number(value: float | None, *, signed: bool = False) -> str:
    """Format with three decimals, or as a dash for None."""
    if value is None:
        return MISSING
    text = f"{value:+.{DIGITS}f}" if signed else f"{value:.{DIGITS}f}"
    return text.replace("-", MINUS)


def format_metric(row: Mapping[str, Any], name: str) -> str:
    """Format a metric of a row; "failed" in place of the dash if a failed stage would have measured it."""
    failure = detector_failure(row) if BY_NAME[name].group in DETECTORS else backbone_failure(row)
    value = row["metrics"][name]
    return FAILED if failure and value is None else format_number(value)


def format_difference(difference: Mapping[str, float | None] | None) -> str:
    """Format as "+0.031 [+0.012, +0.049]", without brackets if the interval is missing."""
    if difference is None or difference["value"] is None:
        return MISSING
    text = format_number(difference["value"], signed=True)
    if difference["low"] is None or difference["high"] is None:
        return text
    return f"{text} [{format_number(difference['low'], signed=True)}, {format_number(difference['high'], signed=True)}]"


def excludes_zero(difference: Mapping[str, float | None]) -> bool:
    """Whether the interval of a difference excludes 0."""
    low, high = difference["low"], difference["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def display_name(row: Mapping[str, Any]) -> str:
    """Return the row's name with its marks, which the notes explain."""
    return row["name"] + _marks(row)


def short_name(row: Mapping[str, Any], letters: int) -> str:
    """Shorten the row's name to at most `letters` characters: the label is cut, seeds and hash are kept."""
    name = row["name"]
    if len(name) > letters:
        label, seeds = row["label"], name.removeprefix(row["label"])
        seeds = seeds.replace(" (", " ").replace("detector seed ", "d").replace("seed ", "s").replace(", ", " ")
        seeds = seeds.removesuffix(")")
        name = label + seeds
        if len(name) > letters:
            name = label[: max(1, letters - len(seeds) - 1)] + "…" + seeds
    return name


def _marks(row: Mapping[str, Any]) -> str:
    failed = f" {MARK}" if any(is_marked(row, failure["protocol"]) for failure in row["failures"]) else ""
    return (" †" if row["on_training_images"] else "") + (" ‡" if row["other_commit"] else "") + failed


def groups_of(comparison: Mapping[str, Any]) -> list[tuple[str | None, list[dict[str, Any]]]]:
    """Group rows as (protocol or None, rows); several groups only if protocols are mixed."""
    rows = comparison["rows"]
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    known = [protocol for protocol in protocols if protocol is not None]
    if len(known) <= 1:
        return [(known[0] if known else None, list(rows))]
    return [(protocol, [row for row in rows if row["protocol"] == protocol]) for protocol in protocols]


def rows_with_difference(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows that are compared with another row, except those whose detector failed."""
    return [r for r in rows if r["difference_to_baseline"] and not r["is_baseline"] and not detector_failure(r)]


def best_of(rows: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """Return the best number of a column as printed; equally printed numbers are all marked."""
    best = best_value(name, [row["metrics"][name] for row in rows])
    return None if best is None else format_number(best)


def measured_names(rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> list[str]:
    """Return the metrics that at least one row has, in the order of the table."""
    names = [metric.name for metric in METRICS] if names is None else names
    return [name for name in names if any(row["metrics"][name] is not None for row in rows)]


# ---- terminal -----------------------------------------------------------------------------------------------------


def terminal_table(comparison: Mapping[str, Any]) -> str:
    """Format the main metrics, and the AP difference with its interval, in at most 120 columns; `*` marks the best."""
    tables = [
        f"detection protocol: {protocol or 'none'}\n\n{_terminal_group(rows)}"
        for protocol, rows in groups_of(comparison)
    ]
    notes = [LEGEND, f"* best value of its column; this does not imply significance. {CLAIM}"]
    notes += [f"note: {note}" for note in comparison["notes"]]
    return "\n\n".join([*tables, "\n".join(textwrap.fill(note, LINE_WIDTH) for note in notes)])


def _terminal_group(rows: Sequence[Mapping[str, Any]]) -> str:
    names = measured_names(rows, TERMINAL_NAMES)
    header = [f"{_SHORT.get(name, BY_NAME[name].title)}{ARROW[BY_NAME[name].better]} " for name in names]
    lines = [["", *header, "AP - baseline"], *(_terminal_cells(row, rows, names) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    on_backbone = sum(BY_NAME[name].group not in DETECTORS for name in names)
    texts = [_aligned(lines[0], widths)]
    for row, line in zip(rows, lines[1:], strict=True):
        failure = detector_failure(row)
        if failure:  # in place of the detection metrics, or of all
            line = _aligned(line[: 1 + on_backbone * bool(row["stages"])], widths)
            texts.append(_shorten(f"{line} {failure}", TABLE_WIDTH))
        else:
            texts.append(_aligned(line, widths))
    return "\n".join(text.rstrip() for text in texts)


def _shorten(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def _terminal_cells(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        text = format_number(row["metrics"][name])
        cells.append(text + ("*" if text == best_of(rows, name) else " "))
    difference = "baseline" if row["is_baseline"] else _ap_difference(row)
    return [short_name(row, LABEL_WIDTH - len(_marks(row))) + _marks(row), *cells, difference]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Join the first cells of a line: the name and the difference to the left, numbers to the right."""
    return " ".join(
        cell.ljust(width) if n in (0, len(widths) - 1) else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=False))
    )


def _ap_difference(row: Mapping[str, Any]) -> str:
    return format_difference((row["difference_to_baseline"] or {}).get("AP"))


# ---- Markdown and CSV ---------------------------------------------------------------------------------------------


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


def csv_text(comparison: Mapping[str, Any]) -> str:
    """Format one line per row: identity, every metric, and differences with intervals; full precision."""
    names = [metric.name for metric in METRICS]
    own = ["label", "method", "seed", "detector_seed", "hash", "protocol", "on_training_images", "other_commit"]
    header = [*own, "failure", *names]
    header += [f"{name}_difference{end}" for name in names for end in ("", "_low", "_high")]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in comparison["rows"]:
        cells = [*(row[key] for key in own), failure_text(row), *(row["metrics"][name] for name in names)]
        for name in names:
            difference = (row["difference_to_baseline"] or {}).get(name, {})
            cells += [difference.get(key) for key in ("value", "low", "high")]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return stream.getvalue()
