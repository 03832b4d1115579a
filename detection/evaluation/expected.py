"""TEST.EXPECTED_RESULTS: the expected results of a run, so that an instant config checks the whole installation.

[[what, value, largest_difference], ...], where `what` is "loss" (in the last line of metrics.jsonl), "detections"
(their number) or a metric of results.json.  They are compared at the end of a run.  The outcomes are logged and stored
in results.json (details.expected); if one differs, the tool ends with exit code 1.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.core.errors import InputError
from backbones.core.run_log import METRICS_FILE, get_logger, read_metrics

KEY = "TEST.EXPECTED_RESULTS"


def check_expected(expected: Sequence) -> None:
    """Raise InputError unless `expected` is [[name, number, number >= 0], ...] with distinct names."""
    for entry in expected:
        right = isinstance(entry, (list, tuple)) and len(entry) == 3 and isinstance(entry[0], str) and entry[0]
        if not right or not all(_is_number(value) for value in entry[1:]) or entry[2] < 0:
            raise InputError(f'{KEY}: {entry!r}: write [what, value, largest difference], such as ["loss", 3.4, 0.17]')
    names = [entry[0] for entry in expected]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{KEY}: {name!r} is duplicated; delete one")


def compare_expected(expected: Sequence, measured: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Return one {"what", "expected", "largest_difference", "measured", "as_expected"} per entry.

    Args:
        measured: name -> number; a missing, null or non-finite number is not as expected.
    """
    outcomes = []
    for what, value, most in expected:
        found = measured.get(what)
        fits = found is not None and math.isfinite(found) and abs(found - value) <= most
        outcomes.append(
            {"what": what, "expected": value, "largest_difference": most, "measured": found, "as_expected": fits}
        )
    return outcomes


def check_run(expected: Sequence, metrics: Mapping[str, float | None], detections: int, run_dir: Path) -> list[dict]:
    """Compare the results of a finished run with the expected ones, and log the outcomes."""
    losses = [line["loss"] for line in read_metrics(run_dir / METRICS_FILE) if "loss" in line]
    measured = {**metrics, "detections": detections, "loss": losses[-1] if losses else None}
    outcomes = compare_expected(expected, measured)
    for outcome in outcomes:
        get_logger().log(*_line(outcome, measured))
    return outcomes


def differences(results: Mapping) -> list[str]:
    """Describe the results of a run that are not as expected; empty if none, or if nothing was expected."""
    outcomes = results.get("details", {}).get("expected", [])
    return [_describe(outcome) for outcome in outcomes if not outcome["as_expected"]]


def _line(outcome: Mapping, measured: Mapping) -> tuple[int, str]:
    known = "" if outcome["what"] in measured else f"; it can be {', '.join(sorted(measured))}"
    return (20, f"as expected: {_describe(outcome)}") if outcome["as_expected"] else (30, _describe(outcome) + known)


def _describe(outcome: Mapping) -> str:
    found = outcome["measured"]
    found = "nothing" if found is None else f"{found:g}"
    return f"{outcome['what']} is {found}, expected {outcome['expected']:g} ± {outcome['largest_difference']:g}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
