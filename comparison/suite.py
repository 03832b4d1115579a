"""The plan of a suite: which stages there are, the command and the folder of each, and what it depends on.

    data -> for every row and seed: pretrain -> evaluate -> localize -> finetune (each protocol) -> compare all

A stage is one call of a tool.  Its hash covers everything that its numbers depend on: the tool, its arguments, the
content of its config file with all `_BASE_` files, the hashes of the stages it reads from, and our version.  The hash
names the folder, so a stage whose folder holds its results is complete, and a change reruns exactly what it concerns.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import backbones.core
from backbones.core.config import CfgNode, config_hash, expand_path, load_yaml
from backbones.core.errors import InputError
from backbones.core.files import fingerprint, load_json
from backbones.core.results import FILE_NAME, SCHEMA_VERSION, load_results
from comparison.suite_config import as_text, data_names, fill_data

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"
REPORT = "report"
# What the report was made of; its hash says whether it is up to date.
REPORT_RECORD = "inputs.json"
# What the comparison printed.
TABLE = "table.txt"
PAGE = "index.html"
# First character of the line of a log that holds the command.
COMMAND_MARK = "$"


@dataclass(frozen=True)
class Stage:
    """One call of a tool, and the folder that it fills."""

    kind: str  # prepare | pretrain | evaluate | localize | finetune | compare
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

    @property
    def timing_key(self) -> str:
        """Stages with the same key take about the same time."""
        return f"{self.kind} {self.protocol}".strip()

    @property
    def log(self) -> Path:
        """Everything the tool printed.  A data set's log lies beside its folder, which holds data only."""
        folder = self.output.parent if self.kind == "prepare" else self.output
        return folder / f"{self.kind}.log"

    def complete(self) -> bool:
        """Whether the folder holds what the stage shall leave there."""
        if self.kind == "prepare":  # the tool writes this file last
            return (self.output / f"{self.command[2]}.json").is_file()
        try:
            if self.kind == "compare":
                whole = all((self.output / name).is_file() for name in (TABLE, PAGE))
                return whole and load_json(self.output / REPORT_RECORD)["hash"] == self.hash
            return bool(load_results(self.output))
        except InputError:
            return False


@dataclass(frozen=True)
class Plan:
    """The stages of a suite in the order in which they run; the comparison comes last, by `compare_stage`."""

    cfg: CfgNode
    output: Path
    tools: Path
    stages: tuple[Stage, ...]


def build_plan(cfg: CfgNode, output_dir: str | Path, *, tools: Path = TOOLS) -> Plan:
    """Lay out the stages of the suite `cfg` (of `load_suite`); reads config files and folder listings, writes nothing.

    Raises:
        InputError: a config file or a data folder that cannot be read, an environment variable that is not set.
    """
    return _Builder(cfg, Path(output_dir).resolve(), tools).build()


def compare_stage(plan: Plan, runs: Sequence[Stage]) -> Stage:
    """The comparison of what `runs` measured (data sets are left out); its hash covers the content of the results."""
    runs = [run for run in runs if run.kind != "prepare"]
    results = [run.output / FILE_NAME for run in runs]
    contents = [fingerprint(path.read_bytes()) if path.is_file() else "" for path in results]
    mixed = ["--allow-mixed-protocols"] if len(plan.cfg.FINETUNE) > 1 else []
    arguments = [*mixed, *map(as_text, plan.cfg.COMPARE.ARGUMENTS)]
    output, tool = plan.output / REPORT, plan.tools / "compare.py"
    return Stage(
        kind="compare",
        title="compare",
        command=(sys.executable, str(tool), "--output-dir", str(output), *arguments, *(str(r.output) for r in runs)),
        output=output,
        hash=_stage_hash(tool, arguments, None, [*(run.hash for run in runs), *contents]),
        inputs=tuple(runs),
        reads=tuple(run.output for run in runs),
        cost=plan.cfg.COMPARE.COST,
    )


@dataclass(frozen=True)
class _Run:
    """One row of the suite with one seed."""

    label: str
    seed: int
    several_seeds: bool

    def title(self) -> str:
        return f"{self.label} seed {self.seed}" if self.several_seeds else self.label

    def folder_parts(self) -> list[str]:
        # Always with the seed: a seed that is added later must not rename the folders that are there.
        return [_slug(self.label), f"s{self.seed}"]

    def overrides(self) -> list[str]:
        return ["LABEL", _yaml_text(self.label), "SEED", str(self.seed)]


