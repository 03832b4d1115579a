"""A stage of a suite: one call of a tool and the folder that it fills.

Its hash covers everything that its numbers depend on: the tool, its arguments, the content of its config file with all
`_BASE_` files, the source of the label class that it trains with (suites/fingerprints/sources.py), the hashes of the
stages and the content of the data that it reads (suites/fingerprints/data.py), and our version, which represents the
rest of the code.  The hash is part of the folder's name: a stage whose folder holds its results is complete, and a
change reruns only the stages that depend on it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from backbones.core.errors import InputError
from backbones.core.imports import join_digests
from suites.fingerprints.sources import BY_TOOL, class_source
from suites.stages import record as records
from suites.stages.naming import Run
from suites.stages.resources import KEEP_ALL, UNKNOWN, Resources, Size

DEFAULT_RESOURCES = Resources()
# Folder of a stage, and the title of the selection that it waits for.
Key = tuple[Path, str]


class External(NamedTuple):
    """Something that a stage needs and no stage of the suite writes."""

    what: str  # data, weights, teacher or engine
    text: str  # its name
    path: str = ""  # its path as written in the config; empty for a package


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """One call of a tool and the folder that it fills; each subclass is a kind of stage.

    Attributes of a kind:
        kind: its name, in titles and folders.
        default_tool: the tool that fills its folder, unless the suite names another.
        trains: whether it trains a network: runs in LAUNCH.NUM_GPUS processes and resumes from its last checkpoint.
        decides: whether later stages depend on its choice.
        default_resources: what it takes from a machine, unless the suite says otherwise.
        spreads: whether its tool starts workers on all cores that it may use, which changes no number; it is given
            those of all free slots.
        weight_files: files in its folder with weights, which KEEP results deletes once no stage needs them.
        process_context: MODULE:NAME of a context manager within which stages that share a process run; "" for none.

    Attributes:
        inputs: stages that must be complete before this one.
        choices: selections that determine its settings, which must also be complete before it.
        reads: their folders, and existing data folders.
        overrides: KEY VALUE of its settings; places: those that locate its data.
        cost: expected seconds, 0: unknown; disk: expected size of its folder.
        keep: KEEP of the suite; changes no hash.
        protocol: name of the protocol of a fine-tuning.
        waits: title of the selection that must first decide this stage's settings; until then it is a sketch.
        compared: whether its results appear in the report.
        run: the row and seed that it belongs to; None for data and comparison.
        resources: what it takes from a machine; changes no hash.
        processes: number of processes that the command starts.
        labels: name of the label class that it trains with, empty for none; source: fingerprint of its source.
        imports: the user's files that its config names; imported: digest of their content.
    """

    kind: ClassVar[str]
    default_tool: ClassVar[str]
    trains: ClassVar[bool] = False
    decides: ClassVar[bool] = False
    default_resources: ClassVar[Resources] = DEFAULT_RESOURCES
    spreads: ClassVar[bool] = False
    weight_files: ClassVar[tuple[str, ...]] = ()
    process_context: ClassVar[str] = ""

    title: str
    command: tuple[str, ...]
    output: Path
    hash: str
    tool: str
    inputs: tuple["Stage", ...] = ()
    choices: tuple["Stage", ...] = ()
    reads: tuple[Path, ...] = ()
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    cost: float = 0.0
    disk: Size = UNKNOWN
    keep: str = KEEP_ALL
    protocol: str = ""
    waits: str = ""
    compared: bool = True
    processes: int = 1
    labels: str = ""
    source: str = ""
    imports: tuple[Path, ...] = ()
    imported: str = ""
    run: Run | None = None
    resources: Resources = DEFAULT_RESOURCES

    # ---- its place among the stages of a plan --------------------------------------------------

    @property
    def key(self) -> Key:
        """Its identity: two stages with the same key are the same call."""
        return self.output, self.waits

    @property
    def process_key(self) -> str:
        """Stages with the same text are run in one process if they are ready together; "" for one of its own."""
        return ""

    @property
    def processes_per_node(self) -> int:
        """Number of its processes on each of its nodes."""
        return self.processes // self.resources.nodes

    # ---- its output ------------------------------------------------------------------------

    def complete(self) -> bool:
        """Whether the folder holds the recorded output of this stage."""
        try:
            return not self.waits and self.finished() and self.recorded()
        except InputError:
            return False

    @abstractmethod
    def finished(self) -> bool:
        """Whether the folder holds the complete output of the tool; raise `InputError` if it cannot be read."""

    @abstractmethod
    def recorded(self) -> bool:
        """Whether the suite has recorded this output; raise `InputError` if it cannot be read."""

    @abstractmethod
    def record(self) -> None:
        """Record the output of the tool as that of this stage."""

    def forget(self) -> None:
        """Remove the record before the tool is called: the output of a killed call must not count as complete."""
        records.remove_record(self.own_folder)

    @abstractmethod
    def foreign(self) -> str:
        """Return why the content of the folder is not from this stage; "" if nothing contradicts it."""

    def accept_divergence(self, reason: str) -> bool:
        """Record that the training diverged if the suite can do without it; return whether it can."""
        return False

    def changed_source(self) -> str:
        """Name the label class or file if its source has changed since the stage was planned; "" otherwise."""
        if not all(path.exists() for path in self.imports) or join_digests(self.imports) != self.imported:
            return f"{' or '.join(map(str, self.imports))} (IMPORTS)"
        same = not self.source or class_source(self.tool, self.labels, self.imports) == self.source
        return "" if same else f"the source of {BY_TOOL[self.tool].key} {self.labels}"

    # ---- its own files ---------------------------------------------------------------------------

    @property
    def own_folder(self) -> Path:
        """Folder of its log and its record."""
        return self.output

    @property
    def log(self) -> Path:
        """File with everything that the tool printed."""
        return self.own_folder / f"{self.kind}.log"

    @property
    def standard_output(self) -> Path:
        """File of the tool's standard output."""
        return self.log

    # ---- its display ---------------------------------------------------------------------

    @property
    def timing_key(self) -> str:
        """Stages with the same key take about the same time."""
        return f"{self.kind} {self.protocol}".strip()

    def cached(self) -> str:
        """Return the text shown if it is already complete."""
        return "cached"

    def verdict(self) -> str:
        """Return what its line shows after it has run."""
        return ""

    def table(self) -> str:
        """Return what is shown below its line, whether it has run or was complete."""
        return ""

    # ---- its settings -------------------------------------------------------------------

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """List what a stage with the complete settings `cfg` reads and no stage writes."""
        yield from ()

    def paths(self, cfg: Mapping[str, Any]) -> list[str]:
        """Return the files and folders that these settings name."""
        return []

    def chosen_by(self) -> Iterator[tuple[str, "Stage"]]:
        """List what was chosen by validation for the backbone measured here, each with the stage that chose it."""
        yield from ()
