"""Checks of category names: valid text, no duplicates, and the root category that Roboflow adds.

K categories.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from collections.abc import Mapping as Entry

import numpy as np

from backbones.core.findings import ERROR, WARNING, Findings, Kind
from detection.data.fields import ABSENT, is_encodable, is_integer, say

BAD_NAME = Kind(ERROR, "category names that are not text", "write a name that is not empty")
REPEATED_NAME = Kind(ERROR, "repeated category names", "rename one of them")
SIMILAR_NAMES = Kind(
    WARNING, "groups of category names that differ only by case or white space", "each counts as a separate class"
)
NO_NAME = Kind(WARNING, "categories without a name", "the id is used as the name")
NUMBER_NAME = Kind(WARNING, "category names that are numbers", "they are read as text")
ROOT = Kind(
    WARNING, "categories ignored", "each is the supercategory of a category of the same name and has no annotation"
)


def read_names(entries: Sequence[Entry], ids: np.ndarray, findings: Findings) -> list[str]:
    """Return K names; the id replaces a missing or invalid name."""
    names = []
    for entry, key in zip(entries, ids.tolist(), strict=True):
        name = entry.get("name", ABSENT)
        if isinstance(name, str) and name.strip() and is_encodable(name):
            names.append(name)
            continue
        names.append(str(name) if is_integer(name) else str(key))
        kind = NO_NAME if name is ABSENT else NUMBER_NAME if is_integer(name) else BAD_NAME
        findings.add(kind, f"categories: id {key}: name is {say(name)}")
    return names


def find_roots(entries: Sequence[Entry], ids: np.ndarray, names: Sequence[str], used: Collection[int]) -> np.ndarray:
    """Find the root category, which repeats the name of one of its children; (K,) bool.

    Roboflow exports `{"id": 0, "name": "car", "supercategory": "none"}` above `{"id": 1, "name": "car",
    "supercategory": "car"}`.  A category that has an annotation is never a root.

    Args:
        used: ids of the categories that have an annotation.
    """
    above = [entry.get("supercategory") for entry in entries]
    children = {name for name, parent in zip(names, above, strict=True) if parent == name}
    found = zip(names, above, ids.tolist(), strict=True)
    return np.array([name in children and parent != name and key not in used for name, parent, key in found], bool)


def check_names(names: Sequence[str], findings: Findings) -> None:
    """Find duplicate names, and names that differ only by case or white space."""
    repeated = [name for name, n in Counter(names).items() if n > 1]
    findings.add(REPEATED_NAME, [f"categories: the name '{name}' is duplicated" for name in repeated])
    similar = defaultdict(list)
    for name in dict.fromkeys(names):
        similar[" ".join(unicodedata.normalize("NFC", name).casefold().split())].append(name)
    groups = [group for group in similar.values() if len(group) > 1]
    findings.add(SIMILAR_NAMES, [", ".join(map(repr, group)) for group in groups])
