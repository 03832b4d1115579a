"""Check a value against a range or a list of choices, in one wording for every config and every command line.

    SOLVER.BASE_LR is -0.1; it must be above 0
    TEST.SIZES is []; it must be one or more numbers, each at least 32
    unknown MODEL.NORM 'GM'; did you mean 'GN'?

A range includes both ends.  NaN is in no range, infinity not even in one without an upper limit.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from backbones.core.errors import InputError, suggestion

NO_LIMIT = math.inf
ABOVE_0 = math.nextafter(0, 1)  # the smallest positive number, so that a range that starts here is "above 0"
BELOW_1 = math.nextafter(1, 0)

T = TypeVar("T")


def check_range(key: str, value: float, low: float, high: float = NO_LIMIT) -> float:
    """Return `value`.

    Raises:
        InputError: names key, value and range if the value is not in [low, high].
    """
    if not _inside(value, low, high):
        finite = "finite and " if value in (math.inf, -math.inf) and math.isinf(high) else ""
        raise InputError(f"{key} is {value}; it must be {finite}{_bounds(low, high)}")
    return value


def check_numbers(
    key: str, values: Sequence[float], low: float, high: float = NO_LIMIT, *, names: Collection[str] = ()
) -> None:
    """Check a list of numbers.

    Args:
        names: one name per number, which fixes how many are required; if empty, one or more numbers.

    Raises:
        InputError: names key, values and range if a value is not in [low, high] or the count is wrong.
    """
    if len(values) != (len(names) or max(len(values), 1)) or not all(_inside(value, low, high) for value in values):
        count = f"{len(names)} numbers ({', '.join(names)})" if names else "one or more numbers"
        raise InputError(f"{key} is {list(values)}; it must be {count}, each {_bounds(low, high)}")


def check_ranges(values: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> None:
    """Check the number, or the list of one or more numbers, at each key of `ranges` against its (low, high)."""
    for key, (low, high) in ranges.items():
        check = check_numbers if isinstance(values[key], (list, tuple)) else check_range
        check(key, values[key], low, high)


def check_choice(key: str, value: T, choices: Iterable[T], where: str = "") -> T:
    """Return `value`.

    Args:
        where: prefix of the message, such as the list entry that holds the key.

    Raises:
        InputError: names key, value and the nearest choice, or all of them, if the value is not one of the choices.
    """
    choices = tuple(choices)
    if value not in choices:
        texts = [choice for choice in choices if isinstance(choice, str)]
        if isinstance(value, str) and len(texts) == len(choices):
            hint = suggestion(value, texts)
        else:
            hint = f"; choices: {', '.join(map(str, choices))}"
        raise InputError(f"{where}{': ' if where else ''}unknown {key} {value!r}{hint}")
    return value


def check_choices(values: Mapping[str, Any], choices: Mapping[str, Sequence[Any]]) -> None:
    """Check the value at each key of `choices`."""
    for key, known in choices.items():
        check_choice(key, values[key], known)


def _inside(value: float, low: float, high: float) -> bool:
    return low <= value <= high and not math.isinf(value)


def _bounds(low: float, high: float) -> str:
    if (low, high) == (ABOVE_0, BELOW_1):
        return "above 0 and below 1"
    if low == high:
        return _text(low)
    if low == ABOVE_0:
        return "above 0" if high == NO_LIMIT else f"above 0 and at most {_text(high)}"
    return f"at least {_text(low)}" if high == NO_LIMIT else f"between {_text(low)} and {_text(high)}"


def _text(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)
