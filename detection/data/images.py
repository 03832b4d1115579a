"""Load and resize images for the detectors.

An image much larger than the network's input is decoded at a half, quarter or eighth of its size.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.core.errors import InputError
from backbones.core.images import DECODE_FLAGS, decode_image


def resized_size(width: int, height: int, short_side: int, longest_side: int) -> tuple[int, int]:
    """Return (width, height) with shorter side `short_side`, or with longer side `longest_side` if that is smaller.

    Same as detectron2's ResizeShortestEdge, including its rounding.
    """
    scale = short_side / min(width, height)
    if scale * max(width, height) > longest_side:
        scale = longest_side / max(width, height)
    return max(int(width * scale + 0.5), 1), max(int(height * scale + 0.5), 1)


def load_resized(path: str | Path, size: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Load an image file as uint8 (3, H, W) RGB.

    Args:
        size: (width, height) that the annotations state for the file.
        target: (W, H) of the result.

    Raises:
        InputError: the file is unreadable, truncated or of another size; the message names it.
    """
    reduction = _reduction(size, target)
    image = decode_image(path, reduction)
    expected = tuple(-(-side // reduction) for side in size)
    if image.shape[1::-1] != expected:
        raise InputError(f"the image {path} is {image.shape[1]}x{image.shape[0]}, its annotations state {size}")
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    if image.shape[1::-1] != target:
        pixels = F.interpolate(pixels[None], size=target[::-1], mode="bilinear", antialias=True, align_corners=False)[0]
    return pixels.contiguous()


def _reduction(size: tuple[int, int], target: tuple[int, int]) -> int:
    """Return the largest reduction that leaves every side at least as long as in `target`."""
    fitting = [r for r in DECODE_FLAGS if size[0] >= r * target[0] and size[1] >= r * target[1]]
    return max(fitting, default=1)
