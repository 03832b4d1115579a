"""Factory of the stages of a suite: command, folder, and the hash in the folder's name."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from backbones.core.config import IMPORTS, load_yaml
from backbones.core.errors import InputError
from backbones.core.imports import find_imports, join_digests
from suites.fingerprints.sources import class_source, named_class
from suites.references import DATA, RUN, fill, find
from suites.stages.base import Stage
from suites.stages.naming import Run, find_tool, slug, stage_hash
from suites.stages.resources import KEEP_ALL, KEEP_WEIGHTS, Resources
from suites.stages.results import OfBackbone, ResultStage

S = TypeVar("S", bound=Stage)


@dataclass(frozen=True)
class Source:
    """Value of `{data:NAME}` or `{run:LABEL}`; `stage` fills the folder (None: an existing folder)."""

    folder: Path
    hash: str
    stage: Stage | None


@dataclass(frozen=True)
class Factory:
    """Factory of stages with folders below `output`/runs.

    sources: reference -> what it is replaced by.
    processes: number per training and node, started by torchrun; does not enter the hash.
    resources: what a stage takes, by kind; those of `Stage.default_resources` are replaced.
    source_of: maps the names of a tool and of its label class, and the files of IMPORTS, to the fingerprint of the
        class's source.
    tree_of: maps a config file to its content.
    keep: KEEP of the suite.
    """

    output: Path
    tools: Path
    sources: Mapping[str, Source]
    processes: int = 1
    resources: Mapping[str, Resources] = field(default_factory=dict)
    source_of: Callable[[str, str, tuple[Path, ...]], str] = class_source
    tree_of: Callable[[Path], Mapping[str, Any]] = load_yaml
    keep: str = KEEP_ALL

    def make(
        self, cls: type[S], run: Run, name: Sequence[str], overrides: Sequence[str] = (), *,
        options: Sequence[str] = (), config: Path | None = None, backbone: ResultStage | None = None,
        folder: Sequence[str] = (), protocol: str = "", inputs: Sequence[Stage] = (), tool: str = "",
        arguments: Sequence[str] | None = None, **others: Any,
    ) -> S:  # fmt: skip
        """Make a stage that runs `tool options --output-dir O folder overrides`, the only order argparse accepts.

        Args:
            cls: the kind of stage.
            run: the row and seed that it belongs to.
            name: parts of the folder's name; kind, protocol and hash are appended.
            overrides: can refer to `sources`, whose hashes enter the stage's hash; their folders do not.
            backbone: the run to read; its config is used if `config` is not given.
            inputs: further stages to read.
            tool: default: that of the kind.
            arguments: texts that the hash covers; default: `protocol` and `overrides`.
        """
        path = find_tool(self.tools, tool or cls.default_tool)
        used = {text: self.sources[text] for text in find(overrides, DATA, RUN)}
        read = [*([backbone] if backbone else []), *inputs]
        upstream = [backbone.hash if backbone else "", *(s.hash for s in inputs), *(s.hash for s in used.values())]
        tree = self.tree_of(config) if config else None
        code = self._code(f"{run.title}: {cls.kind}", path.stem, tree, overrides)
        arguments = [protocol, *without_imports(overrides)] if arguments is None else arguments
        key = stage_hash(path, arguments, tree, upstream, code["source"], code["imported"])
        output = self.output / "runs" / "-".join([*name, cls.kind, *filter(None, [slug(protocol)]), key])
        filled = [fill(text, {text: str(source.folder) for text, source in used.items()}) for text in overrides]
        of = None if config else backbone  # its config is read in place, and is given the current folders of the data
        places = of.places if of else tuple(_places(overrides, filled))
        told = () if config else places
        others |= {"backbone": backbone} if issubclass(cls, OfBackbone) else {}
        return cls(
            title=f"{run.title}: {cls.kind}" + (f" ({protocol})" if protocol else ""),
            command=(*self._start(cls, path), *options, "--output-dir", str(output), *folder, *told, *filled),
            output=output,
            hash=key,
            tool=path.stem,
            inputs=(*read, *(source.stage for source in used.values() if source.stage)),
            reads=(*(stage.output for stage in read), *(source.folder for source in used.values())),
            config=config or (backbone.config if backbone else None),
            overrides=(*(of.overrides if of else ()), *filled),
            places=places,
            protocol=protocol,
            processes=self._processes(cls),
            run=run,
            keep=self.keep,
            resources=self._resources(cls),
            **code | others,
        )  # fmt: skip

    def _resources(self, cls: type[Stage]) -> Resources:
        return self.resources.get(cls.kind, cls.default_resources)

    def _processes(self, cls: type[Stage]) -> int:
        return self.processes * self._resources(cls).nodes if cls.trains else 1

    def _start(self, cls: type[Stage], path: Path) -> list[str]:
        """Return the start of a command; what KEEP results deletes is not the tool's concern."""
        kept = ["--keep", KEEP_WEIGHTS] if cls.trains and self.keep != KEEP_ALL else []
        return [*launcher(self._processes(cls)), str(path), *kept]

    def _code(
        self, title: str, tool: str, config: Mapping[str, Any] | None, overrides: Sequence[str]
    ) -> dict[str, Any]:
        """Return the attributes of a stage on code: its label class and the files of IMPORTS, with fingerprints."""
        name = named_class(tool, config, overrides)
        try:
            imports = tuple(find_imports(config, overrides))
            source, imported = self.source_of(tool, name, imports), join_digests(imports)
        except InputError as error:
            raise InputError(f"{title}: {error}") from None
        return {"labels": name, "source": source, "imports": imports, "imported": imported}


def without_imports(overrides: Sequence[str]) -> list[str]:
    """Leave out IMPORTS: its files count by their content."""
    return as_overrides(
        {key: value for key, value in zip(overrides[::2], overrides[1::2], strict=True) if key != IMPORTS}
    )


def _places(overrides: Sequence[str], filled: Sequence[str]) -> list[str]:
    """Return the KEY VALUE pairs that refer to data, with the references replaced."""
    pairs = zip(overrides[::2], overrides[1::2], filled[1::2], strict=True)
    return [text for key, value, place in pairs if find([value], DATA) for text in (key, place)]


def launcher(processes: int) -> list[str]:
    """Return the command that starts a tool: python, or torchrun for several processes on this machine."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *(several if processes > 1 else [])]


def sorted_overrides(overrides: Sequence[str]) -> list[str]:
    """Sort `overrides` by key and keep the last value of each, so that equal configs give equal lists."""
    pairs = dict(zip(overrides[0::2], overrides[1::2], strict=True))
    return as_overrides({key: pairs[key] for key in sorted(pairs)})


def as_overrides(values: Mapping[str, str]) -> list[str]:
    """Flatten {key: value} to KEY VALUE ..."""
    return [text for pair in values.items() for text in pair]
