"""Logging of detectron2's trainer: one line of metrics.jsonl per log period, and a progress bar with its ETA.

detectron2 itself copies every loss from the device in each iteration and gathers it from all processes; here losses
stay on the device until a line is due.

This module does not import detectron2.
"""

from typing import Any

from torch import Tensor, nn

from backbones.core.engine import Meters, Reporter, Step
from backbones.core.errors import Diverged
from backbones.core.run_log import MetricsWriter


class TrainingLog:
    """Context manager that collects losses (tensors) and the model's scalars (numbers), and closes the progress bar.

    Args:
        start, stop: the iterations of this training.
    """

    def __init__(self, writer: MetricsWriter, start: int, stop: int) -> None:
        self.meters, self.reporter = Meters(start), Reporter(writer, start, stop)
        self.losses: dict[str, Tensor] = {}  # of the last forward pass
        self.scalars: dict[str, list[float]] = {}

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.reporter.__exit__()

    def watch(self, model: nn.Module) -> Any:
        """Collect the losses of every training pass of `model`; return the handle that ends it."""
        return model.register_forward_hook(self._add_losses)

    def _add_losses(self, model: nn.Module, inputs: Any, losses: dict[str, Tensor]) -> None:
        if model.training:
            self.losses = {name: value.detach() for name, value in losses.items()}
            self.meters.add(Step(sum(self.losses.values()), self.losses))  # type: ignore[arg-type]

    def add_scalars(self, trainer: Any) -> None:
        """Collect the numbers that the model put into the trainer's storage in this iteration, such as its accuracy."""
        for name, (value, at) in trainer.storage.latest().items():
            if at == trainer.iter:
                self.scalars.setdefault(name, []).append(float(value))

    def report(self, iteration: int, lr: float) -> None:
        """Write the means since the last line; raise `Diverged` with the losses if one was not finite."""
        numbers = self.meters.flush()  # synchronises with the device
        means = {name: sum(values) / len(values) for name, values in self.scalars.items()}
        self.scalars = {}
        self.reporter.report(iteration, lr, numbers | means)

    def diverged(self, iteration: int, reason: Exception) -> Diverged:
        """Return the error for a non-finite value that detectron2 found before a line was due."""
        parts = {name: float(f"{value.item():.4g}") for name, value in self.losses.items()}
        return Diverged(
            f"the loss is not finite at iteration {iteration} ({reason}); the one before had {parts}; "
            "lower SOLVER.BASE_LR or check the data"
        )
