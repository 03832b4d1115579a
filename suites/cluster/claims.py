"""Claims: which job works on a stage, so that no two ever do at the same time.

The scheduler alone does not ensure that: when the daemon of a node dies, its job keeps running, and is started again on
another node.  A claim is a numbered file, created by a hard link; its owner changes it every few seconds.  A job that
finds a claim waits until its owner has ended it, or until it has not changed for `stale` seconds by the waiting job's
own clock, and then creates the next number.  An owner that finds a newer claim than its own, or could not renew its own
for less than that time, stops what it runs: clocks of different machines are never compared.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from suites.cluster.ledger import FOLDER, link_new, numbered

# Seconds between two changes of a claim; after which an owner that cannot change it stops; after which others may
# claim the stage.  Network file systems can show a file as it was up to 60 s ago.
BEAT, FENCE, STALE = 20.0, 60.0, 180.0
HELD, FREED, FAILED, DONE = "held", "freed", "failed", "done"


@dataclass(frozen=True)
class Claim:
    """One start of a stage by a job.

    number: from 1; attempt: number of its attempt; restart: how often the scheduler had started the job before.
    machine, pid: the process; several: whether it starts more than one, which can outlive it.
    beats: how often it was renewed.
    state: held, or how it ended: freed by a job that was stopped, failed, or done; code, reason, seconds: of the tool.
    """

    number: int
    attempt: int
    job: str
    restart: str = "0"
    machine: str = ""
    host: str = ""
    pid: int = 0
    several: bool = False
    begun: float = 0.0
    beats: int = 0
    state: str = HELD
    code: int = 0
    reason: str = ""
    seconds: float = 0.0

    @property
    def abandoned(self) -> bool:
        """Whether its process is known to have ended: it was of this machine, and its only child ends with it."""
        if self.several or not self.machine or self.machine != this_machine():
            return False
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
        except FileNotFoundError:
            return True
        return state.split()[0] == "Z"  # it has ended, and its parent does not know yet


class ClaimLost(Exception):  # not an error
    """Another job has claimed the stage."""


def load_last(folder: Path) -> Claim | None:
    """Return the last claim in the folder of a stage, None if there is none."""
    numbers = numbered(folder, "claim")
    if not numbers:
        return None
    try:
        found = load_json(_path(folder, max(numbers)))
    except InputError:
        return None
    return Claim(**found) if isinstance(found, dict) and found.keys() == {item.name for item in fields(Claim)} else None


def held_folders(output: Path) -> list[str]:
    """Return the keys of the stages on which jobs work."""
    folder = output / FOLDER
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return [name for name in names if (claim := load_last(folder / name)) and claim.state == HELD]


class Claimant:
    """A job that wants to work on a stage.

    Args:
        claim: as it will be, except for its number.
        clock: seconds that only this process uses.
    """

    def __init__(self, folder: Path, claim: Claim, clock: Callable[[], float], stale: float = STALE) -> None:
        self.folder, self.claim, self.clock, self.stale = folder, claim, clock, stale
        self._seen: Claim | None = None
        self._since = 0.0

    def take(self) -> bool:
        """Claim the stage if that is possible now; return whether it is this job's."""
        last = load_last(self.folder)
        if last and last.state == HELD and not last.abandoned:
            if last != self._seen:
                self._seen, self._since = last, self.clock()
            if self.clock() - self._since < self.stale:
                return False
        self.claim = replace(self.claim, number=last.number + 1 if last else 1)
        return link_new(_path(self.folder, self.claim.number), asdict(self.claim))

    def beat(self) -> None:
        """Renew the claim; raise `ClaimLost` if another job has a newer one."""
        self._save(replace(self.claim, beats=self.claim.beats + 1))

    def end(self, state: str, code: int = 0, reason: str = "", seconds: float = 0.0) -> None:
        """End the claim, so that the next job need not wait; nothing happens if another job has a newer one."""
        with suppress(ClaimLost):
            self._save(replace(self.claim, state=state, code=code, reason=reason, seconds=round(seconds, 2)))

    def _save(self, claim: Claim) -> None:
        if _path(self.folder, claim.number + 1).exists():
            raise ClaimLost(f"another job has claimed {self.folder.name}")
        save_json(_path(self.folder, claim.number), asdict(claim))
        self.claim = claim


def this_machine() -> str:
    """Identify this machine since it was started, and its process ids; "" where that is not possible."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _path(folder: Path, number: int) -> Path:
    return folder / f"claim-{number}.json"
