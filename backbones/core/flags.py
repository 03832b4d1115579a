"""Read yes-or-no values as annotation files spell them."""

from typing import Any

_SPELLINGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def parse_flag(value: Any) -> bool | None:
    """Parse 0, 1, 0.0, 1.0, false or true, as a number, a bool or a string in any case; None for anything else.

    Python's truth value is not used: "0" and "False" would be true.
    """
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # a numpy scalar
        value = value.item()
    if isinstance(value, str):
        return _SPELLINGS.get(value.strip().lower())
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    return None
