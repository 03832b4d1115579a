"""The output folder of suites: one suite at a time runs in it, and each has its own report.

Several suites can share a folder, and thereby data and trainings, but not a report.  The first suite in a folder owns
`report`, `config.yaml` and `timings.json`; any other owns `report-NAME` and so on, where NAME is the name of its yaml
file.  `suites.json` maps each suite to its suffix.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from backbones.core.locking import Owner, hold_lock
from suites.stages.naming import slug

LOCK = "suite.lock"
OWNERS = "suites.json"  # {name of the suite: suffix of its file names}
# Seconds to wait until the processes of a killed suite have ended.
_ORPHANS = 15.0


@contextmanager
def lock_folder(folder: Path) -> Iterator[int]:
    """Hold `folder`'s lock file, which names this process; yields its descriptor.

    Stages inherit the lock, so that a stage that outlives its suite never runs beside a second call of itself.
    """

    def refusal(owner: Owner) -> str:
        what = "another suite is" if owner.alive() else "a stage of a suite that is gone is still"
        return f"{what} at work in {folder} ({owner}); wait for it, or choose another --output-dir"

    with hold_lock(folder / LOCK, refusal, orphans=_ORPHANS) as descriptor:
        yield descriptor


def find_suffix(output: Path, suite: str) -> str:
    """Return the suffix of this suite's file names in `output`: "" for the first suite, otherwise -NAME."""
    owners = load_owners(output)
    if suite in owners:
        return owners[suite]
    suffix = f"-{slug(suite)}" if owners else ""
    while suffix in owners.values():
        suffix += "_"
    return suffix


def claim_suffix(output: Path, suite: str) -> str:
    """Like `find_suffix`, and reserve the suffix for this suite."""
    suffix = find_suffix(output, suite)
    if suite not in (owners := load_owners(output)):
        save_json(output / OWNERS, {**owners, suite: suffix})
    return suffix


def load_owners(output: Path) -> Mapping[str, str]:
    """Return the suffixes of the suites in `output`, by name of the suite."""
    path = output / OWNERS
    owners = load_json(path) if path.is_file() else {}
    if not isinstance(owners, Mapping) or not all(isinstance(suffix, str) for suffix in owners.values()):
        raise InputError(f"{path} does not say which report is whose; delete it")
    return owners
