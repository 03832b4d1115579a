"""One-line errors for failed writes: what could not be written, how much space it needs, how much is free."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from backbones.core.errors import NO_ROOM, InputError

# How torch's zip writer reports a failed write; it drops the system's own error.
_TORCH_WRITER = ("PytorchStreamWriter", "inline_container", "unexpected pos")
_SHORT = 1 << 20  # bytes
_UNITS = ("B", "kB", "MB", "GB", "TB")


@contextmanager
def writing(path: str | Path, content: Any = None) -> Iterator[None]:
    """Turn a system error in the body, which writes `path`, into an `InputError`.

    Args:
        content: what is written (text, bytes, arrays, tensors, containers of them), to state the space needed.
    """
    try:
        yield
    except OSError as error:
        raise write_error(path, error, content_size(content)) from None


def write_error(path: str | Path, error: BaseException, needed: int = 0, written: int = 0) -> InputError:
    """Return the error for a failed write.

    Args:
        error: raised by the system or by torch's writer.
        needed: size of the whole file in bytes; 0: unknown.
        written: bytes that were written before the failure, and deleted again.
    """
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    number = getattr(error, "errno", None)
    if is_torch_writer(error):  # known to be caused by a full disk only
        number, reason = errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (torch: {reason})"
    if number not in NO_ROOM:
        return InputError(f"cannot write {path}: {reason}; choose another folder")
    least = f"more than {size_text(written)} needed, " if written else ""
    wanted = f"about {size_text(needed)} needed, " if needed > written else least
    return InputError(
        f"cannot write {path}: {reason}; {wanted}{free_text(path, number)}; free some space, or choose another folder"
    )


def is_torch_writer(error: BaseException) -> bool:
    """Whether the error is from torch's file writer, which raises a `RuntimeError` without an error number."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _TORCH_WRITER)


def content_size(content: Any) -> int:
    """Return the bytes of the text, bytes, arrays and tensors in `content`, without format overhead; 0 for others."""
    if isinstance(content, str):
        return len(content.encode("utf-8", errors="replace"))
    if isinstance(content, bytes):
        return len(content)
    if isinstance(content, Mapping):
        return sum(map(content_size, content.values()))
    if isinstance(content, (list, tuple)):
        return sum(map(content_size, content))
    return int(getattr(content, "nbytes", 0))


def shortage(path: str | Path) -> str:
    """Return the end of the message about a process that died silently, if a full disk at `path` is the likely cause;
    else an empty string."""
    short = shutil.disk_usage(existing_folder(path)).free < _SHORT
    return f"; {free_text(path)}" if short else ""


def free_text(path: str | Path, number: int = errno.ENOSPC) -> str:
    """Describe the free space on the disk of `path`."""
    folder = existing_folder(path)
    free = f"{size_text(shutil.disk_usage(folder).free)} free in {folder}"
    nodes = os.statvfs(folder)
    if nodes.f_files and not nodes.f_favail:
        return f"{free}, which can hold no more files"
    return f"{free}, whose quota is used up" if number == errno.EDQUOT else free


def existing_folder(path: str | Path) -> Path:
    """Return `path`, or its deepest parent that is an existing folder."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def size_text(size: float) -> str:
    """Format a number of bytes: `317 B`, `1.5 MB`."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size:.0f} B"


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below `folder`; files that vanish meanwhile do not count."""
    size = 0
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size


def disk_use(*paths: Path) -> int:
    """Return the bytes of files and folders on the disk, in whole blocks: small files take more than their length."""
    found = [
        Path(parent, name) for path in paths for parent, folders, files in os.walk(path) for name in (*folders, *files)
    ]
    size = 0
    for path in (*paths, *found):
        with suppress(OSError):
            size += os.lstat(path).st_blocks * 512
    return size


def append(file: FileIO, data: bytes) -> None:
    """Append all of `data` to an unbuffered file, or nothing: a failed write is undone."""
    end = os.fstat(file.fileno()).st_size
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(end)
        raise
