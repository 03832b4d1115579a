"""What a pretraining chose on a validation split: numbers of that split are then too good.

`details.choices` of a pretraining's results.json lists them as {"what", "split"}; `details.chosen_on_measured` of every
stage lists those made on a split that the stage measures.
"""

from collections.abc import Iterable, Mapping
from typing import Any

EPOCH = "reported epoch"
GRID = "point of the grid"
TEMPERATURE = "temperature of the teacher"


def choice(what: str, split: str) -> dict[str, str]:
    """Return the entry of `details.choices`."""
    return {"what": what, "split": split}


def chosen_on(choices: Iterable[Mapping[str, Any]], splits: Iterable[str]) -> list[str]:
    """Return what was chosen on one of the splits, each once."""
    measured = set(splits)
    return list(dict.fromkeys(str(one["what"]) for one in choices if one["split"] in measured))
