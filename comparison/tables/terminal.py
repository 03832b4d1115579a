"""The comparison on a terminal, at most 120 columns wide."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from comparison.failures import detector_failure
from comparison.metrics import ARROW, BY_NAME, DETECTORS, explain_scores
from comparison.tables.formats import (
    CLAIM,
    best_of,
    format_difference,
    format_number,
    groups_of,
    marks,
    measured_names,
    short_name,
)
from comparison.tables.verdicts import MEANING, describe_variances, verdict_lines

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


def terminal_table(comparison: Mapping[str, Any]) -> str:
    """Format the main metrics, and the AP difference with its interval, in at most 120 columns; `*` marks the best."""
    tables = [
        f"detection protocol: {protocol or 'none'}\n\n{_terminal_group(rows)}"
        for protocol, rows in groups_of(comparison)
    ]
    counted = explain_scores(comparison.get("score_thresholds", ()))
    legend = f"{LEGEND} {counted[:1].upper()}{counted[1:]}." if counted else LEGEND
    notes = [legend, f"* best value of its column; this does not imply significance. {CLAIM}"]
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
    return [short_name(row, LABEL_WIDTH - len(marks(row))) + marks(row), *cells, difference]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Join the first cells of a line: the name and the difference to the left, numbers to the right."""
    return " ".join(
        cell.ljust(width) if n in (0, len(widths) - 1) else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=False))
    )


def _ap_difference(row: Mapping[str, Any]) -> str:
    return format_difference((row["difference_to_baseline"] or {}).get("AP"))


def terminal_verdicts(comparison: Mapping[str, Any]) -> str:
    """Format one line per method: mean, difference, verdict, and what would settle it; "" without verdicts."""
    lines = verdict_lines(comparison)
    if not lines:
        return ""
    widths = [max(len(line[n]) for line in lines) for n in range(3)]
    texts = ["   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)) for line in lines]
    body = [f"{text}   {line[3]}".rstrip() for text, line in zip(texts, lines, strict=True)]
    said = [MEANING.format(primary=comparison["primary"]), *describe_variances(comparison)]
    text = [*body, "", *(textwrap.fill(line, LINE_WIDTH) for line in said)]
    return f"over seeds, {comparison['primary']} and its difference to the baseline:\n\n" + "\n".join(text)
