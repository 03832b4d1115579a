"""Training loop shared by classifiers, the torchvision detector and YOLO.

A task is a module that maps a batch to a `Step`; the loop depends on nothing else.  Randomness inside a step (dropout,
proposal sampling, CutMix rectangles) is seeded by (seed, iteration, rank), so that a resumed run repeats it exactly.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from backbones.core.bars import progress_bar
from backbones.core.checks import check_choice
from backbones.core.distributed import is_main, rank
from backbones.core.errors import Diverged, InputError
from backbones.core.meters import Meters, Step
from backbones.core.run_log import MetricsWriter, get_logger
from backbones.core.schedule import Schedule
from backbones.core.stopping import Stopped, Unfinished, agreed_signal, hold_signals

PRECISIONS = ("bfloat16", "float32", "float64")
# Instruction sets, as torch names them, of x86 CPUs on which oneDNN emulates convolutions in bfloat16: 7.4 s instead of
# 0.65 s for a training step of ResNet-18 on 32 images of 64 px (AMD Zen 3, one thread).
_EMULATED = ("AVX2", "NO AVX")


class Hook(Protocol):
    """Callback after every step, with the number of finished iterations (1 .. stop).

    One that evaluates can raise `Unfinished` on a signal; its `catch_up(finished)` then repeats the evaluation in the
    resumed training, before the first step, and returns whether it did, so that a checkpoint is due.
    """

    def after_step(self, finished: int) -> None:
        """Called when `finished` iterations are done; 1 after the first."""


def train(
    task: nn.Module,
    batches: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    start: int,
    stop: int,
    seed: int,
    precision: str,
    clip_norm: float,
    log_period: int,
    checkpoint_period: int,
    save: Callable[[int], None],
    writer: MetricsWriter | None,
    device: torch.device,
    hooks: Sequence[Hook] = (),
    meters: Meters | None = None,
) -> None:
    """Run the iterations `start` .. `stop - 1`.

    Args:
        task: maps a batch to a `Step`; wrapped for several processes by the caller.
        batches: one batch per iteration, from iteration `start` on; each has `.to(device, non_blocking=...)`.
        precision: `bfloat16` uses autocast; `float32` and `float64` leave the task's own type.
        clip_norm: largest gradient norm; 0 disables clipping.
        checkpoint_period: iterations between calls of `save(finished)`, which is also called at the end.
        meters: the losses since the last line of a resumed training; part of its checkpoint.

    Raises:
        Diverged: the loss (named with its iteration and parts) or the weights are not finite.
        Stopped: by a signal, after `save` was called.
    """
    (meters := meters or Meters()).begin(start)
    task.train()
    with Reporter(writer, start, stop) as reporter, hold_signals():
        end = IterationEnd(
            stop, log_period, checkpoint_period, hooks, device,
            report=lambda iteration: reporter.report(iteration, schedule(iteration), meters.flush(device)),
            check=lambda iteration: check_weights(task, iteration),
            save=save,
        )  # fmt: skip
        end.catch_up(start, pending=not meters.empty)
        for iteration, batch in zip(range(start, stop), batches, strict=True):
            seed_step(seed, iteration)
            lr = schedule(iteration)
            step = run_step(task, batch.to(device, non_blocking=True), optimizer, lr, device, precision, clip_norm)
            meters.add(step)
            end(iteration + 1)
            reporter.advance()


@dataclass
class IterationEnd:
    """What follows every step: the hooks, a line of numbers, a checkpoint, and the stop that a signal asks for.

    Attributes:
        report: writes the line of an iteration; synchronises with the device.
        check: refuses weights that are not finite after an iteration.
        save: writes the checkpoint of a number of finished iterations.
    """

    stop: int
    log_period: int
    checkpoint_period: int
    hooks: Sequence[Hook]
    device: torch.device
    report: Callable[[int], None]
    check: Callable[[int], None]
    save: Callable[[int], None]

    def __call__(self, finished: int) -> None:
        """Do all that is due after `finished` iterations; on a signal, save and raise `Stopped`."""
        measured = True
        try:
            for hook in self.hooks:
                hook.after_step(finished)
        except Unfinished:
            measured = False
        if measured and self.reports(finished):
            self.report(finished - 1)
        number = agreed_signal(finished, self.device, due=self.reports(finished) or not measured)
        if number or self.saves(finished):
            self.check(finished - 1)
            self.save(finished)  # after both checks: the weights in a checkpoint are always finite
        if number:
            raise Stopped(number)

    def catch_up(self, start: int, *, pending: bool) -> None:
        """Before the first step of a resumed training, do what a signal has cut off, and save it.

        Args:
            pending: whether there are losses of iterations before `start`.
        """
        if start == 0:
            return
        try:
            changed = [repeat(start) for hook in self.hooks if (repeat := getattr(hook, "catch_up", None))]
        except Unfinished:
            raise Stopped(agreed_signal(start, self.device, due=True)) from None
        if pending and self.reports(start):
            self.report(start - 1)
            changed.append(self.saves(start))
        if any(changed):
            self.save(start)

    def saves(self, finished: int) -> bool:
        """Whether a checkpoint is due."""
        return finished % self.checkpoint_period == 0 or finished == self.stop

    def reports(self, finished: int) -> bool:
        """Whether a line is due."""
        return self.saves(finished) or finished % self.log_period == 0


def run_step(
    task: nn.Module,
    batch: Any,
    optimizer: torch.optim.Optimizer,
    lr: float,
    device: torch.device,
    precision: str,
    clip_norm: float,
) -> Step:
    """Run forward, backward and one optimizer step at learning rate `lr`, without synchronising with the device."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    with autocast(device, precision):
        step = task(batch)
    step.loss.backward()
    if clip_norm > 0:
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return step


