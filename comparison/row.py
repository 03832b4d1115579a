"""One row of a comparison: the results of all stages of a backbone and of one detector fine-tuned from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.core.revision import describe_revision
from comparison.failures import Failure
from comparison.metrics import METRICS

# Metrics of later stages override those of earlier ones.
STAGE_ORDER = ("pretraining", "backbone", "localization", "robustness", "detection")
# Keys of results.json, as written since and before version 0.4.
_ON_TRAINING_IMAGES = ("evaluated_on_training_images", "evaluated_on_training_pictures")


@dataclass(frozen=True)
class Row:
    """One backbone under one detection protocol, fine-tuned with one seed.

    results: stage -> content of results.json; folders: stage -> its folder; protocol: "name@hash" of the detection
    results, None without any; failures: its failed stages (`comparison.failed_rows`), because of which `results` can
    be empty.
    """

    label: str
    method: str
    seed: int
    hash: str
    protocol: str | None
    results: Mapping[str, Mapping[str, Any]]
    folders: Mapping[str, Path]
    failures: tuple[Failure, ...] = ()

    @property
    def metrics(self) -> dict[str, float | None]:
        """Every metric of the table; None if no stage measured it."""
        values: dict[str, float | None] = {metric.name: None for metric in METRICS}
        for stage in STAGE_ORDER:
            measured = self.results.get(stage, {}).get("metrics", {})
            values |= {name: measured[name] for name in values if measured.get(name) is not None}
        return values

    @property
    def foreign(self) -> bool:
        """Whether its detector is not one of our runs, but known by a results file only."""
        return any(map(is_foreign, self.results.values()))

    @property
    def on_training_images(self) -> bool:
        """Whether the detector was evaluated on the images it was fine-tuned on."""
        data = self.results.get("detection", {}).get("data", {})
        return any(data.get(key) for key in _ON_TRAINING_IMAGES)

    @property
    def chosen_on_test_images(self) -> bool:
        """Whether TEST.BEST chose the detector's weights on images that it was evaluated on."""
        return bool(self.results.get("detection", {}).get("data", {}).get("chosen_on_test_images"))

    @property
    def score_threshold(self) -> float | None:
        """Return the score above which AP counts detections; None without a detector, or if unknown."""
        results = self.results.get("detection", {"protocol": {}, "details": {}})
        stated = results["protocol"].get("settings", {}).get("TEST.AP_SCORE_THRESH")
        return results["details"].get("results_file", {}).get("score_threshold", stated)

    @property
    def detector_seed(self) -> int | None:
        """Seed of the fine-tuning; None without one, or if unknown."""
        return self.results.get("detection", {}).get("details", {}).get("seed")

    @property
    def weights(self) -> str:
        """Hash of the backbone's weights.

        Usually `hash`, which identifies the row; they differ where one backbone has several detectors, such as YOLOs
        with other class labels."""
        return str(self.results.get("detection", {}).get("details", {}).get("backbone_hash") or self.hash)

    @property
    def commits(self) -> dict[str, str]:
        """Stage -> commit of the code that produced it, if known."""
        named = {stage: describe_revision(results.get("code")) for stage, results in self.results.items()}
        return {stage: commit for stage, commit in named.items() if commit is not None}

    def file(self, stage: str, name: str, usual: str = "") -> Path | None:
        """Return a file beside the results of a stage, by its name in "files"; None if missing.

        usual: its name, where "files" does not list it; without one, such a file is left over from another run.
        """
        if stage not in self.folders:
            return None
        path = self.folders[stage] / self.results[stage].get("files", {}).get(name, usual)
        return path if path.is_file() else None


def is_foreign(results: Mapping[str, Any]) -> bool:
    """Whether results come from a results file (detection/evaluation/results_files.py), not from a run."""
    return "results_file" in results["details"]
