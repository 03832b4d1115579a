"""Typed columns of JSON entries: integers, numbers, flags and sizes, and the values that only look like one.

Nothing is converted from text or by Python's truth value: "1", true and 1.0 are not ids, "96" is not a size.  A column
whose values all have the expected type is read in a few passes in C; other columns are read value by value.

Letters: n values of a column.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np

from backbones.core.flags import parse_flag

LARGEST_SIDE = 2**31 - 1  # pixels; a longer image side is an error
_INT64 = np.iinfo(np.int64)
_SHOWN = 80  # characters of a value in a message


class Absent:
    """Marker for a key that an entry does not have."""


ABSENT = Absent()


def column(items: Iterable[Mapping], key: str) -> list[Any]:
    """Return the values of `key`; `ABSENT` for an entry without it."""
    return [item.get(key, ABSENT) for item in items]


def say(value: Any) -> str:
    """Format a value for a message; text and numbers look different."""
    if value is ABSENT:
        return "missing"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "an object"
    shown = str(value) if isinstance(value, np.generic) else repr(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    if isinstance(value, str):
        return f"the text {shown}"
    return f"the list {shown}" if isinstance(value, (list, tuple)) else shown


def is_integer(value: Any) -> bool:
    """Whether the value is a Python or NumPy integer, and not a bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether the value is a Python or NumPy number within the range of float64, and not a bool."""
    if isinstance(value, (float, np.floating)):
        return True
    return is_integer(value) and abs(int(value)) <= sys.float_info.max


def is_encodable(text: str) -> bool:
    """Whether the text can be encoded as UTF-8; a lone surrogate, which JSON can hold, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_ids(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) int64, 0 where bad; and (n,) bool: not an integer, or beyond 64 bits."""
    if set(map(type, values)) <= {int}:
        with suppress(OverflowError):  # one value is beyond 64 bits: read one by one below
            return np.array(values, np.int64), np.zeros(len(values), bool)
    good = [is_integer(value) and _INT64.min <= value <= _INT64.max for value in values]
    ids = [int(value) if fits else 0 for value, fits in zip(values, good, strict=True)]
    return np.array(ids, np.int64), ~np.array(good, bool)


def say_id(key: str, value: Any) -> str:
    """Describe what is wrong with a value that `read_ids` marks as bad."""
    return f"{key} must be an integer{' of at most 64 bits' if is_integer(value) else ''}, is {say(value)}"


def read_numbers(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) float64, which can be infinite or NaN; and (n,) bool: not a number (the float64 is then NaN)."""
    if set(map(type, values)) <= {int, float}:
        with suppress(OverflowError):  # one is beyond every float: read one by one below
            return np.array(values, np.float64), np.zeros(len(values), bool)
    good = [is_number(value) for value in values]
    numbers = [float(value) if fits else np.nan for value, fits in zip(values, good, strict=True)]
    return np.array(numbers, np.float64), ~np.array(good, bool)


def read_rows(values: Sequence[Any], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, size) float64 of lists of numbers; and (n,) bool: not `size` numbers (the row is then NaN)."""
    if set(map(type, values)) <= {list, tuple} and set(map(len, values)) <= {size}:
        flat = list(chain.from_iterable(values))
        if set(map(type, flat)) <= {int, float}:
            with suppress(OverflowError):  # one is beyond every float: read one by one below
                return np.array(flat, np.float64).reshape(-1, size), np.zeros(len(values), bool)
    rows, bad = np.full((len(values), size), np.nan), np.ones(len(values), bool)
    for n, value in enumerate(values):
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, (list, tuple)) and len(value) == size and all(map(is_number, value)):
            rows[n], bad[n] = [float(v) for v in value], False
    return rows, bad


def read_flags(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) bool of yes-or-no values, False where absent; and (n,) bool: neither yes nor no."""
    if set(map(type, values)) <= {int, Absent} and set(values) <= {0, 1, ABSENT}:
        return np.array([value == 1 for value in values], bool), np.zeros(len(values), bool)
    flags = [False if value is ABSENT else parse_flag(value) for value in values]
    return np.array([bool(flag) for flag in flags], bool), np.array([flag is None for flag in flags], bool)


def read_sides(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) int64 widths or heights in pixels, 0 where bad; (n,) bool: not an integer in 1..`LARGEST_SIDE`."""
    numbers, bad = read_numbers(values)
    with np.errstate(invalid="ignore"):
        bad = bad | ~((numbers >= 1) & (numbers <= LARGEST_SIDE) & (numbers == np.floor(numbers)))
    return np.where(bad, 0, numbers).astype(np.int64), bad


def parse_number(text: str | None) -> float:
    """Parse a number, which can be infinite; NaN if the text is not a number.

    Stricter than `float`, which accepts "1_000" and the digits of other scripts.
    """
    if text is None or "_" in text or not text.strip().isascii():
        return float("nan")
    try:
        return float(text)
    except ValueError:
        return float("nan")
