"""Croppings of training images.  Every random draw comes from a given `rng`.

A cropping returns the pixels and the rectangle of the source image that they show (x, y, width, height in source
pixels; it can be fractional or reach beyond the image), so that objectness and boxes can be computed exactly.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from backbones.core.errors import InputError
from backbones.data.geometry import Crop, sample_crop
from backbones.data.images import resize_crop

Pair = tuple[float, float]


class Cropping(Protocol):
    """Random rectangles of an image, resized to a fixed size."""

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> tuple[Tensor, Crop]:
        """Return (3, size, size) uint8 pixels of a uint8 (H, W, 3) image, and the rectangle of it that they show."""
        ...


class RandomResizedCrop:
    """A crop of random area and aspect ratio, resized: torchvision's RandomResizedCrop.

    Args:
        area: lower and upper share of the image's area, in (0, 1].
        ratio: lower and upper width / height of the crop in the source.
    """

    def __init__(self, size: int, area: Pair, ratio: Pair) -> None:
        if not 0 < area[0] <= area[1] <= 1:
            raise InputError(f"DATA.CROP_AREA {list(area)}: must be a range within (0, 1]")
        if not 0 < ratio[0] <= ratio[1]:
            raise InputError(f"DATA.CROP_RATIO {list(ratio)}: must be a range of positive numbers")
        self.size, self.area, self.ratio = size, area, ratio

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> tuple[Tensor, Crop]:
        crop = sample_crop(rng, image.shape[1], image.shape[0], self.area, self.ratio)
        return resize_crop(image, crop, self.size, self.size), crop


class PadCrop:
    """`pad` black pixels on each side, then a uniformly placed crop: torchvision's RandomCrop(size, padding=pad).

    Black, not the mean: the code of OLS and ILS has `RandomCrop(32, padding=4)` before `ToTensor`, so that the border
    is -mean / std after normalisation.  Padding counts as background.
    """

    def __init__(self, size: int, pad: int) -> None:
        self.size, self.pad = size, pad

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> tuple[Tensor, Crop]:
        height, width = image.shape[:2]
        spare_x, spare_y = width + 2 * self.pad - self.size, height + 2 * self.pad - self.size
        if min(spare_x, spare_y) < 0:
            raise InputError(
                f"an image of {width} x {height} with DATA.PAD {self.pad} holds no crop of IMAGE_SIZE {self.size}; "
                "raise PAD, lower IMAGE_SIZE, or choose another DATA.AUGMENTATION"
            )
        x, y = (int(rng.random() * (spare + 1)) - self.pad for spare in (spare_x, spare_y))
        pixels = np.zeros((3, self.size, self.size), np.uint8)
        left, top = max(-x, 0), max(-y, 0)
        seen = image[max(y, 0) : max(y + self.size, 0), max(x, 0) : max(x + self.size, 0)]
        pixels[:, top : top + seen.shape[0], left : left + seen.shape[1]] = seen.transpose(2, 0, 1)
        return torch.from_numpy(pixels), (x, y, self.size, self.size)


class ResizeCrop:
    """The image resized to `resize` x `resize`, then a uniformly placed crop (OLS's fine-grained code)."""

    def __init__(self, size: int, resize: int) -> None:
        if size > resize:
            raise InputError(f"DATA.IMAGE_SIZE {size} exceeds DATA.RESIZE {resize}; raise the second")
        self.size, self.resize = size, resize

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> tuple[Tensor, Crop]:
        height, width = image.shape[:2]
        x, y = (int(rng.random() * (self.resize - self.size + 1)) for _ in range(2))
        whole = resize_crop(image, (0, 0, width, height), self.resize, self.resize)
        scale_x, scale_y = width / self.resize, height / self.resize
        crop = (x * scale_x, y * scale_y, self.size * scale_x, self.size * scale_y)
        return whole[:, y : y + self.size, x : x + self.size], crop


class WholeImage:
    """The whole image, resized to size x size if necessary; no random draws."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> tuple[Tensor, Crop]:
        crop = (0, 0, image.shape[1], image.shape[0])
        return resize_crop(image, crop, self.size, self.size), crop


def build_cropping(name: str, size: int, *, area: Pair, ratio: Pair, pad: int, resize: int) -> Cropping:
    """Build the cropping named by DATA.AUGMENTATION, from the arguments that apply to it."""
    if name == "pad_crop":
        return PadCrop(size, pad)
    if name == "resize_crop":
        return ResizeCrop(size, resize)
    if name == "none":
        return WholeImage(size)
    return RandomResizedCrop(size, area, ratio)
