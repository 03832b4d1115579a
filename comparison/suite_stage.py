"""A stage of a suite: one call of a tool and the folder that it fills.

Its hash covers everything that its numbers depend on: the tool, its arguments, the content of its config file with all
`_BASE_` files, the hashes of the stages it reads from, and our version.  The hash names the folder, so a stage whose
folder holds its results is complete, and a change reruns exactly what it concerns.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import backbones.core
from backbones.core.config import config_hash, load_yaml
from backbones.core.errors import InputError
from backbones.core.files import load_json
from backbones.core.results import SCHEMA_VERSION, load_results
from comparison.selection import DIVERGED
from comparison.selection import FILE_NAME as SELECTION
from comparison.suite_references import fill, find

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
        """Whether the folder holds what the stage shall leave there."""
        if self.waits:
            return False
        if self.kind == "prepare":  # the tool writes this file last
            return (self.output / f"{self.command[2]}.json").is_file()
        if self.kind == "grid" and self.diverged.is_file():
            return True
        try:
            if self.kind == "compare":
                whole = all((self.output / name).is_file() for name in (TABLE, PAGE))
                return whole and load_json(self.output / REPORT_RECORD)["hash"] == self.hash
            return not self.outdated(load_results(self.output))
        except InputError:
            return False

    def outdated(self, results: Mapping[str, Any]) -> bool:
        """Whether `results` speak of other weights than those that lie in the folders of `inputs` by now.

        Weights are no part of a stage's hash, and a training that was deleted and made again has others.
        """
        used = [stage for stage in self.inputs if stage.kind in ("grid", "pretrain", "select")]
        # Of a measure, whose backbone is the first; a detector that is told apart by more than it says so.
        then = [results["details"].get("backbone_hash", results["backbone"].get("hash"))]
        if self.kind == "select":
            then = [item.get("backbone") for item in load_json(self.output / SELECTION)["candidates"]]
        elif self.kind in ("grid", "pretrain"):
            teacher = dict(zip(self.overrides[::2], self.overrides[1::2], strict=True)).get("TEACHER.RUN")
            used = [stage for stage in used if str(stage.output) == teacher]
            then = [results["details"].get("teacher")]
        now = [_weights(stage) for stage in used]
        return any(a != b for a, b in zip(then, now, strict=False) if a is not None and b is not None)


def _weights(stage: Stage) -> str | None:
    """Hash of the backbone that a stage has left, None where it has none."""
    try:
        return load_results(stage.output)["backbone"].get("hash")
    except InputError:
        return None


def find_tool(folder: Path, kind: str, name: str = "") -> Path:
    """The tool that fills a stage of this kind, the one of that name where there are several."""
    path = folder / f"{name or TOOLS[kind]}.py"
    if not path.is_file():
        raise InputError(f"no tool {path}; run from a clone of the repository, installed by: pip install -e .")
    return path


def stage_hash(tool: Path, arguments: Sequence[str], config: Path | None, upstream: Sequence[str]) -> str:
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


@dataclass(frozen=True)
class Source:
    """What `{data:NAME}` or `{run:LABEL}` stands for; `stage` fills the folder (None: it was there)."""

    folder: Path
    hash: str
    stage: Stage | None


@dataclass(frozen=True)
class Run:
    """One row of the suite with one seed."""

    label: str
    seed: int
    several_seeds: bool

    @property
    def title(self) -> str:
        return f"{self.label} seed {self.seed}" if self.several_seeds else self.label

    @property
    def name(self) -> list[str]:
        """Parts of its folders' names."""
        # Always with the seed: a seed that is added later must not rename the folders that are there.
        return [slug(self.label), f"s{self.seed}"]

    @property
    def overrides(self) -> list[str]:
        return ["LABEL", yaml_text(self.label), "SEED", str(self.seed)]


@dataclass(frozen=True)
class Factory:
    """Makes the stages that read from `sources`, by their reference, with folders below `output`/runs.

    processes: of each training.
    """

    output: Path
    tools: Path
    sources: Mapping[str, Source]
    processes: int = 1

    def make(
        self, kind: str, title: str, name: Sequence[str], overrides: Sequence[str] = (), *, options: Sequence[str] = (),
        config: Path | None = None, backbone: Stage | None = None, folder: Sequence[str] = (), protocol: str = "",
        inputs: Sequence[Stage] = (), tool: str = "", arguments: Sequence[str] | None = None, **others: Any,
    ) -> Stage:  # fmt: skip
        """`tool options --output-dir O folder overrides`, in the only order argparse takes them in.

        Several processes are started by torchrun, of which the hash knows nothing.

        Args:
            name: parts of the folder's name; kind, protocol and hash follow.
            overrides: with references to `sources`; their hashes enter the stage's, their folders do not.
            backbone: the run that is read; what has no config of its own goes by that of the backbone.
            inputs: more stages that are read.
            tool: default: that of TOOLS.
            arguments: what the hash covers; default: `protocol` and `overrides`.
        """
        path = find_tool(self.tools, kind, tool)
        used = {text: self.sources[text] for text in find(overrides, "data", "run")}
        read = [*([backbone] if backbone else []), *inputs]
        upstream = [backbone.hash if backbone else "", *(s.hash for s in inputs), *(s.hash for s in used.values())]
        key = stage_hash(path, [protocol, *overrides] if arguments is None else arguments, config, upstream)
        output = self.output / "runs" / "-".join([*name, kind, *filter(None, [slug(protocol)]), key])
        filled = [fill(text, {text: str(source.folder) for text, source in used.items()}) for text in overrides]
        settings = filled if config else [*(backbone.overrides if backbone else ()), *filled]
        processes = self.processes if kind in TRAININGS else 1
        return Stage(
            kind=kind,
            title=f"{title}: {kind}" + (f" ({protocol})" if protocol else ""),
            command=(*launcher(processes), str(path), *options, "--output-dir", str(output), *folder, *filled),
            output=output,
            hash=key,
            inputs=(*read, *(source.stage for source in used.values() if source.stage)),
            reads=(*(stage.output for stage in read), *(source.folder for source in used.values())),
            config=config or (backbone.config if backbone else None),
            overrides=tuple(settings),
            protocol=protocol,
            processes=processes,
            tool=path.stem,
            **others,
        )


def launcher(processes: int) -> list[str]:
    """What starts a tool: python, or torchrun for several processes on this machine."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *(several if processes > 1 else [])]


def sorted_overrides(overrides: Sequence[str]) -> list[str]:
    """`overrides` with one value a key, the last one, in the order of the keys: equal for equal configs."""
    pairs = dict(zip(overrides[0::2], overrides[1::2], strict=True))
    return as_overrides({key: pairs[key] for key in sorted(pairs)})


def as_overrides(values: Mapping[str, str]) -> list[str]:
    """{key: value} as KEY VALUE ..."""
    return [text for pair in values.items() for text in pair]


def slug(text: str) -> str:
    """`text` as a part of a folder name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)


def yaml_text(text: str) -> str:
    """`text`, in quotes where yaml would otherwise read it as something else (`1e3`, `a: b`, `x #2`)."""
    try:
        plain = yaml.safe_load(text) == text != "None"  # which a key that holds a text refuses unless it is quoted
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)
