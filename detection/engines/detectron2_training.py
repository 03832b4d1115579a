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
from detection.engines.settings import refuse_other_settings

CHECKPOINT = "checkpoint.pth"
_CLOCKS = ("data_time", "rank_data_time")


class Run:
    """One training: what its checkpoint holds, and detectron2's trainer that fills it.

    Args:
        d2: detectron2's subpackages.
        settings: detectron2's config, made from `cfg`.
        identity: everything that the weights depend on, as text; a checkpoint of another is refused.
    """

    def __init__(
        self,
        d2: SimpleNamespace,
        settings: Any,
        cfg: CfgNode,
        model: nn.Module,
        identity: dict[str, str],
        run_dir: Path,
        device: torch.device,
    ) -> None:
        self.d2, self.settings, self.cfg, self.model = d2, settings, cfg, model
        self.identity, self.run_dir, self.device = identity, run_dir, device
        self.path = run_dir / CHECKPOINT
        self.optimizer = build_solver(d2, settings, cfg, model)
        self.schedule = d2.solver.build_lr_scheduler(settings, self.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=cfg.SOLVER.AMP.ENABLED)
        self.finished = 0

    def restore(self, *, required: bool) -> None:
        """Load the checkpoint; without one a run begins anew, unless it is `required`."""
        if not required and not self.path.exists():
            return
        state = load_checkpoint(self.path)
        if state.get("engine") != "detectron2":
            raise InputError(f"{self.path} is no checkpoint of ENGINE detectron2; use a new output folder")
        refuse_other_settings(state["settings"], self.identity, self.path)
        load_state(self.model, state["model"], where=self.path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.finished = state["iteration"]
        get_logger().info("going on from iteration %d", self.finished)

    def save(self, finished: int) -> None:
        """Called on every process."""
        self.finished = finished
        if is_main():
            save_checkpoint(
                self.path,
                engine="detectron2",
                settings=self.identity,
                iteration=finished,
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                scaler=self.scaler.state_dict(),
            )
        barrier()

    def train(self, data: DetectionData) -> None:
        """Iterations `finished` .. MAX_ITER - 1, leaving checkpoint.pth and metrics.jsonl."""
        trainer = self._build_trainer(self._build_batches(data))
        start, stop = self.finished, self.cfg.SOLVER.MAX_ITER
        log = LossLog(MetricsWriter(self.run_dir, start), start, stop)
        hook = self.d2.engine.hooks.CallbackHook(
            before_step=self._before_step, after_step=lambda trainer: self._after_step(trainer, log)
        )
        trainer.register_hooks([hook])
        guard = self.model.register_forward_hook(
            lambda module, _, losses: refuse_infinite_losses(module, losses, trainer.iter)
        )
        try:
            trainer.train(start, stop)
        except FloatingPointError as error:  # detectron2's own check, of the proposals
            raise InputError(_diverged(trainer.iter, log.latest, f" ({error}); the one before had")) from None
        finally:
            guard.remove()
            log.close()

    def _before_step(self, trainer: Any) -> None:
        seed_step(self.cfg.SEED, trainer.iter)
        set_learning_rate(self.schedule, trainer.iter)

    def _after_step(self, trainer: Any, log: "LossLog") -> None:
        solver, finished = self.cfg.SOLVER, trainer.iter + 1
        log.add(trainer)
        checkpoint_due = finished % solver.CHECKPOINT_PERIOD == 0 or finished == solver.MAX_ITER
        if checkpoint_due or finished % solver.LOG_PERIOD == 0:
            log.flush(trainer.iter, self.optimizer.param_groups[0]["lr"])
        if checkpoint_due:
            self.save(finished)

    def _build_trainer(self, batches: Any) -> Any:
        model = wrap_ddp(self.model, self.device)
        if self.scaler.is_enabled():
            return self.d2.engine.AMPTrainer(model, batches, self.optimizer, grad_scaler=self.scaler)
        return self.d2.engine.SimpleTrainer(model, batches, self.optimizer)

    def _build_batches(self, data: DetectionData) -> Any:
        cfg = self.cfg
        return training_batches(
            trainable(data, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS),
            self.d2.data.DatasetMapper(self.settings, is_train=True),
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            seed=cfg.SEED,
            start=self.finished,
            stop=cfg.SOLVER.MAX_ITER,
            group_by_aspect=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            pin_memory=self.device.type == "cuda",
        )


def build_solver(d2: SimpleNamespace, settings: Any, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """detectron2's own SGD, or AdamW over the same groups; with the gradient clipping of the config."""
    solver = cfg.SOLVER
    if solver.OPTIMIZER == "SGD":
        optimizer = d2.solver.build_optimizer(settings, model)
    else:
        groups = d2.solver.get_default_optimizer_params(
            model, base_lr=solver.BASE_LR, weight_decay_norm=solver.WEIGHT_DECAY_NORM
        )
        optimizer = build_optimizer(
            groups, solver.OPTIMIZER, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY, fused=False
        )
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


def refuse_infinite_losses(model: nn.Module, losses: dict[str, Tensor], iteration: int) -> None:
    """A forward hook: raises on every process before a bad gradient is computed."""
    if model.training and not torch.isfinite(torch.stack(list(losses.values())).sum()):
        raise InputError(_diverged(iteration, {name: value.item() for name, value in losses.items()}))


def _diverged(iteration: int, losses: dict[str, float], reason: str = ":") -> str:
    parts = {name: float(f"{value:.4g}") for name, value in losses.items() if "loss" in name}
    return f"the loss is not finite at iteration {iteration}{reason} {parts}; lower SOLVER.BASE_LR or check the data"


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
