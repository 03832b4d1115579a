"""A stage of a suite: one call of a tool and the folder that it fills.

Its hash covers everything that its numbers depend on: the tool, its arguments, the content of its config file with all
`_BASE_` files, the source of the class of labels that it trains with (suites/sources.py), the hashes of the stages and
the content of the data it reads from (suites/data.py), and our version, which stands for the rest of the code.  The
hash names the folder: a stage whose folder holds its results is complete, and a change reruns exactly what it concerns.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backbones.core
from backbones.core.config import config_hash
from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.results import SCHEMA_VERSION
from suites import record as records
from suites.selection import DIVERGED
from suites.selection import FILE_NAME as SELECTION

# What the report was made of; its hash says whether it is up to date.
REPORT_RECORD = "inputs.json"
# What the comparison printed.
TABLE = "table.txt"
PAGE = "index.html"
# First character of the line of a log that holds the command.
COMMAND_MARK = "$"
# Kinds of stages that LAUNCH.NUM_GPUS concerns; they go on from a checkpoint, too.
TRAININGS = ("grid", "pretrain", "finetune")
TOOLS = {
    "prepare": "prepare_data",
    "grid": "pretrain",
    "select": "select_run",
    "pretrain": "pretrain",
    "evaluate": "evaluate_backbone",
    "localize": "localize",
    "finetune": "finetune_coco",  # or what FINETUNE says
    "compare": "compare",
}
# What the results of each kind say that they are.
RESULTS = {
    **dict.fromkeys(("grid", "select", "pretrain"), "pretraining"),
    **{"evaluate": "backbone", "localize": "localization", "finetune": "detection"},
}
# Files of a run that nobody reads once it is finished, so that they may be deleted.
DISPENSABLE = ("checkpoint", "metrics")


@dataclass(frozen=True)
class Stage:
    """One call of a tool, and the folder that it fills."""

    kind: str  # of TOOLS; grid: the pretraining of one point of a grid
    title: str
    command: tuple[str, ...]
    output: Path
    hash: str
    inputs: tuple["Stage", ...] = ()  # stages that must be complete before
    reads: tuple[Path, ...] = ()  # their folders, and data folders that were there
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    cost: float = 0.0  # expected seconds, 0: unknown
    protocol: str = ""  # of a fine-tuning
    waits: str = ""  # title of the selection that is still to decide what this stage is; until then it is a sketch
    selection: "Stage | None" = None  # that chose the backbone which is measured here
    compared: bool = True  # whether its results are a part of the report
    processes: int = 1  # that the command starts
    tool: str = ""  # name of the tool
    labels: str = ""  # the class of labels that it trains with, and ...
    source: str = ""  # ... its fingerprint
    places: tuple[str, ...] = ()  # those of `overrides` that say where its data lies

    @property
    def timing_key(self) -> str:
        """Stages with the same key take about the same time."""
        return f"{self.kind} {self.protocol}".strip()

    @property
    def log(self) -> Path:
        """Everything the tool printed.  A data set's log lies beside its folder, which holds data only."""
        folder = self.output.parent if self.kind == "prepare" else self.output
        return folder / f"{self.kind}.log"

    @property
    def diverged(self) -> Path:
        """The file that says that this point of a grid came to nothing, and would again."""
        return self.output / DIVERGED

    def complete(self) -> bool:
        """Whether the folder holds what this stage has left there."""
        if self.waits:
            return False
        if self.kind == "grid" and self.diverged.is_file():
            return True
        try:
            return self.finished() and (self.kind == "compare" or self.recorded())
        except InputError:
            return False

    def finished(self) -> bool:
        """Whether the folder holds what the tool shall leave there; `InputError` where it cannot be read."""
        if self.kind == "prepare":  # the tool writes this file last
            return (self.output / f"{self.command[2]}.json").is_file()
        if self.kind == "compare":
            whole = all((self.output / name).is_file() for name in (TABLE, PAGE))
            record = load_json(self.output / REPORT_RECORD) if whole else None
            return isinstance(record, Mapping) and record.get("hash") == self.hash
        results = records.read_results(self.output)
        needed = [self.output / str(path) for name, path in results["files"].items() if name not in DISPENSABLE]
        return results["stage"] == RESULTS[self.kind] and not self.outdated(results) and all(p.exists() for p in needed)

    def recorded(self) -> bool:
        """Whether the suite has recorded what lies there; `InputError` where it cannot be read."""
        if self.kind == "prepare":
            return records.has_record(self.output.parent) and not records.data_difference(self.output)
        return records.has_record(self.output) and not records.difference(self.output)

    def record(self) -> None:
        """Record what the tool has left."""
        if self.kind == "prepare":
            records.write_data_record(self.output)
        elif self.kind != "compare":
            records.write_record(self.output)

    def foreign(self) -> str:
        """Why what lies in the folder is not what this stage has left there; "" where nothing speaks against it."""
        try:
            if self.kind == "prepare":
                return records.data_difference(self.output) if self.finished() else ""
            results = records.read_results(self.output)
            outdated = self.outdated(results)
        except InputError:
            return ""  # no finished results yet, or broken ones
        if results["stage"] != RESULTS[self.kind]:
            return f"it holds results of the stage {results['stage']}"
        if outdated:
            return "its results are of weights that have been made again since"
        try:
            return records.difference(self.output)
        except InputError as error:
            return str(error)

    def outdated(self, results: Mapping[str, Any]) -> bool:
        """Whether `results` speak of other weights than those that lie in the folders of `inputs` by now.

        Weights are no part of a stage's hash, and a training that was deleted and made again has others.
        """
        used = [stage for stage in self.inputs if stage.kind in ("grid", "pretrain", "select")]
        # Of a measure, whose backbone is the first; a detector that is told apart by more than it says so.
        then = [results["details"].get("backbone_hash", results["backbone"].get("hash"))]
        if self.kind == "select":
            then = [item.get("backbone") for item in _candidates(self.output / SELECTION)]
        elif self.kind in ("grid", "pretrain"):
            teacher = dict(zip(self.overrides[::2], self.overrides[1::2], strict=True)).get("TEACHER.RUN")
            used = [stage for stage in used if str(stage.output) == teacher]
            then = [results["details"].get("teacher")]
        now = [_weights(stage) for stage in used]
        return any(a != b for a, b in zip(then, now, strict=False) if a is not None and b is not None)


