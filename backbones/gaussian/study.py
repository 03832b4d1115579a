"""Running all replicates of the study in processes of one thread each, with one file per finished replicate.

<folder>/study.json             the settings; a study with other settings is refused
<folder>/replicates/0000.npz    result of `replicate.run_replicate`; existing replicates are not run again
"""

import json
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from backbones.core.bars import progress_bar
from backbones.core.errors import InputError
from backbones.core.files import load_json, save_atomic, save_json
from backbones.gaussian.replicate import Settings, run_replicate

VERSION = 2  # version of the files; raise it when a replicate's numbers change
SETTINGS_FILE = "study.json"


def run_study(settings: Settings, folder: str | Path, replicates: int, workers: int = 1) -> None:
    """Run those of the replicates 0 .. replicates - 1 that `folder` lacks; progress goes to standard error.

    Raises:
        InputError: a study with other settings, a killed worker, or a network that diverged.
    """
    folder = Path(folder)
    _open(settings, folder)
    missing = [number for number in range(replicates) if not replicate_file(folder, number).exists()]
    with progress_bar(total=replicates, initial=replicates - len(missing), unit="replicate", smoothing=0.1) as bar:
        if workers == 1:
            _one_thread()
            for number in missing:
                _run(settings, folder, number)
                bar.update()
            return
        # spawn: a forked process would inherit torch's threads
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
            try:
                for done in as_completed([pool.submit(_run, settings, folder, number) for number in missing]):
                    done.result()
                    bar.update()
            except BrokenProcessPool:
                what = "a worker was killed, for example because the memory is full"
                raise InputError(f"{what}; use fewer --workers; run the same command again to resume") from None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def load_study(folder: str | Path, replicates: int) -> dict[str, np.ndarray]:
    """Load the arrays of all replicates, stacked (N, ...), except names and amounts, which are the same in each."""
    loaded = [_load(replicate_file(Path(folder), number)) for number in range(replicates)]
    once = {key: loaded[0][key] for key in ("candidates", "rows", "curve_eps", "histogram_rows")}
    return once | {key: np.stack([one[key] for one in loaded]) for key in loaded[0] if key not in once}


def replicate_file(folder: Path, number: int) -> Path:
    """Return the path of a replicate's file."""
    return folder / "replicates" / f"{number:04d}.npz"


def describe(settings: Settings) -> dict[str, Any]:
    """Return the settings on which the numbers depend, as JSON values."""
    known = asdict(settings)
    del known["recipe"]["slots"]
    return json.loads(json.dumps({"version": VERSION, **known}))


def _open(settings: Settings, folder: Path) -> None:
    path, now = folder / SETTINGS_FILE, describe(settings)
    if not path.exists():
        save_json(path, now)
        return
    before = load_json(path)
    for key in now:
        if before.get(key) != now[key]:
            raise InputError(
                f"{folder} holds a study with other settings ({_difference(key, before.get(key), now[key])}); "
                "choose another --output-dir"
            )


def _difference(key: str, old: Any, new: Any) -> str:
    """Describe the innermost setting that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        inner = next(k for k in new if old.get(k) != new[k])
        return _difference(f"{key}.{inner}", old.get(inner), new[inner])
    return f"{key} was {old} and is now {new}"


def _run(settings: Settings, folder: Path, number: int) -> None:
    arrays: dict[str, Any] = run_replicate(settings, number)
    save_atomic(replicate_file(folder, number), lambda path: np.savez_compressed(path, **arrays), arrays)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"cannot read {path}: {error}; delete it and run the study again") from None


def _start_worker() -> None:
    _one_thread()
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent ends the study; a worker finishes its replicate
        signal.signal(number, signal.SIG_IGN)


def _one_thread() -> None:
    torch.set_num_threads(1)


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over replicates (N, ...) and its standard error, nan for a single replicate."""
    count = len(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = ((values - values.mean(axis=0)) ** 2).sum(axis=0) / np.float64(count - 1)
    return values.mean(axis=0), np.sqrt(spread / count)
