"""A stage of a suite: one call of a tool and the folder that it fills.

Its hash covers everything that its numbers depend on: the tool, its arguments, the content of its config file with all
`_BASE_` files, the source of the class of labels that it trains with (suites/fingerprints/sources.py), the hashes of
the stages and the content of the data it reads from (suites/fingerprints/data.py), and our version, which stands for
the rest of the code.  The hash names the folder: a stage whose folder holds its results is complete, and a change
reruns exactly what it concerns.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from backbones.core.errors import InputError
from suites.fingerprints.sources import BY_TOOL, class_source
from suites.stages import record as records


class External(NamedTuple):
    """Something that a stage reads or needs and that no stage of the suite writes."""

    what: str  # data, weights, teacher or engine
    text: str  # which
    path: str = ""  # where it lies, as the config has it; empty for a package


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """One call of a tool, and the folder that it fills; a subclass is a kind of stage.

    Attributes of a kind:
        kind: its name, in titles and folders.
        default_tool: the tool that fills its folder, unless the suite names another.
        trains: whether it trains a network: in as many processes as LAUNCH says, and from its last checkpoint.
        decides: whether what it leaves decides what later stages are.

    Attributes:
        inputs: stages that must be complete before.
        reads: their folders, and data folders that were there.
        overrides: KEY VALUE of its settings; places: those that say where its data lies.
        cost: expected seconds, 0: unknown.
        protocol: of a fine-tuning.
        waits: title of the selection that is still to decide what this stage is; until then it is a sketch.
        compared: whether its results are a part of the report.
        processes: that the command starts.
        labels: the class of labels that it trains with, empty for none; source: its fingerprint.
    """

    kind: ClassVar[str]
    default_tool: ClassVar[str]
    trains: ClassVar[bool] = False
    decides: ClassVar[bool] = False

    title: str
    command: tuple[str, ...]
    output: Path
    hash: str
    tool: str
    inputs: tuple["Stage", ...] = ()
    reads: tuple[Path, ...] = ()
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    cost: float = 0.0
    protocol: str = ""
    waits: str = ""
    compared: bool = True
    processes: int = 1
    labels: str = ""
    source: str = ""

    # ---- what it has left ------------------------------------------------------------------------

    def complete(self) -> bool:
        """Whether the folder holds what this stage has left there."""
        try:
            return not self.waits and self.finished() and self.recorded()
        except InputError:
            return False

    @abstractmethod
    def finished(self) -> bool:
        """Whether the folder holds what the tool shall leave there; `InputError` where it cannot be read."""

    @abstractmethod
    def recorded(self) -> bool:
        """Whether the suite has recorded what lies there; `InputError` where it cannot be read."""

    @abstractmethod
    def record(self) -> None:
        """Record what the tool has left as that of this stage."""

    def forget(self) -> None:
        """Before the tool is called: what a killed call leaves is nobody's."""
        records.remove_record(self.own_folder)

    @abstractmethod
    def foreign(self) -> str:
        """Why what lies in the folder is not what this stage has left there; "" where nothing contradicts it."""

    def accept_divergence(self, reason: str) -> bool:
        """Record that the training diverged, where the suite can do without it; whether it can."""
        return False

    def changed_source(self) -> str:
        """The class of labels whose source has changed since the stage was planned, "" for none."""
        same = not self.source or class_source(self.tool, self.labels) == self.source
        return "" if same else f"the source of {BY_TOOL[self.tool].key} {self.labels}"

    # ---- its own files ---------------------------------------------------------------------------

    @property
    def own_folder(self) -> Path:
        """Where its log and its record lie."""
        return self.output

    @property
    def log(self) -> Path:
        """Everything the tool printed."""
        return self.own_folder / f"{self.kind}.log"

    @property
    def standard_output(self) -> Path:
        """Where the tool prints to, if not to standard error."""
        return self.log

    # ---- what is shown of it ---------------------------------------------------------------------

    @property
    def timing_key(self) -> str:
        """Stages with the same key take about the same time."""
        return f"{self.kind} {self.protocol}".strip()

    def cached(self) -> str:
        """How it is announced where it is complete."""
        return "cached"

    def verdict(self) -> str:
        """What is said of it in its line once it has run."""
        return ""

    def table(self) -> str:
        """What is shown below its line, whether it has run or was complete."""
        return ""

    # ---- what its settings say -------------------------------------------------------------------

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """What the complete settings `cfg` of this stage read and no stage writes, to be listed."""
        yield from ()

    def paths(self, cfg: Mapping[str, Any]) -> list[str]:
        """The files and folders that these settings name."""
        return []

    def chosen_by(self) -> Iterator[tuple[str, "Stage"]]:
        """What of the backbone that is measured here was chosen by validation, each with the stage that knows how."""
        yield from ()
