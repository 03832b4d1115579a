"""Pretraining a classifier: from a validated config to a run folder with a backbone.

`build_*` functions read the config; what they build does not know it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import __version__
from backbones.config import idle_settings
from backbones.core import distributed
from backbones.core.checkpoint import load_checkpoint, load_state, save_checkpoint
from backbones.core.config import CfgNode, config_hash, expand_path
from backbones.core.engine import Step, check_precision, seed_step, train
from backbones.core.errors import InputError
from backbones.core.logging import MetricsWriter, get_logger
from backbones.core.optimizer import build_optimizer
from backbones.core.results import make_results, save_results
from backbones.core.sampling import StatelessBatchSampler
from backbones.core.schedule import Schedule, build_schedule
from backbones.core.warnings import WarningCounter
from backbones.data.batch import Batch
from backbones.data.datasets import EvaluationSet, TrainingSet
from backbones.data.images import normalize
from backbones.data.loader import Batches, evaluation_batches, training_batches
from backbones.data.samples import Samples, load_samples
from backbones.evaluation import predict
from backbones.methods import METHODS, Context, Method
from backbones.models import build_model
from backbones.models.weights import backbone_spec, identity, load_backbone, save_backbone

CHECKPOINT = "checkpoint.pth"
BACKBONE = "backbone.pth"


class ClassificationTask(nn.Module):
    """Maps a batch of uint8 pictures to a training step of `method`.

    Args:
        mean, std: channel statistics, RGB in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, method: Method, mean: list[float], std: list[float], *, dtype: torch.dtype, channels_last: bool):
        super().__init__()
        self.method = method
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.register_buffer("mean", torch.tensor(mean, dtype=dtype), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=dtype), persistent=False)

    def forward(self, batch: Batch) -> Step:
        images = normalize(batch.images, self.mean, self.std).contiguous(memory_format=self.memory_format)
        step = self.method(replace(batch, images=images))
        right = (step.logits.argmax(dim=1) == batch.labels).sum()
        return Step(step.loss, {}, {"train_top1": (right, len(batch.labels))})


