"""A training with detectron2's trainer that resumes exactly.

This module imports no detectron2: it receives its subpackages from detectron2.py.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from backbones.core.checkpoint import load_checkpoint, load_state, save_checkpoint
from backbones.core.config import CfgNode
from backbones.core.distributed import barrier, is_main, world_size, wrap_ddp
from backbones.core.engine import check_weights, seed_step
from backbones.core.errors import InputError
from backbones.core.optimizer import build_optimizer
from backbones.core.run_log import MetricsWriter, get_logger
from detection.data.loader import trainable
from detection.data.records import DetectionData
from detection.engines.detectron2.data import training_batches
from detection.engines.detectron2.log import TrainingLog
from detection.training.precise_bn import measure_statistics
from detection.training.resuming import refuse_other_settings, warn_of_other_processes

CHECKPOINT = "checkpoint.pth"
NEVER = sys.maxsize  # detectron2's own period of gathering the losses, at which it waits for the device


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
        if self.finished < self.cfg.SOLVER.MAX_ITER:
            warn_of_other_processes(state)
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
                processes=world_size(),
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                scaler=self.scaler.state_dict(),
            )
        barrier()

    def train(self, data: DetectionData, stop: int | None = None) -> None:
        """Iterations `finished` .. MAX_ITER - 1, leaving checkpoint.pth and metrics.jsonl.

        Args:
            stop: leave earlier, before this iteration and without a checkpoint (benchmarks/detectron2_loop.py).
        """
        start, stop = self.finished, self.cfg.SOLVER.MAX_ITER if stop is None else stop
        trainer = self.build_trainer(self.build_batches(data, start, stop))
        with TrainingLog(MetricsWriter(self.run_dir, start), start, stop) as log:
            hook = self.d2.engine.hooks.CallbackHook(
                before_step=self._before_step, after_step=lambda trainer: self._after_step(trainer, log, data)
            )
            trainer.register_hooks([hook])
            watch = log.watch(self.model)
            try:
                trainer.train(start, stop)
            except FloatingPointError as error:  # detectron2's own check, of the proposals
                raise log.diverged(trainer.iter, error) from None
            finally:
                watch.remove()

    def _before_step(self, trainer: Any) -> None:
        seed_step(self.cfg.SEED, trainer.iter)
        set_learning_rate(self.schedule, trainer.iter)

    def _after_step(self, trainer: Any, log: TrainingLog, data: DetectionData) -> None:
        solver, finished = self.cfg.SOLVER, trainer.iter + 1
        log.add_scalars(trainer)
        checkpoint_due = finished % solver.CHECKPOINT_PERIOD == 0 or finished == solver.MAX_ITER
        if checkpoint_due or finished % solver.LOG_PERIOD == 0:
            log.report(trainer.iter, self.optimizer.param_groups[0]["lr"])  # synchronises with the device
        if checkpoint_due:
            check_weights(self.model, trainer.iter)
            if finished == solver.MAX_ITER and self.cfg.TEST.PRECISE_BN.ENABLED:
                self._measure_statistics(data)
            self.save(finished)  # after the checks: a checkpoint never holds what is not finite
        log.reporter.advance()

    def _measure_statistics(self, data: DetectionData) -> None:
        """Before the last checkpoint, so that who detects with it later finds the same statistics."""
        stop = self.cfg.SOLVER.MAX_ITER
        with self.d2.utils.events.EventStorage():  # what the model reports of these passes is dropped
            batches = self.build_batches(data, stop, stop + self.cfg.TEST.PRECISE_BN.NUM_ITER)
            measure_statistics(self.model, batches, self.cfg)

    def build_trainer(self, batches: Any) -> Any:
        """detectron2's trainer; the log brings the losses home, not the trainer."""
        model = wrap_ddp(self.model, self.device)
        options = {"gather_metric_period": NEVER}
        if self.scaler.is_enabled():
            return self.d2.engine.AMPTrainer(model, batches, self.optimizer, grad_scaler=self.scaler, **options)
        return self.d2.engine.SimpleTrainer(model, batches, self.optimizer, **options)

    def build_batches(self, data: DetectionData, start: int, stop: int) -> Any:
        """This process's share of the batches of iterations `start` .. `stop - 1`."""
        cfg = self.cfg
        return training_batches(
            trainable(data, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS),
            self.d2.data.DatasetMapper(self.settings, is_train=True),
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            seed=cfg.SEED,
            start=start,
            stop=stop,
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
            model,
            base_lr=solver.BASE_LR,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            weight_decay_bias=settings.SOLVER.WEIGHT_DECAY_BIAS,
        )
        optimizer = build_optimizer(
            groups, solver.OPTIMIZER, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY, fused=False
        )
        optimizer = d2.solver.build.maybe_add_gradient_clipping(settings, optimizer)
    if solver.CLIP_GRADIENTS.ENABLED and solver.CLIP_GRADIENTS.CLIP_TYPE == "full_model":
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

        def clip(*_: Any) -> None:  # returns nothing: whether the norm is 0 would be asked of the device
            nn.utils.clip_grad_norm_(parameters, solver.CLIP_GRADIENTS.CLIP_VALUE)

        # Just before the step, when mixed precision has scaled the gradients back.
        optimizer.register_step_pre_hook(clip)
    return optimizer


def set_learning_rate(schedule: Any, iteration: int) -> None:
    """detectron2's rate of this iteration; a pure function of it, so nothing of it is saved."""
    schedule.last_epoch = iteration
    for group, lr in zip(schedule.optimizer.param_groups, schedule.get_lr(), strict=True):
        group["lr"] = lr
