"""A training with detectron2's trainer that resumes exactly.

This module imports no detectron2: it receives its subpackages from detectron2.py.
"""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from backbones.core.checkpoint import load_checkpoint, load_state, save_checkpoint
from backbones.core.config import CfgNode
from backbones.core.distributed import barrier, is_main, wrap_ddp
from backbones.core.engine import seed_step
from backbones.core.errors import InputError
from backbones.core.logging import MetricsWriter, get_logger
from backbones.core.optimizer import build_optimizer
from detection.data.loader import trainable
from detection.data.records import DetectionData
from detection.engines.detectron2_data import training_batches

CHECKPOINT = "checkpoint.pth"
_CLOCKS = ("data_time", "rank_data_time")


def train_detector(
    d2: SimpleNamespace,
    settings: Any,
    cfg: CfgNode,
    model: nn.Module,
    data: DetectionData,
    run_dir: Path,
    *,
    identity: dict[str, str],
    resume: bool,
    device: torch.device,
) -> None:
    """Run the iterations that are left, leaving checkpoint.pth and metrics.jsonl in `run_dir`.

    Args:
        d2: detectron2's subpackages.
        settings: detectron2's config, made from `cfg`.
        identity: everything that the weights depend on, as text; a checkpoint of another is refused.
    """
    solver = cfg.SOLVER
    optimizer = build_solver(d2, settings, cfg, model)
    schedule = d2.solver.build_lr_scheduler(settings, optimizer)
    scaler = torch.amp.GradScaler(device.type, enabled=solver.AMP.ENABLED)
    path = run_dir / CHECKPOINT
    start = _restore(path, identity, model, optimizer, scaler) if resume and path.exists() else 0
    if start >= solver.MAX_ITER:
        return
    batches = training_batches(
        trainable(data, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS),
        d2.data.DatasetMapper(settings, is_train=True),
        batch_size=solver.IMS_PER_BATCH,
        seed=cfg.SEED,
        start=start,
        stop=solver.MAX_ITER,
        group_by_aspect=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=device.type == "cuda",
    )
    trainer = _build_trainer(d2, wrap_ddp(model, device), batches, optimizer, scaler)
    log = LossLog(MetricsWriter(run_dir, start), start, solver.MAX_ITER)

    def before_step(trainer: Any) -> None:
        seed_step(cfg.SEED, trainer.iter)
        set_learning_rate(schedule, trainer.iter)

    def after_step(trainer: Any) -> None:
        log.add(trainer)
        finished = trainer.iter + 1
        checkpoint_due = finished % solver.CHECKPOINT_PERIOD == 0 or finished == solver.MAX_ITER
        if checkpoint_due or finished % solver.LOG_PERIOD == 0:
            log.flush(trainer.iter, optimizer.param_groups[0]["lr"])
        if checkpoint_due:
            _save(path, identity, model, optimizer, scaler, finished)

    trainer.register_hooks([d2.engine.hooks.CallbackHook(before_step=before_step, after_step=after_step)])
    guard = model.register_forward_hook(lambda module, _, losses: refuse_infinite_losses(module, losses, trainer.iter))
    try:
        trainer.train(start, solver.MAX_ITER)
    except FloatingPointError as error:  # detectron2's own check of proposals and losses
        raise InputError(_diverged(trainer.iter, log.latest, f" ({error})")) from None
    finally:
        guard.remove()
        log.close()


