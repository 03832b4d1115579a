"""Base classes of an engine: what it must define, and the defaults that it inherits.

The run (detection/training/run.py) reads the data, resumes, trains, saves, proves that frozen stages did not change,
detects, evaluates and writes; an engine defines what differs between detectors: an `Engine` for the config and a
`Detector` for the network.  To add one, write both into the `engine.py` of a folder (detection/engines/__init__.py).
Examples: torchvision/ and yolo/, trained by the project's loop, and detectron2/, with its own trainer.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from backbones.core.config import CfgNode, config_hash
from backbones.core.distributed import wrap_ddp
from backbones.core.engine import Hook, check_precision, train
from backbones.core.meters import Meters
from backbones.core.results import BackboneIdentity, random_identity
from backbones.core.roles import PROTOCOL, WEIGHTS, Roles
from backbones.core.run_log import MetricsWriter
from backbones.core.warning_counter import WarningCounter
from backbones.models.weights import BackboneFile, identity
from detection.choice import with_choice
from detection.data.records import DetectionData
from detection.exchange.loading import LoadReport
from detection.training.gathering import Detections
from detection.training.precise_bn import measure_statistics


class Engine(Protocol):
    """A detector's config: defaults, checks and names.

    Inherit and define `roles`, `defaults`, `check_config` and `build`.  Only `require` and `build` can need packages
    that are not installed with the project; no method reads data.

    Attributes:
        num_classes: the key that must equal the number of categories of the data.
        roles: roles of the config keys: which can change between calls, and which weights and protocol depend on.
    """

    num_classes: str = "MODEL.NUM_CLASSES"
    roles: Roles

    @abstractmethod
    def defaults(self) -> CfgNode:
        """Return a fresh copy of the default config, with at least the keys detection/engines/__init__.py::REQUIRED."""

    @abstractmethod
    def check_config(self, cfg: CfgNode) -> None:
        """Raise `InputError` with the key of a value that is not supported."""

    @abstractmethod
    def build(self, cfg: CfgNode, backbone: BackboneFile | None, device: torch.device) -> "Detector":
        """Build the detector on `device` with the backbone's weights (None: random ones); torch is seeded with SEED."""

    def rebuild(self, cfg: CfgNode, device: torch.device) -> "Detector":
        """Build the detector for weights of a checkpoint, which replace all others."""
        return self.build(cfg, None, device)

    def require(self) -> None:
        """Raise `InputError` if a package that the engine needs is not installed."""

    def check_backbone(self, cfg: CfgNode, backbone: BackboneFile | None) -> None:
        """Raise `InputError` for a backbone that does not fit the config."""

    def warn(self, cfg: CfgNode, warnings: WarningCounter) -> None:
        """Count suspicious settings; called on every process."""

    def protocol_name(self, cfg: CfgNode) -> str:
        """Return PROTOCOL, or a readable name derived from the main settings."""
        return cfg.PROTOCOL or f"{cfg.ENGINE} {cfg.SOLVER.MAX_ITER} it"

    def describe_protocol(self, cfg: CfgNode, *fingerprints: str) -> dict[str, Any]:
        """Return name, hash and settings of the protocol: all that results depend on, except backbone and seed.

        Args:
            fingerprints: of the training and test data, and with TEST.BEST of the data that it was chosen on.
        """
        settings = with_choice(self.roles.select(cfg, *PROTOCOL), cfg)
        digest = config_hash({"settings": settings, "data": list(fingerprints)})
        return {"name": self.protocol_name(cfg), "hash": digest, "settings": settings}

    def weight_settings(self, cfg: CfgNode) -> dict[str, Any]:
        """Return every setting that the weights depend on; a checkpoint must match them."""
        return with_choice(self.roles.select(cfg, *WEIGHTS), cfg)

    def name_row(self, cfg: CfgNode, backbone: BackboneFile | None) -> BackboneIdentity:
        """Return the identity of the row in tables: that of the backbone, renamed by LABEL."""
        known = random_identity(cfg.SEED) if backbone is None else identity(backbone)
        return BackboneIdentity(cfg.LABEL or known.label, known.method, known.seed, known.hash)

    def details(self, cfg: CfgNode, backbone: BackboneFile | None, run_dir: Path) -> dict[str, Any]:
        """Return additional `details` for results.json; `run_dir` is the folder of the checkpoint."""
        return {}


@dataclass(kw_only=True, eq=False)
class Detector:
    """A detector on its device, for one run.  Inherit and define `batches` and `detect`.

    Attributes:
        model: holds every tensor that detection and resuming need.
        task: module that the loop trains: maps a batch to a `Step` (backbones/core/engine.py); `model`, or a wrapper.
        schedule: iteration -> learning rate.
        report: the account of the backbone's tensors, for loading.json; None writes no such file.
        frozen: name -> module of the stages whose parameters and statistics must not change.
        meters: the losses since the last line of metrics.jsonl; the checkpoint of a stopped run holds them.
    """

    cfg: CfgNode
    device: torch.device
    model: nn.Module
    task: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Any
    report: LoadReport | None = None
    frozen: Mapping[str, nn.Module] = field(default_factory=dict)
    meters: Meters = field(default_factory=Meters)

    def batches(self, data: DetectionData, start: int, stop: int) -> Iterable[Any]:
        """Return this process's share of the batches of iterations `start` .. `stop - 1`, which have `to(device, ...)`.

        The content of a batch must depend only on seed and iteration: a resumed run then equals an uninterrupted one.
        """
        raise NotImplementedError

    def detect(self, data: DetectionData) -> Detections:
        """Return all detections as COCO results, in the order of the data's records, complete on every process.

        {"image_id", "category_id" (of the json), "bbox" [x, y, w, h] in pixels of the file, "score"}; each process
        tests its share of the images (`shape_batches`), and `gather_detections` joins them.
        """
        raise NotImplementedError

    def losses(self, data: DetectionData) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
        """Yield the number of images and the losses () of this process's batches of a validation set; nothing: none.

        The losses are those of the training, on images as the test prepares them, in its batches.  The caller sets the
        modes of the modules, disables gradients, seeds every batch and restores everything
        (detection/training/validation_loss.py): change no other state.
        """
        yield from ()

    def parts(self) -> dict[str, Any]:
        """Return name -> further state of a checkpoint, objects with `state_dict` and `load_state_dict`."""
        return {"optimizer": self.optimizer}

    def hooks(self, data: DetectionData, start: int, run_dir: Path) -> Sequence[Hook]:
        """Return the hooks to call after every step; called once, when the training begins."""
        return ()

    def gather(self) -> None:
        """Collect in `model` the sums of all processes; called on every process before a save."""

    def measure_norms(self, data: DetectionData) -> None:
        """Replace batch norm statistics by those over the TEST.PRECISE_BN.NUM_ITER batches after the last iteration."""
        stop = self.cfg.SOLVER.MAX_ITER
        batches = self.batches(data, stop, stop + self.cfg.TEST.PRECISE_BN.NUM_ITER)
        measure_statistics(self.task, (batch.to(self.device, non_blocking=True) for batch in batches), self.cfg)

    def train(
        self,
        data: DetectionData,
        *,
        start: int,
        save: Callable[[int], None],
        writer: MetricsWriter,
        run_dir: Path,
        hooks: Sequence[Hook] = (),
    ) -> None:
        """Run iterations `start` .. MAX_ITER - 1 with the project's loop.

        Args:
            save: called on every process with the number of finished iterations, every CHECKPOINT_PERIOD and at the
                end.
            hooks: called after the engine's own.
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
            hooks=[*self.hooks(data, start, run_dir), *hooks],
            meters=self.meters,
        )
