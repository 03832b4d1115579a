"""Read yes-or-no values as annotation files spell them."""

from typing import Any

_SPELLINGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def parse_flag(value: Any) -> bool | None:
    """The truth of 0, 1, 0.0, 1.0, false or true, as a number, a bool or a text in any case; None for all else.

    Never by Python's truth of values, for which "0" and "False" are true.
    """
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # of numpy
        value = value.item()
    if isinstance(value, str):
        return _SPELLINGS.get(value.strip().lower())
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    return None
