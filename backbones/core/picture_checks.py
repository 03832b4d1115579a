"""Looks at every picture file of a data set: is it there, readable, of the stated size, of which colours, turned?

P pictures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from backbones.core.errors import InputError
from backbones.core.findings import ERROR, WARNING, Findings, Kind
from backbones.core.pictures import decode_picture

MISSING = Kind(ERROR, "missing pictures", "restore the files or remove their entries")
UNREADABLE = Kind(ERROR, "unreadable or truncated pictures", "restore the files or remove their entries")
OTHER_SIZE = Kind(ERROR, "pictures of another size than stated", "correct the annotations or restore the files")
GREY = Kind(WARNING, "grey pictures", "they are converted to RGB")
CMYK = Kind(WARNING, "CMYK pictures", "they are converted to RGB")
OTHER_COLOURS = Kind(WARNING, "pictures with a palette, transparency or other colours", "they are converted to RGB")
TURNED = Kind(WARNING, "pictures that EXIF turns", "boxes are taken to be of the pixels as stored, unturned")

_GREY_MODES = ("1", "L", "LA", "I", "F", "I;16")
_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright
_CHUNK = 32  # pictures a task of the pool
_BAR_FROM = 500  # a progress bar for at least as many pictures


class Picture(NamedTuple):
    """A picture file as its annotations state it.

    path "": they name none.  width, height 0: not stated.  key: says where, beside the path; may be "".
    """

    path: str
    width: int
    height: int
    key: str


@dataclass(frozen=True)
class _Seen:
    size: tuple[int, int] = (0, 0)
    mode: str = "RGB"
    turned: bool = False
    problem: Kind | None = None
    reason: str = ""


def check_pictures(pictures: Sequence[Picture], findings: Findings, *, decode: bool, workers: int) -> np.ndarray:
    """Look at every picture, with a progress bar if there are many.

    Args:
        decode: decode each wholly; False reads headers alone, which finds no truncated file.
        workers: threads.

    Returns:
        (P, 2) int64 width and height of each file; 0 where it cannot be read.
    """
    sizes = np.zeros((len(pictures), 2), np.int64)
    chunks = [range(n, min(n + _CHUNK, len(pictures))) for n in range(0, len(pictures), _CHUNK)]
    bar = tqdm(total=len(pictures), unit="picture", disable=None if len(pictures) >= _BAR_FROM else True)
    with ThreadPoolExecutor(workers) as pool, bar:
        looked = pool.map(lambda chunk: [_look(pictures[n].path, decode) for n in chunk], chunks)
        for chunk, seen in zip(chunks, looked, strict=True):
            for n, one in zip(chunk, seen, strict=True):
                sizes[n] = one.size
                _judge(pictures[n], one, findings)
            bar.update(len(chunk))
    return sizes


def default_workers() -> int:
    """Threads that keep the processor and a slow disk busy."""
    return min(32, 4 * (os.cpu_count() or 1))


def _look(path: str, decode: bool) -> _Seen:
    if not path:
        return _Seen()
    try:
        with Image.open(path) as image:
            size, mode, turned = image.size, image.mode, _is_turned(image)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return _Seen(problem=MISSING)
    except Image.UnidentifiedImageError:
        return _Seen(problem=UNREADABLE, reason="not a picture")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what PIL raises, by format
        return _Seen(problem=UNREADABLE, reason=str(error))
    if decode:
        try:
            decode_picture(path)
        except InputError:
            return _Seen(size, mode, turned, UNREADABLE, "truncated or damaged")
    return _Seen(size, mode, turned)


def _is_turned(image: Image.Image) -> bool:
    if "exif" not in image.info:  # without it PIL would decode a whole PNG to look for one
        return False
    try:
        return image.getexif().get(_ORIENTATION, 1) not in (0, 1)
    except Exception:  # PIL's parser raises anything at damaged EXIF, which no reader of pictures needs
        return False


def _judge(picture: Picture, seen: _Seen, findings: Findings) -> None:
    where = f"{picture.path} ({picture.key})" if picture.key else picture.path
    if seen.problem:
        findings.add(seen.problem, f"{where}: {seen.reason}" if seen.reason else where)
    if seen.size == (0, 0):
        return
    if picture.width and (picture.width, picture.height) != seen.size:
        findings.add(OTHER_SIZE, f"{where}: stated {picture.width}x{picture.height}, is {seen.size[0]}x{seen.size[1]}")
    if seen.mode != "RGB":
        findings.add(GREY if seen.mode in _GREY_MODES else CMYK if seen.mode == "CMYK" else OTHER_COLOURS, where)
    if seen.turned:
        findings.add(TURNED, where)
