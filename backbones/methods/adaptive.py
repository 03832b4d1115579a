"""Adaptive label smoothing by objectness, alone, with context images, and with CutMix.

ALS: Krothapalli & Abbott 2020, arXiv:2009.06432.  Letters: B batch, K classes, M boxes, o objectness.
"""

import torch
from torch import Tensor, nn

from backbones.core.distributed import is_main
from backbones.core.run_log import get_logger
from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Method
from backbones.methods.functional import CONVENTIONS, adaptive_targets, visible_area_targets
from backbones.methods.learnt import Learnt
from backbones.methods.mixing import CutMixDraw
from backbones.methods.regions import Rectangle, clip_to_rectangle, union_areas
from backbones.models.base import Outputs


class MisleadingCrops(Learnt):
    """Counts the crops whose label contradicts their class; logs a warning once they are more than 5 %.

    With "k-1" a crop that shows less than `least_objectness` of its object is taught to be anything but its class.
    """

    WARNING_SHARE = 0.05
    crops: Tensor
    misleading: Tensor
    local_crops: Tensor
    local_misleading: Tensor

    def __init__(self, name: str, num_classes: int, beta: float, convention: str) -> None:
        super().__init__()
        self.name = name
        # Below this objectness y_t < y_j: at beta 1 it is 1 / K, at beta <= (K - 1) / K there is none.
        self.least_objectness = 1 - (1 - 1 / num_classes) / beta if convention == "k-1" and beta > 0 else 0.0
        self.warned = False
        for name in ("crops", "misleading"):  # of the run
            self.add_sum(name, torch.zeros((), dtype=torch.int64))

    def observe(self, objectness: Tensor, counted: Tensor) -> None:
        """objectness: (B,) in [0, 1]. counted: (B,) bool, the samples whose label depends on it."""
        self.local_crops += counted.sum()
        self.local_misleading += ((objectness < self.least_objectness) & counted).sum()

    def end_period(self) -> None:
        """Log a warning, once, if the share is too high."""
        self.gather()
        share = (self.misleading / self.crops.clamp(min=1)).item()
        if share > self.WARNING_SHARE and not self.warned and is_main():
            self.warned = True
            get_logger().warning(
                f"METHOD.{self.name}.convention k-1: {share:.0%} of the crops show so little of their object "
                f"(objectness below {self.least_objectness:.3g}) that their label contradicts its class; "
                "with few classes use convention all, or a smaller beta"
            )


@METHODS.register()
class ALS(Method):
    """Adaptive label smoothing: the label is as sure as the object is large (functional.adaptive_targets)."""

    needs = frozenset({"objectness"})

    def __init__(self, model: nn.Module, num_classes: int, *, beta: float = 1.0, convention: str = "k-1") -> None:
        """
        Args:
            beta: weight of the adaptive label against the one-hot one, in [0, 1]; 0 is CE, 1 the paper's default.
            convention: "k-1" is the paper's formula; "all" is uniform where the object is outside the crop, and never
                teaches against the class (for a small K).
        """
        super().__init__(model, num_classes)
        self.beta = self.check_range("beta", beta, 0, 1)
        self.convention = self.check_choice("convention", convention, CONVENTIONS)
        self.counter = MisleadingCrops(type(self).__name__, num_classes, beta, convention)

    def targets(self, batch: Batch) -> Tensor:
        assert batch.objectness is not None  # `forward` has checked what the method needs
        return adaptive_targets(
            batch.labels, batch.objectness, self.num_classes, self.beta, self.convention, self.target_dtype
        )

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        assert batch.objectness is not None
        self.counter.observe(batch.objectness, torch.ones_like(batch.mixed))


@METHODS.register()
class ALSContext(ALS):
    """ALS, and the uniform label for images whose objects are painted over (Sec. 4.1, "Context").

    DATA.CONTEXT_SHARE is the share of the samples that are such images, 0.15 in the paper; beta does not apply to them.
    """

    needs = frozenset({"objectness", "is_context"})

    def targets(self, batch: Batch) -> Tensor:
        assert batch.is_context is not None
        return super().targets(batch).masked_fill(batch.is_context[:, None], 1 / self.num_classes)

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        assert batch.objectness is not None
        assert batch.is_context is not None
        self.counter.observe(batch.objectness, ~batch.is_context)  # a context image has its own label


@METHODS.register()
class ALSCutMix(Method):
    """CutMix with adaptive labels, which the paper reports without a description: three readings are offered.

    "visible" (default): a class weighs the share of the image in which its object is still to be seen.
    "targets": the adaptive labels of the two whole crops, mixed by area.
    "both": adaptive labels of what is still to be seen, mixed by area; area counts twice.
    """

    needs = frozenset({"objectness", "boxes"})

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        alpha: float = 1.0,
        probability: float = 1.0,
        reading: str = "visible",
        convention: str = "k-1",
    ) -> None:
        """
        Args:
            alpha: the kept share of the image is Beta(alpha, alpha), before clipping; above 0, 1 is uniform.
            probability: share of the batches that are mixed, in [0, 1]; 0 is ALS.
            reading: "visible": a class weighs the share of pixels in which its object is seen; "targets": the two
                adaptive labels by area; "both": adaptive labels of what is seen, by area.
            convention: "k-1" or "all", as for ALS.
        """
        super().__init__(model, num_classes)
        self.draw = CutMixDraw(self.check_positive("alpha", alpha), self.check_range("probability", probability, 0, 1))
        self.reading = self.check_choice("reading", reading, ("visible", "targets", "both"))
        self.convention = self.check_choice("convention", convention, CONVENTIONS)

    def targets(self, batch: Batch) -> Tensor:
        assert batch.objectness is not None
        return self._adaptive(batch.labels, batch.objectness)

    def mix(self, batch: Batch, targets: Tensor) -> tuple[Batch, Tensor]:
        drawn = self.draw(batch)
        if drawn is None:
            return batch, targets
        mixed = drawn.paste(batch)
        if self.reading == "targets":
            return mixed, drawn.weigh(targets)
        kept, pasted = self._visible(batch, drawn.rectangle)
        pasted = pasted.index_select(0, drawn.order)
        others = batch.labels.index_select(0, drawn.order)
        if self.reading == "both":
            theirs = self._adaptive(others, pasted)
            return mixed, (1 - drawn.pasted) * self._adaptive(batch.labels, kept) + drawn.pasted * theirs
        return mixed, visible_area_targets((batch.labels, others), (kept, pasted), self.num_classes, self.convention)

    def _adaptive(self, labels: Tensor, shares: Tensor) -> Tensor:
        return adaptive_targets(labels, shares, self.num_classes, 1.0, self.convention, self.target_dtype)

    def _visible(self, batch: Batch, rectangle: Rectangle) -> tuple[Tensor, Tensor]:
        """Shares of the image, (B,): the object of an image outside of the rectangle, and inside of it."""
        assert batch.boxes is not None
        boxes, area = batch.boxes.to(self.target_dtype), batch.images.shape[2] * batch.images.shape[3]
        inside = union_areas(clip_to_rectangle(boxes, rectangle)) / area
        return (union_areas(boxes) / area - inside).clamp(min=0), inside
