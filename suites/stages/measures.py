"""Kinds of stages that read a backbone: its measures, and a detector that is fine-tuned from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from suites.stages.base import External, Stage
from suites.stages.results import OfBackbone
from suites.stages.trainings import classification_data, classification_paths

# Engines of tools/finetune_coco.py that are packages of their own.
PACKAGES = ("detectron2",)
# What may be chosen by validation: the epoch to report, the point of a grid.
EPOCH, GRID = "epoch", "GRID"


@dataclass(frozen=True, kw_only=True)
class Measure(OfBackbone):
    """A measure of a backbone, by the config of its pretraining; the suite has a block with the name of its kind.

    selection: the choice among the points of a grid that the backbone comes from.
    """

    selection: Stage | None = field(default=None)

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """Its data set."""
        yield classification_data(cfg, [cfg["DATA"]["VAL_SPLIT"]])

    def paths(self, cfg: Mapping[str, Any]) -> list[str]:
        """Those of the pretraining's config."""
        return classification_paths(cfg)


class Evaluate(Measure):
    """Accuracy and calibration."""

    kind = "evaluate"
    default_tool = "evaluate_backbone"
    results_stage = "backbone"

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """Its data set, with the shifted split and that of the temperature."""
        data = cfg["DATA"]
        yield classification_data(cfg, [data["VAL_SPLIT"], data["SHIFTED_SPLIT"], cfg["EVAL"]["TEMPERATURE_SPLIT"]])

    def chosen_by(self) -> Iterator[tuple[str, Stage]]:
        """The epoch to report by the pretraining, the point by the selection."""
        yield from ((what, stage) for what, stage in ((EPOCH, self.backbone), (GRID, self.selection)) if stage)


class Localize(Measure):
    """Localization by class activation maps."""

    kind = "localize"
    default_tool = "localize"
    results_stage = "localization"


class Finetune(OfBackbone):
    """A detector that is fine-tuned from a backbone and measured; its tool is that of its entry of FINETUNE."""

    kind = "finetune"
    default_tool = "finetune_coco"
    results_stage = "detection"
    trains = True

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """Its data sets, and the package that its engine is."""
        train, test = (", ".join(cfg["DATASETS"][key]) for key in ("TRAIN", "TEST"))
        yield External("data", f"{train} -> {test} in ", cfg["DATASETS"]["ROOT"])
        if (engine := cfg.get("ENGINE")) in PACKAGES:
            yield External("engine", engine)

    def paths(self, cfg: Mapping[str, Any]) -> list[str]:
        """The root of its data sets."""
        return [cfg["DATASETS"]["ROOT"]]
