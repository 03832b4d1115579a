"""Failed stages: the file that `tools/compare.py --failures` reads, and what tables say about them.

The file is JSON, a list with one object per stage that failed; [] if none did.  Stages that could not run because
another one had failed are left out.

    [{"label": "ALS", "seed": 0, "protocol": "", "what": "pretrain",
      "reason": "error: the loss is not finite", "log": "runs/als-s0-pretrain/pretrain.log"}]

label, seed: the row, as its results.json names it, or would have.
protocol: of a fine-tuning, the name of its protocol in results.json, without the hash; empty for every other stage.
what: the step, such as pretrain, grid, select, evaluate, localize, finetune; reason: why it failed, in one line.
log: path of its full output; can be empty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from backbones.core.errors import InputError
from backbones.core.files import load_json

FAILED = "failed"
MARK = "§"  # of a row that keeps its numbers
_NAMED = {str: "text", int: "an integer"}


@dataclass(frozen=True)
class Failure:
    """One failed stage; the module docstring describes the fields."""

    label: str
    seed: int
    protocol: str
    what: str
    reason: str
    log: str


def load_failures(path: str | Path) -> list[Failure]:
    """Read a file of failures.

    Raises:
        InputError: the file is missing, not JSON, not a list, or an entry lacks a key, has another one, or a value of
            another type; the message names the file, the entry (from 1) and the key.
    """
    entries = load_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path} is not a list of failures; write one object per failed stage, or [] for none")
    return [_failure(entry, f"{path}: entry {number}") for number, entry in enumerate(entries, 1)]


def _failure(entry: Any, where: str) -> Failure:
    types = {field.name: field.type for field in fields(Failure)}
    needed = f"a failure has the keys {', '.join(types)}"
    if not isinstance(entry, dict):
        raise InputError(f"{where} is not an object; {needed}")
    for name in [*types, *entry]:
        if name not in entry or name not in types:
            raise InputError(f"{where} has {'no' if name in types else 'an unknown'} key '{name}'; {needed}")
    for name, kind in types.items():
        if type(entry[name]) is not kind:
            raise InputError(f"{where}: {name} is {entry[name]!r}; it must be {_NAMED[kind]}")
    for name in ("label", "what"):
        if not entry[name].strip():
            raise InputError(f"{where}: {name} is empty; name the {'row' if name == 'label' else 'step'}")
    texts = {name: " ".join(_printable(entry[name]).split()) for name in ("what", "reason")}
    return Failure(**{**entry, **texts, "log": _printable(entry["log"])})


def _printable(text: str) -> str:
    """Replace line breaks and control characters, which tools write to terminals, by spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


# ---- what tables say; a row is an entry of "rows" in comparison.json -------------------------------------------------


def detector_failure(row: Mapping[str, Any]) -> str:
    """Return the text in place of a row's detection results, "" if it has some or none of its failures prevented them.

    A row without any results shows any failure, another one only that of its fine-tuning.
    """
    if "detection" in row["stages"]:
        return ""
    return _cell([failure for failure in row["failures"] if failure["protocol"] or not row["stages"]])


def backbone_failure(row: Mapping[str, Any]) -> str:
    """Return the text in place of what is measured on the backbone, "" if it has such results or did not fail."""
    if row["stages"].keys() - {"detection"}:
        return ""
    return _cell([failure for failure in row["failures"] if not failure["protocol"]])


def is_marked(row: Mapping[str, Any], protocol: str) -> bool:
    """Whether a failure of a stage with this protocol ("" for none) is shown by `MARK`, as the row keeps its numbers.

    The other failures are shown by `detector_failure`.
    """
    return bool(row["stages"]) and not (protocol and "detection" not in row["stages"])


def failure_text(row: Mapping[str, Any]) -> str:
    """Return all failures of a row in one line: "evaluate: error: ...; finetune: error: ..."; "" without any."""
    return "; ".join(map(_described, row["failures"]))


def _cell(failures: Sequence[Mapping[str, Any]]) -> str:
    if not failures:
        return ""
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return f"{FAILED}: {_described(failures[0])}{more}"


def _described(failure: Mapping[str, Any]) -> str:
    return ": ".join(filter(None, (failure["what"], failure["reason"])))
