"""Picture files to uint8 RGB arrays, for classifiers and detectors alike.

OpenCV decodes, as exactly as PIL and faster; where it might hide a broken file, PIL decides, which is strict.
"""

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from backbones.core.errors import InputError

# No threads of OpenCV's own, in any process that reads pictures: a pool that has run before a fork leaves the forked
# loader processes waiting for threads that they do not have.  Pictures are read in parallel by processes.
cv2.setNumThreads(0)

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

ORIENTATION = 0x0112  # EXIF's tag; 1 is upright


class ImageHeader(NamedTuple):
    """What the first bytes of an image file say.

    Attributes:
        width, height: in pixels, as stored.
        mode: of PIL, such as "RGB", "L", "CMYK", "I;16".
        turned: EXIF asks viewers to turn or mirror the image, which no reader here does.
    """

    width: int
    height: int
    mode: str
    turned: bool = False


def decode_picture(path: str | Path, reduction: int = 1) -> np.ndarray:
    """A picture file as uint8 (H, W, 3) RGB; grey and CMYK are converted.  `InputError` names a broken file.

    Args:
        reduction: divide each side by 1, 2, 4 or 8, rounded up; a JPEG is then decoded at that size, in less time.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"cannot read the picture {path}: {error.strerror}; restore the file") from None
    # OpenCV 4 fills the missing part of a truncated file with grey and says nothing.  JPEG data cannot hold the end
    # mark by chance; without it (and for other formats) PIL decides.
    if data.startswith(JPEG_START) and data.rfind(JPEG_END, -JPEG_TAIL) >= 0:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), DECODE_FLAGS[reduction])
        if image is not None:
            return image if reduction == 1 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return _decode_strictly(data, reduction, path)


def read_header(path: str | Path) -> ImageHeader:
    """The header of an image file, without decoding its pixels; `InputError` names a file that has none."""
    try:
        with Image.open(path) as image:
            return ImageHeader(*image.size, image.mode, is_turned(image))
    except Image.UnidentifiedImageError:
        raise InputError(f"cannot read the picture {path} (not a picture); restore or remove it") from None
    # What PIL raises, by format and damage: an image that is too large, a broken chunk, a short file.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the picture {path} ({reason}); restore or remove it") from None


def is_turned(image: Image.Image) -> bool:
    """Whether EXIF asks to turn or mirror the image; False where its EXIF is damaged."""
    if "exif" not in image.info:  # without it PIL would decode a whole PNG to look for one
        return False
    try:
        return image.getexif().get(ORIENTATION, 1) not in (0, 1)
    except Exception:  # PIL's parser raises anything at damaged EXIF, which no reader of images needs
        return False


def _decode_strictly(data: bytes, reduction: int, path: str | Path) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = image.convert("RGB")
            return np.array(pixels.reduce(reduction) if reduction > 1 else pixels)
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises, by format and damage
        reason = str(error) if "BytesIO" not in str(error) else "not a picture"
        raise InputError(f"the picture {path} is truncated or unreadable ({reason}); restore or remove it") from None
