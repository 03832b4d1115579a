"""ENGINE torchvision: Faster R-CNN from the package index alone, trained by the project's own loop.

A resumed run equals an uninterrupted one bit for bit on the CPU: the order of images, flips and the
sampling of anchors are pure functions of (seed, iteration), and the checkpoint holds the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead

from backbones.core.checkpoint import load_checkpoint, load_state, save_checkpoint
from backbones.core.config import CfgNode
from backbones.core.distributed import barrier, broadcast, is_main, setup_distributed, world_size, wrap_ddp
from backbones.core.engine import Step, check_precision, train
from backbones.core.errors import InputError
from backbones.core.optimizer import build_optimizer
from backbones.core.run_log import MetricsWriter, get_logger
from backbones.models.weights import BackboneFile
from detection.data.loader import (
    DetectionBatch,
    InferenceImages,
    TrainingImages,
    inference_batches,
    trainable,
    training_batches,
)
from detection.data.records import DetectionData
from detection.engines import save_loading
from detection.engines.finite import FiniteOutputs
from detection.engines.torchvision.building import build_detector, frozen_stages
from detection.engines.torchvision.faster_rcnn import BoxPredictor, FasterRCNN
from detection.engines.torchvision.keys import check_config
from detection.training.frozen import FrozenStages
from detection.training.gathering import gather_detections
from detection.training.precise_bn import measure_statistics
from detection.training.resuming import (
    build_detector_schedule,
    refuse_other_settings,
    require_finished,
    training_settings,
    warn_of_other_processes,
)

__all__ = ["check_config", "detect", "finetune", "require"]

CHECKPOINT = "checkpoint.pth"


def require() -> None:
    """Everything is installed with the project."""


def finetune(
    cfg: CfgNode,
    backbone: BackboneFile | None,
    train: DetectionData,
    test: DetectionData,
    run_dir: Path,
    resume: bool,
    eval_only: bool,
    begin: Callable[[], Path] | None = None,
) -> list[dict[str, Any]]:
    """Train (or go on, or only load) and detect; see detection/engines/__init__.py."""
    device = setup_distributed()
    torch.manual_seed(cfg.SEED)
    detector, report = build_detector(cfg.MODEL, cfg.TEST.DETECTIONS_PER_IMAGE, backbone)
    detector.to(device)
    get_logger().info("backbone: %s", report.counts())
    frozen = FrozenStages(frozen_stages(detector.body, cfg.MODEL.BACKBONE.FREEZE_AT))
    run = _Run(cfg, backbone, train, detector, run_dir, device, test)
    if resume or eval_only:
        run.restore(required=eval_only)
    if eval_only:
        require_finished(run.path, run.finished, cfg.SOLVER.MAX_ITER)
    folder = begin() if begin else run_dir
    if is_main() and not eval_only:  # not before: a refused resumption leaves the run as it was
        save_loading(folder, report)
    if run.finished < cfg.SOLVER.MAX_ITER:
        run.train()
        broadcast(*detector.state_dict().values())  # each process has its own BN statistics: all detect with the main's
    proof = frozen.prove()
    if is_main():
        save_loading(folder, report, proof)
    return detect(cfg, detector, test, device)


class _Run:
    """One training: what its checkpoint holds, and the loop that fills it."""

    def __init__(
        self,
        cfg: CfgNode,
        backbone: BackboneFile | None,
        data: DetectionData,
        detector: FasterRCNN,
        run_dir: Path,
        device: torch.device,
        test: DetectionData | None = None,
    ) -> None:
        self.cfg, self.data, self.detector, self.run_dir, self.device = cfg, data, detector, run_dir, device
        self.path = run_dir / CHECKPOINT
        self.optimizer = build_detector_optimizer(cfg.SOLVER, detector)
        self.settings = training_settings(cfg, data, backbone, test)
        self.finished = 0

    def restore(self, *, required: bool) -> None:
        """Load the checkpoint; without one a run begins anew, unless it is `required`."""
        if not required and not self.path.exists():
            return
        state = load_checkpoint(self.path)
        if not {"iteration", "settings", "model", "optimizer"} <= state.keys():
            raise InputError(f"{self.path} is no checkpoint of this engine; delete it or use a new output folder")
        refuse_other_settings(state["settings"], self.settings, self.path)
        load_state(self.detector, state["model"], where=self.path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.finished = state["iteration"]
        if self.finished < self.cfg.SOLVER.MAX_ITER:
            warn_of_other_processes(state)
        get_logger().info("going on from iteration %d", self.finished)

    def save(self, finished: int) -> None:
        """Called by the loop on every process."""
        self.finished = finished
        if finished == self.cfg.SOLVER.MAX_ITER and self.cfg.TEST.PRECISE_BN.ENABLED:
            self._measure_statistics()
        if is_main():
            save_checkpoint(
                self.path,
                iteration=finished,
                processes=world_size(),
                settings=self.settings,
                model=self.detector.state_dict(),
                optimizer=self.optimizer.state_dict(),
            )
        barrier()

    def _measure_statistics(self) -> None:
        """Before the last checkpoint, so that who detects with it later finds the same statistics."""
        stop = self.cfg.SOLVER.MAX_ITER
        batches = build_training_batches(
            self.cfg, self.data, stop, stop + self.cfg.TEST.PRECISE_BN.NUM_ITER, self.device
        )
        moved = (batch.to(self.device, non_blocking=True) for batch in batches)
        measure_statistics(DetectionTask(self.detector), moved, self.cfg)

    def train(self) -> None:
        """Iterations `finished` .. MAX_ITER - 1."""
        cfg, solver = self.cfg, self.cfg.SOLVER
        precision = "bfloat16" if solver.AMP.ENABLED else "float32"
        check_precision(precision, self.device)
        writer = MetricsWriter(self.run_dir, self.finished)
        batches = build_training_batches(cfg, self.data, self.finished, solver.MAX_ITER, self.device)
        begun = time.time()
        train(
            wrap_ddp(DetectionTask(self.detector), self.device),
            batches,
            self.optimizer,
            build_detector_schedule(solver),
            start=self.finished,
            stop=solver.MAX_ITER,
            seed=cfg.SEED,
            precision=precision,
            clip_norm=solver.CLIP_GRADIENTS.CLIP_VALUE if solver.CLIP_GRADIENTS.ENABLED else 0.0,
            log_period=solver.LOG_PERIOD,
            checkpoint_period=solver.CHECKPOINT_PERIOD,
            save=self.save,
            writer=writer,
            device=self.device,
        )
        writer.close()
        get_logger().info("trained in %.1f s", time.time() - begun)


class DetectionTask(nn.Module):
    """What the loop trains: maps a DetectionBatch to the sum of the detector's four losses."""

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: DetectionBatch) -> Step:
        targets = [
            # Class 0 of the detector is the background.
            {"boxes": boxes, "labels": labels + 1}
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        losses = self.detector(batch.images, batch.sizes, targets)
        return Step(torch.stack(list(losses.values())).sum(), losses)


def build_training_batches(
    cfg: CfgNode, data: DetectionData, start: int, stop: int, device: torch.device
) -> Iterable[DetectionBatch]:
    """The batches of iterations `start` .. `stop - 1`."""
    images = TrainingImages(
        trainable(data, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS),
        short_sides=cfg.INPUT.MIN_SIZE_TRAIN,
        longest=cfg.INPUT.MAX_SIZE_TRAIN,
        flip=cfg.INPUT.RANDOM_FLIP == "horizontal",
        seed=cfg.SEED,
        cache=cfg.DATALOADER.CACHE_IMAGES,
    )
    return training_batches(
        images,
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        seed=cfg.SEED,
        start=start,
        stop=stop,
        group_by_shape=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=device.type == "cuda",
    )


def build_detector_optimizer(solver: CfgNode, detector: nn.Module) -> torch.optim.Optimizer:
    """Over what trains; normalisation layers, and perhaps biases (theirs too, as in detectron2), decay on their own."""
    groups: dict[float, list[Tensor]] = {}
    for module in detector.modules():
        is_norm = isinstance(module, (nn.BatchNorm2d, nn.GroupNorm))
        for name, parameter in module.named_parameters(recurse=False):
            decay = solver.WEIGHT_DECAY_NORM if is_norm else solver.WEIGHT_DECAY
            if name == "bias" and solver.WEIGHT_DECAY_BIAS >= 0:
                decay = solver.WEIGHT_DECAY_BIAS
            if parameter.requires_grad:
                groups.setdefault(decay, []).append(parameter)
    return build_optimizer(
        [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items()],
        solver.OPTIMIZER,
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
    )


@torch.inference_mode()
def detect(cfg: CfgNode, detector: FasterRCNN, data: DetectionData, device: torch.device) -> list[dict[str, Any]]:
    """Every detection on `data` as COCO results, sorted by image; complete on every process."""
    detector.eval()
    images = InferenceImages(data.records, short_side=cfg.INPUT.MIN_SIZE_TEST, longest=cfg.INPUT.MAX_SIZE_TEST)
    batches = inference_batches(
        images,
        batch_size=cfg.TEST.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=device.type == "cuda",
    )
    category_ids = [category["id"] for category in data.categories]
    paths = {record.image_id: str(record.path) for record in data.records}
    mine = []
    heads = [module for module in detector.modules() if isinstance(module, RPNHead | BoxPredictor)]
    with FiniteOutputs(heads) as finite:
        for batch in batches:
            outputs = detector(batch.images.to(device, non_blocking=True), batch.sizes)
            finite.check([paths[image_id] for image_id in batch.image_ids])
            for n, output in enumerate(outputs):
                scaled = scale_to_original(output["boxes"], batch.sizes[n], batch.originals[n])
                mine.append((batch.image_ids[n], to_coco_results(batch.image_ids[n], scaled, output, category_ids)))
    return gather_detections(mine, data.records)


def scale_to_original(boxes: Tensor, size: tuple[int, int], original: tuple[int, int]) -> Tensor:
    """(n, 4) corners in an image resized to `size` (height, width) -> corners in the original of `original`."""
    height, width = original
    factor = boxes.new_tensor([width / size[1], height / size[0]] * 2)
    return (boxes * factor).clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))


def to_coco_results(
    image_id: int, boxes: Tensor, output: dict[str, Tensor], category_ids: list[int]
) -> list[dict[str, Any]]:
    """COCO results of one image; class 1 of the detector is the first category."""
    sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    labels, scores = output["labels"].tolist(), output["scores"].tolist()
    return [
        {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for box, label, score in zip(sides, labels, scores, strict=True)
    ]
