"""Draws: the 12 numbers of one row on resampled images, kept in draws.npz beside its matches.npz.

The resamples depend only on the number of images, the number of resamples and the seed, and the images of matches are
sorted by id: the draws of a row do not depend on the other rows of a table, and draws of two rows on the same images
are paired, whether they were computed now or read.  draws.npz holds

    key: a hash of the matches, the number of resamples, the first resample (hence the seed) and VERSION
    names (M,), numbers (M, 1 + R): the numbers on the original images, then on every resample

A file with another key is replaced.  The file only saves time: it can be deleted, and without permission to write it
everything is computed again.
"""

from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import fingerprint, save_atomic
from backbones.core.matches import MATCHES_FILE, Matches
from comparison.resampling.weighted import summary

DRAWS_FILE = "draws.npz"
VERSION = 1  # of the numbers and of the file: raise it when either changes


def resample_images(images: int, *, resamples: int, seed: int) -> np.ndarray:
    """Return (R, I) float64, the number of times that each image was drawn; a pure function of its arguments."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)


def draw(matches: Matches, *, resamples: int, seed: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the numbers on the original images (name -> float) and on the resamples (name -> (R,)).

    They are read from draws.npz if it has them, and otherwise computed and written there.
    """
    file = Path(matches.where).with_name(DRAWS_FILE) if Path(matches.where).name == MATCHES_FILE else None
    key = _key(matches, resamples, seed) if file else ""
    numbers = _load(file, key, resamples) if file else None
    if numbers is None:
        numbers = _compute(matches, resamples, seed)
        if file and Path(matches.where).is_file():
            _save(file, key, numbers)
    return {n: float(value[0]) for n, value in numbers.items()}, {n: value[1:] for n, value in numbers.items()}


def _compute(matches: Matches, resamples: int, seed: int) -> dict[str, np.ndarray]:
    images = len(matches.image_ids)
    weights = resample_images(images, resamples=resamples, seed=seed)
    return summary(matches, np.concatenate([np.ones((1, images)), weights]))


def _key(matches: Matches, resamples: int, seed: int) -> str:
    """Hash all that the numbers depend on; the first resample also tells another generator of a later numpy."""
    first = resample_images(len(matches.image_ids), resamples=1, seed=seed)
    parts = [getattr(matches, field.name) for field in fields(matches) if field.name != "where"]
    known = [part if isinstance(part, np.ndarray) else repr(part) for part in parts]
    return fingerprint(f"{VERSION} {resamples} {seed}", first, *known)


def _load(path: Path, key: str, resamples: int) -> dict[str, np.ndarray] | None:
    """Read the numbers with this key; None if there are none, or the file is damaged, for it can be written again."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            stored, names, numbers = str(file["key"]), file["names"].tolist(), file["numbers"]
    except Exception:  # zipfile, numpy and zlib raise errors of their own for a damaged file
        return None
    right = stored == key and numbers.shape == (len(names), 1 + resamples) and numbers.dtype == np.float64
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
