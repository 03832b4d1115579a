"""Instance-based label smoothing: a teacher decides how much each sample is smoothed, and towards which classes.

ILS: Maher & Kull, ICMLA 2021, Sec. IV.  The teacher is a network of the same architecture, trained with hard labels.
Its calibrated temperature T_cal, fitted on the validation split, determines the amount; a second temperature T, chosen
by the student's validation, determines the distribution.  Letters: B batch, K classes, P1 shift, P2 coefficient.
"""

import torch
from torch import Tensor, nn

from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Context, Method
from backbones.methods.functional import (
    instance_amount,
    instance_amount_sine,
    instance_targets,
    smooth_labels,
)


class CalibratedTeacher(nn.Module):
    """The teacher's probability of the label at temperature T_cal."""

    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))

    def setup(self, context: Context) -> None:
        """Fit the temperature, unless it comes from a checkpoint."""
        if context.teacher_temperature is not None and not context.resumed:
            self.temperature.fill_(context.teacher_temperature())

    def true_class(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """Return p_t, (B,): softmax(z / T_cal) at the label."""
        assert batch.teacher_logits is not None
        p = (batch.teacher_logits.to(dtype) / self.temperature).softmax(dim=1)
        return p.gather(1, batch.labels[:, None])[:, 0]


@METHODS.register()
class ILS1(Method):
    """Label smoothing by min(0.2, P2 (p_t - P1)^2) per sample, p_t the calibrated teacher's probability of the label.

    The further p_t is from P1, the stronger the smoothing (Eq. 3).
    """

    needs = frozenset({"teacher_logits"})
    # The amount (B,) as a function of p_t (B,), P1 and P2.
    curve = staticmethod(instance_amount)

    def __init__(self, model: nn.Module, num_classes: int, *, shift: float = 0.9, coefficient: float = 1.5) -> None:
        """
        Args:
            shift: P1 in [0, 1], the p_t that is not smoothed; ILS1Sine smooths it by 0.1.
            coefficient: P2, at least 0; 0 is CE, or LS with amount 0.1 for ILS1Sine.
        """
        super().__init__(model, num_classes)
        self.shift = self.check_range("shift", shift, 0, 1)
        self.coefficient = self.check_range("coefficient", coefficient, 0)
        self.teacher = CalibratedTeacher()

    @property
    def fits_temperature(self) -> bool:
        return True

    def setup(self, context: Context) -> None:
        self.teacher.setup(context)

    def targets(self, batch: Batch) -> Tensor:
        return smooth_labels(batch.labels, self.num_classes, self.amounts(batch), "all", self.target_dtype)

    def amounts(self, batch: Batch) -> Tensor:
        """Return the amount of each sample, (B,)."""
        return self.curve(self.teacher.true_class(batch, self.target_dtype), self.shift, self.coefficient)


@METHODS.register()
class ILS1Sine(ILS1):
    """ILS1 with the sinusoidal amount 0.1 (sin(P2 (p_t - P1)) + 1), slightly worse in the paper."""

    curve = staticmethod(instance_amount_sine)


@METHODS.register()
class ILS2(Method):
    """Label smoothing by one amount, shared among the wrong classes in proportion to the teacher's p (Eq. 4)."""

    needs = frozenset({"teacher_logits"})

    def __init__(self, model: nn.Module, num_classes: int, *, amount: float = 0.1, temperature: float = 1.0) -> None:
        """
        Args:
            amount: smoothed mass in [0, 1]; 0 is CE.
            temperature: softmax temperature of the teacher, above 0; the higher, the closer to LS with "k-1".
        """
        super().__init__(model, num_classes)
        self.amount = self.check_range("amount", amount, 0, 1)
        self.temperature = self.check_positive("temperature", temperature)

    def targets(self, batch: Batch) -> Tensor:
        assert batch.teacher_logits is not None
        logits = batch.teacher_logits.to(self.target_dtype)
        return instance_targets(batch.labels, logits, self.amount, self.temperature)


@METHODS.register()
class ILS(ILS1):
    """Instance-based label smoothing: the amount of ILS1, shared among the wrong classes as in ILS2."""

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        shift: float = 0.9,
        coefficient: float = 1.5,
        temperature: float = 1.0,
        shared_temperature: bool = False,
    ) -> None:
        """
        Args:
            shift: P1 in [0, 1], the teacher's p_t that is not smoothed.
            coefficient: P2, at least 0; 0 is CE.
            temperature: softmax temperature of the teacher for the distribution, above 0.
            shared_temperature: use `temperature` for the amount as well, instead of the temperature fitted on the
                validation split.
        """
        super().__init__(model, num_classes, shift=shift, coefficient=coefficient)
        self.temperature = self.check_positive("temperature", temperature)
        self.shared_temperature = shared_temperature
        if shared_temperature:
            self.teacher.temperature.fill_(temperature)

    @property
    def fits_temperature(self) -> bool:
        return not self.shared_temperature

    def setup(self, context: Context) -> None:
        if self.fits_temperature:
            super().setup(context)

    def targets(self, batch: Batch) -> Tensor:
        assert batch.teacher_logits is not None
        logits = batch.teacher_logits.to(self.target_dtype)
        return instance_targets(batch.labels, logits, self.amounts(batch), self.temperature)
