"""Online label smoothing (Zhang et al. 2021, arXiv:2011.12562, Sec. III-B).

The soft label of class k is the mean prediction, over the previous period, for the samples of class k that the model
got right; uniform at first, and for a class that had none right.  Letters: B batch, K classes.
"""

import torch
from torch import Tensor, nn

from backbones.core.distributed import all_reduce_sum
from backbones.core.errors import InputError
from backbones.core.logging import get_logger
from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Method
from backbones.methods.functional import right_predictions, table_targets
from backbones.models.base import Outputs


@METHODS.register()
class OLS(Method):
    """Online label smoothing; mixed samples are trained on but not observed."""

    soft: Tensor
    total: Tensor
    count: Tensor
    local_total: Tensor
    local_count: Tensor

    def __init__(self, model: nn.Module, num_classes: int, *, hard_weight: float, period: int, empty: str) -> None:
        """
        Args:
            hard_weight: share of the one-hot label in [0, 1]; 1 is plain cross-entropy, 0.5 the paper's default.
            period: iterations between two updates of the soft labels; 0: one epoch, as in the paper.
            empty: soft label of a class that had no right prediction: "uniform", or "keep" the last one.
        """
        super().__init__(model, num_classes)
        self.hard_weight = self.check_range("hard_weight", hard_weight, 0, 1)
        if period != int(period) or period < 0:
            raise InputError(f"METHOD.OLS.period: {period} must be a number of iterations, or 0 for an epoch")
        self.period = int(period) or None
        self.empty = self.check_choice("empty", empty, ("uniform", "keep"))
        if hard_weight == 0:
            get_logger().warning(
                "METHOD.OLS.hard_weight 0: the first period has no class signal, training may never start"
            )
        # Row k of `soft` is the label of class k.  Buffers, so that a resumed run goes on from the same labels.
        # The local ones hold this process's sums: never broadcast them between processes.
        square = torch.zeros(num_classes, num_classes, dtype=self.target_dtype)
        self.register_buffer("soft", torch.full_like(square, 1 / num_classes))
        self.register_buffer("total", square.clone())
        self.register_buffer("count", square[0].clone())
        self.register_buffer("local_total", square.clone())
        self.register_buffer("local_count", square[0].clone())

    def targets(self, batch: Batch) -> Tensor:
        return table_targets(batch.labels, self.soft, self.hard_weight)

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        p, right = right_predictions(outputs.logits, batch.labels)
        right &= ~batch.mixed
        # Zeros instead of a selection of rows: the shape is known, so nothing waits for the device.
        seen = p.masked_fill_(~right[:, None], 0).to(self.local_total)
        self.local_total.index_add_(0, batch.labels, seen)
        self.local_count.index_add_(0, batch.labels, right.to(seen))

    def gather(self) -> None:
        all_reduce_sum(self.local_total, self.local_count)
        self.total += self.local_total
        self.count += self.local_count
        self.local_total.zero_()
        self.local_count.zero_()

    def end_period(self) -> None:
        self.gather()
        unseen = torch.full_like(self.soft, 1 / self.num_classes) if self.empty == "uniform" else self.soft
        # Each row of `total` sums to `count`, so this is the mean, and sums to 1 whatever the rounding.
        mean = self.total / self.total.sum(dim=1, keepdim=True)
        self.soft.copy_(torch.where(self.count[:, None] > 0, mean, unseen))
        self.total.zero_()
        self.count.zero_()
