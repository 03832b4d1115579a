"""The interface of all methods: a method contains the model and turns a batch into a training step.

A method overrides the hooks in which it differs from plain cross-entropy, usually only one.  The loop calls, in order:

    setup(context)                       once, before training, and before the state of a checkpoint is loaded
    begin_epoch(epoch)                   before the first step of each epoch
    forward(batch): targets, mix, (the model), loss, observe
    after_step()                         after the optimizer's step
    end_period()                         every `period` iterations, or after each epoch if `period` is None
    gather()                             before the state dict is saved, on every process

State that must survive a restart is a buffer or a parameter: the state dict of the method is the checkpoint.
The keyword-only arguments of `__init__`, with their defaults, are the block METHOD.<NAME> of the config; the section
`Args:` of its docstring is their manual (backbones/methods/manual.py): meaning, range, neutral value, unit, source.
Letters: B batch, K classes.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from backbones.core import checks
from backbones.core.errors import InputError
from backbones.core.registry import Registry
from backbones.data.batch import Batch
from backbones.methods import functional
from backbones.methods.learnt import Learnt
from backbones.models.base import Outputs

METHODS = Registry("method", package="backbones.methods")  # name -> class


@dataclass
class MethodStep:
    """Result of one forward pass.

    loss: mean over the batch, (). logits, targets: (B, K). mixed: (B,) bool, samples that contain a second image.
    """

    loss: Tensor
    logits: Tensor
    targets: Tensor
    mixed: Tensor


@dataclass
class Context:
    """Facts about the training that a method can use in `setup`.

    labels: (N,) int64, the class of each training sample. steps_per_epoch: iterations in one epoch.
    unaugmented: starts a pass over this process's share of the training set, uint8 images without augmentation.
    teacher_temperature: fits the teacher's temperature on the validation split, in one pass over it.
    resumed: a checkpoint is loaded next, so give buffers their shapes and measure nothing.
    """

    num_samples: int
    labels: Tensor
    epochs: int
    steps_per_epoch: int
    unaugmented: Callable[[], Iterable[Batch]] | None = None
    teacher_temperature: Callable[[], float] | None = None
    resumed: bool = False


class Method(nn.Module):
    """Plain cross-entropy; a subclass overrides the hooks in which it differs.

    needs: optional fields of the batch that the loader must fill for this method.
    period: iterations between two calls of `end_period`; None for one epoch.
    """

    needs: frozenset[str] = frozenset()
    period: int | None = None

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(f"METHOD.NAME {type(self).__name__}: num_classes is {num_classes}; at least 2 are needed")
        self.model = model
        self.num_classes = num_classes

    @final
    def forward(self, batch: Batch) -> MethodStep:
        """Compute one training step, without the backward pass."""
        self._check_fields(batch)
        batch, targets = self.mix(batch, self.targets(batch))
        outputs = self.model(batch.images)
        loss = self.loss(outputs, targets, batch)
        with torch.no_grad():
            self.observe(outputs, batch)
        return MethodStep(loss, outputs.logits, targets, batch.mixed)

    # Hooks

    def targets(self, batch: Batch) -> Tensor:
        """Return the targets, (B, K) of `target_dtype`; rows sum to 1, and no gradient flows through them."""
        return functional.one_hot(batch.labels, self.num_classes, self.target_dtype)

    def mix(self, batch: Batch, targets: Tensor) -> tuple[Batch, Tensor]:
        """Combine samples; return the new batch, whose `mixed` marks the combined samples, and its targets."""
        return batch, targets

    def loss(self, outputs: Outputs, targets: Tensor, batch: Batch) -> Tensor:
        """Return the loss, (), the mean over the batch."""
        return functional.soft_cross_entropy(outputs.logits, targets).mean()

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        """Learn from the predictions, made before this optimizer step; always called under no_grad."""

    def end_period(self) -> None:
        """Use what was observed. Called on every process at the same iteration; it may synchronise with the device."""
        for learnt in self._learnt():
            learnt.end_period()

    @property
    def fits_temperature(self) -> bool:
        """Whether `setup` fits the teacher's temperature on the validation split."""
        return False

    def setup(self, context: Context) -> None:
        """Prepare for the training set; called once, before training."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for an epoch; `epoch` counts from 0."""

    def after_step(self) -> None:
        """React to the new parameters; called after the optimizer step."""

    def gather(self) -> None:
        """Sum what the processes observed, so that all have the same state dict. Called on every process."""
        for learnt in self._learnt():
            learnt.gather()

    # Helpers for subclasses

    @property
    def target_dtype(self) -> torch.dtype:
        """Type of the targets: float32, also under autocast; float64 if the model computes in float64."""
        parameter = next(self.model.parameters(), None)
        return torch.float64 if parameter is not None and parameter.dtype == torch.float64 else torch.float32

    def check_range(self, argument: str, value: float, low: float, high: float = checks.NO_LIMIT) -> float:
        """Return `value`; it must be in [low, high]."""
        return checks.check_range(self._key(argument), value, low, high)

    def check_positive(self, argument: str, value: float) -> float:
        """Return `value`; it must be above 0."""
        return self.check_range(argument, value, checks.ABOVE_0)

    def check_choice(self, argument: str, value: str, choices: Collection[str]) -> str:
        """Return `value`; it must be one of `choices`."""
        return checks.check_choice(self._key(argument), value, choices)

    def _key(self, argument: str) -> str:
        return f"METHOD.{type(self).__name__}.{argument}"

    def _learnt(self) -> list[Learnt]:
        return [child for child in self.children() if isinstance(child, Learnt)]

    def _check_fields(self, batch: Batch) -> None:
        for field in sorted(self.needs):
            if getattr(batch, field, None) is None:
                raise InputError(
                    f"METHOD.NAME {type(self).__name__} needs `{field}` of a sample, which this data does not have: "
                    "use a data set that has it, or another method"
                )
