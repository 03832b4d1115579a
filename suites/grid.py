"""The grid of a row: one training a point, of which the one with the best validation is kept.

    GRID: {KEYS: {METHOD.LS.amount: [0.05, 0.1, 0.2]}, SELECT: nll}

A later row may look only around what an earlier one chose:

    GRID: {KEYS: {METHOD.ILS.shift: {NEAR: "{chosen:ILS1:METHOD.ILS1.shift}", OF: [0.95, 0.9, 0.85], COUNT: 2}}}
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from backbones.core.checks import check_choice
from backbones.core.errors import InputError
from suites.references import as_text, find
from suites.selection import CRITERIA

GRID_ENTRY: dict[str, Any] = {
    # Key of the pretraining's config -> its values: a list, or {NEAR, OF, COUNT}.  The points are all combinations,
    # the last key varying fastest.
    "KEYS": {},
    # What decides, the lowest of: nll (cross-entropy on DATA.VAL_SPLIT of the pretraining) | nll_fitted (the same after
    # temperature scaling).  EVALUATE must measure another split: nothing is selected on what is reported.
    "SELECT": "nll",
    # For the points alone, such as a shorter schedule; what is chosen is then trained once more without these.
    "OVERRIDES": [],
}
NEAR_ENTRY: dict[str, Any] = {
    # A number, or a reference to one.
    "NEAR": "",
    # Numbers, of which ...
    "OF": [],
    # ... as many are taken: the nearest one and its neighbours in order of size.
    "COUNT": 1,
}


def complete(grid: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row's GRID checked and filled up; values as texts, {} for none.

    Raises:
        InputError: unknown key, no values, a value twice, what no grid can mean.
    """
    if not grid:
        return {}
    _check_keys(grid, GRID_ENTRY, where)
    grid = {**GRID_ENTRY, **grid}
    check_choice("SELECT", grid["SELECT"], CRITERIA, where)
    if not isinstance(grid["OVERRIDES"], list):
        raise InputError(f"{where}: OVERRIDES must be of type list, not {grid['OVERRIDES']!r}")
    if not isinstance(grid["KEYS"], Mapping) or not grid["KEYS"]:
        raise InputError(f"{where}: KEYS must be a mapping such as {{METHOD.LS.amount: [0.05, 0.1]}}")
    grid["KEYS"] = {key: _complete_values(value, f"{where}: KEYS {key}") for key, value in grid["KEYS"].items()}
    return grid | {"OVERRIDES": [as_text(item) for item in grid["OVERRIDES"]]}


def _complete_values(value: Any, where: str) -> list[str] | dict[str, Any]:
    if isinstance(value, Mapping):
        return _complete_near(value, where)
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: must be a list of values, or {{NEAR: x, OF: [...], COUNT: k}}, not {value!r}")
    texts = [as_text(item) for item in value]
    for text in texts:
        if texts.count(text) > 1:
            raise InputError(f"{where}: the value {text} stands twice; delete one")
    return texts


def _complete_near(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    _check_keys(value, NEAR_ENTRY, where)
    near = {**NEAR_ENTRY, **value}
    if not isinstance(near["OF"], list) or not all(_is_number(item) for item in near["OF"]) or not near["OF"]:
        raise InputError(f"{where}: OF must be a list of numbers, not {near['OF']!r}")
    if type(near["COUNT"]) is not int or not 1 <= near["COUNT"] <= len(near["OF"]):
        raise InputError(f"{where}: COUNT must be from 1 to {len(near['OF'])}, the values in OF, not {near['COUNT']!r}")
    if not _is_number(near["NEAR"]) and find([str(near["NEAR"])], "chosen") != [near["NEAR"]]:
        raise InputError(f"{where}: NEAR must be a number or '{{chosen:LABEL:KEY}}', not {near['NEAR']!r}")
    return {"NEAR": as_text(near["NEAR"]), "OF": [as_text(item) for item in near["OF"]], "COUNT": near["COUNT"]}


def _check_keys(value: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    for key in value:
        check_choice("key", str(key), known, where)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def texts(grid: Mapping[str, Any]) -> Iterator[str]:
    """Everything in a grid that may hold a reference."""
    yield from grid.get("OVERRIDES", [])
    for value in grid.get("KEYS", {}).values():
        yield from [value["NEAR"]] if isinstance(value, Mapping) else value


def points(grid: Mapping[str, Any], fill: Callable[[str], str], where: str) -> list[dict[str, str]]:
    """The points of a grid, {key: value} each; `fill` replaces the references in a text."""
    values = {
        key: nearest(_number(fill(value["NEAR"]), f"{where}: KEYS {key}: NEAR"), value["OF"], value["COUNT"])
        if isinstance(value, Mapping)
        else list(dict.fromkeys(map(fill, value)))  # a chosen value may be one that stands there, too
        for key, value in grid["KEYS"].items()
    }
    return [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]


def nearest(near: float, of: Sequence[str], count: int) -> list[str]:
    """The value of `of` nearest to `near` and its neighbours in order of size, `count` in all, in the order of `of`.

    Neighbours are counted, not measured, so that a grid 1, 2, 4, 8, 16 has the same ones as its logarithm; of the two
    at the same number of steps the one nearer in value comes first, then the first in `of`.
    """
    order = sorted(range(len(of)), key=lambda i: float(of[i]))
    rank = {index: place for place, index in enumerate(order)}
    distance = [abs(float(text) - near) for text in of]
    centre = rank[min(range(len(of)), key=lambda i: distance[i])]
    taken = sorted(range(len(of)), key=lambda i: (abs(rank[i] - centre), distance[i], i))[:count]
    return [of[i] for i in sorted(taken)]


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: '{text}' is no number; NEAR needs a key whose values are numbers") from None
