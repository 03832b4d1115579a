"""Pair detections with objects that share a key (an image, or an image and a class), in NumPy.

Letters: N rows, G columns, P pairs of one chunk.
"""

from collections.abc import Callable, Iterator

import numpy as np

CHUNK = 500_000  # pairs in memory at a time: about 100 MB of work arrays


def best_partner(
    row_keys: np.ndarray, column_keys: np.ndarray, value: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Find for every row the column of equal key with the highest value, the first in a tie.

    Args:
        row_keys, column_keys: (N,) and (G,) integers.
        value: maps rows (P,) and columns (P,) to (P,) numbers.
    Returns:
        (N,) the highest value, -inf for a row without partner; (N,) its column, -1 for a row without partner.
    """
    best, partner = np.full(len(row_keys), -np.inf), np.full(len(row_keys), -1)
    for rows, start, columns in _pairs(row_keys, column_keys):
        length = np.diff(np.append(start, len(columns)))
        values = value(np.repeat(rows, length), columns)
        best[rows] = np.maximum.reduceat(values, start)
        at = np.flatnonzero(values == np.repeat(best[rows], length))
        partner[rows] = columns[at[np.searchsorted(at, start)]]
    return best, partner


def _pairs(row_keys: np.ndarray, column_keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the rows with partners, the start of each row's run of pairs, and the columns (P,) of the pairs."""
    order = np.argsort(column_keys, kind="stable")
    first = np.searchsorted(column_keys, row_keys, side="left", sorter=order)
    count = np.searchsorted(column_keys, row_keys, side="right", sorter=order) - first
    rows = np.flatnonzero(count)
    chunk = (np.cumsum(count[rows]) - 1) // CHUNK
    for part in np.split(rows, np.flatnonzero(np.diff(chunk)) + 1):
        if len(part):
            start = np.cumsum(count[part]) - count[part]
            within = np.arange(count[part].sum()) - np.repeat(start, count[part])
            yield part, start, order[np.repeat(first[part], count[part]) + within]
