"""How long stages take, and how much disk: measured in earlier calls, or declared in the suite."""

import statistics
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from backbones.core.disk import disk_use
from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from suites.stages import Stage
from suites.stages import record as records
from suites.stages.measures import Finetune
from suites.stages.naming import Run
from suites.stages.resources import KEEP_ALL, KEEP_RESULTS, KEEP_WEIGHTS
from suites.stages.trainings import BackboneStage

_KEPT = 5  # number of measurements that an estimate uses


class SeedHours(NamedTuple):
    """Hours of one more seed of a row, and those of them that its fine-tuning takes; None: unknown."""

    seed_hours: float | None = None
    tuning_hours: float | None = None


class Timings:
    """Durations in seconds and sizes in GB per kind of stage, and the time of all calls; kept in `path`.

    seconds: {kind: the last measurements}; sizes, weights: {kind and what its tool kept: those of the folder, and of
    the files with weights in it}.
    spent_before: seconds of all earlier calls, up to the last stage that ended in them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kept = load_json(path) if path.exists() else {}
        try:
            self._seconds = _lists(kept.get("stages", {}))
            self._sizes, self._weights = _lists(kept.get("sizes", {})), _lists(kept.get("weights", {}))
            if self._sizes.keys() != self._weights.keys():  # of an earlier version
                self._sizes, self._weights = {}, {}
            self.spent_before = self.spent = float(kept.get("spent", 0.0))
        except (AttributeError, TypeError, ValueError):
            raise InputError(
                f"{path} does not hold durations; delete it, it is only used to estimate the time left"
            ) from None

    def add(self, stage: Stage, seconds: float) -> None:
        """Record the duration of a stage that has ended, and the size of its folder."""
        size, key = _measure(stage), _size_key(stage, stage.keep)
        self._add(self._seconds, stage.timing_key, round(seconds, 2))
        self._add(self._sizes, key, size[0])
        self._add(self._weights, key, size[1])
        self._save()

    def replace(self, measured: Iterable[tuple[Stage, float]]) -> None:
        """Record the durations of stages that have ended, the last ones last, in place of those of their kinds.

        The sizes of stages whose weights KEEP has deleted are not theirs any more; the earlier ones stay.
        """
        latest: dict[str, list[tuple[Stage, float]]] = {}
        for stage, seconds in measured:
            latest[stage.timing_key] = [*latest.get(stage.timing_key, []), (stage, seconds)][-_KEPT:]
        for kind, found in latest.items():
            self._seconds[kind] = [round(seconds, 2) for _, seconds in found]
            key = _size_key(found[-1][0], found[-1][0].keep)
            if whole := [_measure(stage) for stage, _ in found if not _lost_weights(stage)]:
                self._sizes[key], self._weights[key] = map(list, zip(*whole, strict=True))
        self._save()

    def spend(self, seconds: float) -> None:
        """Count the time of this call."""
        self.spent += seconds
        self._save()

    def estimate(self, stage: Stage) -> float | None:
        """Return the expected seconds: the median of the measured ones, else what the suite declares, else None."""
        measured = self._seconds.get(stage.timing_key)
        return statistics.median(measured) if measured else stage.cost or None

    def seconds(self, stage: Stage) -> float:
        """Return the expected seconds, 0 if unknown."""
        return self.estimate(stage) or 0.0

    def seed_hours(self, stages: Iterable[Stage]) -> SeedHours:
        """Return the mean hours of one more seed of a pretrained row; unknown if those of a stage are.

        Of several entries of FINETUNE, a seed has one: methods are compared within each.  Teachers, which are not
        compared, add to the hours of the rows that need them.
        """
        runs: dict[Run, list[Stage]] = {}
        for stage in stages:
            if stage.run is not None:
                runs.setdefault(stage.run, []).append(stage)
        trained = [own for own in runs.values() if any(isinstance(stage, BackboneStage) for stage in own)]
        rows = sum(any(stage.compared for stage in own) for own in trained)
        if not rows or any(self.estimate(stage) is None for own in trained for stage in own):
            return SeedHours()
        total = sum(self.seconds(stage) for own in trained for stage in own)
        tunings = [stage for own in trained for stage in own if isinstance(stage, Finetune)]
        tuning = sum(map(self.seconds, tunings))
        one = tuning / max(len({stage.timing_key for stage in tunings}), 1)
        return SeedHours((total - tuning + one) / rows / 3600, one / rows / 3600)

    def price(self, stages: Iterable[Stage]) -> list[str]:
        """Return the options of tools/compare.py that price another seed, none if its hours are unknown."""
        seed, tuning = self.seed_hours(stages)
        return [] if seed is None else ["--seed-hours", f"{seed:.4g}", "--tuning-hours", f"{tuning:.4g}"]

    def size(self, stage: Stage, keep: str = "") -> float | None:
        """Return the expected size of a stage's folder in GB, as for `estimate`; keep: with another KEEP."""
        keep = keep or stage.keep
        ways = (KEEP_WEIGHTS, KEEP_ALL) if keep == KEEP_RESULTS else (keep,)  # either: the difference is deleted
        for key in (_size_key(stage, way) for way in ways):
            if measured := self._sizes.get(key):
                without = statistics.median(self._weights[key]) if keep == KEEP_RESULTS else 0.0
                return statistics.median(measured) - without
        return stage.disk.with_keep(keep) if stage.disk.folder else None

    def _add(self, kept: dict[str, list[float]], key: str, value: float) -> None:
        kept[key] = [*kept.get(key, []), value][-_KEPT:]

    def _save(self) -> None:
        with suppress(InputError):  # a full disk: estimates are no reason to stop what runs
            save_json(
                self.path,
                {
                    "stages": self._seconds,
                    "sizes": self._sizes,
                    "weights": self._weights,
                    "spent": round(self.spent, 2),
                },
            )


def _lists(kept: Mapping[str, Any]) -> dict[str, list[float]]:
    return {key: [*map(float, values)] for key, values in kept.items()}


def _size_key(stage: Stage, keep: str) -> str:
    """Stages with the same key have folders of about the same size when their tool has ended."""
    return f"{stage.timing_key}, KEEP {keep}" if keep == KEEP_ALL and stage.trains else f"{stage.timing_key}, kept"


def _lost_weights(stage: Stage) -> bool:
    """Whether KEEP has deleted files of a stage; a damaged record, which others report, does not say so."""
    with suppress(InputError):
        return bool(records.deleted(stage.own_folder))
    return False


def _measure(stage: Stage) -> tuple[float, float]:
    """Return the size of a stage's folder, and of the files with weights in it, in GB."""
    weights = disk_use(*(stage.output / name for name in stage.weight_files))
    return round(disk_use(stage.own_folder) / 1e9, 9), round(weights / 1e9, 9)
