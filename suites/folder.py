"""The output folder of suites: one suite at a time works in it, and each has a report of its own.

Several suites may share a folder, and with it data and trainings, but not a page.  The first suite of a folder owns
`report`, `config.yaml` and `timings.json`, another one `report-NAME` and so on, NAME being that of its file.
`suites.json` says which is whose.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from backbones.core.locking import Owner, hold_lock
from suites.stages.naming import slug

LOCK = "suite.lock"
OWNERS = "suites.json"  # {name of the suite: what is added to the names of its files}
# Seconds for the rest of a killed suite to vanish.
_ORPHANS = 15.0


@contextmanager
def lock_folder(folder: Path) -> Iterator[int]:
    """Hold `folder`'s lock file, which names this process; yields its descriptor.

    Stages inherit it: a stage that outlives its suite must not meet its own successor.
    """

    def refusal(owner: Owner) -> str:
        what = "another suite is" if owner.alive() else "a stage of a suite that is gone is still"
        return f"{what} at work in {folder} ({owner}); wait for it, or choose another --output-dir"

    with hold_lock(folder / LOCK, refusal, orphans=_ORPHANS) as descriptor:
        yield descriptor


def find_suffix(output: Path, suite: str) -> str:
    """What the suite of this name adds to the names of its files in `output`: "" for the first one, else -NAME."""
    owners = _load(output)
    if suite in owners:
        return owners[suite]
    suffix = f"-{slug(suite)}" if owners else ""
    while suffix in owners.values():
        suffix += "_"
    return suffix


def claim_suffix(output: Path, suite: str) -> str:
    """`find_suffix`, which is the suite's from now on."""
    suffix = find_suffix(output, suite)
    if suite not in (owners := _load(output)):
        save_json(output / OWNERS, {**owners, suite: suffix})
    return suffix


def _load(output: Path) -> Mapping[str, str]:
    path = output / OWNERS
    owners = load_json(path) if path.is_file() else {}
    if not isinstance(owners, Mapping) or not all(isinstance(suffix, str) for suffix in owners.values()):
        raise InputError(f"{path} does not say which report is whose; delete it")
    return owners