class MethodHook:
    """Calls a method's hooks at the right iterations."""

    def __init__(self, method: Method, iterations_per_epoch: int) -> None:
        self.method = method
        self.epoch = iterations_per_epoch
        self.period = method.period or iterations_per_epoch

    def after_step(self, finished: int) -> None:
        self.method.after_step()
        if finished % self.period == 0:
            self.method.end_period()
        if finished % self.epoch == 0:
            self.method.begin_epoch(finished // self.epoch)


def pretrain(cfg: CfgNode, run_dir: Path, *, resume: bool) -> dict[str, Any]:
    """Train as `cfg` says, write checkpoint.pth, backbone.pth and results.json into `run_dir`; return the results."""
    device = distributed.setup_distributed()
    for key in idle_settings(cfg):
        get_logger().warning("%s has no effect: METHOD.NAME is %s", key, cfg.METHOD.NAME)
    check_precision(cfg.PRECISION, device)
    seed_step(cfg.SEED, -1)
    warnings = WarningCounter()
    samples = build_samples(cfg, cfg.DATA.TRAIN_SPLIT, warnings)
    val = build_samples(cfg, cfg.DATA.VAL_SPLIT, warnings)
    if cfg.DATA.SHIFTED_SPLIT:  # measured later, but a wrong name should not cost a training
        build_samples(cfg, cfg.DATA.SHIFTED_SPLIT, warnings)
    warnings.log(get_logger())
    method = build_method(cfg, len(samples.classes)).to(device)
    fit(cfg, run_dir, method, samples, device, resume=resume)
    return finish(cfg, run_dir, method, samples, val, device, warnings)


def fit(cfg: CfgNode, run_dir: Path, method: Method, samples: Samples, device: torch.device, *, resume: bool) -> None:
    """Train `method` in place, from the checkpoint in `run_dir` if `resume` and there is one."""
    epoch = iterations_per_epoch(cfg, samples)
    stop = cfg.SOLVER.MAX_EPOCH * epoch
    optimizer = build_solver(cfg, method)
    start = _restore(run_dir / CHECKPOINT, method, optimizer, samples) if resume else 0
    if start == 0:
        method.setup(Context(len(samples), torch.from_numpy(samples.labels), cfg.SOLVER.MAX_EPOCH, epoch))
        method.begin_epoch(0)
    get_logger().info("%s: iterations %d to %d on %s", cfg.METHOD.NAME, start, stop, device)
    writer = MetricsWriter(run_dir, start)
    train(
        distributed.wrap_ddp(build_task(cfg, method, device), device),
        build_batches(cfg, samples, method, start, stop),
        optimizer,
        build_learning_rate(cfg, epoch),
        start=start,
        stop=stop,
        seed=cfg.SEED,
        precision=cfg.PRECISION,
        clip_norm=cfg.SOLVER.CLIP_NORM,
        log_period=cfg.LOG_PERIOD,
        checkpoint_period=max(round(cfg.SOLVER.CHECKPOINT_PERIOD * epoch), 1),
        save=lambda finished: _save(run_dir / CHECKPOINT, method, optimizer, samples, finished),
        writer=writer,
        device=device,
        hooks=[MethodHook(method, epoch)],
    )
    writer.close()
    if distributed.world_size() > 1:  # each process has its own batch statistics: all measure with the saved ones
        _restore(run_dir / CHECKPOINT, method, optimizer, samples)


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


def build_task(cfg: CfgNode, method: Method, device: torch.device) -> ClassificationTask:
    """Wrap the method for the training loop."""
    dtype = torch.float64 if cfg.PRECISION == "float64" else torch.float32
    task = ClassificationTask(method, cfg.DATA.MEAN, cfg.DATA.STD, dtype=dtype, channels_last=cfg.CHANNELS_LAST)
    return task.to(device)


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
    """The optimizer over all parameters of the method."""
    solver = cfg.SOLVER
    return build_optimizer(
        method.parameters(),
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


def _save(path: Path, method: Method, optimizer: torch.optim.Optimizer, samples: Samples, finished: int) -> None:
    method.gather()
    if distributed.is_main():
        save_checkpoint(
            path,
            iteration=finished,
            data=samples.fingerprint,
            method=method.state_dict(),
            optimizer=optimizer.state_dict(),
        )
    distributed.barrier()


def _restore(path: Path, method: Method, optimizer: torch.optim.Optimizer, samples: Samples) -> int:
    """Load the checkpoint, if there is one; return the iteration to go on from."""
    if not path.exists():
        get_logger().info("no checkpoint yet in %s: starting from the beginning", path.parent)
        return 0
    state = load_checkpoint(path)
    load_state(method, state["method"], where=path)
    if state["data"] != samples.fingerprint:
        raise InputError(
            f"{path} was trained on data of fingerprint {state['data']}, DATA.ROOT now holds {samples.fingerprint}; "
            "restore the data, or start in another folder"
        )
    optimizer.load_state_dict(state["optimizer"])
    return state["iteration"]


def finish(
    cfg: CfgNode,
    run_dir: Path,
    method: Method,
    samples: Samples,
    val: Samples,
    device: torch.device,
    warnings: WarningCounter,
) -> dict[str, Any]:
    """Measure the last epoch on the validation split and write backbone.pth and results.json."""
    pictures = EvaluationSet(val, resize=cfg.DATA.EVAL_RESIZE, crop=cfg.DATA.EVAL_CROP)
    batches = evaluation_batches(pictures, batch_size=cfg.EVAL.BATCH_SIZE, num_workers=cfg.DATA.NUM_WORKERS)
    predictions = predict(method.model, batches, device, cfg.DATA.MEAN, cfg.DATA.STD, cfg.PRECISION)
    protocol = {"name": f"{cfg.DATA.NAME}-{cfg.MODEL.ARCH}", "hash": _protocol_hash(cfg, samples)}
    results: dict[str, Any] = {}
    if distributed.is_main():
        provenance = {
            "label": cfg.LABEL or cfg.METHOD.NAME,
            "method": cfg.METHOD.NAME,
            "seed": cfg.SEED,
            "config_hash": config_hash(cfg),
            "data_fingerprint": samples.fingerprint,
            "version": __version__,
        }
        spec = backbone_spec(
            method.model,
            mean=cfg.DATA.MEAN,
            std=cfg.DATA.STD,
            image_size=cfg.DATA.IMAGE_SIZE,
            classes=samples.classes,
        )
        save_backbone(run_dir / BACKBONE, method.model, spec, provenance)
        results = make_results(
            "pretraining",
            identity(load_backbone(run_dir)),
            protocol,
            {"top1": predictions.top1(), "nll": predictions.nll()},
            data={
                split.split: {"name": split.name, "pictures": len(split.labels), "fingerprint": split.fingerprint}
                for split in (samples, val)
            },
            details={"reported_epoch": "last", "classes": samples.classes},
            warnings=warnings.as_list(),
            files={"backbone": BACKBONE, "checkpoint": CHECKPOINT, "metrics": "metrics.jsonl"},
        )
        save_results(run_dir, results)
    distributed.barrier()
    return results


def _protocol_hash(cfg: CfgNode, samples: Samples) -> str:
    """Equal for all rows that differ in nothing but method and seed."""
    blocks = ("PRECISION", "CHANNELS_LAST", "MODEL", "SOLVER")
    data = {key: value for key, value in cfg.DATA.items() if key not in ("ROOT", "NUM_WORKERS")}
    return config_hash({**{name: cfg[name] for name in blocks}, "DATA": data, "fingerprint": samples.fingerprint})
