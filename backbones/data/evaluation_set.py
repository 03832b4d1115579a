"""Evaluation data set: samples as deterministic tensors.  Images stay uint8; they are normalised on the device."""

from collections.abc import Callable

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from backbones.core.errors import InputError
from backbones.data.geometry import Crop
from backbones.data.images import resize_crop
from backbones.data.items import Item
from backbones.data.samples import Samples

Cover = Callable[[np.ndarray, np.ndarray], None]  # (H, W, 3) uint8 and its (m, 4) boxes; changes the first in place


class EvaluationSet(Dataset):
    """Every sample as it is evaluated: resized, then centre-cropped, together with its boxes.

    Args:
        resize: length of the shorter side in pixels; 0: unchanged.
        crop: side of the centre crop in pixels; 0: none.
        stretch: resize both sides to `resize` pixels, ignoring the ratio (localisation; OLS's fine-grained data).
        cover: covers the content of the boxes in the source image, in place (`backbones.measuring.context`).
        with_objectness: fill `objectness` (of the evaluated pixels) and `objectness_full` (of the source image).
    """

    def __init__(
        self,
        samples: Samples,
        *,
        resize: int = 0,
        crop: int = 0,
        stretch: bool = False,
        cover: Cover | None = None,
        with_objectness: bool = False,
    ) -> None:
        if with_objectness:
            samples.require_boxes()
        self.samples, self.resize, self.crop, self.stretch = samples, resize, crop, stretch
        self.cover = cover
        self.needs = frozenset({"boxes"} | ({"objectness", "objectness_full"} if with_objectness else set()))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        image = self.samples.load_image(index)
        boxes = self.samples.boxes_of(index)
        if self.cover is not None:
            self.cover(image, boxes)
        pixels, seen = self._evaluated_pixels(image, self.samples.paths[index])
        label, size = int(self.samples.labels[index]), (image.shape[1], image.shape[0])
        return Item(pixels, label, index, self.needs, boxes, seen, False, size)

    def _evaluated_pixels(self, image: np.ndarray, path: str) -> tuple[Tensor, Crop]:
        """Return the pixels and the part of the source image that they show (x, y, width, height, fractional)."""
        height, width = image.shape[:2]
        new_width, new_height = self._resized(width, height)
        pixels = resize_crop(image, (0, 0, width, height), new_width, new_height)
        side_x, side_y = (self.crop, self.crop) if self.crop else (new_width, new_height)
        if side_x > new_width or side_y > new_height:
            raise InputError(
                f"{path} has {new_width} x {new_height} pixels, less than the centre crop of {self.crop}; "
                "raise DATA.EVAL_RESIZE or lower DATA.EVAL_CROP"
            )
        x, y = round((new_width - side_x) / 2), round((new_height - side_y) / 2)  # as torchvision rounds
        scale_x, scale_y = width / new_width, height / new_height
        seen = (x * scale_x, y * scale_y, side_x * scale_x, side_y * scale_y)
        return pixels[:, y : y + side_y, x : x + side_x], seen

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if not self.resize:
            return width, height
        if self.stretch:
            return self.resize, self.resize
        # As torchvision: the longer side is rounded down.
        short = min(width, height)
        return int(self.resize * width / short), int(self.resize * height / short)
