"""Losses and labels designed for noisy labels, and baselines that confuse the network on purpose.

Bootsoft, Boothard: Reed et al. 2015, arXiv:1412.6596.  DisturbLabel: Xie et al. 2016, arXiv:1605.00055.
SCE: Wang et al. 2019, arXiv:1908.06112.  GCE: Zhang & Sabuncu 2018, arXiv:1805.07836.
Pairwise confusion: Dubey et al. 2018, arXiv:1705.08016.  Letters: B batch, K classes, p the prediction, t the label.
"""

import torch
from torch import Tensor, nn

from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Method
from backbones.methods.functional import (
    bootstrapped_loss,
    full_precision,
    generalized_cross_entropy,
    one_hot,
    pairwise_distance,
    reverse_cross_entropy,
)
from backbones.models.base import Outputs


@METHODS.register()
class Bootsoft(Method):
    """Cross-entropy against a mixture of the label and the network's own prediction."""

    def __init__(self, model: nn.Module, num_classes: int, *, hard_weight: float = 0.95, detach: bool = False) -> None:
        """
        Args:
            hard_weight: share of the one-hot label in [0, 1], the rest is the network's own prediction; 1 is CE, 0.95
                in the papers.
            detach: stop the gradient through the prediction in the target; False in the authors' code.
        """
        super().__init__(model, num_classes)
        self.hard_weight = self.check_range("hard_weight", hard_weight, 0, 1)
        self.detach = detach

    def loss(self, outputs: Outputs, targets: Tensor, batch: Batch) -> Tensor:
        return bootstrapped_loss(outputs.logits, batch.labels, self.hard_weight, soft=True, detach=self.detach).mean()


@METHODS.register()
class Boothard(Method):
    """Cross-entropy against a mixture of the label and the class that the network predicts."""

    def __init__(self, model: nn.Module, num_classes: int, *, hard_weight: float = 0.8) -> None:
        """
        Args:
            hard_weight: share of the one-hot label in [0, 1], the rest is the predicted class; 1 is CE, 0.8 in the
                papers.
        """
        super().__init__(model, num_classes)
        self.hard_weight = self.check_range("hard_weight", hard_weight, 0, 1)

    def loss(self, outputs: Outputs, targets: Tensor, batch: Batch) -> Tensor:
        return bootstrapped_loss(outputs.logits, batch.labels, self.hard_weight, soft=False, detach=True).mean()


@METHODS.register()
class DisturbLabel(Method):
    """Hard labels, some of which are replaced with random ones, drawn again in every iteration."""

    def __init__(self, model: nn.Module, num_classes: int, *, rate: float = 0.1) -> None:
        """
        Args:
            rate: probability, in [0, 1], that a label is drawn uniformly from all classes, so that a share
                rate (K - 1) / K is wrong; 0 is CE, 0.1 in the paper.
        """
        super().__init__(model, num_classes)
        self.rate = self.check_range("rate", rate, 0, 1)

    def targets(self, batch: Batch) -> Tensor:
        # From the CPU's generator: the same on every device, without synchronisation.
        drawn = torch.randint(self.num_classes, (len(batch),))
        disturbed = torch.rand(len(batch)) < self.rate
        drawn, disturbed = (t.to(batch.labels.device, non_blocking=True) for t in (drawn, disturbed))
        return one_hot(torch.where(disturbed, drawn, batch.labels), self.num_classes, self.target_dtype)


@METHODS.register()
class SCE(Method):
    """Symmetric cross-entropy: alpha H(y, p) + beta H(p, y), with the label clipped to [1e-4, 1] in the second."""

    FLOOR = 1e-4

    def __init__(
        self, model: nn.Module, num_classes: int, *, alpha: float = 6.0, beta: float = 0.1, form: str = "paper"
    ) -> None:
        """
        Args:
            alpha: weight of cross-entropy, at least 0; 6.0 for CIFAR-100, 0.1 for CIFAR-10.
            beta: weight of the reverse cross-entropy, at least 0; 0.1 for CIFAR-100, 1.0 for CIFAR-10; 0 with alpha 1
                is CE.
            form: "paper" clips the label in the second term only; "reference" in both, as the code of Zhang et al.
                2021 does.
        """
        super().__init__(model, num_classes)
        self.alpha, self.beta = self.check_range("alpha", alpha, 0), self.check_range("beta", beta, 0)
        self.form = self.check_choice("form", form, ("paper", "reference"))

    def loss(self, outputs: Outputs, targets: Tensor, batch: Batch) -> Tensor:
        reverse = reverse_cross_entropy(outputs.logits, batch.labels, self.FLOOR).mean()
        if self.form == "reference":
            targets = targets.clamp(min=self.FLOOR)
        return self.alpha * super().loss(outputs, targets, batch) + self.beta * reverse


@METHODS.register()
class GCE(Method):
    """Generalised cross-entropy: (1 - p_t^q) / q."""

    def __init__(self, model: nn.Module, num_classes: int, *, exponent: float = 0.7) -> None:
        """
        Args:
            exponent: q in (0, 1]; near 0 it is CE, 1 is the mean absolute error, 0.7 in the paper.
        """
        super().__init__(model, num_classes)
        self.exponent = self.check_positive("exponent", self.check_range("exponent", exponent, 0, 1))

    def loss(self, outputs: Outputs, targets: Tensor, batch: Batch) -> Tensor:
        return generalized_cross_entropy(outputs.logits, batch.labels, self.exponent).mean()


@METHODS.register()
class PairwiseConfusion(Method):
    """Cross-entropy plus the distance between the predictions for pairs from the two halves of a batch."""

    def __init__(self, model: nn.Module, num_classes: int, *, weight: float = 10.0, form: str = "pairs") -> None:
        """
        Args:
            weight: weight of the distance, at least 0; 0 is CE, 10 in the paper.
            form: "pairs": the norm of each pair's difference of probabilities (paper); "reference": the norm over the
                batch axis of the differences of logits (the code of Zhang et al. 2021). Both are summed and divided by
                the batch size.
        """
        super().__init__(model, num_classes)
        self.weight = self.check_range("weight", weight, 0)
        self.form = self.check_choice("form", form, ("pairs", "reference"))

    def loss(self, outputs: Outputs, targets: Tensor, batch: Batch) -> Tensor:
        logits = full_precision(outputs.logits)
        if self.form == "pairs":
            distance = pairwise_distance(logits.softmax(dim=1), axis=1)
        else:
            distance = pairwise_distance(logits, axis=0)
        return super().loss(outputs, targets, batch) + self.weight * distance
