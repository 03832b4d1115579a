"""Build the parts of a pretraining from its config: data, network, method, optimizer.

Only these functions read the config; the parts they build do not.
"""

import dataclasses

import torch

from backbones.core.config import CfgNode, expand_path
from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from backbones.core.loading import GuardedLoader
from backbones.core.optimizer import build_optimizer
from backbones.core.run_log import get_logger
from backbones.core.sampling import StatelessBatchSampler
from backbones.core.schedule import Schedule, build_schedule
from backbones.core.warning_counter import WarningCounter
from backbones.data.batch import Batch
from backbones.data.defaults import HOLDOUT, idle_data_keys
from backbones.data.evaluation_set import EvaluationSet
from backbones.data.loader import evaluation_batches, training_batches
from backbones.data.masking import mean_colour
from backbones.data.noise import add_noise
from backbones.data.samples import Samples, leave_out_unboxed, load_samples, log_samples
from backbones.data.training_set import TrainingSet
from backbones.data.versions import cap_classes, mask_objects, split_holdout
from backbones.methods.base import METHODS, Context, Method
from backbones.models import build_model
from backbones.models.weights import load_backbone, start_from
from backbones.pretraining.task import ClassificationTask
from backbones.pretraining.teacher import CachedTeacher, OnlineTeacher


def read_split(cfg: CfgNode, split: str, warnings: WarningCounter, *, training: bool = False) -> Samples:
    """Read one split of the configured data set, in the configured version; "holdout" is the part of TRAIN_SPLIT.

    Args:
        training: whether the split is trained on, which adds the label noise, if any.
    """
    data = cfg.DATA
    held_out = split == HOLDOUT
    from_training = held_out or split == data.TRAIN_SPLIT
    samples = load_samples(
        data.NAME,
        expand_path(data.ROOT),
        data.TRAIN_SPLIT if held_out else split,
        drop_without_box=(data.VERSION if from_training else data.EVAL_VERSION) != "full",
        need_boxes=False,
        warnings=warnings,
    )
    read = samples.fingerprint
    held = data.HOLDOUT if from_training else 0
    if held:
        samples = split_holdout(samples, held, _seed(cfg, data.HOLDOUT_SEED), held_out=held_out)
    version = data.VERSION if from_training and not held_out else data.EVAL_VERSION
    if held_out and version != "full":  # after the draw, so that training does not depend on the version of evaluation
        samples = leave_out_unboxed(samples, split, warnings)
    samples = _in_version(samples, version, data.MEAN)
    if data.CLASS_CAP and split == data.TRAIN_SPLIT:
        samples = cap_classes(samples, data.CLASS_CAP, warnings)
    if training and data.NOISE_RATE:
        samples = add_noise(samples, data.NOISE_RATE, _seed(cfg, data.NOISE_SEED))
    by_seed = held or samples.clean_labels is not None
    source = fingerprint(read, split, version, str(data.CLASS_CAP)) if by_seed else samples.fingerprint
    return dataclasses.replace(samples, split=split, source=source, drawn=held)


def _seed(cfg: CfgNode, own: int) -> int:
    return cfg.SEED if own < 0 else own


def _in_version(samples: Samples, version: str, mean: list[float]) -> Samples:
    if samples.painted is not None and version != "mask":
        raise InputError(
            f"the images of {samples.name} show several classes, so that a sample is one object of an image; "
            f"set DATA.VERSION and DATA.EVAL_VERSION mask, not {version}"
        )
    return mask_objects(samples, mean_colour(mean)) if version == "mask" else samples


def build_samples(cfg: CfgNode, split: str, warnings: WarningCounter, *, training: bool = False) -> Samples:
    """Read one split and log its size.

    Args:
        training: whether the split is trained on, which adds label noise and checks the needs of the method.
    """
    needs = METHODS.get(cfg.METHOD.NAME).needs
    if training:
        for key in idle_data_keys(cfg.DATA):
            get_logger().warning("DATA.%s has no effect: DATA.AUGMENTATION is %s", key, cfg.DATA.AUGMENTATION)
    samples = read_split(cfg, split, warnings, training=training)
    if training and (needs & {"objectness", "boxes"} or cfg.DATA.CONTEXT_SHARE):
        samples.require_boxes()
    log_samples(samples)
    return samples


