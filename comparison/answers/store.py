"""The folder of the published results of a suite."""

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backbones.core.errors import InputError
from backbones.core.files import load_json, save_json, save_text
from backbones.core.results import FILE_NAME
from comparison import compare
from comparison.evidence.bundle import KEPT
from comparison.page.page import PAGE as INDEX

FOLDER = "docs/results"
RUNS, MADE, HASHES = "runs", "made.json", "hashes.json"
ARRAYS = ".npz"  # suffix of per-image data
PAGE = "page.html"  # of the comparison with the usual baseline
# Of the comparison with another baseline, only the methods are kept.
METHODS = ("baseline", "primary", "level", "resamples", "methods")


@dataclass(frozen=True)
class Made:
    """How a part of the results was made: hours of one core, and what the numbers depend on."""

    stages: int
    hours: float
    device: str
    torch: str
    commit: str
    command: str
    rows: str = ""  # rows and seeds: those whose stages were added
    runs: Sequence[str] = ()  # names of their folders


def add_runs(folder: Path, runs: Iterable[Path], names: Mapping[Path, str], *, numbers_only: bool = False) -> None:
    """Copy the result files of run folders to `folder`/runs, of those that are not there.

    Args:
        names: absolute path -> what takes its place in the files, which do not name folders of the machine.
        numbers_only: whether hashes.json keeps the SHA-256 of per-image data, by run and file, instead of the data.
    """
    hashes = load_json(folder / HASHES) if (folder / HASHES).is_file() else {}
    for run in runs:
        target = folder / RUNS / run.name
        if not (target / FILE_NAME).is_file():
            target.mkdir(parents=True, exist_ok=True)
            told = {f"{path}": name for path, name in names.items()} | _code_folder(run)
            for name in sorted(KEPT, key=lambda name: name == FILE_NAME):  # the one that says complete last
                if not (run / name).is_file():
                    continue
                if numbers_only and name.endswith(ARRAYS):
                    hashes[f"{run.name}/{name}"] = hashlib.sha256((run / name).read_bytes()).hexdigest()
                    save_json(folder / HASHES, hashes)
                else:
                    _copy(run / name, target / name, told)


def _code_folder(run: Path) -> dict[str, str]:
    """Return the folder of the code that made a run, as it begins a path."""
    code = Path(load_json(run / "environment.json")["command"][0]).parent.parent
    return {f"{code}/": ""} if code.is_absolute() else {}


def _copy(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """Copy a file; arrays are compressed by LZMA, a third smaller and as readable to `numpy.load`."""
    if source.suffix != ARRAYS:
        text = source.read_text(encoding="utf-8")
        for path in sorted(names, key=len, reverse=True):  # a folder within another one first
            text = text.replace(path, names[path])
        save_text(target, text)
        return
    with zipfile.ZipFile(source) as arrays, zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as smaller:
        for one in arrays.infolist():
            smaller.writestr(zipfile.ZipInfo(one.filename, one.date_time), arrays.read(one), zipfile.ZIP_LZMA)


def record(folder: Path, runs: Mapping[str, tuple[Path, float]], command: str) -> int:
    """Add to made.json how runs were made, those that it does not tell of yet; return their number.

    What is there decides, not what this call copied: an earlier one can have been killed in between.

    Args:
        runs: title of the stage, such as "CE seed 0: pretrain" -> folder, and seconds of one core.
    """
    parts = read_made(folder)
    known = {name for part in parts for name in part.runs}
    new = {title: one for title, one in runs.items() if one[0].name not in known}
    if new:
        told = load_json(next(iter(new.values()))[0] / "environment.json")
        part = Made(
            stages=len(new),
            hours=round(sum(seconds for _, seconds in new.values()) / 3600, 2),
            device=told["device"],
            torch=told["packages"]["torch"],
            commit=(told["git"]["commit"] or "unknown")[:12],  # of files outside of a clone
            command=command,
            rows=", ".join(dict.fromkeys(title.rpartition(": ")[0] for title in new)),
            runs=sorted(run.name for run, _ in new.values()),
        )
        save_json(folder / MADE, [asdict(one) for one in (*parts, part)])
    return len(new)


def read_made(folder: Path) -> list[Made]:
    """Return what made.json tells, empty if there is none."""
    return [Made(**one) for one in load_json(folder / MADE)] if (folder / MADE).is_file() else []


def compare_published(folder: Path, baselines: Iterable[str], options: Mapping[str, Any]) -> None:
    """Compare the published runs of a suite, once with each baseline; "" is the usual one, whose page is kept.

    The page has no images: those of results of real data are not ours.

    options: keyword arguments of `comparison.compare`.
    """
    with tempfile.TemporaryDirectory() as scratch:  # draws and figures are made again when they are needed
        copies = Path(scratch, RUNS)
        shutil.copytree(folder / RUNS, copies)
        for baseline in baselines:
            found = compare([copies], Path(scratch, "page"), baseline=baseline or None, **options)
            kept = _relative(found, scratch) if not baseline else {name: found[name] for name in METHODS}
            save_json(comparison_file(folder, baseline), kept, indent=None)
            if not baseline:
                page = Path(scratch, "page", INDEX).read_text(encoding="utf-8")
                save_text(folder / PAGE, page.replace(f"{scratch}/", ""))


def published_suites(root: Path, suites: Iterable[str]) -> list[str]:
    """Return the suites with published results, in their order."""
    return [suite for suite in suites if comparison_file(root / FOLDER / suite).is_file()]


def comparison_file(folder: Path, baseline: str = "") -> Path:
    """Return the file of the comparison with a baseline; "" is the usual one."""
    return folder / (f"against-{baseline}.json" if baseline else "comparison.json")


def load_comparison(folder: Path, baseline: str = "") -> dict[str, Any]:
    """Return a published comparison.

    Raises:
        InputError: there is none.
    """
    path = comparison_file(folder, baseline)
    if not path.is_file():
        raise InputError(f"{path} does not exist; publish its suite: tools/publish.py SUITE.yaml FOLDER")
    return load_json(path)


def _relative(comparison: Mapping[str, Any], scratch: str) -> dict[str, Any]:
    """Return the comparison with the folders of its runs relative to that of the suite."""
    return json.loads(json.dumps(comparison).replace(f"{scratch}/", ""))
