"""Options of a tool whose values name files: their paths, and their content, which hashes cover instead of the path."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from backbones.core.config import expand_path
from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from suites.fingerprints.data import Known, tree_fingerprint

# Options of tools/compare.py that name what it reads, and a file that it writes.
TRUTH, RESULTS, IMAGES, BUNDLE = "--truth", "--results", "--images", "--bundle"
READ_BY_COMPARE = (TRUTH, RESULTS, IMAGES)


def refuse_options(words: Sequence[str], names: Sequence[str], where: str) -> None:
    """Raise `InputError` for an option of `names`, which the suite sets itself, also for a shortened one."""
    for option in _options(words):
        if any(name.startswith(option) for name in names):
            raise InputError(f"{where}: the suite sets {option}; delete it")


def refuse_short(words: Sequence[str], names: Sequence[str], where: str) -> None:
    """Raise `InputError` for a shortened option of `names`, whose file would not be found."""
    for option in _options(words):
        if option not in names and (full := [name for name in names if name.startswith(option)]):
            raise InputError(f"{where}: {option} is a shortened {full[0]}; write it in full")


def locate(words: Sequence[Any], names: Sequence[str], folder: Path) -> list[Any]:
    """Return an argument list whose paths at the options `names` are absolute; they are relative to `folder`."""
    return _change(words, names, lambda _, path: str((folder / expand_path(path)).absolute()))


def by_content(words: Sequence[str], names: Sequence[str], where: str, known: Known | None = None) -> list[str]:
    """Return an argument list whose paths at the options `names` are replaced by fingerprints of their content.

    Args:
        known: digests of folders by path; new ones are added.

    Raises:
        InputError: a file or folder that cannot be read.
    """

    def read(option: str, path: str) -> str:
        try:
            return _fingerprint(expand_path(path), known)
        except OSError as error:
            raise InputError(f"{where}: cannot read {path} ({option}): {error.strerror}") from None

    return _change(words, names, read)


def _options(words: Sequence[str]) -> Iterator[str]:
    yield from (word.partition("=")[0] for word in words if word.startswith("--"))


def _change(words: Sequence[Any], names: Sequence[str], change: Callable[[str, str], str]) -> list[Any]:
    """Return an argument list with the paths at the options `names` changed by `change(option, path)`."""
    found, option = [], ""
    for word in words:
        name, equals, value = word.partition("=") if isinstance(word, str) else ("", "", "")
        if option and isinstance(word, str):
            found.append(_changed(option, word, partial(change, option)))
        elif equals and name in names:
            found.append(f"{name}={_changed(name, value, partial(change, name))}")
        else:
            found.append(word)
        option = name if name in names and not (option or equals) else ""
    return found


def _changed(option: str, value: str, change: Callable[[str], str]) -> str:
    """Return a value with its paths changed: FILE, NAME=FILE of --results, voc:FOLDER:SPLIT[:FILE] of --truth."""
    if option == RESULTS:
        name, equals, path = value.partition("=")
        return f"{name}{equals}{path and change(path)}"
    form, *parts = value.split(":")
    if option == TRUTH and form == "voc" and len(parts) > 1:
        folder, split, *file = parts
        return ":".join([form, change(folder), split, *(path and change(path) for path in file)])
    return value and change(value)


def _fingerprint(path: Path, known: Known | None) -> str:
    if path.is_dir():
        return tree_fingerprint(path, known)
    status = path.stat()
    return _content(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _content(path: Path, _time: int, _size: int) -> str:
    return fingerprint(path.read_bytes())
