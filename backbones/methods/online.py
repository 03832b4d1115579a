"""Soft labels made from the network's own correct predictions during training.

OLS: Zhang et al. 2021, arXiv:2011.12562, Sec. III-B.  The soft label of class k is the mean prediction, over the
previous period, for the samples of class k that the model classified correctly; uniform at first, and for a class
without correct predictions.  Letters: B batch, K classes, N samples.
"""

import torch
from torch import Tensor, nn

from backbones.core.errors import InputError
from backbones.core.run_log import get_logger
from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Context, Method
from backbones.methods.functional import full_precision
from backbones.methods.memory import PredictionMemory
from backbones.methods.tables import EMPTY, INIT, SoftLabelTable
from backbones.models.base import Outputs


@METHODS.register()
class OLS(Method):
    """Online label smoothing: the soft label of a class is its mean correct prediction in the last period.

    Mixed samples are trained on, but do not contribute to the soft labels.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        hard_weight: float = 0.5,
        period: int = 0,
        empty: str = "uniform",
        init: str = "uniform",
        sum_weights: bool = False,
        freeze_at: float = 0.0,
    ) -> None:
        """
        Args:
            hard_weight: share of the one-hot label in [0, 1]; 1 is CE, 0.5 is the paper's default.
            period: iterations between two updates of the soft labels; 0 for one epoch, as in the paper.
            empty: soft label of a class without correct predictions in a period: "uniform", or "keep" the previous one.
            init: soft labels of the first period: "uniform" (paper), or "zeros", which do not sum to 1 (as in the
                authors' logs).
            sum_weights: add the hard and the soft loss with weight 1 each, so that the loss is doubled (the authors'
                code for fine-grained data).
            freeze_at: freeze a class's soft label once its largest entry reaches this value, in [0, 1]; 0: never
                (0.88 in the authors' code for fine-grained data).
        """
        super().__init__(model, num_classes)
        self.hard_weight = self.check_range("hard_weight", hard_weight, 0, 1)
        if period != int(period) or period < 0:
            raise InputError(f"METHOD.OLS.period: {period} must be a number of iterations, or 0 for an epoch")
        self.period = int(period) or None
        if sum_weights and hard_weight != 0.5:
            raise InputError(
                f"METHOD.OLS.sum_weights adds both losses with weight 1: hard_weight must stay 0.5, not {hard_weight}"
            )
        self.scale = 2.0 if sum_weights else 1.0
        if hard_weight == 0:
            get_logger().warning(
                "METHOD.OLS.hard_weight 0: labels do not depend on the class in the first period; "
                "training may never start"
            )
        self.table = SoftLabelTable(
            num_classes,
            self.target_dtype,
            empty=self.check_choice("empty", empty, EMPTY),
            init=self.check_choice("init", init, INIT),
            freeze_at=self.check_range("freeze_at", freeze_at, 0, 1),
        )

    def targets(self, batch: Batch) -> Tensor:
        return self.table.targets(batch.labels, self.hard_weight)

    def loss(self, outputs: Outputs, targets: Tensor, batch: Batch) -> Tensor:
        return self.scale * super().loss(outputs, targets, batch)

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        self.table.observe(outputs.logits, batch.labels, ~batch.mixed)


@METHODS.register()
class OLSSingle(Method):
    """Ablation of OLS: the soft label is the last epoch's prediction for one other sample of the class.

    The prediction can be right or wrong; the only sample of a class uses its own.  In the first epoch the soft label is
    uniform.  The memory holds 2 N K numbers on the device.
    """

    needs = frozenset({"index"})
    order: Tensor
    place: Tensor
    first: Tensor
    size: Tensor

    def __init__(self, model: nn.Module, num_classes: int, *, hard_weight: float = 0.5) -> None:
        """
        Args:
            hard_weight: share of the one-hot label in [0, 1]; 1 is CE, 0.5 in the paper.
        """
        super().__init__(model, num_classes)
        self.hard_weight = self.check_range("hard_weight", hard_weight, 0, 1)
        self.memory = PredictionMemory(num_classes, self.target_dtype)

    def setup(self, context: Context) -> None:
        self.memory.resize(torch.full((context.num_samples, self.num_classes), 1 / self.num_classes))
        # Samples sorted by class: sample i of class k is order[first[k] + place[i]].
        labels = context.labels.to(self.memory.last.device)
        order = labels.argsort(stable=True)
        size = torch.bincount(labels, minlength=self.num_classes)
        first = size.cumsum(0) - size
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device) - first[labels[order]]
        for name, tensor in (("order", order), ("place", place), ("first", first), ("size", size)):
            self.register_buffer(name, tensor, persistent=False)  # `setup` recomputes them

    def targets(self, batch: Batch) -> Tensor:
        assert batch.index is not None
        drawn = torch.rand(len(batch), dtype=torch.float64).to(batch.labels.device, non_blocking=True)
        size = self.size[batch.labels]
        step = 1 + (drawn * (size - 1)).long()  # 1 .. size - 1: another sample of the class
        other = self.order[self.first[batch.labels] + (self.place[batch.index] + step) % size]
        hard = super().targets(batch)
        return self.hard_weight * hard + (1 - self.hard_weight) * self.memory.last[other].to(hard)

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        assert batch.index is not None
        self.memory.observe(batch.index, full_precision(outputs.logits).softmax(dim=1))
