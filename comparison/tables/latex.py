r"""The comparison as LaTeX: one booktabs table per protocol, to be included by \\input.

Needs the package booktabs.  Methods are lines if a comparison has several runs of one, else single runs are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from comparison.failures import detector_failure
from comparison.metrics import ARROW, BY_NAME
from comparison.tables.formats import MINUS, MISSING, display_name, format_difference, format_number, groups_of
from comparison.tables.verdicts import verdict_text

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "VOC_mAP50")
_ESCAPED = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", MINUS: "$-$", MISSING: "--", "±": r"$\pm$", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$", "†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"\S{}", "¶": r"\P{}",
}  # fmt: skip


def escape(text: str) -> str:
    """Escape what LaTeX reads as a command; other characters outside of ASCII are kept (UTF-8)."""
    return "".join(_ESCAPED.get(letter, letter) for letter in text)


def latex(comparison: Mapping[str, Any]) -> str:
    """Return one table per protocol; differences have intervals, and the verdict is the last column."""
    lines = ["% Written by tools/compare.py; needs \\usepackage{booktabs}"]
    for protocol, rows in groups_of(comparison):
        methods = [method for method in comparison["methods"] if method["protocol"] == protocol]
        names = _columns(comparison["primary"], rows)
        body = (
            [_method_line(method, names, comparison) for method in methods]
            if methods
            else [_row_line(row, names, comparison) for row in rows]
        )
        lines += _table(protocol, names, body, comparison)
    return "\n".join(lines) + "\n"


def _columns(primary: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    others = [name for name in COLUMNS if name != primary]
    return [primary, *(name for name in others if any(row["metrics"][name] is not None for row in rows))]


def _table(
    protocol: str | None, names: Sequence[str], body: Sequence[Sequence[str]], comparison: Mapping[str, Any]
) -> list[str]:
    primary, others = names[0], names[1:]
    difference = f"{BY_NAME[primary].title} - baseline [{comparison['level']:.0%}]"
    header = ["", *(_title(name) for name in (primary,)), difference, *(_title(name) for name in others), "verdict"]
    return [
        f"% protocol: {' '.join((protocol or 'none').split())}",
        rf"\begin{{tabular}}{{l{'r' * (len(names) + 1)}l}}",
        r"\toprule",
        " & ".join(map(escape, header)) + r" \\",
        r"\midrule",
        *(" & ".join(map(escape, line)) + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _title(name: str) -> str:
    return f"{BY_NAME[name].title} {ARROW[BY_NAME[name].better]}".strip()


def _method_line(method: Mapping[str, Any], names: Sequence[str], comparison: Mapping[str, Any]) -> list[str]:
    values = []
    for name in names:
        mean = method["metrics"][name]
        spread = f" ± {format_number(mean['deviation'])}" if mean["deviation"] is not None else ""
        values.append(f"{format_number(mean['mean'])}{spread}")
    difference = format_difference((method["differences"] or {}).get(names[0]))
    verdict = verdict_text(method).partition("; ")[0]
    return [f"{method['label']} ({method['made_of']})", values[0], difference, *values[1:], verdict]


def _row_line(row: Mapping[str, Any], names: Sequence[str], comparison: Mapping[str, Any]) -> list[str]:
    values = [format_number(row["metrics"][name]) for name in names]
    compared = None if row["is_baseline"] else row["difference_to_baseline"]
    difference = format_difference((compared or {}).get(names[0]))
    return [display_name(row), values[0], difference, *values[1:], detector_failure(row)]
