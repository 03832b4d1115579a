"""What an engine defines, and what it gets for nothing.

The run (detection/training/run.py) reads the data, resumes, trains, saves, proves what is frozen, detects, evaluates
and writes; an engine is what differs between detectors: an `Engine` for the config, and a `Detector` for the network.
To add one, write both into the `engine.py` of a folder (detection/engines/__init__.py).  Examples: torchvision/ and
yolo/, trained by the project's loop, and detectron2/, with a trainer of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from backbones.core.config import CfgNode, config_hash
from backbones.core.distributed import wrap_ddp
from backbones.core.engine import Hook, check_precision, train
from backbones.core.results import BackboneIdentity, random_identity
from backbones.core.roles import PROTOCOL, WEIGHTS, Roles
from backbones.core.run_log import MetricsWriter
from backbones.core.warning_counter import WarningCounter
from backbones.models.weights import BackboneFile, identity
from detection.data.records import DetectionData
from detection.exchange.loading import LoadReport
from detection.training.gathering import Detections
from detection.training.precise_bn import measure_statistics


class Engine(Protocol):
    """A detector's config: defaults, checks and names.

    Inherit and define `roles`, `defaults`, `check_config` and `build`.  No method but `require` and `build` may need
    what is not installed with the project; none reads data.

    Attributes:
        num_classes: the key that must equal the number of categories of the data.
        roles: of the keys of the config: what may change between calls, what weights and protocol depend on.
    """

    num_classes: str = "MODEL.NUM_CLASSES"
    roles: Roles

    @abstractmethod
    def defaults(self) -> CfgNode:
        """A fresh copy of the default config; it has at least the keys `REQUIRED` of detection/engines/__init__.py."""

    @abstractmethod
    def check_config(self, cfg: CfgNode) -> None:
        """`InputError`, by key, for a value that cannot be honoured."""

    @abstractmethod
    def build(self, cfg: CfgNode, backbone: BackboneFile | None, device: torch.device) -> Detector:
        """The detector on `device`, with the backbone's weights (None: random ones); torch is seeded by SEED."""

    def require(self) -> None:
        """`InputError` where a package that the engine needs is not installed."""

    def check_backbone(self, cfg: CfgNode, backbone: BackboneFile | None) -> None:
        """`InputError` for a backbone that does not fit the config."""

    def warn(self, cfg: CfgNode, warnings: WarningCounter) -> None:
        """Count settings that may be a slip; called on every process."""

    def protocol_name(self, cfg: CfgNode) -> str:
        """PROTOCOL, or a readable name of what matters most."""
        return cfg.PROTOCOL or f"{cfg.ENGINE} {cfg.SOLVER.MAX_ITER} it"

    def describe_protocol(self, cfg: CfgNode, *fingerprints: str) -> dict[str, Any]:
        """Name, hash and settings of the protocol, by which results compare: what they depend on but backbone and seed.

        Args:
            fingerprints: of the training and the test data.
        """
        settings = self.roles.select(cfg, *PROTOCOL)
        digest = config_hash({"settings": settings, "data": list(fingerprints)})
        return {"name": self.protocol_name(cfg), "hash": digest, "settings": settings}

    def weight_settings(self, cfg: CfgNode) -> dict[str, Any]:
        """Every setting that the weights depend on, which a checkpoint must match."""
        return self.roles.select(cfg, *WEIGHTS)

    def name_row(self, cfg: CfgNode, backbone: BackboneFile | None) -> BackboneIdentity:
        """Whose result this is in tables: the backbone's; LABEL renames the row."""
        known = random_identity(cfg.SEED) if backbone is None else identity(backbone)
        return BackboneIdentity(cfg.LABEL or known.label, known.method, known.seed, known.hash)

    def details(self, cfg: CfgNode, backbone: BackboneFile | None, run_dir: Path) -> dict[str, Any]:
        """What `details` of results.json holds besides; `run_dir` is the folder of the checkpoint."""
        return {}


@dataclass(kw_only=True, eq=False)
class Detector:
    """A detector on its device, as one run trains it.  Inherit and define `batches` and `detect`.

    Attributes:
        model: holds every tensor that detecting and resuming need.
        task: what the loop trains: maps a batch to a `Step` (backbones/core/engine.py); `model`, or a module around it.
        schedule: iteration -> learning rate.
        report: the account of the backbone's tensors, for loading.json; None leaves no such file.
        frozen: name -> module, of the stages that must not move: parameters and statistics.
    """

    cfg: CfgNode
    device: torch.device
    model: nn.Module
    task: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Any
    report: LoadReport | None = None
    frozen: Mapping[str, nn.Module] = field(default_factory=dict)

    def batches(self, data: DetectionData, start: int, stop: int) -> Iterable[Any]:
        """This process's share of the batches of the iterations `start` .. `stop - 1`, with `to(device, ...)`.

        What a batch holds must follow from seed and iteration: a resumed run then equals an uninterrupted one.
        """
        raise NotImplementedError

    def detect(self, data: DetectionData) -> Detections:
        """Every detection as COCO results, in the order of the data's records and complete on every process.

        {"image_id", "category_id" (the json's), "bbox" [x, y, w, h] in pixels of the file, "score"}; each process
        looks at its share of the images (`shape_batches`), and `gather_detections` joins them.
        """
        raise NotImplementedError

    def parts(self) -> dict[str, Any]:
        """Name -> what else a checkpoint holds, with `state_dict` and `load_state_dict`."""
        return {"optimizer": self.optimizer}

    def hooks(self, data: DetectionData, start: int, run_dir: Path) -> Sequence[Hook]:
        """What is told of every finished step; called once, when the training begins."""
        return ()

    def gather(self) -> None:
        """Collect in `model` what each process has summed up on its own; called on every process before a save."""

    def measure_norms(self, data: DetectionData) -> None:
        """Replace batch norm's statistics by those over the TEST.PRECISE_BN.NUM_ITER batches after the last one."""
        stop = self.cfg.SOLVER.MAX_ITER
        batches = self.batches(data, stop, stop + self.cfg.TEST.PRECISE_BN.NUM_ITER)
        measure_statistics(self.task, (batch.to(self.device, non_blocking=True) for batch in batches), self.cfg)

    def train(
        self, data: DetectionData, *, start: int, save: Callable[[int], None], writer: MetricsWriter, run_dir: Path
    ) -> None:
        """Iterations `start` .. MAX_ITER - 1, by the project's loop.

        Args:
            save: called on every process with the number of finished iterations, after each CHECKPOINT_PERIOD and at
                the end.
        """
        solver = self.cfg.SOLVER
        amp, clip = solver.get("AMP"), solver.get("CLIP_GRADIENTS")
        precision = "bfloat16" if amp and amp.ENABLED else "float32"
        check_precision(precision, self.device)
        train(
            wrap_ddp(self.task, self.device),
            self.batches(data, start, solver.MAX_ITER),
            self.optimizer,
            self.schedule,
            start=start,
            stop=solver.MAX_ITER,
            seed=self.cfg.SEED,
            precision=precision,
            clip_norm=clip.CLIP_VALUE if clip and clip.ENABLED else 0.0,
            log_period=solver.LOG_PERIOD,
            checkpoint_period=solver.CHECKPOINT_PERIOD,
            save=save,
            writer=writer,
            device=self.device,
            hooks=self.hooks(data, start, run_dir),
        )