def build_method(cfg: CfgNode, num_classes: int) -> Method:
    """Build the network and the method around it."""
    model = build_model(cfg.MODEL.ARCH, num_classes, norm=cfg.MODEL.NORM)
    if cfg.MODEL.WEIGHTS:
        start_from(model, load_backbone(expand_path(cfg.MODEL.WEIGHTS)))
    if cfg.CHANNELS_LAST:
        model = model.to(memory_format=torch.channels_last)
    method = METHODS.get(cfg.METHOD.NAME)(model, num_classes, **cfg.METHOD[cfg.METHOD.NAME])
    return method.double() if cfg.PRECISION == "float64" else method


def build_teacher(cfg: CfgNode, samples: Samples, device: torch.device) -> OnlineTeacher | CachedTeacher | None:
    """Build the configured teacher; None if the method needs none."""
    if "teacher_logits" not in METHODS.get(cfg.METHOD.NAME).needs:
        return None
    if cfg.TEACHER.CACHE:
        teacher = CachedTeacher(expand_path(cfg.TEACHER.CACHE), samples)
    else:
        teacher = OnlineTeacher(load_backbone(expand_path(cfg.TEACHER.RUN)), samples.classes, device, _dtype(cfg))
    check_teacher_data(cfg, teacher, samples)
    return teacher


def check_teacher_data(cfg: CfgNode, teacher: OnlineTeacher | CachedTeacher, samples: Samples) -> None:
    """Check that the teacher was trained on the same data: an error with DATA.HOLDOUT, otherwise a warning.

    A teacher trained on other data may know the held-out images, on which its temperature is fitted and its students
    are chosen.
    """
    if teacher.trained_on == samples.fingerprint:
        return
    differ = f"the teacher {teacher.hash} was trained on data of fingerprint {teacher.trained_on}, not on these"
    if cfg.DATA.HOLDOUT:
        raise InputError(
            f"{differ} ({samples.fingerprint}), and may know the images that DATA.HOLDOUT takes out; "
            "train a teacher with the same DATA, and with the same SEED or DATA.HOLDOUT_SEED"
        )
    get_logger().warning("%s (%s)", differ, samples.fingerprint)


def build_context(
    cfg: CfgNode, samples: Samples, val: Samples, teacher: OnlineTeacher | CachedTeacher | None, *, resumed: bool
) -> Context:
    """Build the facts about the training that a method can use in `setup`."""

    def temperature() -> float:
        if isinstance(teacher, OnlineTeacher):
            return teacher.temperature(build_evaluation_batches(cfg, val), val.paths)
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
    """Return the method's name for tables; a method with a cached teacher counts as another method."""
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


def build_evaluation_batches(cfg: CfgNode, samples: Samples) -> GuardedLoader[Batch]:
    """Build the batches of an evaluation: every sample once, split over all processes."""
    data = cfg.DATA
    images = EvaluationSet(samples, resize=data.EVAL_RESIZE, crop=data.EVAL_CROP, stretch=data.EVAL_STRETCH)
    return evaluation_batches(images, batch_size=cfg.EVAL.BATCH_SIZE, num_workers=cfg.DATA.NUM_WORKERS)


def _dtype(cfg: CfgNode) -> torch.dtype:
    return torch.float64 if cfg.PRECISION == "float64" else torch.float32


def build_batches(cfg: CfgNode, samples: Samples, method: Method, start: int, stop: int) -> GuardedLoader[Batch]:
    """Build the augmented batches of iterations `start` .. `stop - 1`, with the fields that the method needs."""
    images = TrainingSet(
        samples,
        size=cfg.DATA.IMAGE_SIZE,
        crop_area=tuple(cfg.DATA.CROP_AREA),
        crop_ratio=tuple(cfg.DATA.CROP_RATIO),
        flip=cfg.DATA.FLIP,
        seed=cfg.SEED,
        augmentation=cfg.DATA.AUGMENTATION,
        pad=cfg.DATA.PAD,
        resize=cfg.DATA.RESIZE,
        color_jitter=tuple(cfg.DATA.COLOR_JITTER),
        lighting=cfg.DATA.LIGHTING,
        context_share=cfg.DATA.CONTEXT_SHARE,
        context_colour=mean_colour(cfg.DATA.MEAN),
        needs=frozenset(method.needs),
    )
    return training_batches(
        images,
        batch_size=cfg.SOLVER.BATCH_SIZE,
        seed=cfg.SEED,
        start=start,
        stop=stop,
        num_workers=cfg.DATA.NUM_WORKERS,
        pin_memory=True,
    )


def iterations_per_epoch(cfg: CfgNode, samples: Samples) -> int:
    """Return the number of full batches in one pass over the training set."""
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
    """Build the schedule, in iterations, from a config in epochs; `epoch` is the number of iterations in one."""
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
