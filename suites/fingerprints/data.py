"""Fingerprint of a data folder by its content, independent of its path and of file times.

It covers the names of all files and folders, the sizes of images and the content of all other files.  Content is read
once: the digest of each folder is kept in the suite's output folder, with the sizes and times of the files that it
covers, so that the next check costs one `stat` per file (a million annotations: minutes, then seconds).
"""

import hashlib
import os
import stat
import time
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.files import fingerprint, load_json, save_json

# Identified by name and size, since reading hundreds of gigabytes at every start is too slow.  Everything else (JSON,
# XML, text, CSV, .mat, .npz, the files of CIFAR and MNIST, files without a suffix) can hold labels and is identified by
# its content.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".heic", ".avif"),
)
# Likewise archives that a data set was unpacked from: no reader opens them.
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".7z", ".rar")
# Left out: files that an operating system adds when a folder is viewed; no reader reads them.
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
LITTER_PREFIX = "._"
# Known digests, in the suite's output folder: {folder: [sizes and times, digest]}.
KNOWN = "fingerprints.json"
# Seconds after which a file that is rewritten certainly gets another time.
_SETTLED = 2.0
_BLOCK = 1 << 20

Known = MutableMapping[str, Sequence[str]]


def load_known(output: Path) -> Known:
    """Load the digests that earlier calls stored in a suite's output folder."""
    path = output / KNOWN
    known = load_json(path) if path.is_file() else {}
    if not isinstance(known, dict) or not all(isinstance(item, list) and len(item) == 2 for item in known.values()):
        raise InputError(f"{path} does not hold the digests of folders; delete it, and it is rebuilt")
    return known


def save_known(output: Path, known: Known) -> None:
    """Keep digests for the next call, together with those of other suites in the folder."""
    before = load_known(output)
    if any(before.get(folder) != item for folder, item in known.items()):
        save_json(output / KNOWN, {**before, **known})


def tree_fingerprint(folder: Path, known: Known | None = None) -> str:
    """Return 12 hex digits over everything below `folder`, independent of times and paths.

    Links are followed, except to a folder that contains them.

    Args:
        known: digests of folders by path; new ones are added.

    Raises:
        InputError: a file or folder that cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for place, line in sorted(_folders(os.fsencode(folder), b"", (), {} if known is None else known)):
            digest.update(b"%d %s %s\n" % (len(place), place, line))
    except OSError as error:
        path = os.fsdecode(error.filename or folder)
        raise InputError(f"cannot read {path}: {error.strerror}; allow it, or take it out of the data set") from None
    return fingerprint(digest.digest())


def _folders(
    folder: bytes, place: bytes, above: Sequence[tuple[int, int]], known: Known
) -> Iterator[tuple[bytes, bytes]]:
    """Yield (path relative to the root, digest of the files) of a folder and all folders below it.

    Args:
        above: device and inode of the folders that contain it.
    """
    status = os.stat(folder)
    identity = status.st_dev, status.st_ino
    if identity in above:
        yield place, b"a link to a folder that it lies in"
        return
    with os.scandir(folder) as found:
        entries = sorted((entry for entry in found if not _is_litter(entry.name)), key=lambda entry: entry.name)
    yield place, _digest(folder, [entry for entry in entries if not entry.is_dir()], known).encode()
    for entry in entries:
        if entry.is_dir():
            yield from _folders(entry.path, os.path.join(place, entry.name), (*above, identity), known)


def _digest(folder: bytes, entries: Sequence[os.DirEntry[bytes]], known: Known) -> str:
    """Return the digest of the files of one folder; taken from `known` if none of them has changed."""
    lines: list[bytes] = []  # without times
    stamps: list[bytes] = []  # of files identified by content
    content: list[tuple[int, bytes]] = []  # index of the line that still needs the digest of a file, and the file
    newest = 0.0
    for entry in entries:
        status = _status(entry)
        if status is None or not stat.S_ISREG(status.st_mode):
            lines.append(b"%s %s" % (entry.name, b"dangling" if status is None else b"no file"))
            continue
        lines.append(b"%s %d" % (entry.name, status.st_size))
        if not _goes_by_size(entry.name):
            content.append((len(lines) - 1, entry.path))
            # ctime cannot be set back, whereas `cp -p` and `tar` set back mtime.
            stamps.append(b"%s %d %d %d" % (entry.name, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
            newest = max(newest, status.st_mtime, status.st_ctime)
    if not content:
        return fingerprint(b"\n".join(lines))
    stamp, key = fingerprint(b"\n".join([*lines, *stamps])), os.fsdecode(os.path.abspath(folder))
    if key in known and known[key][0] == stamp:
        return known[key][1]
    settled = newest + _SETTLED < time.time()
    for number, path in content:
        lines[number] += b" " + digest_of_file(path)
    digest = fingerprint(b"\n".join(lines))
    if settled:
        known[key] = [stamp, digest]
    return digest


def _status(entry: os.DirEntry[bytes]) -> os.stat_result | None:
    try:
        return entry.stat()
    except FileNotFoundError:  # a link to nothing
        return None


def digest_of_file(path: bytes) -> bytes:
    """Return the SHA-256 of a file's content as hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest().encode()


def _goes_by_size(name: bytes) -> bool:
    return os.fsdecode(name).lower().endswith((*IMAGE_SUFFIXES, *ARCHIVE_SUFFIXES))


def _is_litter(name: bytes) -> bool:
    text = os.fsdecode(name)
    return text in LITTER or text.startswith(LITTER_PREFIX)
