"""Picture files to uint8 RGB arrays, and their resizing: the fast path of loading.

OpenCV decodes and torch resizes: both agree with PIL (the decoder exactly, the antialiased bilinear filter within
rounding), which `tests/test_loader.py` and `benchmarks/loader.py` hold them to.
"""

import io
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from backbones.core.errors import InputError

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
# Some cameras write a few bytes after the end of the image.
JPEG_TAIL = 256
# Not turned by EXIF: boxes refer to the pixels as stored, and PIL does not turn either.
DECODE_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode_jpeg(path: str | Path) -> np.ndarray:
    """A picture file as uint8 (H, W, 3) RGB; grey and CMYK are converted.  `InputError` names a broken file."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"cannot read the picture {path}: {error.strerror}; restore the file") from None
    # OpenCV 4 fills the missing part of a truncated file with grey and says nothing.  JPEG data cannot hold the end
    # mark by chance; without it (and for other formats) PIL decides, which is strict.
    if data.startswith(JPEG_START) and data.rfind(JPEG_END, -JPEG_TAIL) >= 0:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), DECODE_FLAGS)
        if image is not None:
            return image
    return _decode_strictly(data, path)


def _decode_strictly(data: bytes, path: str | Path) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises, by format and damage
        reason = str(error) if "BytesIO" not in str(error) else "not a picture"
        raise InputError(f"the picture {path} is truncated or unreadable ({reason}); restore or remove it") from None


def read_header(path: str | Path) -> tuple[int, int, str]:
    """Width, height and PIL mode ("RGB", "L", "CMYK" ...) from the header alone, without decoding."""
    try:
        with Image.open(path) as image:
            return *image.size, image.mode
    except OSError as error:
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else error.strerror
        raise InputError(f"cannot read the picture {path} ({reason}); restore or remove it") from None


def resize_crop(image: np.ndarray, crop: tuple[int, int, int, int], width: int, height: int) -> Tensor:
    """The crop (x, y, w, h) of a uint8 (H, W, 3) picture, resized to uint8 (3, height, width).

    Bilinear with antialiasing: as `PIL.Image.crop(...).resize(..., BILINEAR)` up to rounding, in a third of the time.
    """
    x, y, w, h = crop
    pixels = torch.from_numpy(image[y : y + h, x : x + w]).permute(2, 0, 1)
    if (w, h) == (width, height):
        return pixels.contiguous()
    resized = F.interpolate(pixels[None], size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return resized[0].contiguous()


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 to (x / 255 - mean) / std in the dtype of `mean`.

    mean, std: (3,) RGB in [0, 1], floating, on the device of `images`.
    One multiplication that converts on the way and one addition in place: a quarter of the time of the plain formula.
    """
    scale = 1 / (255 * std)
    return (images * scale[:, None, None]).add_((-mean / std)[:, None, None])
