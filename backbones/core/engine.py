"""Training loop shared by classifiers, the torchvision detector and YOLO.

A task is a module that maps a batch to a `Step`; the loop depends on nothing else.  Randomness inside a step (dropout,
proposal sampling, CutMix rectangles) is seeded by (seed, iteration, rank), so that a resumed run repeats it exactly.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from backbones.core.bars import progress_bar
from backbones.core.checks import check_choice
from backbones.core.distributed import all_reduce_sum, is_main, rank, world_size
from backbones.core.errors import Diverged, InputError
from backbones.core.run_log import MetricsWriter
from backbones.core.schedule import Schedule

PRECISIONS = ("bfloat16", "float32", "float64")


@dataclass
class Step:
    """What a task returns for a batch.

    Attributes:
        loss: () the total to minimise.
        losses: its named parts, () each.
        counts: name -> (sum (), number of cases), logged as sum / number; for rates such as accuracy.
    """

    loss: Tensor
    losses: dict[str, Tensor]
    counts: dict[str, tuple[Tensor, int]] = field(default_factory=dict)


class Hook(Protocol):
    """Callback after every step, with the number of finished iterations (1 .. stop)."""

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
) -> None:
    """Run the iterations `start` .. `stop - 1`.

    Args:
        task: maps a batch to a `Step`; wrapped for several processes by the caller.
        batches: one batch per iteration, from iteration `start` on; each has `.to(device, non_blocking=...)`.
        precision: `bfloat16` uses autocast; `float32` and `float64` leave the task's own type.
        clip_norm: largest gradient norm; 0 disables clipping.
        checkpoint_period: iterations between calls of `save(finished)`, which is also called at the end.

    Raises:
        Diverged: the loss (named with its iteration and parts) or the weights are not finite.
    """
    meters = Meters(start)
    task.train()
    with Reporter(writer, start, stop) as reporter:
        for iteration, batch in zip(range(start, stop), batches, strict=True):
            seed_step(seed, iteration)
            lr = schedule(iteration)
            step = run_step(task, batch.to(device, non_blocking=True), optimizer, lr, device, precision, clip_norm)
            meters.add(step)
            finished = iteration + 1
            for hook in hooks:
                hook.after_step(finished)
            checkpoint_due = finished % checkpoint_period == 0 or finished == stop
            if checkpoint_due or finished % log_period == 0:
                reporter.report(iteration, lr, meters.flush())  # synchronises with the device
            if checkpoint_due:
                check_weights(task, iteration)
                save(finished)  # after both checks: the weights in a checkpoint are always finite
            reporter.advance()


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
    """Refuse a precision that this device does not support."""
    check_choice("PRECISION", precision, PRECISIONS)
    if precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("PRECISION bfloat16 is not supported by this GPU; use float32")


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
        pace = (time.perf_counter() - self.began) / (iteration + 1 - self.start)
        clock = {"seconds_per_iteration": pace, "eta_seconds": pace * (self.stop - iteration - 1)}
        if self.writer:
            self.writer.write(iteration, lr=lr, **numbers, **clock)

    def advance(self) -> None:
        """Move the bar by one iteration."""
        self.bar.update()


class Meters:
    """Collects losses and counts on the device, and averages them over the processes once per log period."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.losses: dict[str, list[Tensor]] = {}
        self.counts: dict[str, list[tuple[Tensor, int]]] = {}

    def add(self, step: Step) -> None:
        """Keep the losses and counts of a step, on the device."""
        for name, value in {"loss": step.loss, **step.losses}.items():
            self.losses.setdefault(name, []).append(value.detach())
        for name, pair in step.counts.items():
            self.counts.setdefault(name, []).append(pair)

    def flush(self) -> dict[str, float]:
        """Return the means over all processes since the last call; raise `Diverged` for a loss that is not finite."""
        table = torch.stack([torch.stack(values).double() for values in self.losses.values()])
        all_reduce_sum(table)  # for the mean over processes; also, a loss that is not finite stops all of them
        table = table.cpu() / world_size()
        self._check_finite(table)
        numbers = dict(zip(self.losses, table.mean(dim=1).tolist(), strict=True))
        for name, pairs in self.counts.items():
            right = torch.stack([s.double() for s, _ in pairs]).sum()
            total = torch.stack([right, torch.full_like(right, sum(n for _, n in pairs))])
            all_reduce_sum(total)
            numbers[name] = (total[0] / total[1]).item()
        self.first += table.shape[1]
        self.losses, self.counts = {}, {}
        return numbers

    def _check_finite(self, table: Tensor) -> None:
        if math.isfinite(table.sum().item()):
            return
        bad = int((~torch.isfinite(table)).any(dim=0).nonzero()[0])
        parts = {name: round(value, 4) for name, value in zip(self.losses, table[:, bad].tolist(), strict=True)}
        raise Diverged(
            f"the loss is not finite at iteration {self.first + bad}: {parts}; lower SOLVER.BASE_LR or check the data"
        )
