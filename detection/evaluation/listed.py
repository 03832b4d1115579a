"""Ids of results that list their own images and categories, such as the detections.json of tools/predict.py.

Such a file can number its images and categories otherwise than the ground truth; their names tell.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
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
    if own == known:
        return {}
    depth, listed = _choose_depth(own, known, used) if key == "image_id" else (0, _texts(own, used))
    short = {one: _shorten(name, depth) for one, name in _texts(own, used).items()}
    times, places = Counter(_shorten(name, depth) for name in listed.values()), _group(known, depth)
    # Without a name, nothing tells.
    told = [one for one in sorted(short) if one not in known or isinstance(known[one], str)]
    differing = [one for one in told if one not in places.get(short[one], [])]
    ambiguous = {one for one, name in short.items() if times[name] > 1 or len(places.get(name, [])) > 1}
    if not differing and not ambiguous.intersection(told):
        return {}

    def refuse(one: int, what: str) -> InputError:
        first = differing[0] if differing else min(ambiguous.intersection(told))
        doubt = "number otherwise than" if differing else "do not tell whether they number as"
        return InputError(
            f"{where}: its '{part}' {doubt} the ground truth (id {first} is {say(own[first])}), and {key} {one} "
            f"{what}; correct the names, or leave '{part}' out if the ids are those of the ground truth"
        )

    new = {}
    for one in sorted(used):
        if one not in short:
            raise refuse(one, f"has no {field} there")
        found = places.get(short[one], [])
        if not found:
            raise refuse(one, f"has a {field} that the ground truth lacks, {own[one]!r}")
        if one in ambiguous:
            raise refuse(one, f"has a {field} that is not unique, {own[one]!r}")
        new[one] = found[0]
    return new


def _choose_depth(own: Names, known: Names, used: set[int]) -> tuple[int, dict[int, str]]:
    """Return the number of last parts by which paths are compared, and the names that they tell apart.

    The fewest parts that tell all files of each list apart.  If a file without detections prevents that, the most parts
    that tell the used ones apart; otherwise 1, by which some names are ambiguous.
    """
    theirs = [_parts(name) for name in _texts(known).values()]
    depths = range(1, 1 + max(map(len, theirs), default=0))
    for listed, order in ((_texts(own), depths), (_texts(own, used), reversed(depths))):
        paths = [_parts(name) for name in listed.values()]
        for depth in order:
            if all(len({parts[-depth:] for parts in some}) == len(some) for some in (paths, theirs)):
                return depth, listed
    return 1, _texts(own)


def _group(names: Names, depth: int) -> dict[Any, list[int]]:
    """Return the ids by shortened name."""
    places: dict[Any, list[int]] = {}
    for one, name in _texts(names).items():
        places.setdefault(_shorten(name, depth), []).append(one)
    return places


def _texts(names: Names, used: Container[int] | None = None) -> dict[int, str]:
    """Return the names that are texts, of all ids or the used ones."""
    return {key: name for key, name in names.items() if isinstance(name, str) and (used is None or key in used)}


def _shorten(name: str, depth: int) -> Any:
    """Return the last parts of a path; depth 0: the name as it is."""
    return _parts(name)[-depth:] if depth else name


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts
