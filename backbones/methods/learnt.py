"""State that a method learns from the predictions of a network during training."""

import torch
from torch import Tensor, nn

from backbones.core.distributed import all_reduce_sum


class Learnt(nn.Module):
    """Sums over the samples of all processes, which `end_period` turns into the learnt state.

    A sum `name` consists of two buffers, which are part of the checkpoint: `name`, over all processes up to the last
    `gather`, and `local_name`, of this process since then, which must never be broadcast.  `observe` of a subclass adds
    to the local sums.  The owner calls `gather` and `end_period` on every process at the same iteration.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sums: list[str] = []

    def add_sum(self, name: str, start: Tensor) -> None:
        """Register the sum `name`, zeros of the shape and type of `start`."""
        self._sums.append(name)
        self.register_buffer(name, torch.zeros_like(start))
        self.register_buffer(f"local_{name}", torch.zeros_like(start))

    def gather(self) -> None:
        """Add the local sums of all processes to the sums, and clear the local ones."""
        local = [getattr(self, f"local_{name}") for name in self._sums]
        all_reduce_sum(*local)
        for name, part in zip(self._sums, local, strict=True):
            getattr(self, name).add_(part)
            part.zero_()

    def clear(self) -> None:
        """Set the gathered sums to 0."""
        for name in self._sums:
            getattr(self, name).zero_()

    def end_period(self) -> None:
        """Gather and use the sums; reset them to 0 unless they cover the whole run."""
        raise NotImplementedError
