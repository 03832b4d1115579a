"""ENGINE yolo: YOLOv3 with a depthwise-separable neck, trained by the project's own loop.

A resumed run equals an uninterrupted one bit for bit on the CPU, the table of online labels included: images, sizes
and augmentations are pure functions of (seed, iteration), and the checkpoint holds the rest.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.core.config import CfgNode, config_hash
from backbones.core.distributed import is_main, rank, world_size
from backbones.core.loading import GuardedLoader
from backbones.core.optimizer import build_optimizer
from backbones.core.results import BackboneIdentity
from backbones.core.run_log import get_logger
from backbones.core.sampling import StatelessBatchSampler
from backbones.core.schedule import Schedule, build_schedule
from backbones.models.weights import BackboneFile
from detection.data.loader import trainable
from detection.data.records import DetectionData
from detection.engines.base import Detections, Detector, Engine
from detection.engines.yolo.building import YOLOTask, build_task, build_yolo, check_backbone, frozen_stages
from detection.engines.yolo.config import (
    ROLES,
    are_hard,
    describe_protocol,
    get_defaults,
    label_name,
    label_settings,
    protocol_name,
    validate,
    weight_settings,
)
from detection.engines.yolo.data import (
    Augmentation,
    SizedBatchSampler,
    TrainingImages,
    YoloBatch,
    collate,
    validation_batches,
)
from detection.engines.yolo.inference import detect_all
from detection.engines.yolo.network import YOLO
from detection.engines.yolo.soft_labels import FILE as SOFT_LABELS
from detection.engines.yolo.soft_labels import SoftLabelHook, confusions, load_soft_labels
from detection.exchange.loading import LoadReport


class YOLOEngine(Engine):
    """The YOLO engine; its config is detection/engines/yolo/config.py."""

    roles = ROLES

    def defaults(self) -> CfgNode:
        return get_defaults()

    def check_config(self, cfg: CfgNode) -> None:
        validate(cfg)

    def check_backbone(self, cfg: CfgNode, backbone: BackboneFile | None) -> None:
        check_backbone(cfg.MODEL, backbone)

    def protocol_name(self, cfg: CfgNode) -> str:
        return protocol_name(cfg)

    def describe_protocol(self, cfg: CfgNode, *fingerprints: str) -> dict[str, Any]:
        return describe_protocol(cfg, *fingerprints)

    def weight_settings(self, cfg: CfgNode) -> dict[str, Any]:
        return weight_settings(cfg)

    def name_row(self, cfg: CfgNode, backbone: BackboneFile | None) -> BackboneIdentity:
        """Return the identity of the backbone with its class labels.

        With hard labels it is that of the backbone, joined with its other measures; other labels get a separate row.
        """
        own = super().name_row(cfg, backbone)
        label = f"{own.label}, {label_name(cfg.CLASS_LABELS)}"
        if are_hard(cfg.CLASS_LABELS):
            return BackboneIdentity(label, own.method, own.seed, own.hash)
        settings = config_hash({"name": cfg.CLASS_LABELS.NAME, **label_settings(cfg.CLASS_LABELS)})
        # Several detectors of one backbone differ in their seed.
        seeded = f"{own.hash}-{settings}" if backbone is None else f"{own.hash}-{settings}-{cfg.SEED}"
        return BackboneIdentity(label, f"{own.method}+{cfg.CLASS_LABELS.NAME}", own.seed, seeded)

    def details(self, cfg: CfgNode, backbone: BackboneFile | None, run_dir: Path) -> dict[str, Any]:
        """Return the hash of the backbone alone, the class labels, and with online labels which classes look alike."""
        details: dict[str, Any] = {"backbone_hash": super().name_row(cfg, backbone).hash}
        details["class_labels"] = {"name": cfg.CLASS_LABELS.NAME, **label_settings(cfg.CLASS_LABELS)}
        if found := load_soft_labels(run_dir):
            details["look_alikes"] = confusions(found)
        return details

    def build(self, cfg: CfgNode, backbone: BackboneFile | None, device: torch.device) -> "YOLODetector":
        return self._build(cfg, *build_yolo(cfg.MODEL, backbone), device)

    def rebuild(self, cfg: CfgNode, device: torch.device) -> "YOLODetector":
        return self._build(cfg, *build_yolo(cfg.MODEL, None, trained=True), device)

    def _build(self, cfg: CfgNode, network: YOLO, report: LoadReport, device: torch.device) -> "YOLODetector":
        task = build_task(cfg, network).to(device)
        get_logger().info("backbone: %s; class labels: %s", report.counts(), label_name(cfg.CLASS_LABELS))
        return YOLODetector(
            cfg=cfg,
            device=device,
            model=task,
            task=task,
            optimizer=build_yolo_optimizer(cfg.SOLVER, task),
            schedule=build_yolo_schedule(cfg.SOLVER),
            report=report,
            frozen=frozen_stages(network.backbone, cfg.MODEL.FREEZE_AT),
        )


ENGINE = YOLOEngine()


class YOLODetector(Detector):
    """A `YOLOTask`: the network with its loss and its class labels, which the checkpoint also holds."""

    task: YOLOTask

    def batches(self, data: DetectionData, start: int, stop: int) -> GuardedLoader[YoloBatch]:
        cfg, given = self.cfg, self.cfg.INPUT
        records = trainable(data, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
        sampler = StatelessBatchSampler(
            len(records),
            cfg.SOLVER.IMS_PER_BATCH,
            seed=cfg.SEED,
            start=start,
            stop=stop,
            rank=rank(),
            world_size=world_size(),
        )
        images = TrainingImages(
            records,
            Augmentation(given.FLIP, given.RANDOM_CROP, given.TRANSLATION, given.MIXUP, given.MIXUP_ALPHA),
            largest=max(given.SIZES),
            seed=cfg.SEED,
            cache=cfg.DATALOADER.CACHE_IMAGES,
        )
        sized = SizedBatchSampler(sampler, given.SIZES, given.PERIOD, cfg.SEED)
        workers, on_gpu = cfg.DATALOADER.NUM_WORKERS, self.device.type == "cuda"
        return GuardedLoader(images, sized, collate, num_workers=workers, pin_memory=on_gpu)

    def hooks(self, data: DetectionData, start: int, run_dir: Path) -> list[SoftLabelHook]:
        if start == 0 and is_main():
            (run_dir / SOFT_LABELS).unlink(missing_ok=True)  # left by a run that was killed before its first checkpoint
        images = len(trainable(data, self.cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS))
        epoch = images // self.cfg.SOLVER.IMS_PER_BATCH
        return [SoftLabelHook(self.task.labels, epoch, [category["name"] for category in data.categories], run_dir)]

    def gather(self) -> None:
        self.task.labels.gather()

    def detect(self, data: DetectionData) -> Detections:
        return detect_all(self.cfg, self.task, data, self.device)

    def losses(self, data: DetectionData) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield the losses at the first side of TEST.SIZES, with the class labels of the training."""
        cfg = self.cfg
        for batch in validation_batches(
            trainable(data, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS),
            cfg.TEST.SIZES[0],
            batch_size=cfg.TEST.IMS_PER_BATCH,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            pin_memory=self.device.type == "cuda",
        ):
            yield len(batch.images), self.task.losses(batch.to(self.device, non_blocking=True))[1]


def build_yolo_optimizer(solver: CfgNode, task: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of all trainable parameters; normalisation layers can have their own weight decay."""
    norms: list[Tensor] = []
    others: list[Tensor] = []
    for module in task.modules():
        is_norm = isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm))
        own = [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
        (norms if is_norm else others).extend(own)
    of_norms = solver.WEIGHT_DECAY if solver.WEIGHT_DECAY_NORM < 0 else solver.WEIGHT_DECAY_NORM
    groups = [{"params": others, "weight_decay": solver.WEIGHT_DECAY}, {"params": norms, "weight_decay": of_norms}]
    return build_optimizer(
        [group for group in groups if group["params"]],
        solver.OPTIMIZER,
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
    )


def build_yolo_schedule(solver: CfgNode) -> Schedule:
    """Build the schedule: linear warm-up, then a cosine, per iteration."""
    return build_schedule(
        "cosine",
        base_lr=solver.BASE_LR,
        final_lr=solver.FINAL_LR,
        max_iter=solver.MAX_ITER,
        warmup_iters=solver.WARMUP_ITERS,
        warmup_factor=solver.WARMUP_FACTOR,
    )
