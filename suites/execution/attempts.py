"""The last attempt at a stage, in a file beside its log while it runs and after it has failed.

The truth of a stage is its folder: a complete stage has no such file, and nothing is ever skipped because of one.  It
tells `--status` what runs, where and since when, and why a stage has failed.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from backbones.core.locking import Owner
from suites.stages import Stage
from suites.stages.outcome import reason_of

FILE_NAME = "attempt.json"


@dataclass(frozen=True)
class Attempt:
    """An attempt at a stage.

    begun, ended: seconds since 1970; ended: 0 until it has failed.
    pid, host: the process of the suite.
    reason: why it failed.
    """

    begun: float
    pid: int
    host: str
    ended: float = 0.0
    reason: str = ""

    @property
    def state(self) -> str:
        """`failed`, `running`, or `interrupted` if the suite is gone."""
        if self.ended:
            return "failed"
        return "running" if Owner(self.pid, self.host).alive() else "interrupted"


def put_aside(stage: Stage) -> str:
    """Rename a folder whose content is not from this stage, since a tool that resumes would start from it.

    Returns:
        what was done and why, "" for nothing.
    """
    if not (reason := stage.foreign()):
        return ""
    folder = stage.own_folder  # of data with their record: what --clean finds, and the size of the stage leaves out
    aside = next(path for n in count(1) if not (path := folder.with_name(f"{folder.name}.old{n}")).exists())
    folder.rename(aside)
    return f"{reason}; put aside as {aside.name}"


def begin(stage: Stage) -> None:
    """Record that this process starts `stage`; raise `InputError` if its folder cannot be written."""
    save_json(_path(stage), asdict(Attempt(time.time(), os.getpid(), socket.gethostname())))


def fail(stage: Stage, reason: str) -> None:
    """Record why the attempt has failed, if its folder can be written."""
    if attempt := load(stage):
        with suppress(InputError):
            save_json(_path(stage), asdict(replace(attempt, ended=time.time(), reason=reason)))


def complete(stage: Stage) -> str:
    """Record the output of a stage whose tool has succeeded; return why that is not possible, "" if it is recorded."""
    try:
        if not stage.finished():
            return reason_of(0, stage)
    except InputError:
        return reason_of(0, stage)
    try:
        stage.record()
    except (InputError, OSError) as error:
        return f"error: {error}"
    forget(stage)
    return ""


def forget(stage: Stage) -> None:
    """Remove the record of a stage that is complete, or was stopped."""
    with suppress(OSError):
        _path(stage).unlink(missing_ok=True)


def load(stage: Stage) -> Attempt | None:
    """Return the last attempt, None if there is none or its file cannot be read."""
    try:
        found = load_json(_path(stage)) if _path(stage).is_file() else None
        attempt = Attempt(**found) if isinstance(found, Mapping) else None
    except (InputError, TypeError):
        return None
    kinds = {"begun": (int, float), "pid": int, "host": str, "ended": (int, float), "reason": str}
    return attempt if attempt and all(isinstance(getattr(attempt, name), kinds[name]) for name in kinds) else None


def _path(stage: Stage) -> Path:
    return stage.own_folder / FILE_NAME
