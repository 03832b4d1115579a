"""From the config of a pretraining to its parts: data, network, method, optimizer.

These functions alone read the config; what they build does not know it.
"""

import torch

from backbones.core.config import CfgNode, expand_path
from backbones.core.optimizer import build_optimizer
from backbones.core.sampling import StatelessBatchSampler
from backbones.core.schedule import Schedule, build_schedule
from backbones.core.warnings import WarningCounter
from backbones.data.evaluation_set import EvaluationSet
from backbones.data.loader import Batches, evaluation_batches, training_batches
from backbones.data.samples import Samples, load_samples
from backbones.data.training_set import TrainingSet
from backbones.methods import METHODS, Context, Method
from backbones.models import build_model
from backbones.models.weights import load_backbone
from backbones.task import ClassificationTask
from backbones.teacher import CachedTeacher, OnlineTeacher


def build_samples(cfg: CfgNode, split: str, warnings: WarningCounter) -> Samples:
    """Read one split of the configured data set."""
    needs = METHODS.get(cfg.METHOD.NAME).needs
    return load_samples(
        cfg.DATA.NAME,
        expand_path(cfg.DATA.ROOT),
        split,
        drop_without_box=cfg.DATA.DROP_WITHOUT_BOX,
        need_boxes=split == cfg.DATA.TRAIN_SPLIT and bool(needs & {"objectness", "boxes"}),
        warnings=warnings,
    )


def build_method(cfg: CfgNode, num_classes: int) -> Method:
    """Build the network and the method around it."""
    model = build_model(cfg.MODEL.ARCH, num_classes, norm=cfg.MODEL.NORM)
    if cfg.CHANNELS_LAST:
        model = model.to(memory_format=torch.channels_last)
    method = METHODS.get(cfg.METHOD.NAME)(model, num_classes, **cfg.METHOD[cfg.METHOD.NAME])
    return method.double() if cfg.PRECISION == "float64" else method


def build_teacher(cfg: CfgNode, samples: Samples, device: torch.device) -> OnlineTeacher | CachedTeacher | None:
    """The teacher that the config names, if the method needs one."""
    if "teacher_logits" not in METHODS.get(cfg.METHOD.NAME).needs:
        return None
    if cfg.TEACHER.CACHE:
        return CachedTeacher(expand_path(cfg.TEACHER.CACHE), samples)
    return OnlineTeacher(load_backbone(expand_path(cfg.TEACHER.RUN)), samples.classes, device, _dtype(cfg))


def build_context(
    cfg: CfgNode, samples: Samples, val: Samples, teacher: OnlineTeacher | CachedTeacher | None, *, resumed: bool
) -> Context:
    """What a method may know before training."""

    def temperature() -> float:
        if isinstance(teacher, OnlineTeacher):
            return teacher.temperature(build_evaluation_batches(cfg, val))
        assert teacher is not None
        return teacher.fitted

    return Context(
        num_samples=len(samples),
        labels=torch.from_numpy(samples.labels),
        epochs=cfg.SOLVER.MAX_EPOCH,
        steps_per_epoch=iterations_per_epoch(cfg, samples),
        unaugmented=lambda: build_evaluation_batches(cfg, samples),
        teacher_temperature=temperature if teacher is not None else None,
        resumed=resumed,
    )


def method_name(cfg: CfgNode) -> str:
    """The method's name in every table: with a cached teacher it is another method."""
    needs = METHODS.get(cfg.METHOD.NAME).needs
    return f"{cfg.METHOD.NAME}-cached" if cfg.TEACHER.CACHE and "teacher_logits" in needs else cfg.METHOD.NAME


def build_task(cfg: CfgNode, method: Method, teacher: OnlineTeacher | None, device: torch.device) -> ClassificationTask:
    """Wrap the method for the training loop."""
    task = ClassificationTask(
        method,
        cfg.DATA.MEAN,
        cfg.DATA.STD,
        dtype=_dtype(cfg),
        channels_last=cfg.CHANNELS_LAST,
        teacher=teacher,
    )
    return task.to(device)


def build_evaluation_batches(cfg: CfgNode, samples: Samples) -> Batches:
    """Every sample once over all processes, as it is evaluated."""
    pictures = EvaluationSet(samples, resize=cfg.DATA.EVAL_RESIZE, crop=cfg.DATA.EVAL_CROP)
    return evaluation_batches(pictures, batch_size=cfg.EVAL.BATCH_SIZE, num_workers=cfg.DATA.NUM_WORKERS)


def _dtype(cfg: CfgNode) -> torch.dtype:
    return torch.float64 if cfg.PRECISION == "float64" else torch.float32


def build_batches(cfg: CfgNode, samples: Samples, method: Method, start: int, stop: int) -> Batches:
    """Augmented batches of the iterations `start` .. `stop - 1`, with the fields that the method needs."""
    pictures = TrainingSet(
        samples,
        size=cfg.DATA.IMAGE_SIZE,
        crop_area=tuple(cfg.DATA.CROP_AREA),
        crop_ratio=tuple(cfg.DATA.CROP_RATIO),
        flip=cfg.DATA.FLIP,
        seed=cfg.SEED,
        needs=frozenset(method.needs),
    )
    return training_batches(
        pictures,
        batch_size=cfg.SOLVER.BATCH_SIZE,
        seed=cfg.SEED,
        start=start,
        stop=stop,
        num_workers=cfg.DATA.NUM_WORKERS,
        pin_memory=True,
    )


def iterations_per_epoch(cfg: CfgNode, samples: Samples) -> int:
    """Whole batches in one pass over the training set."""
    return StatelessBatchSampler(len(samples), cfg.SOLVER.BATCH_SIZE, seed=0, start=0, stop=0).iterations_per_epoch


def build_solver(cfg: CfgNode, method: Method) -> torch.optim.Optimizer:
    """The optimizer over all parameters of the method that are trained."""
    solver = cfg.SOLVER
    return build_optimizer(
        [parameter for parameter in method.parameters() if parameter.requires_grad],
        solver.OPTIMIZER,
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
    )


def build_learning_rate(cfg: CfgNode, epoch: int) -> Schedule:
    """The schedule in iterations, from a config in epochs; `epoch` is the iterations of one."""
    solver = cfg.SOLVER
    return build_schedule(
        solver.LR_SCHEDULE,
        base_lr=solver.BASE_LR,
        max_iter=solver.MAX_EPOCH * epoch,
        steps=[step * epoch for step in solver.STEPS] if solver.LR_SCHEDULE == "steps" else (),
        gamma=solver.GAMMA,
        warmup_iters=round(solver.WARMUP_EPOCHS * epoch),
        warmup_factor=solver.WARMUP_FACTOR,
    )
