"""Targets from another network, or from an earlier state of the same network.

Dis: self-distillation of one generation, as Maher & Kull 2021 (Table III) compare with it.  PSKD: Kim et al. 2021,
arXiv:2006.12000.  KD: Hinton et al. 2015, arXiv:1503.02531.  TFKD: Yuan et al. 2020, arXiv:1909.11723.
Beta smoothing: Zhang & Sabuncu 2020, arXiv:2006.05065.  TwoView: Xu & Liu 2019.  Letters: B batch, K classes.
"""

import copy

import torch
from torch import Tensor, nn

from backbones.core.distributed import broadcast
from backbones.core.errors import InputError
from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Context, Method
from backbones.methods.functional import (
    divergence,
    full_precision,
    move_towards,
    one_hot,
    smooth_labels,
    soft_cross_entropy,
    virtual_teacher,
)
from backbones.methods.memory import PredictionMemory
from backbones.models.base import Outputs


@METHODS.register()
class SelfDistillation(Method):
    """Self-distillation ("Dis"): the label is the prediction of a teacher of the same architecture; one generation."""

    needs = frozenset({"teacher_logits"})

    def __init__(
        self, model: nn.Module, num_classes: int, *, hard_weight: float = 0.0, temperature: float = 1.0
    ) -> None:
        """
        Args:
            hard_weight: share of the one-hot label in [0, 1]; 1 is CE, 0 is stated for the synthetic task of the paper.
            temperature: softmax temperature of the teacher, above 0; 1 in the paper.
        """
        super().__init__(model, num_classes)
        self.hard_weight = self.check_range("hard_weight", hard_weight, 0, 1)
        self.temperature = self.check_positive("temperature", temperature)

    def targets(self, batch: Batch) -> Tensor:
        assert batch.teacher_logits is not None
        soft = (batch.teacher_logits.to(self.target_dtype) / self.temperature).softmax(dim=1)
        return self.hard_weight * super().targets(batch) + (1 - self.hard_weight) * soft


@METHODS.register()
class PSKD(Method):
    """The label is mixed with the last epoch's prediction for the sample; its weight grows linearly over the epochs.

    y = (1 - a_e) onehot + a_e p_(e-1), a_e = final_weight (e + 1) / E for epoch e of E; hard labels in the first epoch.
    The memory holds 2 N K numbers on the device.
    """

    needs = frozenset({"index"})
    weight: Tensor

    def __init__(self, model: nn.Module, num_classes: int, *, final_weight: float = 0.8) -> None:
        """
        Args:
            final_weight: weight a of the prediction in the last epoch, in [0, 1]; 0 is CE, 0.8 in the paper.
        """
        super().__init__(model, num_classes)
        self.final_weight = self.check_range("final_weight", final_weight, 0, 1)
        self.memory = PredictionMemory(num_classes, self.target_dtype)
        self.register_buffer("weight", torch.zeros((), dtype=self.target_dtype))
        self.epochs = 1

    def setup(self, context: Context) -> None:
        self.epochs = context.epochs
        # As in the authors' code, the first "last predictions" are the labels themselves.
        self.memory.resize(one_hot(context.labels, self.num_classes))

    def begin_epoch(self, epoch: int) -> None:
        self.weight.fill_(self.final_weight * (epoch + 1) / self.epochs)

    def targets(self, batch: Batch) -> Tensor:
        assert batch.index is not None
        return torch.lerp(super().targets(batch), self.memory.last[batch.index].to(self.weight), self.weight)

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        assert batch.index is not None
        self.memory.observe(batch.index, full_precision(outputs.logits).softmax(dim=1))


@METHODS.register()
class KD(Method):
    """Knowledge distillation: (1 - w) H(onehot, p) + w T^2 KL(teacher at its temperature || student at T)."""

    needs = frozenset({"teacher_logits"})

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        weight: float = 0.9,
        teacher_temperature: float = 20.0,
        student_temperature: float = 20.0,
    ) -> None:
        """
        Args:
            weight: w, weight of the distillation, in [0, 1]; 0 is CE, 0.9 in Maher & Kull 2021, Table IV.
            teacher_temperature: softmax temperature of the teacher, above 0; 20 in Table IV.
            student_temperature: T, softmax temperature of the student, above 0; its square scales the distillation; 20
                in Table IV (the text says 1).
        """
        super().__init__(model, num_classes)
        self.weight = self.check_range("weight", weight, 0, 1)
        self.teacher_temperature = self.check_positive("teacher_temperature", teacher_temperature)
        self.student_temperature = self.check_positive("student_temperature", student_temperature)

    def loss(self, outputs: Outputs, targets: Tensor, batch: Batch) -> Tensor:
        assert batch.teacher_logits is not None
        logits = full_precision(outputs.logits)
        teacher = batch.teacher_logits.to(logits)
        distance = divergence(teacher, logits, self.teacher_temperature, self.student_temperature).mean()
        return (1 - self.weight) * super().loss(outputs, targets, batch) + (
            self.weight * self.student_temperature**2 * distance
        )


