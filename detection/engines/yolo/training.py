"""Training YOLO by the project's own loop.

A resumed run equals an uninterrupted one bit for bit on the CPU, the table of online labels included: images, sizes
and augmentations are pure functions of (seed, iteration), and the checkpoint holds the rest.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones.core.checkpoint import load_checkpoint, load_state, save_checkpoint
from backbones.core.config import CfgNode
from backbones.core.distributed import barrier, is_main, rank, world_size, wrap_ddp
from backbones.core.engine import Step, check_precision, train
from backbones.core.errors import InputError
from backbones.core.loading import GuardedLoader
from backbones.core.optimizer import build_optimizer
from backbones.core.run_log import MetricsWriter, get_logger
from backbones.core.sampling import StatelessBatchSampler
from backbones.core.schedule import Schedule, build_schedule
from backbones.models.weights import BackboneFile
from detection.data.loader import trainable
from detection.data.records import DetectionData, Record
from detection.engines.yolo.config import label_settings, weight_settings
from detection.engines.yolo.data import Augmentation, SizedBatchSampler, TrainingImages, YoloBatch, collate
from detection.engines.yolo.labels import CLASS_LABELS, ClassLabels
from detection.engines.yolo.loss import YOLOLoss
from detection.engines.yolo.soft_labels import FILE as SOFT_LABELS
from detection.engines.yolo.soft_labels import SoftLabelHook
from detection.training.resuming import as_texts, name_inputs, refuse_other_settings, warn_of_other_processes

CHECKPOINT = "checkpoint.pth"


class YOLOTask(nn.Module):
    """What the loop trains: maps a YoloBatch to the sum of the loss's parts; the labels learn from what it predicts.

    Args:
        mean, std: per channel, in 0..255.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, loss: YOLOLoss, labels: ClassLabels, mean: list, std: list) -> None:
        super().__init__()
        self.model, self.loss, self.labels = model, loss, labels
        self.learns_labels = type(labels).observe is not ClassLabels.observe
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 -> float32, as the backbone was trained with."""
        return (images - self.mean) / self.std

    def forward(self, batch: YoloBatch) -> Step:
        maps = self.model(self.normalise(batch.images))
        where = (batch.boxes, batch.labels, batch.weights)
        losses = self.loss(maps, *where, self.labels.targets(batch.labels))
        if self.learns_labels:
            self.labels.observe(*self.loss.classified(maps, *where))
        return Step(torch.stack(list(losses.values())).sum(), losses)


def build_task(cfg: CfgNode, model: nn.Module) -> YOLOTask:
    """The network with its loss and its class labels."""
    loss = YOLOLoss(
        cfg.MODEL.ANCHORS,
        assign_iou=cfg.LOSS.POSITIVE_IOU,
        ignore_iou=cfg.LOSS.IGNORE_IOU,
        gamma=cfg.LOSS.FOCAL_GAMMA,
    )
    labels = CLASS_LABELS.get(cfg.CLASS_LABELS.NAME)(cfg.MODEL.NUM_CLASSES, **label_settings(cfg.CLASS_LABELS))
    return YOLOTask(model, loss, labels, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)


class Training:
    """One training: what its checkpoint holds, and the loop that fills it."""

    def __init__(
        self,
        cfg: CfgNode,
        backbone: BackboneFile | None,
        data: DetectionData,
        task: YOLOTask,
        run_dir: Path,
        device: torch.device,
        test: DetectionData | None = None,
    ) -> None:
        self.cfg, self.task, self.run_dir, self.device = cfg, task, run_dir, device
        self.classes = [category["name"] for category in data.categories]
        self.records = trainable(data, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
        self.path = run_dir / CHECKPOINT
        self.optimizer = build_yolo_optimizer(cfg.SOLVER, task)
        self.settings = training_settings(cfg, data, backbone, test)
        self.finished = 0

    def restore(self, *, required: bool) -> None:
        """Load the checkpoint; without one a run begins anew, unless it is `required`."""
        if not required and not self.path.exists():
            return
        state = load_checkpoint(self.path)
        if not {"iteration", "settings", "task", "optimizer"} <= state.keys():
            raise InputError(f"{self.path} is no checkpoint of YOLO; delete it or use a new output folder")
        refuse_other_settings(state["settings"], self.settings, self.path)
        load_state(self.task, state["task"], where=self.path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.finished = state["iteration"]
        if self.finished < self.cfg.SOLVER.MAX_ITER:
            warn_of_other_processes(state)
        get_logger().info("going on from iteration %d", self.finished)

    def save(self, finished: int) -> None:
        """Called by the loop on every process."""
        self.finished = finished
        self.task.labels.gather()  # sums of all processes, so that each may go on from them
        if is_main():
            save_checkpoint(
                self.path,
                iteration=finished,
                processes=world_size(),
                settings=self.settings,
                task=self.task.state_dict(),
                optimizer=self.optimizer.state_dict(),
            )
        barrier()

    def train(self) -> None:
        """Iterations `finished` .. MAX_ITER - 1."""
        cfg, solver = self.cfg, self.cfg.SOLVER
        precision = "bfloat16" if solver.AMP.ENABLED else "float32"
        check_precision(precision, self.device)
        sampler = build_sampler(cfg, self.records, self.finished)
        if self.finished == 0 and is_main():
            (self.run_dir / SOFT_LABELS).unlink(missing_ok=True)  # of a run that was killed before its first checkpoint
        writer = MetricsWriter(self.run_dir, self.finished)
        begun = time.time()
        train(
            wrap_ddp(self.task, self.device),
            build_batches(cfg, self.records, sampler, self.device),
            self.optimizer,
            build_yolo_schedule(solver),
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
            hooks=[SoftLabelHook(self.task.labels, sampler.iterations_per_epoch, self.classes, self.run_dir)],
        )
        writer.close()
        get_logger().info("trained in %.1f s", time.time() - begun)


def build_sampler(cfg: CfgNode, records: list[Record], start: int) -> StatelessBatchSampler:
    """This process's share of the batches of iterations `start` .. MAX_ITER - 1."""
    return StatelessBatchSampler(
        len(records),
        cfg.SOLVER.IMS_PER_BATCH,
        seed=cfg.SEED,
        start=start,
        stop=cfg.SOLVER.MAX_ITER,
        rank=rank(),
        world_size=world_size(),
    )


