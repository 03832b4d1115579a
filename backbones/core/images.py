"""StatedImage files to uint8 RGB arrays, for classifiers and detectors alike.

OpenCV decodes, as exactly as PIL and faster; where it might hide a broken file, PIL decides, which is strict.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from backbones.core.errors import InputError
from backbones.core.image_header import HEADER_BYTES, ORIENTATION, ImageHeader, jpeg_header

__all__ = [
    "DECODE_FLAGS",
    "ORIENTATION",
    "ImageError",
    "ImageHeader",
    "RangeError",
    "decode_image",
    "is_turned",
    "read_header",
    "read_header_and_frames",
]

# No threads of OpenCV's own, in any process that reads images: a pool that has run before a fork leaves the forked
# loader processes waiting for threads that they do not have.  Images are read in parallel by processes.
cv2.setNumThreads(0)

# OpenCV's own limit, so that both decoders have the same one.  PIL warns from 89 million pixels on and refuses from
# 179 million on, which large photographs and scans have.
MAX_PIXELS = 2**30
Image.MAX_IMAGE_PIXELS = None
# PIL refuses an image for one long text beside the pixels, from 1 MiB on; all texts together keep their limit.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
# Some cameras write a few bytes after the end of the image.
JPEG_TAIL = 256
# Not turned by EXIF: boxes refer to the pixels as stored, and PIL does not turn either.
DECODE_FLAGS = {
    1: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}

_TIFF_BITS, _TIFF_MEANING = 0x0102, 0x0106  # TIFF's tags: bits of a sample; 0: white is zero
_UNREADABLE = "cannot read the image {} ({}); restore or remove it"
_DAMAGED = "the image {} is truncated or unreadable ({}); restore or remove it"
_DEEP = ("I", "F")  # how PIL's modes of more than 8 bits begin: I, I;16, I;16B, I;16L, I;16N, F


class ImageError(InputError):
    """An image file that cannot be used.

    Attributes:
        reason: why, without the name of the file.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class RangeError(ImageError):
    """An image whose values have no stated range, so that no value is white."""


def decode_image(path: str | Path, reduction: int = 1) -> np.ndarray:
    """Read an image file as uint8 (H, W, 3) RGB.

    Grey, palette and CMYK are converted, 12 and 16 bits scaled so that white is 255, transparency is dropped; of an
    animation the first frame is read.

    Args:
        reduction: divide each side by 1, 2, 4 or 8, rounded up; a JPEG is then decoded at that size, in less time.

    Raises:
        ImageError: names a file that is missing, broken or too large; `RangeError` one whose values have no range.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a path with a null byte
        reason = _reason(error)
        raise ImageError(f"cannot read the image {path}: {reason}; restore the file", reason) from None
    # OpenCV 4 fills the missing part of a truncated file with grey and says nothing.  JPEG data cannot hold the end
    # mark by chance; without it (and for other formats) PIL decides.
    if data.startswith(JPEG_START) and data.rfind(JPEG_END, -JPEG_TAIL) >= 0:
        image = _decode_jpeg(data, reduction)
        if image is not None:
            return image if reduction == 1 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    with _opened(io.BytesIO(data), path, _DAMAGED) as image:
        pixels = _to_rgb(image, path)
        return np.array(pixels.reduce(reduction) if reduction > 1 else pixels)


def read_header(path: str | Path) -> ImageHeader:
    """Read the header of an image file without decoding its pixels; raises as `decode_image`."""
    return read_header_and_frames(path)[0]


def read_header_and_frames(path: str | Path) -> tuple[ImageHeader, bool]:
    """As `read_header`, and whether the file has several frames or pages, of which the first is read."""
    found = jpeg_header(_first_bytes(path))
    if found and found.width * found.height <= MAX_PIXELS:
        return found, False
    with _opened(path, path, _UNREADABLE) as image:
        _white(image, path)
        return ImageHeader(*image.size, image.mode, is_turned(image)), is_animated(image)


def _first_bytes(path: str | Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY)  # in three system calls: headers are read by the million
        try:
            return os.read(handle, HEADER_BYTES)
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        reason = _reason(error)
        raise ImageError(_UNREADABLE.format(path, reason), reason) from None


def is_turned(image: Image.Image) -> bool:
    """Whether EXIF asks to turn or mirror the image; False where its EXIF is damaged."""
    try:
        if image.format == "TIFF":
            return image.tag_v2.get(ORIENTATION, 1) not in (0, 1)  # type: ignore[attr-defined]
        if "exif" not in image.info:  # without it PIL would decode a whole PNG to look for one
            return False
        return image.getexif().get(ORIENTATION, 1) not in (0, 1)
    except Exception:  # PIL's parser raises anything at damaged EXIF, which no reader of images needs
        return False


def is_animated(image: Image.Image) -> bool:
    """Whether an opened image has several frames or pages; False where those after the first are damaged."""
    if image.format == "MPO":  # a photograph with its preview or its other eye
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # PIL looks for the second frame, which no reader of images needs
        return False


@contextmanager
def _opened(source: str | Path | IO[bytes], path: str | Path, message: str) -> Iterator[Image.Image]:
    """An image opened by PIL; whatever PIL raises while it is used becomes a `ImageError` with `message`."""
    try:
        with Image.open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} exceeds the {MAX_PIXELS:,} pixels that are decoded")
            yield image
    except InputError:
        raise
    # The boundary to foreign files: at damaged ones PIL raises, by format, OSError, SyntaxError, ValueError,
    # struct.error, zlib.error, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError and others.
    except Exception as error:
        reason = _reason(error)
        raise ImageError(message.format(path, reason), reason) from None


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, (OSError, SyntaxError, ValueError)):
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}"


def _decode_jpeg(data: bytes, reduction: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), DECODE_FLAGS[reduction])
    except cv2.error:  # such as an image that is too large: PIL says so
        return None


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    white = _white(image, path)
    image.load()
    # What makes PIL warn of a palette's transparency, which RGB does not have.
    image.info.pop("transparency", None)
    if not white:
        return image.convert("RGB")
    levels = ((np.arange(white + 1) * 255 + white // 2) // white).astype(np.uint8)
    if image.format == "TIFF" and image.tag_v2.get(_TIFF_MEANING) == 0:  # type: ignore[attr-defined]
        levels = levels[::-1]  # PIL inverts such images of 8 bits alone
    return Image.fromarray(levels[np.array(image)]).convert("RGB")


def _white(image: Image.Image, path: str | Path) -> int:
    """The value of white in an image of more than 8 bits; 0: it has 8, or PIL reduces it to 8 itself."""
    if not image.mode.startswith(_DEEP):
        return 0
    if image.mode != "F" and image.format in ("PNG", "PPM", "JPEG2000"):
        return 65535  # PIL scales PPM and JPEG 2000 of 9 to 15 bits to 16; by version it calls 16 bits I
    if image.mode.startswith("I;16") and image.format == "TIFF":
        return 2 ** image.tag_v2[_TIFF_BITS][0] - 1  # type: ignore[attr-defined]
    reason = f"the {image.format} mode {image.mode} does not state which value is white"
    raise RangeError(f"cannot read the image {path} ({reason}); convert it to 8 or 16 bits a channel", reason)
