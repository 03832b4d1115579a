"""The first screen of the page: a sentence per method, and the table of methods.

A comparison without repeated rows has no methods; its rows then take their place, with intervals over images only.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from comparison.failures import detector_failure
from comparison.metrics import BY_NAME, is_marked
from comparison.page import figures
from comparison.tables.formats import (
    MISSING,
    display_name,
    excludes_zero,
    format_difference,
    format_number,
    groups_of,
)
from comparison.tables.verdicts import hours_text, verdict_text
from comparison.verdicts.planner import MOST_SEEDS
from comparison.verdicts.words import BETTER, EQUIVALENT, IDENTICAL, SEEDS_FOR_A_VERDICT, UNDECIDED, WORSE

# Columns of the table of methods, after the primary number.
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "VOC_mAP50")
FEW_OBJECTS = 10
# Metric -> the count of results.json that says how many objects it rests on.
_SIZES = {"APs": "small", "APm": "medium", "APl": "large", "ARs": "small", "ARm": "medium", "ARl": "large"}
_SIGNS = {BETTER: "▲", WORSE: "▼", EQUIVALENT: "=", IDENTICAL: "=", UNDECIDED: "?"}


class Cell(NamedTuple):
    """A number of a method: mean, spread over seeds, difference to the baseline.

    few: "2 of 3 seeds" if some have failed.
    state: `better` or `worse` if the interval of the difference excludes 0, `few` if it rests on few objects.
    """

    value: str
    spread: str
    difference: str
    state: str
    tip: str
    number: float | None
    few: str = ""


class Line(NamedTuple):
    """A method under one protocol.

    sign, word: of the verdict; needs: what would settle it; said: the sentence on it.
    """

    label: str
    note: str
    protocol: str | None
    colour: str
    is_baseline: bool
    failure: str
    sign: str
    word: str
    needs: str
    difference: Mapping[str, Any] | None
    said: str
    cells: list[Cell]


def first_screen(comparison: Mapping[str, Any], colours: Mapping[str, str]) -> dict[str, Any]:
    """Return the facts, the sentences and the tables of the first screen."""
    tables = [_table(comparison, protocol, rows, colours) for protocol, rows in groups_of(comparison)]
    tables = [table for table in tables if table["lines"]]
    return {"facts": _facts(comparison), "sentences": _sentences(comparison, tables), "tables": tables}


def _facts(comparison: Mapping[str, Any]) -> list[str]:
    rows = comparison["rows"]
    methods, protocols = {row["label"] for row in rows}, {row["protocol"] for row in rows} - {None}
    seeds = {len({row["seed"] for row in rows if row["label"] == label}) for label in methods}
    baselines = list(dict.fromkeys(row["label"] for row in rows if row["is_baseline"]))
    compared = methods - {*baselines}
    facts = [_count(len(compared) or 1, "method")]
    if max(seeds) > 1:
        facts.append(f"{' to '.join(map(str, sorted({min(seeds), max(seeds)})))} seeds each")
    facts += [_count(len(protocols), "protocol")] if len(protocols) > 1 else []
    facts += [f"against the baseline {' and '.join(baselines)}"] if baselines and compared else []
    margins = [method["verdict"]["margin"] for method in comparison["methods"] if method["verdict"]]
    decides = f"{comparison['primary']} decides"
    without = sum(not row["stages"] for row in rows)
    facts += [f"{without} of {len(rows)} rows without results"] if without else []
    return [*facts, f"{decides}, a difference of {margins[0]:g} does not matter" if margins else decides]


def test_set(rows: Sequence[Mapping[str, Any]]) -> str:
    """Describe the test set of a table: "val2017: 5,000 images, 36,335 objects (15,000 small, ...)"; "" if unknown."""
    found = [row["stages"]["detection"]["data"].get("test", {}) for row in rows if "detection" in row["stages"]]
    counted = [test for test in found if "images" in test]
    if not counted:
        return ""
    test, sizes = counted[0], ("small", "medium", "large")
    parts = ", ".join(f"{test[size]:,} {size}" for size in sizes if size in test)
    return f"{test.get('name', 'test set')}: {test['images']:,} images, {test.get('objects', 0):,} objects ({parts})"


# ---- sentences ----------------------------------------------------------------------------------------------------


def _sentences(comparison: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return {"label", "colour", "parts": [(sign, text)]} per method; protocols with the same verdict share a part."""
    lines: dict[str, list[Line]] = {}
    for table in tables:
        for line in table["lines"]:
            if not line.is_baseline and line.said:
                lines.setdefault(line.label, []).append(line)
    several = len(tables) > 1

    def parts(own: Sequence[Line]) -> list[tuple[str, str]]:
        if not several:
            return [(line.sign, line.said) for line in own]
        return _under(own, comparison) if comparison["methods"] else _of_rows(own)

    return [{"label": label, "colour": own[0].colour, "parts": parts(own)} for label, own in lines.items()]