def build_batches(
    cfg: CfgNode, records: list[Record], sampler: StatelessBatchSampler, device: torch.device
) -> GuardedLoader[YoloBatch]:
    """The batches of `sampler`, augmented as INPUT says."""
    given = cfg.INPUT
    images = TrainingImages(
        records,
        Augmentation(given.FLIP, given.RANDOM_CROP, given.TRANSLATION, given.MIXUP, given.MIXUP_ALPHA),
        largest=max(given.SIZES),
        seed=cfg.SEED,
        cache=cfg.DATALOADER.CACHE_IMAGES,
    )
    sized = SizedBatchSampler(sampler, given.SIZES, given.PERIOD, cfg.SEED)
    workers, on_gpu = cfg.DATALOADER.NUM_WORKERS, device.type == "cuda"
    return GuardedLoader(images, sized, collate, num_workers=workers, pin_memory=on_gpu)


def build_yolo_optimizer(solver: CfgNode, task: nn.Module) -> torch.optim.Optimizer:
    """Over what trains; normalisation layers may have their own weight decay."""
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
    """Linear warm-up, then a cosine, per iteration."""
    return build_schedule(
        "cosine",
        base_lr=solver.BASE_LR,
        final_lr=solver.FINAL_LR,
        max_iter=solver.MAX_ITER,
        warmup_iters=solver.WARMUP_ITERS,
        warmup_factor=solver.WARMUP_FACTOR,
    )


def training_settings(
    cfg: CfgNode, data: DetectionData, backbone: BackboneFile | None, test: DetectionData | None = None
) -> dict[str, str]:
    """Everything that the weights depend on, as text: settings, data and backbone; and which data the run tests on."""
    return as_texts(weight_settings(cfg)) | name_inputs(data, backbone, test)
