"""Training with detectron2's trainer that resumes exactly.

This module does not import detectron2: it receives its subpackages from engine.py.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from backbones.core.config import CfgNode
from backbones.core.distributed import wrap_ddp
from backbones.core.engine import Hook, IterationEnd, check_weights, seed_step
from backbones.core.optimizer import build_optimizer
from backbones.core.run_log import MetricsWriter
from backbones.core.stopping import hold_signals
from detection.data.loader import trainable
from detection.data.records import DetectionData
from detection.engines.base import Detections, Detector
from detection.engines.detectron2.data import test_batches, training_batches
from detection.engines.detectron2.heads import frozen_stages
from detection.engines.detectron2.inference import predict
from detection.engines.detectron2.log import TrainingLog
from detection.exchange.loading import LoadReport
from detection.training.precise_bn import measure_statistics

NEVER = sys.maxsize  # detectron2's period for gathering losses, which waits for the device


@dataclass(kw_only=True, eq=False)
class Detectron2Detector(Detector):
    """detectron2's model with its own trainer.

    Attributes:
        d2: detectron2's subpackages.
        d2_cfg: detectron2's config, made from `cfg`.
        schedule: detectron2's LRScheduler.
        scaler: gradient scaler for mixed precision.
    """

    d2: SimpleNamespace
    d2_cfg: Any
    scaler: torch.amp.GradScaler

    def batches(self, data: DetectionData, start: int, stop: int) -> Any:
        cfg = self.cfg
        return training_batches(
            trainable(data, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS),
            self.d2.data.DatasetMapper(self.d2_cfg, is_train=True),
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            seed=cfg.SEED,
            start=start,
            stop=stop,
            group_by_aspect=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            pin_memory=self.device.type == "cuda",
        )

    def detect(self, data: DetectionData) -> Detections:
        return predict(self.d2, self.d2_cfg, self.cfg, self.model, data, self.device)

    def losses(self, data: DetectionData) -> Iterator[tuple[int, dict[str, Tensor]]]:
        # A mapper for the training keeps the boxes; its augmentations are those of the test.
        resize = self.d2.data.detection_utils.build_augmentation(self.d2_cfg, False)
        batches = test_batches(
            trainable(data, self.cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS),
            self.d2.data.DatasetMapper(self.d2_cfg, is_train=True, augmentations=resize),
            batch_size=self.cfg.TEST.IMS_PER_BATCH,
            num_workers=self.cfg.DATALOADER.NUM_WORKERS,
            pin_memory=self.device.type == "cuda",
        )
        for batch in batches:
            with self.d2.utils.events.EventStorage():  # drops what the model reports in these passes
                losses = self.model(batch)
            yield len(batch), losses

    def parts(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "scaler": self.scaler}

    def measure_norms(self, data: DetectionData) -> None:
        stop = self.cfg.SOLVER.MAX_ITER
        with self.d2.utils.events.EventStorage():  # drops what the model reports in these passes
            batches = self.batches(data, stop, stop + self.cfg.TEST.PRECISE_BN.NUM_ITER)
            measure_statistics(self.model, batches, self.cfg)

    def train(
        self,
        data: DetectionData,
        *,
        start: int,
        save: Callable[[int], None],
        writer: MetricsWriter,
        run_dir: Path,
        hooks: Sequence[Hook] = (),
        stop: int | None = None,
    ) -> None:
        """Run iterations `start` .. MAX_ITER - 1 with detectron2's trainer.

        Args:
            stop: end earlier, before this iteration and without a checkpoint (benchmarks/detectron2_loop.py).
        """
        stop = self.cfg.SOLVER.MAX_ITER if stop is None else stop
        solver = self.cfg.SOLVER
        trainer = self.build_trainer(self.batches(data, start, stop))
        with TrainingLog(writer, start, stop, self.meters, self.device) as log, hold_signals():
            end = IterationEnd(
                solver.MAX_ITER, solver.LOG_PERIOD, solver.CHECKPOINT_PERIOD,
                [*self.hooks(data, start, run_dir), *hooks], self.device,
                report=lambda iteration: log.report(iteration, self.learning_rate(iteration)),
                check=lambda iteration: check_weights(self.model, iteration),
                save=save,
            )  # fmt: skip
            end.catch_up(start, pending=not self.meters.empty)
            hook = self.d2.engine.hooks.CallbackHook(
                before_step=lambda trainer: self.before_step(trainer, log),
                after_step=lambda trainer: self.after_step(trainer, log, end),
            )
            trainer.register_hooks([hook])
            watch = log.watch(self.model)
            try:
                trainer.train(start, stop)
            except FloatingPointError as error:  # detectron2's own check of the proposals
                raise log.diverged(trainer.iter, error) from None
            finally:
                watch.remove()

    def before_step(self, trainer: Any, log: TrainingLog) -> None:
        """Seed the iteration, set its learning rate, and start to log."""
        log.begin_step()
        seed_step(self.cfg.SEED, trainer.iter)
        set_learning_rate(self.schedule, trainer.iter)

    def learning_rate(self, iteration: int) -> float:
        """Return the learning rate of an iteration, that of its first group."""
        set_learning_rate(self.schedule, iteration)
        return self.optimizer.param_groups[0]["lr"]

    def after_step(self, trainer: Any, log: TrainingLog, end: IterationEnd) -> None:
        """Log, save and stop if due."""
        log.end_step(trainer)
        end(trainer.iter + 1)
        log.reporter.advance()

    def build_trainer(self, batches: Any) -> Any:
        """Build detectron2's trainer; the losses are collected by the log, not by the trainer."""
        model = wrap_ddp(self.model, self.device)
        options = {"gather_metric_period": NEVER}
        if self.scaler.is_enabled():
            return self.d2.engine.AMPTrainer(model, batches, self.optimizer, grad_scaler=self.scaler, **options)
        return self.d2.engine.SimpleTrainer(model, batches, self.optimizer, **options)


