"""Be your own teacher: shallow classifiers on the stages learn from the labels and from the deepest classifier.

BYOT: Zhang et al. 2019, arXiv:1905.08094, in the form that Zhang et al. 2021 (OLS, Tables I and II) compare with,
without the feature distance.  The backbone and all reported numbers come from the deepest classifier.
Letters: B batch, K classes.
"""

import torch
from torch import Tensor, nn

from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Method
from backbones.methods.functional import full_precision, soft_cross_entropy
from backbones.methods.tables import SoftLabelTable
from backbones.models.base import Outputs


class StageClassifiers(nn.ModuleDict):
    """A linear classifier on the pooled features of every stage but the last.

    NOTE: differs from the code of BYOT, whose shallow classifiers have their own convolutions.
    """

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        stages = list(model.feature_channels().items())[:-1]  # type: ignore[operator]  # every network defines it
        super().__init__({name: nn.Linear(channels, num_classes) for name, channels in stages})

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Return the logits (B, K) of each shallow classifier, from the first stage on."""
        return [classifier(features[name].mean(dim=(2, 3))) for name, classifier in self.items()]


@METHODS.register()
class BYOT(Method):
    """Be your own teacher: a classifier on every stage learns from the labels and from the deepest classifier.

    w_f H(y, p_f) + w_s sum over the shallow s of ((1 - c) H(y, p_s) + c H(softmax(z_f / T), softmax(z_s / T))).
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        final_weight: float = 1.5,
        shallow_weight: float = 0.5,
        distillation: float = 0.0,
        temperature: float = 3.0,
    ) -> None:
        """
        Args:
            final_weight: w_f, weight of the deepest classifier, at least 0; 1.5 in the code of OLS, 1 in BYOT's; 1 with
                shallow_weight 0 is CE.
            shallow_weight: w_s, weight of each shallow classifier, at least 0; 0.5 in the code of OLS, 1 in BYOT's.
            distillation: c in [0, 1], share of the deepest classifier's prediction in the targets of the shallow
                classifiers; 0 in the code of OLS, 0.3 in BYOT's.
            temperature: T, softmax temperature of the distillation, above 0.
        """
        super().__init__(model, num_classes)
        self.final_weight = self.check_range("final_weight", final_weight, 0)
        self.shallow_weight = self.check_range("shallow_weight", shallow_weight, 0)
        self.distillation = self.check_range("distillation", distillation, 0, 1)
        self.temperature = self.check_positive("temperature", temperature)
        self.shallow = StageClassifiers(model, num_classes)

    def loss(self, outputs: Outputs, targets: Tensor, batch: Batch) -> Tensor:
        loss = self.final_weight * super().loss(outputs, targets, batch)
        teacher = (full_precision(outputs.logits.detach()) / self.temperature).softmax(dim=1)
        for logits in self.shallow(outputs.features):
            hard = soft_cross_entropy(logits, targets).mean()
            soft = soft_cross_entropy(logits / self.temperature, teacher).mean()
            loss = loss + self.shallow_weight * ((1 - self.distillation) * hard + self.distillation * soft)
        return loss


@METHODS.register()
class BYOTOLS(Method):
    """BYOT with the soft labels of OLS, as in the code of OLS for ResNeXt.

    The first epoch trains the final classifier alone, on hard labels.  After that, with S the cross-entropy against the
    soft labels made by the final classifier: (1.5 CE_f + 0.5 sum CE_s) / 2 + (1.5 S_f + 0.25 sum S_s) / 2.
    """

    weights: Tensor

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        final_weight: float = 1.5,
        shallow_weight: float = 0.5,
        shallow_soft_weight: float = 0.25,
    ) -> None:
        """
        Args:
            final_weight: weight of the final classifier, at least 0; 1.5 in the code of OLS.
            shallow_weight: weight of each shallow classifier on hard labels, at least 0; 0.5 in the code of OLS.
            shallow_soft_weight: weight of each shallow classifier on soft labels, at least 0; 0.25 in the code of OLS.
        """
        super().__init__(model, num_classes)
        self.later = [
            self.check_range(name, value, 0) / 2
            for name, value in (
                ("final_weight", final_weight),
                ("shallow_weight", shallow_weight),
                ("shallow_soft_weight", shallow_soft_weight),
            )
        ]
        self.shallow = StageClassifiers(model, num_classes)
        self.table = SoftLabelTable(num_classes, self.target_dtype)
        # Order: final hard, final soft, shallow hard, shallow soft.  Every classifier is in the loss in every epoch, if
        # only with weight 0: training in several processes expects a gradient for each.
        self.register_buffer("weights", torch.tensor([1.0, 0, 0, 0], dtype=self.target_dtype))

    def begin_epoch(self, epoch: int) -> None:
        final, hard, soft = self.later
        values = [final, final, hard, soft] if epoch else [1.0, 0, 0, 0]
        self.weights.copy_(torch.tensor(values, dtype=self.weights.dtype))

    def loss(self, outputs: Outputs, targets: Tensor, batch: Batch) -> Tensor:
        soft = self.table.targets(batch.labels, 0.0)
        final_hard, final_soft, shallow_hard, shallow_soft = self.weights
        loss = soft_cross_entropy(outputs.logits, final_hard * targets + final_soft * soft).mean()
        for logits in self.shallow(outputs.features):
            loss = loss + soft_cross_entropy(logits, shallow_hard * targets + shallow_soft * soft).mean()
        return loss

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        self.table.observe(outputs.logits, batch.labels, ~batch.mixed)
