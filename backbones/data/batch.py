"""The batch that passes from the loader through the method to the model.

Letters: B batch, K classes, M boxes, H, W pixels.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """Images with labels; the optional fields are filled on demand.

    images: (B, 3, H, W) RGB, uint8 from the loader, float once normalised.
    labels: (B,) int64.
    index: (B,) int64, number of the sample in its data set.
    objectness: (B,) float32 in [0, 1], share of the image that is covered by objects of its class.
    boxes: (B, M, 4) float32 x0, y0, x1, y1, half-open, in pixels of `images`; rows beyond `box_count` are zero, as are
        boxes outside the crop.
    mixed: (B,) bool, samples that hold a second image (CutMix); all False by default.
    box_count: (B,) int64, valid rows of `boxes`.
    objectness_full: (B,) float32, the same share for the whole source image (evaluation only).
    is_context: (B,) bool, images in which every object is painted over (ALS+Context).
    second_view: (B, 3, H, W) as `images`, the same samples under another augmentation.
    teacher_logits: (B, K) float, logits of a teacher for the samples; constant with respect to the gradient.
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
        """Return the batch with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, from which copies to a GPU do not block; called by the loader."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        filled = {name: value for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(self, **{name: function(value) for name, value in filled.items()})
