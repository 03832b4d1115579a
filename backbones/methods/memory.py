"""Memory of the network's predictions in the last epoch.  N samples, K classes: 2 N K numbers on the device."""

import torch
from torch import Tensor

from backbones.core.distributed import all_reduce_sum
from backbones.methods.learnt import Learnt


class PredictionMemory(Learnt):
    """Predictions of the last epoch (`last`, (N, K)) and of the current one (`fresh`, (N, K)).

    A sample that an epoch skips (in the last, partial batch) keeps its older prediction.
    """

    last: Tensor
    fresh: Tensor
    seen: Tensor
    local_seen: Tensor

    def __init__(self, num_classes: int, dtype: torch.dtype) -> None:
        super().__init__()
        for name in ("last", "fresh"):
            self.register_buffer(name, torch.zeros((0, num_classes), dtype=dtype))
        self.add_sum("seen", torch.zeros(0, dtype=dtype))  # 1 where `fresh` is from the current epoch

    def resize(self, start: Tensor) -> None:
        """Set the size to N samples, with initial predictions `start` (N, K)."""
        self.last = start.to(self.last)
        self.fresh = torch.zeros_like(self.last)
        self.seen = self.last.new_zeros(len(start))
        self.local_seen = self.last.new_zeros(len(start))

    def observe(self, index: Tensor, p: Tensor) -> None:
        """Store the predictions p (B, K) of the samples index (B,)."""
        self.fresh.index_copy_(0, index, p.to(self.fresh))
        self.local_seen.index_fill_(0, index, 1)

    def gather(self) -> None:
        """Exchange predictions between processes; within an epoch, a sample belongs to one process."""
        theirs, before = self.fresh * self.local_seen[:, None], self.seen.clone()
        all_reduce_sum(theirs)
        super().gather()
        self.fresh.copy_(torch.where(self.seen[:, None] > before[:, None], theirs, self.fresh))
        self.seen.clamp_(max=1)

    def end_period(self) -> None:
        """Make the predictions of the current epoch those of the last epoch."""
        self.gather()
        self.last.copy_(torch.where(self.seen[:, None] > 0, self.fresh, self.last))
        self.clear()
