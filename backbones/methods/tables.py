"""The table of soft labels of online label smoothing, for classifiers and for YOLO.

OLS: Zhang et al. 2021, arXiv:2011.12562, Sec. III-B.  Letters: B samples or boxes, K classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from backbones.methods.functional import mean_predictions, right_predictions, table_targets
from backbones.methods.learnt import Learnt

EMPTY = ("uniform", "keep")
INIT = ("uniform", "zeros")


class SoftLabelTable(Learnt):
    """Table S (K, K): row k is the soft label of class k, its mean correct prediction in the last period (Eq. 5).

    Args:
        empty: soft label of a class without correct predictions: "uniform", or "keep" the previous one.
        init: the first table: "uniform", or "zeros" (the loss values that the authors' code logs).
        freeze_at: a row is frozen once its largest entry reaches this value; 0: never.
        distribution: maps the logits (B, K) to the predictions (B, K) that are averaged; None: softmax.
    """

    soft: Tensor
    total: Tensor
    count: Tensor
    local_total: Tensor
    local_count: Tensor

    def __init__(
        self,
        num_classes: int,
        dtype: torch.dtype = torch.float32,
        *,
        empty: str = "uniform",
        init: str = "uniform",
        freeze_at: float = 0.0,
        distribution: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.empty, self.freeze_at, self.distribution = num_classes, empty, freeze_at, distribution
        square = torch.zeros(num_classes, num_classes, dtype=dtype)
        self.register_buffer("soft", torch.full_like(square, 1 / num_classes if init == "uniform" else 0.0))
        self.add_sum("total", square)  # sum of the correct predictions of each class
        self.add_sum("count", square[0])  # number of them

    def targets(self, labels: Tensor, hard_weight: float) -> Tensor:
        """Return targets (B, K): the one-hot label with weight `hard_weight`, the soft label with the rest."""
        return table_targets(labels, self.soft, hard_weight)

    @torch.no_grad()
    def observe(self, logits: Tensor, labels: Tensor, counted: Tensor) -> None:
        """Add the predictions of the samples that are both counted and classified correctly.

        logits: (B, K). labels: (B,) int64 in 0 .. K - 1, also of samples that are not counted. counted: (B,) bool.
        """
        p, right = right_predictions(logits, labels)
        if self.distribution:
            p = self.distribution(logits)
        right &= counted
        # Zeros instead of a selection of rows: the shape is known, so the device need not be synchronised.  Multiplied,
        # as masked_fill takes four times longer on a CPU; 0 times NaN is not 0, so NaN is replaced first.
        seen = p.nan_to_num_(nan=0.0).mul_(right[:, None]).to(self.local_total)
        self.local_total.index_add_(0, labels, seen)
        self.local_count.index_add_(0, labels, right.to(seen))

    def end_period(self) -> None:
        """Compute the new soft labels, and reset the sums."""
        self.gather()
        unseen = torch.full_like(self.soft, 1 / self.num_classes) if self.empty == "uniform" else self.soft
        new = mean_predictions(self.total, self.count, unseen)
        if self.freeze_at:
            new = torch.where(self.soft.amax(dim=1, keepdim=True) >= self.freeze_at, self.soft, new)
        self.soft.copy_(new)
        self.clear()
