"""Image files by the names that annotations give them: exactly, or under the spellings that tools are known to change.

A folder is listed once; no file is looked for one by one.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # in any case
_SCHEME = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.-]+://[^/]*|[A-Za-z]:(?=[/\\]))")  # of a URL; a drive letter
_QUERY = re.compile(r"\?d=([^&]+)$")  # of Label Studio's local files


def is_hidden(name: str) -> bool:
    """Whether macOS made the file beside the data."""
    return name.startswith("._") or name == ".DS_Store"


def split_suffix(name: str) -> tuple[str, str]:
    """(stem, suffix) where the suffix is one of an image, else (name, "")."""
    stem, suffix = os.path.splitext(name)
    return (stem, suffix) if suffix.lower() in SUFFIXES else (name, "")


def fold(name: str) -> str:
    """What equal names have in common whatever their case and their Unicode form (NFC, NFD)."""
    return unicodedata.normalize("NFC", name).casefold()


class Listing:
    """The names in a folder and, as far as they are asked for, in the folders below it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, set[str]] = {}
        self._folded: dict[str, dict[str, list[str]]] = {}
        self._images: dict[str, dict[str, list[str]]] = {}

    def names(self, below: str = "") -> set[str]:
        """The names in the folder `below`; empty for a folder that does not exist."""
        if below not in self._names:
            try:
                self._names[below] = set(os.listdir(self.folder / below))
            except (OSError, ValueError):  # absent; a name that no file system takes
                self._names[below] = set()
        return self._names[below]

    def has(self, name: str) -> bool:
        """Whether `name`, which may lie in a folder below, is there exactly so."""
        below, slash, last = name.rpartition("/")
        return last in self.names(below + slash)

    def folded(self, name: str) -> str | None:
        """The only name that differs from `name` at most in case and Unicode form."""
        below, slash, last = name.rpartition("/")
        below += slash
        if below not in self._folded:
            self._folded[below] = _group(self.names(below), fold)
        found = self._folded[below].get(fold(last), [])
        return f"{below}{found[0]}" if len(found) == 1 else None

    def images(self, stem: str) -> list[str]:
        """The image files of a stem, sorted; `stem` may lie in a folder below."""
        below, slash, last = stem.rpartition("/")
        below += slash
        if below not in self._images:
            images = (name for name in self.names(below) if split_suffix(name)[1] and not is_hidden(name))
            self._images[below] = _group(images, lambda name: split_suffix(name)[0])
        return [f"{below}{name}" for name in self._images[below].get(last, [])]

    def repaired(self, name: str) -> str | None:
        """The file that a name means which is not there exactly so; None: no single one."""
        spellings = [tail for text in _spellings(name) for tail in _tails(text)]
        exact = next((text for text in spellings if self.has(text)), None)
        return exact or next((found for text in spellings if (found := self.folded(text))), None)


def _group(names: Iterable[str], key) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name in sorted(names):
        groups[key(name)].append(name)
    return groups


def _spellings(name: str) -> Iterator[str]:
    """The name as it is, with / for \\, without a URL's front, and unquoted."""
    for text in dict.fromkeys((name, unquote(name))):
        query = _QUERY.search(text)
        slashed = (query[1] if query else text).replace("\\", "/")
        yield from dict.fromkeys((slashed, _SCHEME.sub("", slashed)))


def _tails(text: str) -> Iterator[str]:
    """The path and its ends, the longest first."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    for start in range(len(parts)):
        if ".." not in parts[start:]:
            yield "/".join(parts[start:])
