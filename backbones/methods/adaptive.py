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
    """Counter of the crops whose label contradicts their class; logs a warning, once, if they exceed 5 %.

    With "k-1", the label of a crop with an objectness below `least_objectness` ranks its class below all others.
    """

    WARNING_SHARE = 0.05
    crops: Tensor
    misleading: Tensor
    local_crops: Tensor
    local_misleading: Tensor

    def __init__(self, name: str, num_classes: int, beta: float, convention: str) -> None:
        super().__init__()
        self.name = name
        # y_t < y_j below this objectness: 1 / K for beta 1; at most 0, so never, for beta <= (K - 1) / K.
        self.least_objectness = 1 - (1 - 1 / num_classes) / beta if convention == "k-1" and beta > 0 else 0.0
        self.warned = False
        for name in ("crops", "misleading"):  # over the whole run
            self.add_sum(name, torch.zeros((), dtype=torch.int64))

    def observe(self, objectness: Tensor, counted: Tensor) -> None:
        """Count the misleading samples of a batch.

        objectness: (B,) in [0, 1]. counted: (B,) bool, the samples whose label depends on it.
        """
        self.local_crops += counted.sum()
        self.local_misleading += ((objectness < self.least_objectness) & counted).sum()

    def end_period(self) -> None:
        """Log a warning, once, if the share exceeds WARNING_SHARE."""
        self.gather()
        share = (self.misleading / self.crops.clamp(min=1)).item()
        if share > self.WARNING_SHARE and not self.warned and is_main():
            self.warned = True
            get_logger().warning(
                f"METHOD.{self.name}.convention k-1: {share:.0%} of the crops have an objectness "
                f"below {self.least_objectness:.3g}, so that their label contradicts their class; "
                "with few classes use convention all, or a smaller beta"
            )


@METHODS.register()
class ALS(Method):
    """Adaptive label smoothing: the smaller the object in the crop, the softer the label.

    The formula is that of functional.adaptive_targets.
    """

    needs = frozenset({"objectness"})

    def __init__(self, model: nn.Module, num_classes: int, *, beta: float = 1.0, convention: str = "k-1") -> None:
        """
        Args:
            beta: share of the adaptive label in [0, 1], the rest is one-hot; 0 is CE, 1 is the paper's default.
            convention: "k-1" spreads the smoothed mass over the wrong classes (the paper's formula); "all" over all K
                classes, so that a crop without the object gets the uniform label. With few classes use "all": "k-1"
                can rank the true class below the others.
        """
        super().__init__(model, num_classes)
        self.beta = self.check_range("beta", beta, 0, 1)
        self.convention = self.check_choice("convention", convention, CONVENTIONS)
        self.counter = MisleadingCrops(type(self).__name__, num_classes, beta, convention)

    def targets(self, batch: Batch) -> Tensor:
        assert batch.objectness is not None  # `forward` has checked `needs`
        return adaptive_targets(
            batch.labels, batch.objectness, self.num_classes, self.beta, self.convention, self.target_dtype
        )

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        assert batch.objectness is not None
        self.counter.observe(batch.objectness, torch.ones_like(batch.mixed))


@METHODS.register()
class ALSContext(ALS):
    """ALS, with the uniform label for images whose objects are painted over (Sec. 4.1, "Context").

    DATA.CONTEXT_SHARE sets the share of such images, 0.15 in the paper; beta does not apply to them.
    """

    needs = frozenset({"objectness", "is_context"})

    def targets(self, batch: Batch) -> Tensor:
        assert batch.is_context is not None
        return super().targets(batch).masked_fill(batch.is_context[:, None], 1 / self.num_classes)

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        assert batch.objectness is not None
        assert batch.is_context is not None
        self.counter.observe(batch.objectness, ~batch.is_context)  # the label of a context image does not depend on it


@METHODS.register()
class ALSCutMix(Method):
    """CutMix with adaptive labels; the paper reports it without a description, so three readings are available.

    "visible" (default): the weight of a class is the share of the image in which its object remains visible.
    "targets": the adaptive labels of the two whole crops, mixed by area.
    "both": the adaptive labels of the visible parts of the objects, mixed by area; area counts twice.
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
            alpha: the kept share of the image, before clipping, is drawn from Beta(alpha, alpha); above 0, 1 is
                uniform.
            probability: probability that a batch is mixed, in [0, 1]; 0 is ALS.
            reading: "visible": the weight of a class is the share of pixels that show its object; "targets": the
                adaptive labels of both crops, weighted by area; "both": the adaptive labels of the visible parts,
                weighted by area.
            convention: "k-1" or "all", as in ALS.
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
        """Return the share of the image, (B,), that its object covers outside the rectangle, and inside it."""
        assert batch.boxes is not None
        boxes, area = batch.boxes.to(self.target_dtype), batch.images.shape[2] * batch.images.shape[3]
        inside = union_areas(clip_to_rectangle(boxes, rectangle)) / area
        return (union_areas(boxes) / area - inside).clamp(min=0), inside