def prepare(
    d2: SimpleNamespace,
    d2_cfg: Any,
    cfg: CfgNode,
    model: nn.Module,
    device: torch.device,
    report: LoadReport | None = None,
) -> Detectron2Detector:
    """Return the detector: a model on `device` with optimizer, schedule and gradient scaler.

    Args:
        d2_cfg: detectron2's config, made from `cfg`.
        report: the account of loading its backbone.
    """
    optimizer = build_solver(d2, d2_cfg, cfg, model)
    return Detectron2Detector(
        cfg=cfg,
        device=device,
        model=model,
        task=model,
        optimizer=optimizer,
        schedule=d2.solver.build_lr_scheduler(d2_cfg, optimizer),
        report=report,
        frozen=frozen_stages(model, cfg.MODEL.BACKBONE.FREEZE_AT),
        d2=d2,
        d2_cfg=d2_cfg,
        scaler=torch.amp.GradScaler(device.type, enabled=cfg.SOLVER.AMP.ENABLED),
    )


def build_solver(d2: SimpleNamespace, d2_cfg: Any, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build detectron2's SGD, or AdamW over the same groups, with the gradient clipping of the config."""
    solver = cfg.SOLVER
    if solver.OPTIMIZER == "SGD":
        optimizer = d2.solver.build_optimizer(d2_cfg, model)
    else:
        groups = d2.solver.get_default_optimizer_params(
            model,
            base_lr=solver.BASE_LR,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            weight_decay_bias=d2_cfg.SOLVER.WEIGHT_DECAY_BIAS,
        )
        optimizer = build_optimizer(
            groups, solver.OPTIMIZER, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY, fused=False
        )
        optimizer = d2.solver.build.maybe_add_gradient_clipping(d2_cfg, optimizer)
    if solver.CLIP_GRADIENTS.ENABLED and solver.CLIP_GRADIENTS.CLIP_TYPE == "full_model":
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

        def clip(*_: Any) -> None:  # returns nothing: testing a returned norm would wait for the device
            nn.utils.clip_grad_norm_(parameters, solver.CLIP_GRADIENTS.CLIP_VALUE)

        # Just before the step, after mixed precision has unscaled the gradients.
        optimizer.register_step_pre_hook(clip)
    return optimizer


def set_learning_rate(schedule: Any, iteration: int) -> None:
    """Set detectron2's learning rate of this iteration; a pure function of it, so the schedule needs no saving."""
    schedule.last_epoch = iteration
    for group, lr in zip(schedule.optimizer.param_groups, schedule.get_lr(), strict=True):
        group["lr"] = lr
