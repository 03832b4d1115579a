"""Delete the stages' folders that no suite of an output folder needs any more: `tools/benchmark.py --clean`.

Changed settings leave the folders of the old ones, and a folder whose content was not from its stage was put aside as
NAME.old1.  A stage on which a job of a cluster works is kept.  Suites that share an output folder each keep the list of
their folders in `folders.json` (with the suffix of their names), so that one does not delete those of another.
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from backbones.core.disk import folder_size, size_text
from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from suites.cluster.claims import held_folders
from suites.cluster.ledger import FOLDER as JOBS
from suites.folder import load_owners, lock_folder
from suites.plan import Plan
from suites.stages import Stage

_PLACES = ("data", "runs")  # of the stages' folders
# The folder of a stage, possibly put aside: anything else below runs/ and data/ was not written by a suite.
_NAME = re.compile(r"(?P<start>.+)-[0-9a-f]{12}(\.old\d+)?")


def save_folders(plan: Plan) -> None:
    """Keep the list of the folders of a plan; those that a selection has yet to decide without their hash."""
    names = sorted({_kept_name(plan, stage) for stage in plan.stages})
    path = _list_of(plan.output, plan.suffix)
    if not path.is_file() or load_json(path) != names:
        save_json(path, names)


def find_leftovers(plan: Plan) -> list[Path]:
    """Return the stages' folders in the output folder that no suite needs, sorted.

    Folders of stages whose settings a selection has yet to decide are kept, whatever their hash.

    Raises:
        InputError: another suite that shares the folder has no list of its folders.
    """
    needed = {_kept_name(plan, stage) for stage in plan.stages} | names_of_others(plan)
    held = {f"{place}/{name}" for name in held_folders(plan.output) for place in _PLACES}
    return [path for path in _candidates(plan.output) if (needed | held).isdisjoint(_names_of(plan.output, path))]


def names_of_others(plan: Plan) -> set[str]:
    """Return the names of the folders that the other suites of the output folder need.

    Raises:
        InputError: one of them has no list of its folders.
    """
    found = [_load(plan.output, *owner) for owner in load_owners(plan.output).items() if owner[0] != plan.name]
    return set().union(*found)


def ask() -> bool:
    """Ask on the terminal whether to delete; without an answer, or without a terminal, nothing is deleted."""
    print("delete them? [y/N] ", end="", flush=True)
    answer = sys.stdin.readline() if sys.stdin else ""
    if not answer.endswith("\n"):
        print()
    return answer.strip().lower() in ("y", "yes")


def clean(plan: Plan, confirm: Callable[[], bool] | bool) -> None:
    """Print the leftovers with their sizes, and delete them if `confirm` is or returns true.

    Raises:
        InputError: the output folder does not exist, a suite is running in it, or a folder cannot be deleted.
    """
    if not plan.output.is_dir():
        raise InputError(f"{plan.output} does not exist; check --output-dir")
    with lock_folder(plan.output):
        leftovers = find_leftovers(plan)
        sizes = [folder_size(path) for path in leftovers]
        for path, size in zip(leftovers, sizes, strict=True):
            print(f"{size_text(size):>9}  {path}")
        count = "1 folder" if len(leftovers) == 1 else f"{len(leftovers)} folders"
        print(f"{count} that no suite needs, {size_text(sum(sizes))}")
        if not leftovers:
            return
        if not (confirm if isinstance(confirm, bool) else confirm()):
            print("nothing was deleted")
            return
        for path in leftovers:
            try:
                shutil.rmtree(path)
            except OSError as error:
                raise InputError(f"cannot delete {error.filename or path}: {error.strerror}") from None
        print("deleted")


def _candidates(output: Path) -> Iterable[Path]:
    folders = (path for name in (*_PLACES, JOBS) for path in sorted((output / name).glob("*")))
    return [path for path in folders if path.is_dir() and not path.is_symlink() and _NAME.fullmatch(path.name)]


def _names_of(output: Path, path: Path) -> set[str]:
    """Return the names by which a folder may be kept; one of jobs is kept with the folder of its stage."""
    name = path.relative_to(output).as_posix()
    names = {name} if not name.startswith(f"{JOBS}/") else {f"{place}/{path.name}" for place in _PLACES}
    return {*names, *map(open_name, names)}


def _kept_name(plan: Plan, stage: Stage) -> str:
    """Return the name by which the folder of a stage is kept, relative to the output folder."""
    name = stage.own_folder.relative_to(plan.output).as_posix()
    return open_name(name) if stage.waits else name


def open_name(name: str) -> str:
    """Return the name of a stage's folder with `*` for its hash."""
    found = _NAME.fullmatch(name)
    return f"{found['start']}-*" if found else name


def _list_of(output: Path, suffix: str) -> Path:
    return output / f"folders{suffix}.json"


def _load(output: Path, suite: str, suffix: str) -> set[str]:
    path = _list_of(output, suffix)
    names = load_json(path) if path.is_file() else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} does not list the folders of the suite {suite}, which shares {output}; run it once")
    return set(names)
