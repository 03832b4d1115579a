"""The batch that goes from the loader through the method to the model.  B batch, M boxes, H, W pixels."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """Images with labels; the optional fields are filled for whoever needs them.

    images: (B, 3, H, W) RGB, uint8 from the loader, float once normalised.
    labels: (B,) int64.
    index: (B,) int64, number of the sample in its data set.
    objectness: (B,) float32 in [0, 1], share of the image that objects of its class cover.
    boxes: (B, M, 4) float32 x0, y0, x1, y1, half-open, in pixels of `images`; rows beyond `box_count` are zero, and so
        are boxes that a crop left outside.
    mixed: (B,) bool, samples that hold a second image (CutMix); all False by default.
    box_count: (B,) int64, valid rows of `boxes`.
    objectness_full: (B,) float32, the same share of the whole source image (evaluation only).
    is_context: (B,) bool, images whose every object is painted over (ALS+Context).
    second_view: (B, 3, H, W) as `images`, the same samples under another augmentation.
    teacher_logits: (B, K) float, what a teacher says of the samples; a constant for the gradient.
    """

    images: Tensor
    labels: Tensor
    index: Tensor | None = None
    objectness: Tensor | None = None
    boxes: Tensor | None = None
    mixed: Tensor = None  # type: ignore[assignment]  # filled below
    box_count: Tensor | None = None
    objectness_full: Tensor | None = None
    is_context: Tensor | None = None
    second_view: Tensor | None = None
    teacher_logits: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mixed is None:
            self.mixed = torch.zeros(len(self.labels), dtype=torch.bool, device=self.labels.device)

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The batch with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory (the loader calls it), from where copies to a GPU do not block."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        filled = {name: value for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(self, **{name: function(value) for name, value in filled.items()})