def build_solver(d2: SimpleNamespace, settings: Any, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """detectron2's own SGD, or AdamW over the same groups; with the gradient clipping of the config."""
    solver = cfg.SOLVER
    if solver.OPTIMIZER == "SGD":
        optimizer = d2.solver.build_optimizer(settings, model)
    else:
        groups = d2.solver.get_default_optimizer_params(
            model, base_lr=solver.BASE_LR, weight_decay_norm=solver.WEIGHT_DECAY_NORM
        )
        optimizer = build_optimizer(groups, solver.OPTIMIZER, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)
        optimizer = d2.solver.build.maybe_add_gradient_clipping(settings, optimizer)
    if solver.CLIP_GRADIENTS.ENABLED and solver.CLIP_GRADIENTS.CLIP_TYPE == "full_model":
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        # Just before the step, when mixed precision has scaled the gradients back.
        optimizer.register_step_pre_hook(
            lambda *_: nn.utils.clip_grad_norm_(parameters, solver.CLIP_GRADIENTS.CLIP_VALUE) and None
        )
    return optimizer


def set_learning_rate(schedule: Any, iteration: int) -> None:
    """detectron2's rate of this iteration; a pure function of it, so nothing of it is saved."""
    schedule.last_epoch = iteration
    for group, lr in zip(schedule.optimizer.param_groups, schedule.get_lr(), strict=True):
        group["lr"] = lr


def load_finished(model: nn.Module, run_dir: Path, identity: dict[str, str], max_iter: int) -> None:
    """Load the detector of a finished run."""
    path = run_dir / CHECKPOINT
    state = _load(path, identity)
    if state["iteration"] < max_iter:
        raise InputError(
            f"{path} stands at iteration {state['iteration']} of {max_iter}; finish it with --resume first"
        )
    load_state(model, state["model"], where=path)


def refuse_infinite_losses(model: nn.Module, losses: dict[str, Tensor], iteration: int) -> None:
    """A forward hook: raises on every process before a bad gradient is computed."""
    if model.training and not torch.isfinite(torch.stack(list(losses.values())).sum()):
        raise InputError(_diverged(iteration, {name: value.item() for name, value in losses.items()}))


def _diverged(iteration: int, losses: dict[str, float], reason: str = "") -> str:
    parts = {name: round(value, 4) for name, value in losses.items()}
    return f"the loss is not finite at iteration {iteration}{reason}: {parts}; lower SOLVER.BASE_LR or check the data"


class LossLog:
    """Means of detectron2's scalars over a log period, as lines of metrics.jsonl and on the progress bar."""

    def __init__(self, writer: MetricsWriter, start: int, stop: int) -> None:
        self.writer, self.start, self.stop = writer, start, stop
        self.latest: dict[str, float] = {}  # of the last finished iteration
        self.values: dict[str, list[float]] = {}
        self.began = time.time()
        self.bar = tqdm(total=stop, initial=start, unit="it", disable=not is_main(), dynamic_ncols=True)

    def add(self, trainer: Any) -> None:
        """Take what this iteration put into the trainer's storage."""
        scalars = trainer.storage.latest().items()
        self.latest = {k: float(v) for k, (v, at) in scalars if at == trainer.iter and k not in _CLOCKS}
        for name, value in self.latest.items():
            self.values.setdefault("loss" if name == "total_loss" else name, []).append(value)
        self.bar.update()

    def flush(self, iteration: int, lr: float) -> None:
        """Write the means since the last line."""
        numbers = {name: sum(values) / len(values) for name, values in self.values.items()}
        self.values = {}
        pace = (time.time() - self.began) / (iteration + 1 - self.start)
        self.writer.write(
            iteration, lr=lr, **numbers, seconds_per_iteration=pace, eta_seconds=pace * (self.stop - iteration - 1)
        )
        self.bar.set_postfix_str(f"loss {numbers.get('loss', float('nan')):.3f}", refresh=False)

    def close(self) -> None:
        self.bar.close()
        self.writer.close()


def _build_trainer(d2: SimpleNamespace, model: nn.Module, batches: Any, optimizer: Any, scaler: Any) -> Any:
    if scaler.is_enabled():
        return d2.engine.AMPTrainer(model, batches, optimizer, grad_scaler=scaler)
    return d2.engine.SimpleTrainer(model, batches, optimizer)


def _save(path: Path, identity: dict[str, str], model: nn.Module, optimizer: Any, scaler: Any, finished: int) -> None:
    if is_main():
        save_checkpoint(
            path,
            engine="detectron2",
            settings=identity,
            iteration=finished,
            model=model.state_dict(),
            optimizer=optimizer.state_dict(),
            scaler=scaler.state_dict(),
        )
    barrier()


def _restore(path: Path, identity: dict[str, str], model: nn.Module, optimizer: Any, scaler: Any) -> int:
    """Load a checkpoint; returns the iteration to go on from."""
    state = _load(path, identity)
    load_state(model, state["model"], where=path)
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    get_logger().info("going on from iteration %d", state["iteration"])
    return state["iteration"]


def _load(path: Path, identity: dict[str, str]) -> dict[str, Any]:
    """A checkpoint of this engine, made with the same settings, data and backbone."""
    state = load_checkpoint(path)
    if state.get("engine") != "detectron2":
        raise InputError(f"{path} is no checkpoint of ENGINE detectron2; use a new output folder, or its own ENGINE")
    before = state["settings"]
    changed = [f"{key} ({before.get(key)} -> {value})" for key, value in identity.items() if before.get(key) != value]
    if changed:
        raise InputError(f"{path} was made with other settings: {', '.join(changed)}; use a new output folder")
    return state