class _Builder:
    """Makes the stages one after the other; `data` holds folder, hash and stage (None: it was there) by name."""

    def __init__(self, cfg: CfgNode, output: Path, tools: Path) -> None:
        self.cfg, self.output, self.tools = cfg, output, tools
        self.stages: list[Stage] = []
        self.data: dict[str, tuple[Path, str, Stage | None]] = {}

    def build(self) -> Plan:
        for entry in self.cfg.DATA:
            self.data[entry["NAME"]] = self._prepare(entry) if entry["PREPARE"] else _existing_folder(entry)
        for row in self.cfg.ROWS:
            for seed in row["SEEDS"] or self.cfg.SEEDS:
                self._row(row, seed)
        return Plan(self.cfg, self.output, self.tools, tuple(self.stages))

    def _prepare(self, entry: Mapping[str, Any]) -> tuple[Path, str, Stage]:
        tool, arguments = self._tool("prepare_data"), entry["PREPARE"]
        key = _stage_hash(tool, arguments, None, [])
        output = self.output / "data" / f"{_slug(entry['NAME'])}-{key}" / _slug(entry["NAME"])
        # The folder is ours and incomplete whenever the tool is called: it may replace what a killed call left.
        command = (sys.executable, str(tool), *arguments, "--overwrite", "--output-dir", str(output))
        stage = Stage("prepare", f"data {entry['NAME']}: prepare", command, output, key, cost=entry["COST"])
        self.stages.append(stage)
        return output, key, stage

    def _row(self, row: Mapping[str, Any], seed: int) -> None:
        run, cfg = _Run(row["LABEL"], seed, len(row["SEEDS"] or self.cfg.SEEDS) > 1), self.cfg
        backbone = None if row["BACKBONE"] else self._pretrain(run, row)
        for kind, block in (("evaluate", cfg.EVALUATE), ("localize", cfg.LOCALIZE)):
            if backbone and block.ENABLED:
                self._stage(
                    run, kind, block.OVERRIDES, backbone=backbone, folder=[str(backbone.output)], cost=block.COST
                )
        for entry in cfg.FINETUNE:
            self._finetune(run, entry, backbone)

    def _pretrain(self, run: "_Run", row: Mapping[str, Any]) -> Stage:
        block, config = self.cfg.PRETRAIN, _config_file(row["CONFIG"] or self.cfg.PRETRAIN.CONFIG)
        overrides = [*block.OVERRIDES, *row["OVERRIDES"], *run.overrides()]
        options = ["--config-file", str(config), "--resume"]
        return self._stage(run, "pretrain", overrides, options=options, config=config, cost=block.COST)

    def _finetune(self, run: "_Run", entry: Mapping[str, Any], backbone: Stage | None) -> None:
        config, overrides = _config_file(entry["CONFIG"]), [*entry["OVERRIDES"], *run.overrides()]
        source = str(backbone.output) if backbone else "random"
        options = ["--config-file", str(config), "--backbone", source, "--resume"]
        self._stage(
            run, "finetune", overrides, backbone=backbone, options=options, config=config, cost=entry["COST"],
            protocol=entry["NAME"],
        )  # fmt: skip

    def _stage(
        self, run: "_Run", kind: str, overrides: Sequence[str], *, cost: float, backbone: Stage | None = None,
        options: Sequence[str] = (), folder: Sequence[str] = (), config: Path | None = None, protocol: str = "",
    ) -> Stage:  # fmt: skip
        """Add a stage: `tool options --output-dir O folder overrides`, in the only order argparse takes them in."""
        tool, data = self._tool(_TOOL_NAMES[kind]), {name: self.data[name] for name in data_names(overrides)}
        upstream = [backbone.hash if backbone else "", *(key for _, key, _ in data.values())]
        key = _stage_hash(tool, [protocol, *overrides], config, upstream)
        output = self.output / "runs" / "-".join([*run.folder_parts(), kind, *filter(None, [_slug(protocol)]), key])
        filled = [fill_data(text, {name: path for name, (path, *_) in data.items()}) for text in overrides]
        stage = Stage(
            kind=kind,
            title=f"{run.title()}: {kind}" + (f" ({protocol})" if protocol else ""),
            command=(sys.executable, str(tool), *options, "--output-dir", str(output), *folder, *filled),
            output=output,
            hash=key,
            inputs=tuple(s for s in (backbone, *(s for *_, s in data.values())) if s),
            reads=(*([backbone.output] if backbone else []), *(path for path, *_ in data.values())),
            # What measures a backbone reads the config of its pretraining.
            config=config or (backbone.config if backbone else None),
            overrides=(*(backbone.overrides if backbone and not config else ()), *filled),
            cost=cost,
            protocol=protocol,
        )
        self.stages.append(stage)
        return stage

    def _tool(self, name: str) -> Path:
        path = self.tools / f"{name}.py"
        if not path.is_file():
            raise InputError(f"no tool {path}; run from a clone of the repository, installed by: pip install -e .")
        return path


_TOOL_NAMES = {
    "pretrain": "pretrain",
    "evaluate": "evaluate_backbone",
    "localize": "localize",
    "finetune": "finetune_coco",
}


def _stage_hash(tool: Path, arguments: Sequence[str], config: Path | None, upstream: Sequence[str]) -> str:
    """12 hex digits over everything that a stage's numbers depend on; paths of this machine are no part of it."""
    return config_hash(
        {
            "tool": tool.name,
            "arguments": list(arguments),
            "config": load_yaml(config) if config else None,
            "upstream": list(upstream),
            "version": backbones.__version__,
            "schema": SCHEMA_VERSION,
        }
    )


def _config_file(path: str) -> Path:
    return ROOT / expand_path(path)


def _existing_folder(entry: Mapping[str, Any]) -> tuple[Path, str, None]:
    where = f"DATA {entry['NAME']}: FOLDER"
    try:
        folder = expand_path(entry["FOLDER"]).absolute()
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if not folder.is_dir():
        raise InputError(f"{where}: there is no folder {folder}; check {entry['FOLDER']}")
    return folder, _listing_fingerprint(folder), None


def _listing_fingerprint(folder: Path) -> str:
    """Over the names and sizes of all files below `folder`, not over their content: seconds for a large data set."""
    lines = []
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(parent, name)
            lines.append(f"{path.relative_to(folder).as_posix()} {path.stat().st_size if path.exists() else -1}")
    return fingerprint("\n".join(sorted(lines)))


def _slug(text: str) -> str:
    """`text` as a part of a folder name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)


def _yaml_text(text: str) -> str:
    """`text`, in quotes where yaml would otherwise read it as something else (`1e3`, `a: b`, `x #2`)."""
    try:
        plain = yaml.safe_load(text) == text
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)
