"""Ids of results that list their own images and categories, such as the detections.json of tools/predict.py.

Such a file can number its images and categories otherwise than the ground truth; their names tell.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from backbones.core.errors import InputError
from detection.data.fields import is_integer, say

Names = Mapping[int, Any]  # id -> file name of an image or name of a category; not a text: unknown
LISTED = {"image_id": ("images", "file_name"), "category_id": ("categories", "name")}


def use_truth_ids(
    tree: Mapping[str, Any], items: Sequence[Mapping], truth: Mapping[str, Names], where: str
) -> Sequence[Mapping]:
    """Return the detections with the ids that the ground truth gives to the images and categories that they name.

    Only ids of detections matter.  A list that is missing, or states no names, leaves the ids as they are.

    Args:
        tree: the results, with "images" and "categories" or without.
        items: its detections.
        truth: names by id, for each of "image_id" and "category_id" that holds ids.
    Raises:
        InputError: a name that is unknown or not unique, by which an id would have to be translated.
    """
    for key, known in truth.items():
        used = {int(one[key]) for one in items if is_integer(one.get(key))}
        new = _translate(_read_names(tree, key, where), known, used, key, where)
        if new:
            items = [{**one, key: new[one[key]]} if is_integer(one.get(key)) else one for one in items]
    return items


def _read_names(tree: Mapping[str, Any], key: str, where: str) -> Names:
    """Return the names of a list of the results."""
    part, field = LISTED[key]
    entries = tree.get(part, [])
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise InputError(f"{where}: '{part}' is {say(entries)}, not a list; correct it, or leave it out")
    found: dict[int, Any] = {}
    for entry in entries:
        if isinstance(entry, Mapping) and is_integer(entry.get("id")):
            name = found.setdefault(int(entry["id"]), entry.get(field))
            if name != entry.get(field):
                raise InputError(f"{where}: '{part}' lists the id {entry['id']} with two names; remove one of them")
    return found


def _translate(own: Names, known: Names, used: set[int], key: str, where: str) -> dict[int, int]:
    """Map the used ids to those of the truth; {} if they are the same."""
    part, field = LISTED[key]
    shorten = _shortening([*own.values()], [*known.values()]) if key == "image_id" else lambda name: name

    def differs(one: int) -> bool:
        both = own.get(one), known.get(one)
        if not isinstance(both[0], str) or (one in known and not isinstance(both[1], str)):
            return False  # without a name, nothing tells
        return one not in known or shorten(both[0]) != shorten(both[1])

    differing = sorted(filter(differs, used))
    if not differing:
        return {}
    places, times = {}, Counter(shorten(name) for name in own.values() if isinstance(name, str))
    for one, name in known.items():
        if isinstance(name, str):
            places.setdefault(shorten(name), []).append(one)

    def refuse(one: int, what: str) -> InputError:
        return InputError(
            f"{where}: its '{part}' number otherwise than the ground truth (id {differing[0]} is "
            f"{say(own[differing[0]])}), and {key} {one} {what}; correct the names, or leave '{part}' out if the ids "
            "are those of the ground truth"
        )

    new = {}
    for one in sorted(used):
        name = own.get(one)
        if not isinstance(name, str):
            raise refuse(one, f"has no {field} there")
        found = places.get(shorten(name), [])
        if not found:
            raise refuse(one, f"has a {field} that the ground truth lacks, {name!r}")
        if len(found) > 1 or times[shorten(name)] > 1:
            raise refuse(one, f"has a {field} that is not unique, {name!r}")
        new[one] = found[0]
    return new


def _shortening(*lists: Sequence[Any]) -> Any:
    """Return what cuts a path to its last parts: the fewest that tell the files of each list apart, if any do."""
    paths = [[_parts(name) for name in names if isinstance(name, str)] for names in lists]
    for depth in range(1, 1 + max((len(parts) for parts in paths[-1]), default=0)):
        if all(len({parts[-depth:] for parts in some}) == len(some) for some in paths):
            return lambda name, depth=depth: _parts(name)[-depth:]
    return lambda name: _parts(name)[-1:]


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts
