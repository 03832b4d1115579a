"""Kinds of stages that leave a backbone: a pretraining, a point of a grid, and the choice among its points."""

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
    """A stage that leaves a backbone; it reads the config of a pretraining."""

    results_stage = "pretraining"


class Pretrain(BackboneStage):
    """The training of a backbone, which may read that of its teacher."""

    kind = "pretrain"
    default_tool = "pretrain"
    trains = True

    def backbones_of(self, results: Mapping[str, Any]) -> Iterator[tuple[ResultStage, str | None]]:
        """Its teacher, whose hash its results name."""
        folder = dict(zip(self.overrides[::2], self.overrides[1::2], strict=True)).get("TEACHER.RUN")
        for stage in self.inputs:
            if isinstance(stage, BackboneStage) and str(stage.output) == folder:
                yield stage, results["details"].get("teacher")

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """Its data set, start weights and cached teacher."""
        data = cfg["DATA"]
        version = f", version {data['VERSION']}" if data["VERSION"] != "full" else ""
        yield classification_data(cfg, [data["TRAIN_SPLIT"], data["VAL_SPLIT"]], version)
        for what, path in (("weights", cfg["MODEL"]["WEIGHTS"]), ("teacher", cfg["TEACHER"]["CACHE"])):
            if path:
                yield External(what, "", path)

    def paths(self, cfg: Mapping[str, Any]) -> list[str]:
        """Those of its config."""
        return classification_paths(cfg)


class GridPoint(Pretrain):
    """One training of a grid; one that diverges is left out of the choice, and is not tried again."""

    kind = "grid"

    @property
    def diverged(self) -> Path:
        """The file that says that this training diverged, and would again."""
        return self.output / DIVERGED

    def complete(self) -> bool:
        """Also where it diverged."""
        return (not self.waits and self.diverged.is_file()) or super().complete()

    def accept_divergence(self, reason: str) -> bool:
        """Record it: the others are chosen from."""
        save_json(self.diverged, {"reason": reason})
        return True

    def cached(self) -> str:
        """Say so where it diverged."""
        return f"{super().cached()}, diverged" if self.diverged.is_file() else super().cached()


class Select(BackboneStage):
    """The choice among the points of a grid, which leaves the best one as a run of its own."""

    kind = "select"
    default_tool = "select_run"
    decides = True

    def backbones_of(self, results: Mapping[str, Any]) -> Iterator[tuple[ResultStage, str | None]]:
        """The points of the grid, by the names of their folders."""
        then = {item.get("run"): item.get("backbone") for item in self._selection("candidates", list)}
        for stage in self.inputs:
            if isinstance(stage, BackboneStage):
                yield stage, then.get(stage.output.name)

    def choice(self) -> int | None:
        """Number of the point that was chosen, None until then."""
        return self._selection("chosen", dict)["candidate"] if self.complete() else None

    def verdict(self) -> str:
        """The line that names the chosen point."""
        return last_line(self.log)

    def _selection(self, key: str, expected: type) -> Any:
        path = self.output / SELECTION
        selection = load_json(path)
        found = selection.get(key) if isinstance(selection, Mapping) else None
        items = found if isinstance(found, list) else [found]
        if not isinstance(found, expected) or not all(isinstance(item, Mapping) for item in items):
            raise InputError(f"{path} does not hold the candidates of a selection; delete it, the stage runs again")
        return found


def classification_data(cfg: Mapping[str, Any], splits: list[str], version: str = "") -> External:
    """The data set of a pretraining's config."""
    data = cfg["DATA"]
    return External("data", f"{data['NAME']} {' '.join(filter(None, splits))}{version} in ", data["ROOT"])


def classification_paths(cfg: Mapping[str, Any]) -> list[str]:
    """The files and folders that a pretraining's config names."""
    paths = (cfg["DATA"]["ROOT"], cfg["MODEL"]["WEIGHTS"], cfg["TEACHER"]["RUN"], cfg["TEACHER"]["CACHE"])
    return [path for path in paths if path]
