"""References in the texts of a suite.

    {data:NAME}          folder of that DATA entry
    {run:LABEL}          run folder of that row with the same seed, such as a teacher; a teacher that shall not share
                         initial weights and order of images with its student has a SEED_OFFSET (suites/config.py)
    {chosen:LABEL:KEY}   value of KEY that the grid of that row chose with the same seed

The code handles a reference as its text, such as "{run:CE}".
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from backbones.core.errors import InputError, suggestion

KINDS = DATA, RUN, CHOSEN = "data", "run", "chosen"
# No space after the colon: "{a: 1}" is a mapping.
_REFERENCE = re.compile(r"\{\w+:[^{}\s][^{}]*\}")


class Reference(NamedTuple):
    """`{kind:name}` or `{kind:name:key}`."""

    kind: str
    name: str
    key: str = ""


def as_text(value: Any, where: str) -> str:
    """Convert a value of a yaml list to text, as on a command line; raise `InputError` for one that has no such form,
    such as a date."""
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except TypeError:
        raise InputError(f"{where}: {value} is read as a {type(value).__name__}, not as a text; quote it") from None


def parse(text: str) -> Reference:
    """Split a reference into its parts; a label can hold colons, a key cannot."""
    kind, _, rest = text[1:-1].partition(":")
    name, _, key = rest.rpartition(":") if kind == CHOSEN else (rest, "", "")
    return Reference(kind, name, key)


def find(texts: Sequence[str], *kinds: str) -> list[str]:
    """Return the references of these kinds (default: all) in `texts`, in order, each once."""
    found = dict.fromkeys(match for text in texts for match in _REFERENCE.findall(text))
    return [text for text in found if not kinds or parse(text).kind in kinds]


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace every reference of `values` in `text` by its value."""
    return _REFERENCE.sub(lambda match: values.get(match[0], match[0]), text)


def check(texts: Sequence[str], data: Sequence[str], above: Mapping[str, Collection[str]], where: str) -> None:
    """Raise `InputError` for a reference to nothing.

    Args:
        data: names of the DATA entries.
        above: label -> keys that its grid chooses, for the rows that can be referred to: pretrained rows above the
            referring one, so that there are no cycles.
    """
    for text in find(texts):
        reference = parse(text)
        if reference.kind not in KINDS:
            raise InputError(f"{where}: '{text}' is not a reference{suggestion(reference.kind, KINDS)}")
        if reference.kind == DATA:
            if reference.name not in data:
                hint = suggestion(reference.name, data)
                raise InputError(f"{where}: unknown DATA entry '{reference.name}'{hint}")
            continue
        if reference.name not in above:
            hint = suggestion(reference.name, above)
            raise InputError(f"{where}: '{text}' does not name a pretrained row above this one{hint}")
        keys = above[reference.name]
        if reference.kind == CHOSEN and reference.key not in keys:
            what = suggestion(reference.key, keys) if keys else "; that row has no GRID"
            raise InputError(f"{where}: '{text}': nothing chooses a '{reference.key}' there{what}")
