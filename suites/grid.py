"""The grid of a row: one training per point; the one with the best validation is kept.

    GRID: {KEYS: {METHOD.LS.amount: [0.05, 0.1, 0.2]}, SELECT: nll}

A later row can search only around the value that an earlier one chose:

    GRID: {KEYS: {METHOD.ILS.shift: {NEAR: "{chosen:ILS1:METHOD.ILS1.shift}", OF: [0.95, 0.9, 0.85], COUNT: 2}}}
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from backbones.core.checks import check_choice
from backbones.core.errors import InputError
from suites.entries import Texts, check_keys
from suites.references import CHOSEN, as_text, find
from suites.selection import CRITERIA


@dataclass(frozen=True)
class Near:
    """Values of a key around another value."""

    # A number, or a reference to one.
    near: str
    # Candidate numbers ...
    of: Texts
    # ... and how many of them to take: the one nearest to `near` and its neighbours in sorted order.
    count: int


@dataclass(frozen=True)
class Grid:
    """GRID of a row."""

    # Key of the pretraining's config -> its values: a list, or {NEAR, OF, COUNT}.  The points are all combinations;
    # the last key varies fastest.
    keys: Mapping[str, Texts | Near]
    # Criterion, lowest wins: nll (cross-entropy on DATA.VAL_SPLIT of the pretraining) or nll_fitted (the same after
    # temperature scaling).  EVALUATE must measure another split: nothing is selected on the split that is reported.
    select: str = "nll"
    # Applied to the grid points only, such as a shorter schedule; the chosen point is then trained once more without
    # them.
    overrides: Texts = ()

    def texts(self) -> Iterator[str]:
        """Yield every text that can hold a reference."""
        yield from self.overrides
        for value in self.keys.values():
            yield from [value.near] if isinstance(value, Near) else value

    def points(self, fill: Callable[[str], str], where: str) -> list[dict[str, str]]:
        """Return the points, each as {key: value}; `fill` replaces the references in a text."""
        values = {
            key: nearest(_number(fill(value.near), f"{where}: KEYS {key}: NEAR"), value.of, value.count)
            if isinstance(value, Near)
            else list(dict.fromkeys(map(fill, value)))  # a chosen value may equal one of the others
            for key, value in self.keys.items()
        }
        return [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]


def read_grid(tree: Mapping[str, Any], where: str) -> Grid | None:
    """Return a row's GRID, None for an empty one.

    Raises:
        InputError: unknown key, no values, a duplicated value, settings that contradict each other.
    """
    if not tree:
        return None
    check_keys(Grid, tree, where)
    select, overrides, keys = tree.get("SELECT", Grid.select), tree.get("OVERRIDES", []), tree.get("KEYS")
    check_choice("SELECT", select, CRITERIA, where)
    if not isinstance(overrides, list):
        raise InputError(f"{where}: OVERRIDES must be of type list, not {overrides!r}")
    if not isinstance(keys, Mapping) or not keys:
        raise InputError(f"{where}: KEYS must be a mapping such as {{METHOD.LS.amount: [0.05, 0.1]}}")
    values = {key: _read_values(value, f"{where}: KEYS {key}") for key, value in keys.items()}
    return Grid(values, select, tuple(as_text(item, f"{where}: OVERRIDES") for item in overrides))


def _read_values(value: Any, where: str) -> Texts | Near:
    if isinstance(value, Mapping):
        return _read_near(value, where)
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: must be a list of values, or {{NEAR: x, OF: [...], COUNT: k}}, not {value!r}")
    texts = tuple(as_text(item, where) for item in value)
    for text in texts:
        if texts.count(text) > 1:
            raise InputError(f"{where}: the value {text} is duplicated; delete one")
    return texts


def _read_near(value: Mapping[str, Any], where: str) -> Near:
    check_keys(Near, value, where)
    near, of, count = value.get("NEAR", ""), value.get("OF", []), value.get("COUNT", 1)
    if not isinstance(of, list) or not all(_is_number(item) for item in of) or not of:
        raise InputError(f"{where}: OF must be a list of numbers, not {of!r}")
    if type(count) is not int or not 1 <= count <= len(of):
        raise InputError(f"{where}: COUNT must be from 1 to {len(of)}, the values in OF, not {count!r}")
    if not _is_number(near) and find([str(near)], CHOSEN) != [near]:
        raise InputError(f"{where}: NEAR must be a number or '{{chosen:LABEL:KEY}}', not {near!r}")
    return Near(as_text(near, where), tuple(as_text(item, where) for item in of), count)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def nearest(near: float, of: Sequence[str], count: int) -> list[str]:
    """Return the value of `of` nearest to `near` and its neighbours in sorted order, `count` in all, in `of`'s order.

    Neighbours are ranked by steps in sorted order, not by distance, so that a grid 1, 2, 4, 8, 16 gives the same
    neighbours as its logarithm; of two values at the same number of steps, the one nearer in value comes first, then
    the first in `of`.
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
        raise InputError(f"{where}: '{text}' is not a number; NEAR needs a key whose values are numbers") from None
