"""Kinds of stages that write a backbone: a pretraining, a point of a grid, and the choice among its points."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from suites.selection import DIVERGED
from suites.selection import FILE_NAME as SELECTION
from suites.stages.base import External
from suites.stages.log import last_line
from suites.stages.results import ResultStage


class BackboneStage(ResultStage):
    """A stage that writes a backbone; it reads the config of a pretraining."""

    results_stage = "pretraining"


class Pretrain(BackboneStage):
    """The training of a backbone, which can read a teacher."""

    kind = "pretrain"
    default_tool = "pretrain"
    trains = True
    weight_files = ("checkpoint.pth", "backbone.pth", "best.pth")

    def backbones_of(self, results: Mapping[str, Any]) -> Iterator[tuple[ResultStage, str | None]]:
        """Yield its teacher and the run of its start weights with the hashes from its results.

        The results of a run hold the hash of backbone.pth only, so start weights from its best.pth are not compared.
        """
        values = dict(zip(self.overrides[::2], self.overrides[1::2], strict=True))
        settings = results["protocol"].get("settings")
        start = settings.get("MODEL.WEIGHTS") if isinstance(settings, Mapping) else None
        for stage in self.inputs:
            if not isinstance(stage, BackboneStage):
                continue
            if values.get("TEACHER.RUN") == str(stage.output):
                yield stage, results["details"].get("teacher")
            if Path(values.get("MODEL.WEIGHTS", "")) in (stage.output, stage.output / "backbone.pth"):
                yield stage, start

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """List its data set, start weights and cached teacher."""
        data = cfg["DATA"]
        version = f", version {data['VERSION']}" if data["VERSION"] != "full" else ""
        yield classification_data(cfg, [data["TRAIN_SPLIT"], data["VAL_SPLIT"]], version)
        for what, path in (("weights", cfg["MODEL"]["WEIGHTS"]), ("teacher", cfg["TEACHER"]["CACHE"])):
            if path:
                yield External(what, "", path)

    def paths(self, cfg: Mapping[str, Any]) -> list[str]:
        """Return those of its config."""
        return classification_paths(cfg)


class GridPoint(Pretrain):
    """One training of a grid; if it diverges, it is left out of the choice and not repeated."""

    kind = "grid"

    @property
    def diverged(self) -> Path:
        """File that marks this training as diverged; repeating it would diverge again."""
        return self.output / DIVERGED

    def complete(self) -> bool:
        """Whether it is finished and recorded, or diverged."""
        return (not self.waits and self.diverged.is_file()) or super().complete()

    def accept_divergence(self, reason: str) -> bool:
        """Record the divergence; the choice is made among the other points."""
        save_json(self.diverged, {"reason": reason})
        return True

    def cached(self) -> str:
        """Return the text shown if it is complete, with "diverged" if it did."""
        return f"{super().cached()}, diverged" if self.diverged.is_file() else super().cached()


class Select(BackboneStage):
    """The choice among the points of a grid, which writes the best one as a separate run."""

    kind = "select"
    default_tool = "select_run"
    decides = True
    weight_files = ("backbone.pth",)

    def backbones_of(self, results: Mapping[str, Any]) -> Iterator[tuple[ResultStage, str | None]]:
        """Yield the points of the grid with the hashes from the selection, by folder name."""
        then = {item.get("run"): item.get("backbone") for item in self._selection("candidates", list)}
        for stage in self.inputs:
            if isinstance(stage, BackboneStage):
                yield stage, then.get(stage.output.name)

    def choice(self) -> int | None:
        """Return the number of the chosen point, None until it is chosen."""
        return self._selection("chosen", dict)["candidate"] if self.complete() else None

    def verdict(self) -> str:
        """Return the line that names the chosen point."""
        return last_line(self.log)

    def _selection(self, key: str, expected: type) -> Any:
        path = self.output / SELECTION
        selection = load_json(path)
        found = selection.get(key) if isinstance(selection, Mapping) else None
        items = found if isinstance(found, list) else [found]
        if not isinstance(found, expected) or not all(isinstance(item, Mapping) for item in items):
            raise InputError(f"{path} does not hold the candidates of a selection; delete it, and the stage runs again")
        return found


def classification_data(cfg: Mapping[str, Any], splits: list[str], version: str = "") -> External:
    """Return the data set of a pretraining's config."""
    data = cfg["DATA"]
    return External("data", f"{data['NAME']} {' '.join(filter(None, splits))}{version} in ", data["ROOT"])


def classification_paths(cfg: Mapping[str, Any]) -> list[str]:
    """Return the files and folders that a pretraining's config names."""
    paths = (cfg["DATA"]["ROOT"], cfg["MODEL"]["WEIGHTS"], cfg["TEACHER"]["RUN"], cfg["TEACHER"]["CACHE"])
    return [path for path in paths if path]
