"""Makes the stages of a suite: the command of each, its folder, and the hash that names it."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from backbones.core.config import load_yaml
from backbones.core.errors import InputError
from suites.references import fill, find
from suites.sources import class_source, named_class
from suites.stages import TRAININGS, Stage, find_tool, slug, stage_hash


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
    source_of: fingerprint of the class of labels of a tool, by the names of both.
    """

    output: Path
    tools: Path
    sources: Mapping[str, Source]
    processes: int = 1
    source_of: Callable[[str, str], str] = class_source

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
        tree = load_yaml(config) if config else None
        labels, source = self._labels(f"{title}: {kind}", path.stem, tree, overrides)
        key = stage_hash(path, [protocol, *overrides] if arguments is None else arguments, tree, upstream, source)
        output = self.output / "runs" / "-".join([*name, kind, *filter(None, [slug(protocol)]), key])
        filled = [fill(text, {text: str(source.folder) for text, source in used.items()}) for text in overrides]
        settings = filled if config else [*(backbone.overrides if backbone else ()), *filled]
        # What reads the config in a run's folder is told where the data lies now.
        places = _places(overrides, filled) if config or not backbone else backbone.places
        told = [] if config else places
        processes = self.processes if kind in TRAININGS else 1
        return Stage(
            kind=kind,
            title=f"{title}: {kind}" + (f" ({protocol})" if protocol else ""),
            command=(*launcher(processes), str(path), *options, "--output-dir", str(output), *folder, *told, *filled),
            output=output,
            hash=key,
            inputs=(*read, *(source.stage for source in used.values() if source.stage)),
            reads=(*(stage.output for stage in read), *(source.folder for source in used.values())),
            config=config or (backbone.config if backbone else None),
            overrides=tuple(settings),
            protocol=protocol,
            processes=processes,
            tool=path.stem,
            labels=labels,
            source=source,
            places=tuple(places),
            **others,
        )

    def _labels(
        self, title: str, tool: str, config: Mapping[str, Any] | None, overrides: Sequence[str]
    ) -> tuple[str, str]:
        """The class of labels of a call of `tool`, and its fingerprint; empty for a tool that has none."""
        name = named_class(tool, config, overrides)
        try:
            return name, self.source_of(tool, name)
        except InputError as error:
            raise InputError(f"{title}: {error}") from None


def _places(overrides: Sequence[str], filled: Sequence[str]) -> list[str]:
    """The KEY VALUE that refer to data, filled in."""
    pairs = zip(overrides[::2], overrides[1::2], filled[1::2], strict=True)
    return [text for key, value, place in pairs if find([value], "data") for text in (key, place)]


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


def yaml_text(text: str) -> str:
    """`text`, in quotes where yaml would otherwise read it as something else (`1e3`, `a: b`, `x #2`)."""
    try:
        plain = yaml.safe_load(text) == text != "None"  # which a key that holds a text refuses unless it is quoted
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)
