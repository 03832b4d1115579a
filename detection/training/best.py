"""The weights with the best value of TEST.BEST so far, kept during a training and part of its checkpoint.

A killed and resumed run thus chooses as an uninterrupted one, whatever was evaluated after its last checkpoint.
"""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from backbones.core.checks import check_choice
from backbones.core.config import CfgNode, config_hash
from backbones.core.errors import InputError
from backbones.core.matches import MATCHES_FILE
from backbones.core.roles import TEST, Roles
from detection.choice import BEST, best_metric
from detection.data.records import DetectionData
from detection.evaluation.evaluators import measure

FIELD = "best"  # of a checkpoint


class BestCheckpoint:
    """The best weights of one training, on the main process.

    Args:
        metric: whose highest value is the best.
        data: the data set on which it is measured.
        settings: hash of the settings with which it is measured.

    Attributes:
        choice: `metric`, its `value`, the `iteration` as in metrics.jsonl, and name and fingerprint of the data set;
            empty before the first evaluation.
        weights: the state dict of the detector's model, on the CPU.
        evaluated: the last evaluated iteration; -1 before the first one.
    """

    def __init__(self, metric: str, data: DetectionData, settings: str) -> None:
        self.metric = metric
        self.measured = {"data": data.name, "fingerprint": data.fingerprint, "settings": settings}
        self.choice: dict[str, Any] = {}
        self.weights: dict[str, Tensor] = {}
        self.evaluated = -1

    def offer(self, iteration: int, metrics: Mapping[str, float], model: nn.Module) -> None:
        """Keep the weights after an iteration if they are the best so far; of equal ones, the first."""
        value, self.evaluated = metrics[self.metric], iteration
        if math.isfinite(value) and value > self.choice.get("value", -math.inf):
            self.choice = {"metric": self.metric, "value": value, "iteration": iteration, **self.measured}
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain types."""
        return {"choice": self.choice, "weights": self.weights, "evaluated": self.evaluated}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state`."""
        self.choice, self.weights, self.evaluated = dict(state["choice"]), dict(state["weights"]), state["evaluated"]


def build_best(cfg: CfgNode, roles: Roles, data: DetectionData) -> BestCheckpoint | None:
    """Return what TEST.BEST asks for; None without it.

    Args:
        data: the data set on which it is measured.
    """
    metric = best_metric(cfg)
    return BestCheckpoint(metric, data, measured_with(cfg, roles)) if metric else None


def measured_with(cfg: CfgNode, roles: Roles) -> str:
    """Return the hash of the settings with which a detector is measured."""
    return config_hash(roles.select(cfg, TEST))


def require_evaluated(path: Path, evaluated: int, total: int) -> None:
    """Raise `InputError` for the checkpoint at `path` of a run whose last iteration a signal kept from the choice."""
    if evaluated != total - 1:
        raise InputError(f"{path}: its last iteration is not evaluated yet; finish it with --resume first")


def check_metric(cfg: CfgNode, data: DetectionData) -> None:
    """Raise `InputError` if TEST.BEST is not a metric of the data set, or does not exist there."""
    if not best_metric(cfg):
        return
    with tempfile.TemporaryDirectory() as folder:  # the metrics of no detections: 0, or NaN without such objects
        found = measure(data, [], cfg.TEST.AP_SCORE_THRESH, Path(folder) / MATCHES_FILE).metrics
    metric = check_choice(BEST, best_metric(cfg), found)
    if not math.isfinite(found[metric]):
        raise InputError(f"{BEST}: {metric}: {data.name} has no object that it measures; choose by another metric")
