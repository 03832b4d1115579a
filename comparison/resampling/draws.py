"""Draws: the numbers of one file of per-image data on resampled images, kept beside it.

The resamples depend only on the number of images, the number of resamples and the seed, and the images of a file are
sorted: the draws of a row do not depend on the other rows of a table, and draws of two rows on the same images are
paired, whether they were computed now or read.  `DRAWS_FILES` names the file beside each file of data.  It holds

    key: a hash of the data, the number of resamples, the first resample (hence the seed) and VERSION
    names (M,), numbers (M, 1 + R): the numbers on the original images, then on every resample

A file with another key is replaced.  The file only saves time: it can be deleted, and without permission to write it
everything is computed again.

Letters: R resamples, I images, M numbers.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import fingerprint, save_atomic
from backbones.core.matches import MATCHES_FILE, VOC_MATCHES_FILE, Matches
from backbones.core.per_image import PER_IMAGE_FILE, ImageGroup
from comparison.resampling.per_image import group_numbers
from comparison.resampling.voc import voc_summary
from comparison.resampling.weighted import summary

DRAWS_FILE = "draws.npz"
DRAWS_FILES = {MATCHES_FILE: DRAWS_FILE, PER_IMAGE_FILE: DRAWS_FILE, VOC_MATCHES_FILE: "draws_voc.npz"}
VERSION = 1  # of the numbers and of the file: raise it when either changes
KEPT = 4  # numbers of images whose resamples are kept in memory, 50 MB each for 1,000 resamples of 50,000 images
_ROWS = 100  # resamples drawn at a time
Drawn = tuple[dict[str, float], dict[str, np.ndarray]]


def resample_images(images: int, *, resamples: int, seed: int) -> np.ndarray:
    """Return (R, I) float64, the number of times that each image was drawn; a pure function of its arguments."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)


@lru_cache(KEPT)
def count_images(images: int, resamples: int, seed: int) -> np.ndarray:
    """Return (1 + R, I) uint8, read-only: every image once, then the resamples of `resample_images`.

    uint8 is enough: of up to 255 images, none is drawn more often than that; of more, a count of 256 never occurs.
    """
    rng, share = np.random.default_rng(seed), np.full(images, 1 / images)
    counts = np.ones((1 + resamples, images), dtype=np.uint8)
    for at in range(1, 1 + resamples, _ROWS):
        drawn = rng.multinomial(images, share, size=min(_ROWS, 1 + resamples - at))
        assert drawn.max() <= np.iinfo(np.uint8).max
        counts[at : at + _ROWS] = drawn
    counts.setflags(write=False)
    return counts


def draw(matches: Matches, *, resamples: int, seed: int) -> Drawn:
    """Return the numbers on the original images (name -> float) and on the resamples (name -> (R,)).

    They are read from draws.npz if it has them, and otherwise computed and written there.
    """
    return _draw_matches(matches, summary, resamples, seed)


def draw_voc(matches: Matches, *, resamples: int, seed: int) -> Drawn:
    """Return the same of matches_voc.npz."""
    return _draw_matches(matches, voc_summary, resamples, seed)


def draw_per_image(groups: Sequence[ImageGroup], where: Path, *, resamples: int, seed: int) -> Drawn:
    """Return the same of per_image.npz, whose path is `where`."""

    def compute() -> dict[str, np.ndarray]:
        return group_numbers(groups, lambda images: count_images(images, resamples, seed))

    def key() -> str:
        first = [resample_images(len(group.images), resamples=1, seed=seed) for group in groups]
        named = [
            (group.name, group.identity, name, type(number).__name__, *vars(number).values())
            for group in groups
            for name, number in group.numbers.items()
        ]
        return fingerprint(_settings(resamples, seed), *first, *(part for parts in named for part in parts))

    return _split(keep(_file_of(where), key, compute, 1 + resamples))


def _draw_matches(
    matches: Matches, compute: Callable[[Matches, np.ndarray], dict[str, np.ndarray]], resamples: int, seed: int
) -> Drawn:
    images = len(matches.image_ids)

    def numbers() -> dict[str, np.ndarray]:
        weights = resample_images(images, resamples=resamples, seed=seed)
        return compute(matches, np.concatenate([np.ones((1, images)), weights]))

    def key() -> str:
        return key_of(matches, "", resamples, seed)

    return _split(keep(_file_of(Path(matches.where)), key, numbers, 1 + resamples))


def key_of(matches: Matches, what: str, resamples: int, seed: int, *, with_details: bool = False) -> str:
    """Hash matches and the resamples, as the key of numbers called `what`.

    with_details: also the arrays that only diagnoses need.
    """
    first = resample_images(len(matches.image_ids), resamples=1, seed=seed)
    details = matches.details_digest if with_details else ""
    return fingerprint(what + _settings(resamples, seed), first, matches.digest, details)


# ---- the file -----------------------------------------------------------------------------------------------------


def _settings(resamples: int, seed: int) -> str:
    """Return the part of a key that is not data; the first resample also tells another generator of a later numpy."""
    return f"{VERSION} {resamples} {seed}"


def _file_of(data: Path) -> Path | None:
    return data.with_name(DRAWS_FILES[data.name]) if data.name in DRAWS_FILES and data.is_file() else None


def _split(numbers: dict[str, np.ndarray]) -> Drawn:
    return {n: float(value[0]) for n, value in numbers.items()}, {n: value[1:] for n, value in numbers.items()}


def keep(
    file: Path | None, make_key: Callable[[], str], compute: Callable[[], dict[str, np.ndarray]], columns: int
) -> dict[str, np.ndarray]:
    """Return name -> (columns,): read from the file if it has this key, or else computed and written there.

    file: None: computed and not written.
    """
    key = make_key() if file else ""
    numbers = _load(file, key, columns) if file else None
    if numbers is None:
        numbers = compute()
        if file:
            _save(file, key, numbers)
    return numbers


def _load(path: Path, key: str, columns: int) -> dict[str, np.ndarray] | None:
    """Read the numbers with this key; None if there are none, or the file is damaged, for it can be written again."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            stored, names, numbers = str(file["key"]), file["names"].tolist(), file["numbers"]
    except Exception:  # zipfile, numpy and zlib raise errors of their own for a damaged file
        return None
    right = stored == key and numbers.shape == (len(names), columns) and numbers.dtype == np.float64
    return dict(zip(names, numbers, strict=True)) if right else None


def _save(path: Path, key: str, numbers: dict[str, np.ndarray]) -> None:
    arrays: dict[str, Any] = {
        "key": np.array(key),
        "names": np.array(list(numbers)),
        "numbers": np.stack(list(numbers.values())),
    }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)

    with suppress(InputError):  # the folder may be read-only, or the disk full: the numbers are known all the same
        save_atomic(path, write, arrays)