def _weights(stage: Stage) -> str | None:
    """Hash of the backbone that a stage has left, None where it has none."""
    try:
        return records.read_results(stage.output)["backbone"].get("hash")
    except InputError:
        return None


def _candidates(path: Path) -> list[Mapping[str, Any]]:
    selection = load_json(path)
    found = selection.get("candidates") if isinstance(selection, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise InputError(f"{path} does not hold the candidates of a selection; delete it, the stage runs again")
    return found


def find_tool(folder: Path, kind: str, name: str = "") -> Path:
    """The tool that fills a stage of this kind, the one of that name where there are several."""
    path = folder / f"{name or TOOLS[kind]}.py"
    if not path.is_file():
        raise InputError(f"no tool {path}; run from a clone of the repository, installed by: pip install -e .")
    return path


def stage_hash(
    tool: Path, arguments: Sequence[str], config: Mapping[str, Any] | None, upstream: Sequence[str], source: str = ""
) -> str:
    """12 hex digits over everything that a stage's numbers depend on; paths of this machine are no part of it.

    Args:
        config: content of the config file.
        source: fingerprint of the class of labels.
    """
    return config_hash(
        {
            "tool": tool.name,
            "arguments": list(arguments),
            "config": config,
            "source": source,
            "upstream": list(upstream),
            "version": backbones.__version__,
            "schema": SCHEMA_VERSION,
        }
    )


def slug(text: str) -> str:
    """`text` as a part of a folder name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)
