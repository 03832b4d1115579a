"""One training step of a classifier, and the calls of a method's hooks."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from backbones.core.engine import Step
from backbones.data.batch import Batch
from backbones.data.images import normalize
from backbones.methods.base import Method
from backbones.pretraining.teacher import OnlineTeacher


class ClassificationTask(nn.Module):
    """Maps a batch of uint8 images to a training step of `method`.

    Args:
        mean, std: channel statistics, RGB in [0, 1].
        teacher: computes the `teacher_logits` of every batch.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        method: Method,
        mean: list[float],
        std: list[float],
        *,
        dtype: torch.dtype,
        channels_last: bool,
        teacher: OnlineTeacher | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.teacher = teacher
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.register_buffer("mean", torch.tensor(mean, dtype=dtype), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=dtype), persistent=False)

    def forward(self, batch: Batch) -> Step:
        """Return the loss of a batch, and the number of correctly classified images."""
        if self.teacher is not None:
            batch = replace(batch, teacher_logits=self.teacher(batch.images))
        if batch.second_view is not None:
            batch = replace(batch, second_view=self._normalize(batch.second_view))
        step = self.method(replace(batch, images=self._normalize(batch.images)))
        right = (step.logits.argmax(dim=1) == batch.labels).sum()
        return Step(step.loss, {}, {"train_top1": (right, len(batch.labels))})

    def _normalize(self, images: Tensor) -> Tensor:
        return normalize(images, self.mean, self.std).contiguous(memory_format=self.memory_format)


class MethodHook:
    """Calls the hooks of a method at the right iterations.

    Args:
        epoch, stop: number of iterations in one epoch and in the whole training.
    """

    def __init__(self, method: Method, epoch: int, stop: int) -> None:
        self.method, self.epoch, self.stop = method, epoch, stop
        self.period = method.period or epoch

    def begin(self, start: int) -> None:
        """Begin the first epoch; in the checkpoint of a resumed training the epoch has begun already."""
        if start == 0:
            self.method.begin_epoch(0)

    def after_step(self, finished: int) -> None:
        """Call the method's hooks after a step, at the end of its period and at the start of an epoch."""
        self.method.after_step()
        if finished % self.period == 0:
            self.method.end_period()
        if finished % self.epoch == 0 and finished < self.stop:
            self.method.begin_epoch(finished // self.epoch)
