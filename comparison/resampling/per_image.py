"""Numbers of a classifier on resampled images, from its values per image (`backbones.core.per_image`).

A number of a resample is that of a data set where every image is repeated as often as it was drawn.

Letters: R resamples, n images, L levels, B bytes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backbones.core.per_image import BestShare, Binned, ImageGroup, Mean, Number

BLOCK = 4_000_000  # weights in float64 at a time: 32 MB


def weighted_number(number: Number, counts: np.ndarray) -> np.ndarray:
    """Return the number on every resample, (R,) float64; NaN without an image that counts.

    counts: (R, n) unsigned integers, how often each image was drawn.
    """
    return _OF_KIND[type(number)](number, counts)


def group_numbers(groups: Sequence[ImageGroup], count: Callable[[int], np.ndarray]) -> dict[str, np.ndarray]:
    """Return the numbers of all groups on the resamples `count(n)` (R, n) of their n images, name -> (R,)."""
    return {
        name: weighted_number(number, count(len(group.images)))
        for group in groups
        for name, number in group.numbers.items()
    }


def _mean(number: Mean, counts: np.ndarray) -> np.ndarray:
    known = ~np.isnan(number.value)
    total, weight = _sums(counts, np.stack([np.where(known, number.value, 0), known], axis=1)).T
    return _share(total, weight)


def _binned(number: Binned, counts: np.ndarray) -> np.ndarray:
    from scipy.sparse import csr_array

    bins, group = np.unique(number.bin, return_inverse=True)
    images = len(number.gap)
    gaps = csr_array((number.gap, (np.arange(images), group)), shape=(images, len(bins)))
    return _share(np.abs(_sums(counts, gaps)).sum(axis=1), counts.sum(axis=1, dtype=np.float64))


def _best_share(number: BestShare, counts: np.ndarray) -> np.ndarray:
    total, best = counts.sum(axis=1, dtype=np.float64), np.zeros(len(counts))
    for level in range(number.hits.shape[1]):
        hits = np.unpackbits(number.hits[:, level], axis=1)
        parts = (hits[:, at : at + 64] for at in range(0, hits.shape[1], 64))
        best += np.max([_sums(counts, part.astype(np.float64)).max(axis=1) for part in parts], axis=0)
    return _share(best, total * number.hits.shape[1])


def _sums(counts: np.ndarray, values: Any) -> np.ndarray:
    """Return the weighted sums (R, M) of values (n, M), dense or sparse; in blocks of resamples."""
    size = max(1, BLOCK // max(1, counts.shape[1]))
    blocks = (counts[at : at + size] for at in range(0, len(counts), size))
    return np.concatenate([block.astype(np.float64) @ values for block in blocks])


def _share(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.divide(total, weight, out=np.full(len(total), np.nan), where=weight > 0)


_OF_KIND: dict[type, Callable[[Any, np.ndarray], np.ndarray]] = {
    Mean: _mean,
    Binned: _binned,
    BestShare: _best_share,
}
