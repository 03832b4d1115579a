"""Delete the stages' folders that no suite of an output folder needs any more: `tools/benchmark.py --clean`.

Changed settings leave the folders of the old ones, and a folder whose content was not from its stage was put aside as
NAME.old1.  Suites that share an output folder each keep the list of their folders in `folders.json` (with the suffix of
their names), so that one does not delete those of another.
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from backbones.core.disk import folder_size, size_text
from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json
from suites.folder import load_owners, lock_folder
from suites.plan import Plan

# The folder of a stage, possibly put aside: anything else below runs/ and data/ was not written by a suite.
_NAME = re.compile(r"(?P<start>.+)-[0-9a-f]{12}(\.old\d+)?")


def save_folders(plan: Plan) -> None:
    """Keep the list of the folders of a plan."""
    names = sorted({stage.own_folder.relative_to(plan.output).as_posix() for stage in plan.stages})
    path = _list_of(plan.output, plan.suffix)
    if not path.is_file() or load_json(path) != names:
        save_json(path, names)


def find_leftovers(plan: Plan) -> list[Path]:
    """Return the stages' folders in the output folder that no suite needs, sorted.

    Folders of stages whose settings a selection has yet to decide are kept, whatever their hash.

    Raises:
        InputError: another suite that shares the folder has no list of its folders.
    """
    needed = {stage.own_folder for stage in plan.stages if not stage.waits}
    open_starts = {_start(stage.own_folder) for stage in plan.stages if stage.waits}
    for suite, suffix in load_owners(plan.output).items():
        if suite != plan.name:
            needed |= _load(plan.output, suite, suffix)
    return [path for path in _candidates(plan.output) if path not in needed and _start(path) not in open_starts]


def ask() -> bool:
    """Ask on the terminal whether to delete; without an answer, nothing is deleted."""
    print("delete them? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def clean(plan: Plan, confirm: Callable[[], bool] | bool) -> None:
    """Print the leftovers with their sizes, and delete them if `confirm` is or returns true.

    Raises:
        InputError: a suite is running in the output folder.
    """
    with lock_folder(plan.output):
        leftovers = find_leftovers(plan)
        sizes = [folder_size(path) for path in leftovers]
        for path, size in zip(leftovers, sizes, strict=True):
            print(f"{size_text(size):>9}  {path}")
        print(f"{len(leftovers)} folders that no suite needs, {size_text(sum(sizes))}")
        if leftovers and (confirm if isinstance(confirm, bool) else confirm()):
            for path in leftovers:
                shutil.rmtree(path)
            print("deleted")


def _candidates(output: Path) -> Iterable[Path]:
    folders = (path for name in ("data", "runs") for path in sorted((output / name).glob("*")))
    return [path for path in folders if path.is_dir() and not path.is_symlink() and _NAME.fullmatch(path.name)]


def _start(folder: Path) -> str:
    """Return the name of a stage's folder without its hash."""
    found = _NAME.fullmatch(folder.name)
    return found["start"] if found else folder.name


def _list_of(output: Path, suffix: str) -> Path:
    return output / f"folders{suffix}.json"


def _load(output: Path, suite: str, suffix: str) -> set[Path]:
    path = _list_of(output, suffix)
    names = load_json(path) if path.is_file() else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} does not list the folders of the suite {suite}, which shares {output}; run it once")
    return {output / name for name in names}
