"""Checks of every image file of a data set: exists, is readable, has the stated size, colours and orientation.

Letters: P images.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backbones.core.bars import progress_bar
from backbones.core.findings import ERROR, WARNING, Findings, Kind
from backbones.core.images import ImageError, ImageHeader, RangeError, decode_image, read_header_and_frames
from backbones.core.machine import count_cores

MISSING = Kind(ERROR, "missing images", "restore the files or remove their entries")
UNREADABLE = Kind(ERROR, "unreadable or truncated images", "restore the files or remove their entries")
NO_RANGE = Kind(ERROR, "images whose values have no stated range", "convert them to 8 or 16 bits a channel")
OTHER_SIZE = Kind(ERROR, "images of another size than stated", "correct the annotations or restore the files")
GREY = Kind(WARNING, "grey images", "they are converted to RGB")
DEEP = Kind(WARNING, "grey images of more than 8 bits", "they are scaled to 8 bits and converted to RGB")
CMYK = Kind(WARNING, "CMYK images", "they are converted to RGB")
OTHER_COLOURS = Kind(WARNING, "images with a palette, transparency or other colours", "they are converted to RGB")
TURNED = Kind(WARNING, "images that EXIF turns", "boxes are assumed to be in pixels as read: not turned, except TIFF")
FRAMES = Kind(WARNING, "images of several frames", "the first frame is read")

_COLOURS = {"1": GREY, "L": GREY, "LA": GREY, "La": GREY, "CMYK": CMYK}  # by PIL's mode
_CHUNK = 32  # images per task of the pool
_BAR_FROM = 500  # number of images from which a progress bar is shown


class StatedImage(NamedTuple):
    """An image file as stated by its annotations.

    path: "" if they name no file.  width, height: 0 if not stated.  key: shown after the path in findings; can be "".
    """

    path: str
    width: int
    height: int
    key: str


@dataclass(frozen=True)
class _Seen:
    header: ImageHeader | None = None
    animated: bool = False
    problem: Kind | None = None
    reason: str = ""


def check_images(images: Sequence[StatedImage], findings: Findings, *, decode: bool, workers: int) -> np.ndarray:
    """Check every image, with a progress bar if there are many.

    Args:
        decode: decode each image completely; False reads headers only, which misses truncated files.
        workers: number of threads.

    Returns:
        (P, 2) int64 width and height of each file; 0 if it cannot be read.
    """
    sizes = np.zeros((len(images), 2), np.int64)
    chunks = [range(n, min(n + _CHUNK, len(images))) for n in range(0, len(images), _CHUNK)]
    bar = progress_bar(total=len(images), unit="image", disable=None if len(images) >= _BAR_FROM else True)
    with ThreadPoolExecutor(workers) as pool, bar:
        looked = pool.map(lambda chunk: [_look(images[n].path, decode) for n in chunk], chunks)
        for chunk, seen in zip(chunks, looked, strict=True):
            for n, one in zip(chunk, seen, strict=True):
                sizes[n] = one.header[:2] if one.header else 0
                _judge(images[n], one, findings)
            bar.update(len(chunk))
    return sizes


def default_workers() -> int:
    """Return a number of threads that keeps the processor and a slow disk busy."""
    return min(32, 4 * count_cores())


def _look(path: str, decode: bool) -> _Seen:
    """Read a file with the functions that training uses, so that the check and training agree."""
    if not path:
        return _Seen()
    header, animated = None, False
    try:
        header, animated = read_header_and_frames(path)
        if decode:
            decode_image(path)
    except ImageError as error:
        problem = NO_RANGE if isinstance(error, RangeError) else UNREADABLE if os.path.isfile(path) else MISSING
        return _Seen(header, animated, problem, error.reason)
    return _Seen(header, animated)


def _judge(image: StatedImage, seen: _Seen, findings: Findings) -> None:
    where = f"{image.path} ({image.key})" if image.key else image.path
    if seen.problem:
        findings.add(seen.problem, f"{where}: {seen.reason}" if seen.reason else where)
    if seen.header is None:
        return
    size, mode = seen.header[:2], seen.header.mode
    if image.width and (image.width, image.height) != size:
        findings.add(OTHER_SIZE, f"{where}: stated {image.width}x{image.height}, is {size[0]}x{size[1]}")
    if mode != "RGB":
        findings.add(DEEP if mode.startswith("I") else _COLOURS.get(mode, OTHER_COLOURS), where)
    if seen.header.turned:
        findings.add(TURNED, where)
    if seen.animated:
        findings.add(FRAMES, where)