@METHODS.register()
class TFKD(Method):
    """Teacher-free distillation: the label is mixed with the output of a virtual teacher.

    The teacher is functional.virtual_teacher.  The gradient is that of (1 - weight) CE + weight KL(teacher,
    prediction), with the KL summed over classes and averaged over the batch; only the teacher's entropy, a constant, is
    left out.
    NOTE: differs from the authors' code (and that of OLS), where PyTorch's mean also divides the KL by the number of
    classes.  For 196 classes, weight 0.95, temperature 6 and normally distributed logits, our gradient is 2.1 times as
    long as theirs, and the cosine between them is 0.57.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        weight: float = 0.95,
        confidence: float = 0.99,
        temperature: float = 6.0,
    ) -> None:
        """
        Args:
            weight: weight of the teacher in [0, 1]; 0 is CE, 0.95 in the authors' code.
            confidence: the teacher's probability of the label before softening, in [0, 1]; 0.99 in the authors' code.
            temperature: softens the teacher, above 0; 40 for MobileNetV2, 6 for ResNet-50.
        """
        super().__init__(model, num_classes)
        self.weight = self.check_range("weight", weight, 0, 1)
        self.confidence = self.check_range("confidence", confidence, 0, 1)
        self.temperature = self.check_positive("temperature", temperature)

    def targets(self, batch: Batch) -> Tensor:
        teacher = virtual_teacher(batch.labels, self.num_classes, self.confidence, self.temperature, self.target_dtype)
        return torch.lerp(super().targets(batch), teacher, self.weight)


@METHODS.register()
class BetaSmoothing(Method):
    """Label smoothing by random amounts, larger for samples of which the averaged model is less confident.

    One b ~ Beta(a, 1) is drawn per sample; the sorted draws are assigned to the samples sorted by the averaged model's
    p_t.  The label is w onehot + (1 - w) s, s_t = b, s_j = (1 - b) / (K - 1); a makes its mean confidence 1 - amount.
    NOTE: Maher & Kull print the mean as `amount`, which is impossible for w > amount.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        amount: float = 0.1,
        hard_weight: float = 0.4,
        decay: float = 0.999,
    ) -> None:
        """
        Args:
            amount: mean smoothed mass, in (0, 1 - hard_weight); near 0 it is CE.
            hard_weight: w, share of the one-hot label, in [0, 1).
            decay: decay of the averaged weights per iteration, in [0, 1].
        """
        super().__init__(model, num_classes)
        self.hard_weight = self.check_range("hard_weight", hard_weight, 0, 1)
        if not 0 < amount < 1 - hard_weight:
            raise InputError(
                f"METHOD.BetaSmoothing.amount: {amount} must lie between 0 and 1 - hard_weight = {1 - hard_weight:g}"
            )
        self.decay = self.check_range("decay", decay, 0, 1)
        self.confidence = torch.distributions.Beta((1 - amount - hard_weight) / amount, 1.0)
        self.averaged = copy.deepcopy(model).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "BetaSmoothing":
        """Set the mode; the averaged model stays in evaluation mode."""
        super().train(mode)
        self.averaged.eval()
        return self

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        # Each process has its own batch statistics; only those of the main process are in the checkpoint.
        broadcast(*(buffer for buffer in self.averaged.buffers() if buffer.is_floating_point()))
        p = full_precision(self.averaged(batch.images).logits).softmax(dim=1)
        order = p.gather(1, batch.labels[:, None])[:, 0].argsort()
        drawn = self.confidence.sample((len(batch),)).sort()[0].to(self.target_dtype)  # the same on every device
        confidence = torch.empty(len(batch), dtype=drawn.dtype, device=order.device)
        confidence.scatter_(0, order, drawn.to(order.device, non_blocking=True))
        amount = (1 - self.hard_weight) * (1 - confidence)
        return smooth_labels(batch.labels, self.num_classes, amount, "k-1", self.target_dtype)

    def after_step(self) -> None:
        move_towards(self.averaged.parameters(), self.model.parameters(), self.decay)
        # Batch statistics are running averages already, so they are copied.
        move_towards(self.averaged.buffers(), self.model.buffers(), 0.0)


@METHODS.register()
class TwoView(Method):
    """Cross-entropy on two augmentations of each image plus their divergence (Xu & Liu 2019, no feature term).

    Mean of the two cross-entropies + weight (KL(p_a || p_b) + KL(p_b || p_a)) / 2; the gradient flows through both.
    """

    needs = frozenset({"second_view"})

    def __init__(self, model: nn.Module, num_classes: int, *, weight: float = 1.0, temperature: float = 1.0) -> None:
        """
        Args:
            weight: weight of the divergence, at least 0; the paper does not state its value.
            temperature: softmax temperature of both predictions in the divergence, above 0.
        """
        super().__init__(model, num_classes)
        self.weight = self.check_range("weight", weight, 0)
        self.temperature = self.check_positive("temperature", temperature)

    def loss(self, outputs: Outputs, targets: Tensor, batch: Batch) -> Tensor:
        assert batch.second_view is not None
        a, b, t = outputs.logits, self.model(batch.second_view).logits, self.temperature
        hard = (soft_cross_entropy(a, targets) + soft_cross_entropy(b, targets)).mean() / 2
        agreement = (divergence(a, b, t, t) + divergence(b, a, t, t)).mean() / 2
        return hard + self.weight * agreement
