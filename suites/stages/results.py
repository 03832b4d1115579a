"""Stages whose tool writes a results.json, which names its backbone."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from backbones.core.errors import InputError
from suites.stages import record as records
from suites.stages.base import Stage

# Files of a run that are not needed once it is finished and can be deleted.
DISPENSABLE = ("checkpoint", "metrics")


class ResultStage(Stage):
    """A stage that writes results.

    results_stage: value of "stage" in its results.
    """

    results_stage: ClassVar[str]

    def finished(self) -> bool:
        """Whether its results come from its tool and the current weights, with all files that they name, except those
        that KEEP has deleted."""
        results = records.read_results(self.output)
        needed = [str(path) for name, path in results["files"].items() if name not in DISPENSABLE]
        right = results["stage"] == self.results_stage and not self.outdated(results)
        return right and {path for path in needed if not (self.output / path).exists()} <= records.deleted(self.output)

    def recorded(self) -> bool:
        """Whether its results are the recorded ones."""
        return records.has_record(self.own_folder) and not records.difference(self.output)

    def record(self) -> None:
        """Record its results, and the config beside them."""
        records.write_record(self.output)

    def foreign(self) -> str:
        """Return whether its results are of another tool, of other weights, or not the recorded ones, as a reason."""
        try:
            results = records.read_results(self.output)
            outdated = self.outdated(results)
        except InputError:
            return ""  # no finished results yet, or broken ones
        if results["stage"] != self.results_stage:
            return f"it holds results of the stage {results['stage']}"
        if outdated:
            return "its results are of weights that have been trained again since"
        try:
            return records.difference(self.output)
        except InputError as error:
            return str(error)

    def outdated(self, results: Mapping[str, Any]) -> bool:
        """Whether `results` are of other weights than those now in the folders of the stages that it read.

        Weights do not enter a stage's hash, and a training that was deleted and repeated has different ones.
        """
        hashes = [(then, stage.weights()) for stage, then in self.backbones_of(results)]
        return any(then != now for then, now in hashes if then is not None and now is not None)

    @abstractmethod
    def backbones_of(self, results: Mapping[str, Any]) -> Iterator[tuple["ResultStage", str | None]]:
        """List the stages whose backbones were read, each with the hash that its backbone had then, if known."""

    def weights(self) -> str | None:
        """Return the hash of the backbone that it wrote, None if there is none."""
        try:
            return records.read_results(self.output)["backbone"].get("hash")
        except InputError:
            return None


@dataclass(frozen=True, kw_only=True)
class OfBackbone(ResultStage):
    """A stage that reads the backbone of one training; None: random weights."""

    backbone: ResultStage | None = field(default=None, compare=False)  # the first of `inputs`

    def backbones_of(self, results: Mapping[str, Any]) -> Iterator[tuple[ResultStage, str | None]]:
        """Yield its backbone with the hash from its results."""
        if self.backbone:  # a detector that differs in more than its backbone states the backbone's hash
            yield self.backbone, results["details"].get("backbone_hash", results["backbone"].get("hash"))
