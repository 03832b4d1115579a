"""Methods that combine images and their labels, or hide a part of each image.

CutMix: Yun et al. 2019, arXiv:1905.04899.  RICAP: Takahashi et al. 2018, arXiv:1811.09030.  Mixup: Zhang et al. 2018,
arXiv:1710.09412.  CutOut: DeVries & Taylor 2017, arXiv:1708.04552.  All follow the authors' code.

Random numbers come from the CPU's generator, so that a run is the same on every device and never synchronises with it.
Letters: B batch, K classes, H x W pixels.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.data.batch import Batch
from backbones.methods.base import METHODS, Method
from backbones.methods.regions import (
    Rectangle,
    cut_rectangle,
    cut_squares,
    mix_quarters,
    paste_rectangle,
    quarters,
)
from backbones.methods.smoothing import LS
from backbones.methods.tables import SoftLabelTable
from backbones.models.base import Outputs

SMALL_BETA = 0.01  # at this value, both of torch's gamma variables are 0 in less than one of a million draws


@dataclass
class Paste:
    """One rectangle for the batch: image i receives that of image order[i].

    pasted: the rectangle's share of the pixels. mixed: (B,) bool, the images that it changes.
    """

    rectangle: Rectangle
    order: Tensor
    pasted: float
    mixed: Tensor

    def paste(self, batch: Batch) -> Batch:
        """Return the batch with the images combined."""
        images = paste_rectangle(batch.images, self.order, self.rectangle)
        return dataclasses.replace(batch, images=images, mixed=batch.mixed | self.mixed)

    def weigh(self, targets: Tensor) -> Tensor:
        """Return the average of the two targets (B, K), weighted by their shares of the pixels."""
        return (1 - self.pasted) * targets + self.pasted * targets.index_select(0, self.order)


@dataclass
class CutMixDraw:
    """Draws the rectangle of CutMix: the kept share is from Beta(alpha, alpha); None with 1 - probability."""

    alpha: float
    probability: float

    def __call__(self, batch: Batch) -> Paste | None:
        if torch.rand(()).item() >= self.probability:
            return None
        height, width = batch.images.shape[2:]
        centre_y, centre_x = int(torch.randint(height, ())), int(torch.randint(width, ()))
        rectangle = cut_rectangle(height, width, draw_beta(self.alpha, self.alpha), centre_y, centre_x)
        order = torch.randperm(len(batch))
        # An image paired with itself is unchanged; so are all images if the rectangle is empty.
        mixed = (order != torch.arange(len(order))) & (rectangle.area > 0)
        device = batch.labels.device
        pasted = rectangle.area / (height * width)
        return Paste(rectangle, order.to(device, non_blocking=True), pasted, mixed.to(device, non_blocking=True))


def draw_beta(a: float, b: float) -> float:
    """Draw one number from Beta(a, b): x / (x + y) with x ~ Gamma(a) and y ~ Gamma(b).

    Below SMALL_BETA, both can be less than the smallest double; they are then drawn as logarithms, from
    Gamma(a) = Gamma(a + 1) U^(1 / a) (Marsaglia & Tsang 2000).
    """
    if max(a, b) >= SMALL_BETA:
        return torch.distributions.Beta(a, b).sample().item()
    shape = torch.tensor([a, b], dtype=torch.float64)
    log_x, log_y = torch.distributions.Gamma(shape + 1, 1.0).sample().log() + torch.rand_like(shape).log() / shape
    return (log_x - log_y).sigmoid().item()


@METHODS.register()
class CutMix(Method):
    """A rectangle of another image is pasted into each image; labels are weighted by their share of the pixels."""

    def __init__(self, model: nn.Module, num_classes: int, *, alpha: float = 1.0, probability: float = 1.0) -> None:
        """
        Args:
            alpha: the kept share of the image, before clipping, is drawn from Beta(alpha, alpha); above 0, 1 is
                uniform.
            probability: probability that a batch is mixed, in [0, 1]; 0 is CE, 1 for ImageNet, 0.5 for CIFAR.
        """
        super().__init__(model, num_classes)
        self.draw = CutMixDraw(self.check_positive("alpha", alpha), self.check_range("probability", probability, 0, 1))

    def mix(self, batch: Batch, targets: Tensor) -> tuple[Batch, Tensor]:
        drawn = self.draw(batch)
        return (batch, targets) if drawn is None else (drawn.paste(batch), drawn.weigh(targets))


@METHODS.register()
class RICAP(Method):
    """Crops of four images form one image; labels are weighted by their share of the pixels."""

    def __init__(self, model: nn.Module, num_classes: int, *, alpha: float = 0.3) -> None:
        """
        Args:
            alpha: the position of the common corner, as a share of each side, is drawn from Beta(alpha, alpha); above
                0, 0.3 in the paper; near 0 a single image fills everything, which is CE.
        """
        super().__init__(model, num_classes)
        self.alpha = self.check_positive("alpha", alpha)

    def mix(self, batch: Batch, targets: Tensor) -> tuple[Batch, Tensor]:
        height, width = batch.images.shape[2:]
        y, x = (round(side * draw_beta(self.alpha, self.alpha)) for side in (height, width))
        parts = quarters(height, width, (y, x))
        corners = [
            (
                int(torch.randint(height - p.bottom + p.top + 1, ())),
                int(torch.randint(width - p.right + p.left + 1, ())),
            )
            for p in parts
        ]
        orders = torch.stack([torch.randperm(len(batch)) for _ in parts]).to(targets.device, non_blocking=True)
        images = mix_quarters(batch.images, orders, corners, (y, x))
        weighed = sum(
            part.area / (height * width) * targets.index_select(0, order)
            for part, order in zip(parts, orders, strict=True)
        )
        return dataclasses.replace(batch, images=images, mixed=torch.ones_like(batch.mixed)), weighed  # type: ignore[return-value]


@METHODS.register()
class Mixup(Method):
    """Images and labels are weighted means of two samples, with one weight per batch."""

    def __init__(self, model: nn.Module, num_classes: int, *, alpha: float = 1.0) -> None:
        """
        Args:
            alpha: the weight is drawn from Beta(alpha, alpha); above 0, near 0 it is CE, 1 is uniform; 1 for CIFAR,
                0.2 for ImageNet.
        """
        super().__init__(model, num_classes)
        self.alpha = self.check_positive("alpha", alpha)

    def mix(self, batch: Batch, targets: Tensor) -> tuple[Batch, Tensor]:
        kept = draw_beta(self.alpha, self.alpha)
        order = torch.randperm(len(batch))
        mixed = (order != torch.arange(len(order))).to(targets.device, non_blocking=True)
        order = order.to(targets.device, non_blocking=True)
        images = kept * batch.images + (1 - kept) * batch.images.index_select(0, order)
        targets = kept * targets + (1 - kept) * targets.index_select(0, order)
        return dataclasses.replace(batch, images=images, mixed=batch.mixed | mixed), targets


def cut_out(batch: Batch, size: int) -> Batch:
    """Hide a square of side `size` in each image, around a centre drawn uniformly over the image."""
    height, width = batch.images.shape[2:]
    centres = torch.stack([torch.randint(side, (len(batch),)) for side in (height, width)])
    centre_y, centre_x = centres.to(batch.labels.device, non_blocking=True)
    return dataclasses.replace(batch, images=cut_squares(batch.images, centre_y, centre_x, size))


@METHODS.register()
class CutOut(Method):
    """A square of each image is hidden; hard labels."""

    def __init__(self, model: nn.Module, num_classes: int, *, size: int = 16) -> None:
        """
        Args:
            size: side of the square in pixels; 0 is CE. 16 for CIFAR-10, 8 for CIFAR-100, 112 for ImageNet (not
                confirmed).
        """
        super().__init__(model, num_classes)
        self.size = int(self.check_range("size", size, 0))

    def mix(self, batch: Batch, targets: Tensor) -> tuple[Batch, Tensor]:
        return cut_out(batch, self.size), targets


@METHODS.register()
class CutOutLS(LS):
    """CutOut with label smoothing."""

    def __init__(
        self, model: nn.Module, num_classes: int, *, size: int = 16, amount: float = 0.1, convention: str = "all"
    ) -> None:
        """
        Args:
            size: side of the square in pixels; 0 is LS.
            amount: smoothed mass in [0, 1]; 0 is CutOut.
            convention: "all" spreads the mass over all K classes, "k-1" over the wrong classes.
        """
        super().__init__(model, num_classes, amount=amount, convention=convention)
        self.size = int(self.check_range("size", size, 0))

    def mix(self, batch: Batch, targets: Tensor) -> tuple[Batch, Tensor]:
        return cut_out(batch, self.size), targets


@METHODS.register()
class CutOutOLS(Method):
    """CutOut with the soft labels of OLS, updated once per epoch."""

    def __init__(self, model: nn.Module, num_classes: int, *, size: int = 16, hard_weight: float = 0.5) -> None:
        """
        Args:
            size: side of the square in pixels; 0 hides nothing.
            hard_weight: share of the one-hot label in [0, 1]; 1 is CutOut, 0.5 in the paper.
        """
        super().__init__(model, num_classes)
        self.size = int(self.check_range("size", size, 0))
        self.hard_weight = self.check_range("hard_weight", hard_weight, 0, 1)
        self.table = SoftLabelTable(num_classes, self.target_dtype)

    def targets(self, batch: Batch) -> Tensor:
        return self.table.targets(batch.labels, self.hard_weight)

    def mix(self, batch: Batch, targets: Tensor) -> tuple[Batch, Tensor]:
        return cut_out(batch, self.size), targets

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        self.table.observe(outputs.logits, batch.labels, ~batch.mixed)