def check_weights(task: nn.Module, iteration: int) -> None:
    """Refuse weights that are not finite: a finite loss can have a gradient that is not."""
    if not torch.stack([parameter.isfinite().all() for parameter in task.parameters()]).all():
        raise Diverged(
            f"the weights are not finite after iteration {iteration}; lower SOLVER.BASE_LR or clip gradients"
        )


def seed_step(seed: int, iteration: int) -> None:
    """Seed torch's generators for one iteration of one process."""
    torch.manual_seed(((seed * 1_000_003 + iteration) * 1_009 + rank()) % 2**63)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return the autocast context of a precision; a null context for float32 and float64."""
    if precision != "bfloat16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that this device does not support, and warn of one that it emulates."""
    check_choice("PRECISION", precision, PRECISIONS)
    if precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("PRECISION bfloat16 is not supported by this GPU; use float32")
    if precision == "bfloat16" and device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in _EMULATED:
        get_logger().warning("this CPU lacks AVX-512 and emulates bfloat16, ten times slower than float32")


class Reporter:
    """Progress bar with ETA, and writer of the lines of metrics.jsonl; detectron2's loop uses it too."""

    def __init__(self, writer: MetricsWriter | None, start: int, stop: int) -> None:
        self.writer, self.start, self.stop, self.began = writer, start, stop, time.perf_counter()
        self.bar = progress_bar(total=stop, initial=start, unit="it", disable=not is_main(), dynamic_ncols=True)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def report(self, iteration: int, lr: float, numbers: dict[str, float]) -> None:
        """Show the loss in the bar and write one line of numbers, with the clock's."""
        self.bar.set_postfix_str(f"loss {numbers['loss']:.3f}", refresh=False)
        # Timings: the only numbers that differ between two identical runs.
        pace = (time.perf_counter() - self.began) / max(iteration + 1 - self.start, 1)
        clock = {"seconds_per_iteration": pace, "eta_seconds": pace * (self.stop - iteration - 1)}
        if self.writer:
            self.writer.write(iteration, lr=lr, **numbers, **clock)

    def advance(self) -> None:
        """Move the bar by one iteration."""
        self.bar.update()
