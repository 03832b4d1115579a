"""Kinds of stages that read a backbone: its measures, and detectors fine-tuned from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from suites.stages.adoption import Import
from suites.stages.base import External, Stage
from suites.stages.results import OfBackbone
from suites.stages.trainings import classification_data, classification_paths

# Engines of tools/finetune_coco.py that are separate packages.
PACKAGES = ("detectron2",)
# What can be chosen by validation: the epoch to report, the point of a grid.
EPOCH, GRID = "epoch", "GRID"


@dataclass(frozen=True, kw_only=True)
class Measure(OfBackbone):
    """A measure of a backbone, with the config of its pretraining; the suite has a block named like its kind.

    selection: the stage that chose the backbone among the points of a grid, if any.
    """

    process_context = "backbones.measuring.run:read_once"

    selection: Stage | None = field(default=None)

    @property
    def process_key(self) -> str:
        """Measures of one backbone with the same threads run in one process, which reads backbone and images once."""
        return f"measures of {self.reads[0]} with {self.resources.threads} threads"

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """List its data set."""
        yield classification_data(cfg, [cfg["DATA"]["VAL_SPLIT"]])

    def paths(self, cfg: Mapping[str, Any]) -> list[str]:
        """Return those of the pretraining's config."""
        return classification_paths(cfg)


class Evaluate(Measure):
    """Accuracy and calibration."""

    kind = "evaluate"
    default_tool = "evaluate_backbone"
    results_stage = "backbone"

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """List its data set, with the shifted split and the temperature split."""
        data = cfg["DATA"]
        yield classification_data(cfg, [data["VAL_SPLIT"], data["SHIFTED_SPLIT"], cfg["EVAL"]["TEMPERATURE_SPLIT"]])

    def chosen_by(self) -> Iterator[tuple[str, Stage]]:
        """Yield the epoch to report, chosen by the pretraining, and the grid point, chosen by the selection."""
        trained = None if isinstance(self.backbone, Import) else self.backbone
        yield from ((what, stage) for what, stage in ((EPOCH, trained), (GRID, self.selection)) if stage)


class Localize(Measure):
    """Localization by class activation maps."""

    kind = "localize"
    default_tool = "localize"
    results_stage = "localization"


class Attack(Measure):
    """Robustness against attacks."""

    kind = "attack"
    default_tool = "attack_backbone"
    results_stage = "robustness"

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """List its data set."""
        yield classification_data(cfg, [cfg["ATTACK"]["SPLIT"]])


@dataclass(frozen=True, kw_only=True)
class Finetune(OfBackbone):
    """A detector fine-tuned from a backbone and measured; its FINETUNE entry names the tool.

    detector_seed: its seed, if the suite names seeds of fine-tunings; None: that of the pretraining.
    """

    kind = "finetune"
    default_tool = "finetune_coco"
    results_stage = "detection"
    trains = True
    weight_files = ("checkpoint.pth",)

    detector_seed: int | None = None

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """List its data sets, and the package of its engine."""
        train, test = (", ".join(cfg["DATASETS"][key]) for key in ("TRAIN", "TEST"))
        val = cfg["DATASETS"].get("VAL")
        yield External("data", f"{train} -> {f'{val}, ' if val else ''}{test} in ", cfg["DATASETS"]["ROOT"])
        if (engine := cfg.get("ENGINE")) in PACKAGES:
            yield External("engine", engine)

    def paths(self, cfg: Mapping[str, Any]) -> list[str]:
        """Return the root of its data sets."""
        return [cfg["DATASETS"]["ROOT"]]
