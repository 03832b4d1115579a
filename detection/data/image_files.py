"""Find image files by the names in annotations: exactly, or under spellings that tools are known to produce.

Each folder is listed once, instead of looking up every file.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # in any case
_SCHEME = re.compile(
    r"^(?:[A-Za-z][A-Za-z0-9+.-]+://[^/]*|[A-Za-z]:(?=[/\\]))"
)  # scheme and host of a URL, or a drive letter
_QUERY = re.compile(r"\?d=([^&]+)$")  # query of Label Studio's local files


def is_hidden(name: str) -> bool:
    """Whether the file is one that macOS adds to the data."""
    return name.startswith("._") or name == ".DS_Store"


def split_suffix(name: str) -> tuple[str, str]:
    """Return (stem, suffix) if the suffix is that of an image, else (name, "")."""
    stem, suffix = os.path.splitext(name)
    return (stem, suffix) if suffix.lower() in SUFFIXES else (name, "")


def fold(name: str) -> str:
    """Normalise a name, so that names which differ only in case or Unicode form (NFC, NFD) are equal."""
    return unicodedata.normalize("NFC", name).casefold()


class Listing:
    """Names in a folder and in its subfolders, each listed on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, set[str]] = {}
        self._folded: dict[str, dict[str, list[str]]] = {}
        self._images: dict[str, dict[str, list[str]]] = {}

    def names(self, below: str = "") -> set[str]:
        """Return the names in the subfolder `below`; empty for a folder that does not exist."""
        if below not in self._names:
            try:
                self._names[below] = set(os.listdir(self.folder / below))
            except (OSError, ValueError):  # missing, or not a valid file name
                self._names[below] = set()
        return self._names[below]

    def has(self, name: str) -> bool:
        """Whether `name`, which may include subfolders, exists with exactly this spelling."""
        below, slash, last = name.rpartition("/")
        return last in self.names(below + slash)

    def folded(self, name: str) -> str | None:
        """Return the only name that equals `name` up to case and Unicode form; None: no single one."""
        below, slash, last = name.rpartition("/")
        below += slash
        if below not in self._folded:
            self._folded[below] = _group(self.names(below), fold)
        found = self._folded[below].get(fold(last), [])
        return f"{below}{found[0]}" if len(found) == 1 else None

    def images(self, stem: str) -> list[str]:
        """Return the image files of a stem, sorted; `stem` may include subfolders."""
        below, slash, last = stem.rpartition("/")
        below += slash
        if below not in self._images:
            images = (name for name in self.names(below) if split_suffix(name)[1] and not is_hidden(name))
            self._images[below] = _group(images, lambda name: split_suffix(name)[0])
        return [f"{below}{name}" for name in self._images[below].get(last, [])]

    def repaired(self, name: str) -> str | None:
        """Return the file that a misspelled name refers to; None: no single one."""
        spellings = [tail for text in _spellings(name) for tail in _tails(text)]
        exact = next((text for text in spellings if self.has(text)), None)
        return exact or next((found for text in spellings if (found := self.folded(text))), None)


def _group(names: Iterable[str], key) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name in sorted(names):
        groups[key(name)].append(name)
    return groups


def _spellings(name: str) -> Iterator[str]:
    """Yield the name with / for \\, without a URL's scheme and host, and unquoted."""
    for text in dict.fromkeys((name, unquote(name))):
        query = _QUERY.search(text)
        slashed = (query[1] if query else text).replace("\\", "/")
        yield from dict.fromkeys((slashed, _SCHEME.sub("", slashed)))


def _tails(text: str) -> Iterator[str]:
    """Yield the path and its trailing parts, the longest first."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    for start in range(len(parts)):
        if ".." not in parts[start:]:
            yield "/".join(parts[start:])
