"""Reading of image files as uint8 RGB arrays, for classifiers and detectors.

OpenCV decodes, with the same result as PIL but faster; where it might hide a broken file, the stricter PIL decides.
"""

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

# Disable OpenCV's threads: if its pool has run before a fork, the forked loader processes wait for threads that they do
# not have.  Images are read in parallel by processes.
cv2.setNumThreads(0)

# OpenCV's own limit, so that both decoders have the same one.  PIL warns above 89 million pixels and refuses above
# 179 million, which large photographs and scans exceed.
MAX_PIXELS = 2**30
Image.MAX_IMAGE_PIXELS = None
# PIL refuses an image with a text chunk of more than 1 MiB; allow one up to PIL's limit for all text chunks together.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
# Some cameras write a few bytes after the end of the image.
JPEG_TAIL = 256
# EXIF orientation is ignored: boxes refer to the pixels as stored, and PIL ignores it too.
DECODE_FLAGS = {
    1: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}

_TIFF_BITS, _TIFF_MEANING = 0x0102, 0x0106  # TIFF tags: bits per sample; photometric interpretation (0: white is zero)
_UNREADABLE = "cannot read the image {} ({}); restore or remove it"
_DAMAGED = "the image {} is truncated or unreadable ({}); restore or remove it"
_DEEP = ("I", "F")  # how PIL's modes of more than 8 bits begin: I, I;16, I;16B, I;16L, I;16N, F


class ImageError(InputError):
    """An image file cannot be used.

    Attributes:
        reason: the cause, without the file name.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class RangeError(ImageError):
    """The range of an image's values is not stated, so that the value of white is unknown."""


def decode_image(path: str | Path, reduction: int = 1) -> np.ndarray:
    """Read an image file as uint8 (H, W, 3) RGB.

    Grey, palette and CMYK images are converted, 12 and 16 bits are scaled so that white is 255, transparency is
    dropped; only the first frame of an animation is read.

    Args:
        reduction: divide each side by 1, 2, 4 or 8, rounded up; a JPEG is decoded at the reduced size, which is faster.

    Raises:
        ImageError: the file is missing, broken or too large; `RangeError`: its values have no stated range.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a path with a null byte
        reason = _reason(error)
        raise ImageError(f"cannot read the image {path}: {reason}; restore the file", reason) from None
    # OpenCV 4 silently fills the missing part of a truncated file with grey.  JPEG data cannot contain the end marker
    # by chance; without it (and for other formats) PIL decides.
    if data.startswith(JPEG_START) and data.rfind(JPEG_END, -JPEG_TAIL) >= 0:
        image = _decode_jpeg(data, reduction)
        if image is not None:
            return image if reduction == 1 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    with _opened(io.BytesIO(data), path, _DAMAGED) as image:
        pixels = _to_rgb(image, path)
        return np.array(pixels.reduce(reduction) if reduction > 1 else pixels)


def read_header(path: str | Path) -> ImageHeader:
    """Read the header of an image file without decoding its pixels; raise the errors of `decode_image`."""
    return read_header_and_frames(path)[0]


def read_header_and_frames(path: str | Path) -> tuple[ImageHeader, bool]:
    """Return the header as `read_header` does, and whether the file has several frames or pages."""
    found = jpeg_header(_first_bytes(path))
    if found and found.width * found.height <= MAX_PIXELS:
        return found, False
    with _opened(path, path, _UNREADABLE) as image:
        _white(image, path)
        return ImageHeader(*image.size, image.mode, is_turned(image)), is_animated(image)


def _first_bytes(path: str | Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY)  # only three system calls: headers are read by the million
        try:
            return os.read(handle, HEADER_BYTES)
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        reason = _reason(error)
        raise ImageError(_UNREADABLE.format(path, reason), reason) from None


def is_turned(image: Image.Image) -> bool:
    """Whether EXIF asks viewers to rotate or mirror the image; False if the EXIF data is damaged."""
    try:
        if image.format == "TIFF":
            return image.tag_v2.get(ORIENTATION, 1) not in (0, 1)  # type: ignore[attr-defined]
        if "exif" not in image.info:  # otherwise PIL would decode a whole PNG to look for EXIF
            return False
        return image.getexif().get(ORIENTATION, 1) not in (0, 1)
    except Exception:  # PIL's parser raises anything on damaged EXIF, which the readers do not need
        return False


def is_animated(image: Image.Image) -> bool:
    """Whether an opened image has several frames or pages; False if those after the first are damaged."""
    if image.format == "MPO":  # a photograph with its preview or the second view of a stereo pair
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # PIL looks for the second frame, which the readers do not need
        return False


@contextmanager
def _opened(source: str | Path | IO[bytes], path: str | Path, message: str) -> Iterator[Image.Image]:
    """Open an image with PIL; turn anything that PIL raises while it is used into an `ImageError` with `message`."""
    try:
        with Image.open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} exceeds the {MAX_PIXELS:,} pixels that are decoded")
            yield image
    except InputError:
        raise
    # The boundary to foreign files: for damaged ones, PIL raises OSError, SyntaxError, ValueError, struct.error,
    # zlib.error, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError or others, depending on format.
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
    except cv2.error:  # such as an image that is too large: PIL reports it
        return None


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    white = _white(image, path)
    image.load()
    # With this entry, PIL would warn about a palette's transparency, which RGB lacks.
    image.info.pop("transparency", None)
    if not white:
        return image.convert("RGB")
    levels = ((np.arange(white + 1) * 255 + white // 2) // white).astype(np.uint8)
    if image.format == "TIFF" and image.tag_v2.get(_TIFF_MEANING) == 0:  # type: ignore[attr-defined]
        levels = levels[::-1]  # PIL inverts such images only if they have 8 bits
    return Image.fromarray(levels[np.array(image)]).convert("RGB")


def _white(image: Image.Image, path: str | Path) -> int:
    """Return the value of white in an image of more than 8 bits; 0 if it has 8, or if PIL reduces it to 8."""
    if not image.mode.startswith(_DEEP):
        return 0
    if image.mode != "F" and image.format in ("PNG", "PPM", "JPEG2000"):
        return 65535  # PIL scales 9 to 15 bits of PPM and JPEG 2000 to 16; some versions call 16 bits I
    if image.mode.startswith("I;16") and image.format == "TIFF":
        return 2 ** image.tag_v2[_TIFF_BITS][0] - 1  # type: ignore[attr-defined]
    reason = f"the {image.format} mode {image.mode} does not state which value is white"
    raise RangeError(f"cannot read the image {path} ({reason}); convert it to 8 or 16 bits per channel", reason)
