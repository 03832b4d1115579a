"""The kind of stage that takes a backbone from a file, and the content of that file, which its hash covers."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from backbones.core.config import expand_path, load_yaml
from backbones.core.errors import InputError
from backbones.core.files import fingerprint, load_json, save_json
from backbones.core.imports import find_imports, join_digests
from backbones.core.results import FILE_NAME, IMPORT_FILE
from suites.fingerprints.data import digest_of_file
from suites.stages import record as records
from suites.stages.base import External
from suites.stages.results import ResultStage
from suites.stages.trainings import classification_data, classification_paths

# Of tools/import_backbone.py: the option and the value for our own files, and the option whose value is a file.
SOURCE, OWN, CLASSES = "--source", "smooth2det", "--classes"
BACKBONE_FILE = "backbone.pth"


class Source(NamedTuple):
    """A run folder or a file that a row names, and the fingerprint of what is read of it."""

    path: Path
    hash: str


def find_source(text: str, where: str, *, own: bool) -> Source:
    """Return the file or run folder that BACKBONE names.

    Args:
        own: it was written by this project; the code that its run keeps in `imports` counts, too.

    Raises:
        InputError: it does not exist or cannot be read.
    """
    path = expand_path(text).absolute()
    file = path / BACKBONE_FILE if path.is_dir() else path
    if path.is_dir() and not own:
        raise InputError(f"{where}: BACKBONE {path} is a folder; with IMPORT, name the checkpoint file")
    if not file.is_file():
        raise InputError(f"{where}: BACKBONE: no file {file}; give 'random', or a path relative to the suite's yaml")
    return Source(path, _fingerprint(file, own, where))


def _fingerprint(file: Path, own: bool, where: str) -> str:
    config = file.parent / records.CONFIG
    try:
        status = file.stat()
        content = _digest(str(file), status.st_mtime_ns, status.st_size)
        code = join_digests(find_imports(load_yaml(config))) if own and config.is_file() else ""
    except OSError as error:
        raise InputError(f"{where}: cannot read {file}: {error.strerror}") from None
    return fingerprint(content, code)


@lru_cache(maxsize=256)
def _digest(path: str, _time: int, _size: int) -> bytes:
    return digest_of_file(os.fsencode(path))


@dataclass(frozen=True, kw_only=True)
class Import(ResultStage):
    """A backbone of a file, written under the row's label; it has import.json instead of results.

    source_file: the file; own: whether this project wrote it.
    """

    kind = "import"
    default_tool = "import_backbone"
    results_stage = ""

    source_file: Source
    own: bool

    def finished(self) -> bool:
        """Whether the folder holds all files of the tool, of which import.json is written last."""
        needed = [BACKBONE_FILE, *([records.CONFIG] if self.config else [])]
        return self.weights() is not None and all((self.output / name).is_file() for name in needed)

    def recorded(self) -> bool:
        """Whether its files are the recorded ones."""
        return records.has_record(self.own_folder) and not self._difference()

    def record(self) -> None:
        """Record the identity of the backbone, and the config beside it."""
        save_json(self.own_folder / records.RECORD, self._identity())

    def foreign(self) -> str:
        """Return whether the folder holds results of a training or other files than the recorded ones, as a reason."""
        if (self.output / FILE_NAME).exists():
            return "it holds results of another tool"
        try:
            return self._difference() if self.finished() else ""
        except InputError:
            return ""

    def backbones_of(self, results: Mapping[str, Any]) -> Iterator[tuple[ResultStage, str | None]]:
        """Yield nothing: no stage writes its file."""
        yield from ()

    def weights(self) -> str | None:
        """Return the hash of the backbone, None if there is none."""
        path = self.output / IMPORT_FILE
        try:
            about = load_json(path) if path.is_file() else None
        except InputError:
            return None
        known = about.get("backbone") if isinstance(about, Mapping) else None
        return known.get("hash") if isinstance(known, Mapping) else None

    def changed_source(self) -> str:
        """Name the file if it has changed since the stage was planned."""
        path = self.source_file.path
        try:
            same = find_source(str(path), self.title, own=self.own) == self.source_file
        except InputError:  # it is gone
            same = False
        return super().changed_source() if same else f"{path} (BACKBONE)"

    def externals(self, cfg: Mapping[str, Any]) -> Iterator[External]:
        """List its file, and the data set that its classes are compared with."""
        yield External("weights", "", str(self.source_file.path))
        if self.config:
            yield classification_data(cfg, [cfg["DATA"]["VAL_SPLIT"]])

    def paths(self, cfg: Mapping[str, Any]) -> list[str]:
        """Return those of the config of its classes' data; the file itself enters the hash."""
        return classification_paths(cfg) if self.config else []

    def _identity(self) -> dict[str, Any]:
        config = self.output / records.CONFIG
        text = fingerprint(config.read_bytes()) if config.is_file() else ""
        return {"backbone": self.weights(), "config_text": text}

    def _difference(self) -> str:
        path = self.own_folder / records.RECORD
        if not path.is_file() or load_json(path) == self._identity():
            return ""
        return "its backbone or its config has changed since it was imported"
