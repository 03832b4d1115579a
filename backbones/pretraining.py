"""Pretraining a classifier: from a validated config to a run folder with a backbone."""

from pathlib import Path
from typing import Any

import torch

from backbones import __version__
from backbones.building import (
    build_batches,
    build_context,
    build_evaluation_batches,
    build_learning_rate,
    build_method,
    build_samples,
    build_solver,
    build_task,
    build_teacher,
    iterations_per_epoch,
    method_name,
)
from backbones.config import idle_settings
from backbones.core import distributed
from backbones.core.checkpoint import load_checkpoint, load_state, save_checkpoint
from backbones.core.config import CfgNode, config_hash
from backbones.core.engine import check_precision, seed_step, train
from backbones.core.errors import InputError
from backbones.core.logging import MetricsWriter, get_logger
from backbones.core.results import make_results, save_results
from backbones.core.warnings import WarningCounter
from backbones.data.noise import save_noise
from backbones.data.samples import Samples
from backbones.evaluation import Predictions, predict
from backbones.methods import Method
from backbones.models.weights import backbone_spec, identity, load_backbone, save_backbone
from backbones.task import MethodHook
from backbones.teacher import CachedTeacher, OnlineTeacher
from backbones.validation import Validation, fitted_metrics

CHECKPOINT = "checkpoint.pth"
BACKBONE, BEST = "backbone.pth", "best.pth"


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
    if distributed.is_main():
        save_noise(run_dir, samples)
    method = build_method(cfg, len(samples.classes)).to(device)
    epoch = iterations_per_epoch(cfg, samples)
    validation = Validation(
        method.model,
        lambda: _measure(cfg, method, val, device),
        period=cfg.EVAL.PERIOD,
        epoch=epoch,
        stop=cfg.SOLVER.MAX_EPOCH * epoch,
    )
    fit(cfg, run_dir, method, samples, val, device, validation, resume=resume)
    return finish(cfg, run_dir, method, samples, val, device, validation, warnings)


def fit(
    cfg: CfgNode,
    run_dir: Path,
    method: Method,
    samples: Samples,
    val: Samples,
    device: torch.device,
    validation: Validation,
    *,
    resume: bool,
) -> None:
    """Train `method` in place, from the checkpoint in `run_dir` if `resume` and there is one."""
    epoch = iterations_per_epoch(cfg, samples)
    stop = cfg.SOLVER.MAX_EPOCH * epoch
    optimizer = build_solver(cfg, method)
    teacher = build_teacher(cfg, samples, device)
    resumed = resume and (run_dir / CHECKPOINT).exists()
    method.setup(build_context(cfg, samples, val, teacher, resumed=resumed))
    start = _restore(run_dir / CHECKPOINT, method, optimizer, samples, validation) if resume else 0
    if start == 0:
        method.begin_epoch(0)
    batches = build_batches(cfg, samples, method, start, stop)
    online = teacher if isinstance(teacher, OnlineTeacher) else None
    get_logger().info("%s: iterations %d to %d on %s", cfg.METHOD.NAME, start, stop, device)
    writer = validation.writer = MetricsWriter(run_dir, start)
    train(
        distributed.wrap_ddp(build_task(cfg, method, online, device), device),
        teacher.fill(batches) if isinstance(teacher, CachedTeacher) else batches,
        optimizer,
        build_learning_rate(cfg, epoch),
        start=start,
        stop=stop,
        seed=cfg.SEED,
        precision=cfg.PRECISION,
        clip_norm=cfg.SOLVER.CLIP_NORM,
        log_period=cfg.LOG_PERIOD,
        checkpoint_period=max(round(cfg.SOLVER.CHECKPOINT_PERIOD * epoch), 1),
        save=lambda finished: _save(run_dir / CHECKPOINT, method, optimizer, samples, validation, finished),
        writer=writer,
        device=device,
        hooks=[MethodHook(method, epoch), validation],
    )
    writer.close()
    if distributed.world_size() > 1:  # each process has its own batch statistics: all measure with the saved ones
        _restore(run_dir / CHECKPOINT, method, optimizer, samples, validation)


def _save(
    path: Path,
    method: Method,
    optimizer: torch.optim.Optimizer,
    samples: Samples,
    validation: Validation,
    finished: int,
) -> None:
    method.gather()
    if distributed.is_main():
        save_checkpoint(
            path,
            iteration=finished,
            data=samples.fingerprint,
            method=method.state_dict(),
            optimizer=optimizer.state_dict(),
            validation=validation.state_dict(),
        )
    distributed.barrier()


def _restore(
    path: Path, method: Method, optimizer: torch.optim.Optimizer, samples: Samples, validation: Validation
) -> int:
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
    validation.load_state_dict(state.get("validation", {}))
    optimizer.load_state_dict(state["optimizer"])
    return state["iteration"]


def _measure(cfg: CfgNode, method: Method, val: Samples, device: torch.device) -> Predictions:
    """What the network says of the validation split now."""
    batches = build_evaluation_batches(cfg, val)
    return predict(method.model, batches, device, cfg.DATA.MEAN, cfg.DATA.STD, cfg.PRECISION)


def finish(
    cfg: CfgNode,
    run_dir: Path,
    method: Method,
    samples: Samples,
    val: Samples,
    device: torch.device,
    validation: Validation,
    warnings: WarningCounter,
) -> dict[str, Any]:
    """Measure the reported epoch on the validation split and write backbone.pth, best.pth and results.json."""
    if cfg.EVAL.REPORT == "best":
        validation.restore()
    predictions = _measure(cfg, method, val, device)
    metrics = {"top1": predictions.top1(), "nll": predictions.nll()} | fitted_metrics(predictions)
    details: dict[str, Any] = {"reported_epoch": cfg.EVAL.REPORT, "classes": samples.classes}
    files = {"backbone": BACKBONE, "checkpoint": CHECKPOINT, "metrics": "metrics.jsonl"}
    results: dict[str, Any] = {}
    if distributed.is_main():
        _save_backbone(cfg, run_dir / BACKBONE, method, samples)
        if validation.period:
            validation.restore()
            _save_backbone(cfg, run_dir / BEST, method, samples)
            metrics |= validation.metrics
            details |= {"best_epoch": validation.epoch}
            files |= {"best": BEST}
        results = make_results(
            "pretraining",
            identity(load_backbone(run_dir)),
            {"name": f"{cfg.DATA.NAME}-{cfg.MODEL.ARCH}", "hash": _protocol_hash(cfg, samples)},
            metrics,
            data={
                split.split: {"name": split.name, "pictures": len(split.labels), "fingerprint": split.fingerprint}
                for split in (samples, val)
            },
            details=details,
            warnings=warnings.as_list(),
            files=files,
        )
        save_results(run_dir, results)
    distributed.barrier()
    return results


def _save_backbone(cfg: CfgNode, path: Path, method: Method, samples: Samples) -> None:
    provenance = {
        "label": cfg.LABEL or method_name(cfg),
        "method": method_name(cfg),
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
    save_backbone(path, method.model, spec, provenance)


def _protocol_hash(cfg: CfgNode, samples: Samples) -> str:
    """Equal for all rows that differ in nothing but method and seed."""
    blocks = ("PRECISION", "CHANNELS_LAST", "MODEL", "SOLVER")
    data = {key: value for key, value in cfg.DATA.items() if key not in ("ROOT", "NUM_WORKERS", "CONTEXT_SHARE")}
    tree = {**{name: cfg[name] for name in blocks}, "DATA": data, "fingerprint": samples.source}
    return config_hash(tree | {"report": cfg.EVAL.REPORT})