def _of_rows(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Return a part per protocol, each with its name: single networks have no verdict that protocols could share."""
    return [(line.sign, f"under {_short(line.protocol)} {line.said}") for line in lines]


def _under(lines: Sequence[Line], comparison: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a part per verdict, with the protocols under which it holds and their differences."""
    by_verdict: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        value = format_number(line.difference["value"], signed=True) if line.difference else MISSING
        verdict = line.said.partition("; ")[0].partition(f", {comparison['primary']} ")[0]
        name = _short(line.protocol)
        by_verdict.setdefault((line.sign, verdict), []).append(f"{name} ({value})")
    return [(sign, f"{verdict} under {' and '.join(names)}") for (sign, verdict), names in by_verdict.items()]


def _said(method: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """Return the sentence on a method over seeds, without its name; "" for the baseline."""
    primary = comparison["primary"]
    verdict, separator, needs = verdict_text(method).partition("; ")
    difference = (method["differences"] or {}).get(primary)
    known = difference is not None and difference["low"] is not None
    numbers = f", {primary} {format_difference(difference)}" if verdict and known else ""
    return f"{verdict}{numbers}{separator}{needs}"


def _needs(method: Mapping[str, Any]) -> str:
    """Return what would settle a difference, in a few words."""
    found = method["verdict"]
    if found is None or found["word"] != UNDECIDED:
        return ""
    needs = found["needs"]
    if needs is None:
        return f"more than {MOST_SEEDS} seeds"
    images = f" on {needs['images']:.1f} times the images" if needs["images"] > 1 else ""
    hours = f", another {hours_text(needs['hours'])}" if needs["hours"] is not None else ""
    return f"about {needs['seeds']} seeds{images}{hours}"


def _said_of_row(row: Mapping[str, Any], primary: str) -> str:
    """Return the sentence on a single network, whose training was not repeated."""
    difference = (row["difference_to_baseline"] or {}).get(primary)
    if row["is_baseline"] or difference is None or difference["value"] is None:
        return ""
    text = f"{primary} {format_difference(difference)}"
    if difference["low"] is None:
        return f"{text}, without an interval"
    if not excludes_zero(difference):
        return f"not distinguishable from {row['baseline']}: {text}, the interval includes 0"
    side = "above" if difference["value"] > 0 else "below"
    return f"{text}, {side} {row['baseline']} on these images, for these two networks"


# ---- tables -------------------------------------------------------------------------------------------------------


def _table(
    comparison: Mapping[str, Any], protocol: str | None, rows: Sequence[Mapping[str, Any]], colours: Mapping[str, str]
) -> dict[str, Any]:
    methods = [method for method in comparison["methods"] if method["protocol"] == protocol]
    counts = _object_counts(rows)
    columns = [n for n in COLUMNS if n != comparison["primary"] and any(row["metrics"][n] is not None for row in rows)]
    columns = [comparison["primary"], *columns]
    if methods:
        lines = [_method_line(method, rows, comparison, columns, counts, colours) for method in methods]
    else:
        lines = [_row_line(row, comparison, columns, counts, colours) for row in rows]
    return {
        "protocol": protocol,
        "name": _short(protocol),
        "columns": [BY_NAME[name] for name in columns],
        "lines": lines,
        "scale": figures.common_scale([line.difference for line in lines if line.difference and _known(line)]),
        "test": test_set(rows),
        "judged": any(line.word or line.needs for line in lines),
    }


def _object_counts(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, int]:
    found = [row["stages"]["detection"]["data"].get("test", {}) for row in rows if "detection" in row["stages"]]
    return found[0] if found else {}


def _method_line(
    method: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any],
    columns: Sequence[str], counts: Mapping[str, int], colours: Mapping[str, str],
) -> Line:  # fmt: skip
    own = [row for row in rows if row["label"] == method["label"]]
    differences, primary = method["differences"] or {}, comparison["primary"]
    word = _word(method)
    cells = []
    for name in columns:
        cell, count = _cell(name, method["metrics"][name], differences.get(name), counts, method["made_of"]), 0
        if any(row["failures"] for row in rows):
            count = method["metrics"][name]["count"]
        missing = 0 < count < len(method["seeds"])
        cells.append(cell._replace(few=f"{count} of {method['planned']} seeds") if missing else cell)
    failed = method["metrics"][primary]["mean"] is None and any(map(detector_failure, own))
    usual = {one["made_of"] for one in comparison["methods"]}
    return Line(
        method["label"], method["made_of"] if len(usual) > 1 else "", method["protocol"], colours[own[0]["name"]],
        any(row["is_baseline"] for row in own), detector_failure(own[0]) if failed else "", _SIGNS.get(word, ""), word,
        _needs(method), differences.get(primary), _said(method, comparison), cells,
    )  # fmt: skip


def _row_line(
    row: Mapping[str, Any], comparison: Mapping[str, Any], columns: Sequence[str], counts: Mapping[str, int],
    colours: Mapping[str, str],
) -> Line:  # fmt: skip
    primary, differences = comparison["primary"], row["difference_to_baseline"] or {}
    if row["is_baseline"]:
        differences = {}
    metrics = {name: {"mean": row["metrics"][name], "deviation": None, "count": 1} for name in columns}
    cells = [_cell(name, metrics[name], differences.get(name), counts, "one network") for name in columns]
    return Line(
        display_name(row), "", row["protocol"], colours[row["name"]], row["is_baseline"], detector_failure(row),
        "", "", "", differences.get(primary), _said_of_row(row, primary), cells,
    )  # fmt: skip


def _known(line: Line) -> bool:
    return line.difference is not None and line.difference["value"] is not None


def _word(method: Mapping[str, Any]) -> str:
    if method["verdict"] is None:
        return ""
    return method["verdict"]["word"] or f"needs {SEEDS_FOR_A_VERDICT} seeds"


def _cell(
    name: str, mean: Mapping[str, Any], difference: Mapping[str, Any] | None, counts: Mapping[str, int], made_of: str
) -> Cell:
    spread = f"±\N{NO-BREAK SPACE}{format_number(mean['deviation'])}" if mean["deviation"] is not None else ""
    value = difference["value"] if difference else None
    tip = f"{BY_NAME[name].title}, {made_of}"
    if value is not None:
        tip += f"; minus baseline {format_difference(difference)}"
    objects = counts.get(_SIZES.get(name, ""))
    state = ""
    if objects is not None and objects < FEW_OBJECTS:
        state, tip = "few", f"{tip}; only {_count(objects, 'object')}"
    elif difference and value is not None and excludes_zero(difference) and is_marked(name):
        state = "better" if (value > 0) == (BY_NAME[name].better > 0) else "worse"
    signed = format_number(value, signed=True) if value is not None else ""
    return Cell(format_number(mean["mean"]), spread, signed, state, tip, mean["mean"])


def _short(protocol: str | None) -> str:
    """Return the name of a protocol without its hash."""
    return (protocol or "").rpartition("@")[0]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
