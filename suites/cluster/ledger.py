"""The attempts at a stage on a cluster, each a file that exists before its job is submitted.

An attempt is created by a hard link, which one of several processes can do, on network file systems too; the id of its
job is added by a rename.  An attempt without an id is one whose submission was interrupted, or whose answer was lost.
"""

import os
import socket
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from backbones.core.disk import write_error, writing
from backbones.core.errors import InputError
from backbones.core.files import fingerprint, load_json, save_json
from suites.stages import Stage

FOLDER = "jobs"  # below the output folder
NEXT = "next@"  # begin of the keys of jobs that call the suite; no stage has such a name
# How an attempt ended: it failed and is not repeated by itself, was cancelled, succeeded, or is repeated for one of
# `REPEATED`.
FAILED, CANCELLED, DONE = "failed", "cancelled", "done"
LOST, KILLED, TIMEOUT = "lost", "killed", "timeout"
REPEATED = (LOST, KILLED, TIMEOUT)


@dataclass(frozen=True)
class Attempt:
    """An attempt at a stage.

    number: from 1; made: when it was created, by the clock of the file system; by: the process that created it.
    job: id of its job, empty until it is known.
    before: ids of the jobs of earlier attempts.
    after: keys of the stages for whose jobs it waits -> numbers of their attempts.
    repeats: how often earlier attempts ended for each of `REPEATED`, since the user last started the stage.
    absent: when its job was first missed, 0 if it was not.
    over: how it ended, empty until then; reason: why.
    """

    number: int
    made: float
    by: str = ""
    job: str = ""
    before: tuple[str, ...] = ()
    after: Mapping[str, int] = field(default_factory=dict)
    repeats: Mapping[str, int] = field(default_factory=dict)
    absent: float = 0.0
    over: str = ""
    reason: str = ""

    def follow(self, made: float, after: Mapping[str, int], *, anew: bool) -> "Attempt":
        """Return the next attempt; anew: the user starts the stage again, so that earlier ends do not count."""
        repeats = dict(self.repeats) if self.over in REPEATED and not anew else {}
        if self.over in REPEATED:
            repeats[self.over] = repeats.get(self.over, 0) + 1
        before = (*self.before, *([self.job] if self.job else []))
        return Attempt(self.number + 1, made, before=before, after=after, repeats=repeats)

    def end(self, over: str, reason: str) -> "Attempt":
        """Return it as ended."""
        return replace(self, over=over, reason=reason)


def key_of(stage: Stage) -> str:
    """Return the name of a stage's folder of jobs: that of its own folder, with its hash.

    The report's folder has no hash; because of the @, `--clean` does not take the jobs for those of another stage.
    """
    name = stage.own_folder.name
    return name if name.endswith(stage.hash) else f"{name}@{stage.hash}"


def job_prefix(output: Path) -> str:
    """Return how the names of all jobs of an output folder begin."""
    return f"s2d-{fingerprint(str(output.resolve()))[:8]}-"


def folder_of(output: Path, key: str) -> Path:
    """Return the folder of the attempts at a stage."""
    return output / FOLDER / key


def load_all(output: Path) -> dict[str, Attempt]:
    """Return the last attempt at every stage of an output folder, by key."""
    folder = output / FOLDER
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return {name: attempt for name in names if (attempt := load_last(folder / name))}


def load_last(folder: Path) -> Attempt | None:
    """Return the last attempt in the folder of a stage, None if there is none."""
    numbers = numbered(folder, "attempt")
    if not numbers:
        return None
    path = folder / f"attempt-{max(numbers)}.json"
    found = load_json(path)
    if not isinstance(found, Mapping) or found.keys() != {item.name for item in fields(Attempt)}:
        raise InputError(f"{path} does not describe a job; cancel the suite's jobs, then delete {folder}")
    return Attempt(**{**found, "before": tuple(found["before"])})


def numbered(folder: Path, kind: str) -> list[int]:
    """Return the numbers of the files `kind-NUMBER.json` in a folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    texts = [name[len(kind) + 1 : -5] for name in names if name.startswith(f"{kind}-") and name.endswith(".json")]
    return [int(text) for text in texts if text.isdigit()]


def create(folder: Path, attempt: Attempt) -> Attempt | None:
    """Create an attempt; return None if another process has created one with its number."""
    attempt = replace(attempt, by=f"{socket.gethostname()}:{os.getpid()}")
    return attempt if link_new(folder / f"attempt-{attempt.number}.json", asdict(attempt)) else None


def save(folder: Path, attempt: Attempt) -> None:
    """Save what has become known of an attempt."""
    save_json(folder / f"attempt-{attempt.number}.json", asdict(attempt))


def link_new(path: Path, content: Mapping[str, object]) -> bool:
    """Create a JSON file that must not exist yet; return whether it did not."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unique = path.with_name(f".{path.stem}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.json")
    save_json(unique, content)
    try:
        with suppress(FileExistsError):
            os.link(unique, path)
        # Not what the call said: its answer can be lost on the network, and the system's second try then fails.
        return unique.stat().st_nlink == 2
    except OSError as error:
        raise write_error(path, error) from None
    finally:
        unique.unlink(missing_ok=True)


def file_clock(output: Path) -> float:
    """Return the time by the clock of the file system, which all machines that share it agree on."""
    folder = output / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
            file.write(b"x")
            file.flush()
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
