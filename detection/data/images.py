"""Pictures of the detectors: header, decoding, resizing.

Like backbones/data/images.py (which this package may not import), with what detectors need: a
picture much larger than the network's input is decoded at a half, quarter or eighth of its size.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from backbones.core.errors import InputError

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
# Some cameras write a few bytes after the end of the image.
_JPEG_TAIL = 256
# Boxes refer to the pixels as they are stored: EXIF does not turn the picture.
_FLAGS = {
    1: cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}


def read_header(path: str | Path) -> tuple[int, int, str, int]:
    """(width, height, PIL mode such as "RGB" or "L", bytes of the file), without decoding."""
    try:
        with Image.open(path) as image:
            return *image.size, image.mode, os.path.getsize(path)
    except OSError as error:
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else error.strerror
        raise InputError(f"cannot read the picture {path} ({reason}); restore the file") from None


def resized_size(width: int, height: int, short_side: int, longest_side: int) -> tuple[int, int]:
    """(width, height) with the shorter side at `short_side`, unless the longer one would pass `longest_side`.

    detectron2's ResizeShortestEdge, with its rounding.
    """
    scale = short_side / min(width, height)
    if scale * max(width, height) > longest_side:
        scale = longest_side / max(width, height)
    return max(int(width * scale + 0.5), 1), max(int(height * scale + 0.5), 1)


def load_resized(path: str | Path, size: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """A picture file as uint8 (3, H, W) RGB.

    Args:
        size: (width, height) that the annotations state for the file.
        target: (W, H) wanted.

    Raises:
        InputError: names a file that is unreadable, truncated or of another size.
    """
    reduction = _reduction(size, target)
    image = decode(path, reduction)
    expected = tuple(-(-side // reduction) for side in size)
    if image.shape[1::-1] != expected:
        raise InputError(f"the picture {path} is {image.shape[1]}x{image.shape[0]}, its annotations say {size}")
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    if image.shape[1::-1] != target:
        pixels = F.interpolate(pixels[None], size=target[::-1], mode="bilinear", antialias=True, align_corners=False)[0]
    return pixels.contiguous()


def decode(path: str | Path, reduction: int = 1) -> np.ndarray:
    """uint8 (H, W, 3) RGB, each side divided by `reduction` (1, 2, 4 or 8) and rounded up."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the picture {path}: {error.strerror}; restore the file") from None
    # OpenCV fills the missing part of a truncated JPEG with grey and says nothing; the end mark
    # cannot stand in its data by chance.  Everything else is left to PIL, which is strict.
    if data.startswith(_JPEG_START) and data.rfind(_JPEG_END, -_JPEG_TAIL) >= 0:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[reduction])
        if image is not None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            pixels = picture.convert("RGB")
            return np.array(pixels.reduce(reduction) if reduction > 1 else pixels)
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises, by format and damage
        reason = "not a picture" if "BytesIO" in str(error) else error
        raise InputError(f"the picture {path} is truncated or unreadable ({reason}); restore or remove it") from None


def _reduction(size: tuple[int, int], target: tuple[int, int]) -> int:
    """The largest reduction that leaves every side at least as long as wanted."""
    fitting = [r for r in _FLAGS if size[0] >= r * target[0] and size[1] >= r * target[1]]
    return max(fitting, default=1)
