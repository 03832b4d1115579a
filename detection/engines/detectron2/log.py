"""Logging of detectron2's trainer: one line of metrics.jsonl per log period, and a progress bar with its ETA.

detectron2 itself copies every loss from the device in each iteration and gathers it from all processes; here losses
stay on the device until a line is due.

This module does not import detectron2.
"""

from typing import Any

import torch
from torch import Tensor, nn

from backbones.core.engine import Reporter
from backbones.core.errors import Diverged
from backbones.core.meters import Meters, Step
from backbones.core.run_log import MetricsWriter


class TrainingLog:
    """Context manager that collects losses (tensors) and the model's scalars (numbers), and closes the progress bar.

    Args:
        start, stop: the iterations of this training.
        meters: the losses since the last line of a resumed training.
    """

    def __init__(self, writer: MetricsWriter, start: int, stop: int, meters: Meters, device: torch.device) -> None:
        self.meters, self.device, self.reporter = meters, device, Reporter(writer, start, stop)
        self.losses: dict[str, Tensor] = {}  # of the last step
        self.in_step = False
        meters.begin(start)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.reporter.__exit__()

    def watch(self, model: nn.Module) -> Any:
        """Collect the losses of every step of `model`; return the handle that ends it."""
        return model.register_forward_hook(self._add_losses)

    def _add_losses(self, model: nn.Module, inputs: Any, losses: dict[str, Tensor]) -> None:
        if model.training and self.in_step:  # not for precise batch norm
            self.losses = {name: value.detach() for name, value in losses.items()}
            self.meters.add(Step(sum(self.losses.values()), self.losses))  # type: ignore[arg-type]

    def begin_step(self) -> None:
        """Collect the losses of the next passes."""
        self.in_step = True

    def end_step(self, trainer: Any) -> None:
        """Collect the numbers that the model put into the trainer's storage in this iteration, such as its accuracy."""
        self.in_step = False
        for name, (value, at) in trainer.storage.latest().items():
            if at == trainer.iter:
                self.meters.add_scalar(name, float(value))

    def report(self, iteration: int, lr: float) -> None:
        """Write the means since the last line; raise `Diverged` with the losses if one was not finite."""
        self.reporter.report(iteration, lr, self.meters.flush(self.device))  # synchronises with the device

    def diverged(self, iteration: int, reason: Exception) -> Diverged:
        """Return the error for a non-finite value that detectron2 found before a line was due."""
        parts = {name: float(f"{value.item():.4g}") for name, value in self.losses.items()}
        return Diverged(
            f"the loss is not finite at iteration {iteration} ({reason}); the one before had {parts}; "
            "lower SOLVER.BASE_LR or check the data"
        )
