"""Hard labels, uniform label smoothing, and adaptive label smoothing by objectness.

ALS: Krothapalli & Abbott 2020, arXiv:2009.06432.  Letters: B batch, K classes.
"""

import torch
from torch import Tensor, nn

from backbones.core.distributed import all_reduce_sum, is_main
from backbones.core.logging import get_logger
from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Method
from backbones.methods.functional import CONVENTIONS, adaptive_targets, smooth_labels
from backbones.models.base import Outputs


@METHODS.register()
class CE(Method):
    """Hard labels: y is one-hot."""


@METHODS.register()
class LS(Method):
    """Label smoothing by the same amount for every sample (functional.smooth_labels)."""

    def __init__(self, model: nn.Module, num_classes: int, *, amount: float, convention: str) -> None:
        """
        Args:
            amount: smoothing in [0, 1]; 0 is the hard label.
            convention: "all" spreads it over all classes, "k-1" over the wrong ones.
        """
        super().__init__(model, num_classes)
        self.amount = self.check_range("amount", amount, 0, 1)
        self.convention = self.check_choice("convention", convention, CONVENTIONS)

    def targets(self, batch: Batch) -> Tensor:
        return smooth_labels(batch.labels, self.num_classes, self.amount, self.convention, self.target_dtype)


@METHODS.register()
class ALS(Method):
    """Adaptive label smoothing: the label is as sure as the object is large in the crop (functional.adaptive_targets).

    With "k-1" a crop that shows little of its object is taught to be anything but its class.  Such crops are counted,
    and once they are more than 5 % of the crops of a run, a warning says so.
    """

    needs = frozenset({"objectness"})
    WARNING_SHARE = 0.05
    crops: Tensor
    misleading: Tensor
    local_crops: Tensor
    local_misleading: Tensor

    def __init__(self, model: nn.Module, num_classes: int, *, beta: float, convention: str) -> None:
        """
        Args:
            beta: share of the adaptive label in [0, 1]; 0 is the hard label, 1 the paper's default.
            convention: "k-1" is the paper's formula; "all" never teaches against the class, for a small K.
        """
        super().__init__(model, num_classes)
        self.beta = self.check_range("beta", beta, 0, 1)
        self.convention = self.check_choice("convention", convention, CONVENTIONS)
        # Below this objectness y_t < y_j: at beta 1 it is 1 / K, at beta <= (K - 1) / K there is none.
        self.least_objectness = 1 - (1 - 1 / num_classes) / beta if convention == "k-1" and beta > 0 else 0.0
        self.warned = False
        self.register_buffer("crops", torch.zeros((), dtype=torch.int64))  # of the run, gathered over the processes
        self.register_buffer("misleading", torch.zeros((), dtype=torch.int64))
        self.register_buffer("local_crops", torch.zeros((), dtype=torch.int64))  # of this process, not yet gathered
        self.register_buffer("local_misleading", torch.zeros((), dtype=torch.int64))

    def targets(self, batch: Batch) -> Tensor:
        assert batch.objectness is not None  # `forward` has seen to what the method needs
        return adaptive_targets(
            batch.labels, batch.objectness, self.num_classes, self.beta, self.convention, self.target_dtype
        )

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        assert batch.objectness is not None
        self.local_crops += len(batch.labels)
        self.local_misleading += (batch.objectness < self.least_objectness).sum()

    def gather(self) -> None:
        all_reduce_sum(self.local_crops, self.local_misleading)
        self.crops += self.local_crops
        self.misleading += self.local_misleading
        self.local_crops.zero_()
        self.local_misleading.zero_()

    def end_period(self) -> None:
        self.gather()
        share = (self.misleading / self.crops.clamp(min=1)).item()
        if share > self.WARNING_SHARE and not self.warned and is_main():
            self.warned = True
            get_logger().warning(
                f"METHOD.ALS.convention k-1: {share:.0%} of the crops show so little of their object "
                f"(objectness below {self.least_objectness:.3g}) that their label speaks against its class; "
                "with few classes use convention all, or a smaller beta"
            )
