"""Compute what a comparison keeps beside each matches.npz, of several files at once.

The comparison finds the files and reads them (`comparison.resampling.draws`, `comparison.diagnosis.of_run`); what is
missing, it computes itself.  Processes are started as programs, as a caller's script need not be importable:

    python -m comparison.diagnosis.ahead RESAMPLES SEED PART:MATCHES.npz ...       PART: of `PARTS`
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from backbones.core.bars import progress_bar
from backbones.core.machine import count_cores
from backbones.core.matches import Matches, load_matches
from comparison.diagnosis.of_run import INFLUENCE_FILE, NUMBERS_FILE, diagnose, influence_of_images
from comparison.resampling.draws import DRAWS_FILE, draw

_LOOK = 0.5  # seconds between two looks at what is there
LARGE = 3_000_000  # bytes of all files, from which several processes are worth their start
# Part -> file that keeps it, and what computes it; in this order, two processes share the parts of one file best.
PARTS: Mapping[str, tuple[str, Callable[[Matches, int, int], object]]] = {
    "diagnosis": (NUMBERS_FILE, lambda matches, resamples, seed: diagnose(matches, resamples=resamples, seed=seed)),
    "draws": (DRAWS_FILE, lambda matches, resamples, seed: draw(matches, resamples=resamples, seed=seed)),
    "influence": (INFLUENCE_FILE, lambda matches, _, __: influence_of_images(matches)),
}


def compute_ahead(files: Sequence[Path], *, resamples: int, seed: int) -> None:
    """Compute what is not there yet, in as many processes as there are cores; not for small files."""
    # Where nothing can be written, the comparison would compute everything a second time.
    missing = {path: parts for path in files if (parts := _missing(path)) and os.access(path.parent, os.W_OK)}
    if sum(path.stat().st_size for path in missing) < LARGE:
        return
    tasks = [[f"{part}:{path}" for part in parts] for path, parts in missing.items()]
    if len(tasks) < count_cores():  # a file is read once per process: its parts are only divided to fill the cores
        tasks = [[one] for own in tasks for one in own]
    processes = min(count_cores(), len(tasks))
    if processes < 2:
        return
    root = str(Path(__file__).resolve().parents[2])
    places = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": places}
    command = [sys.executable, "-m", "comparison.diagnosis.ahead", str(resamples), str(seed)]
    shares = [[one for own in tasks[n::processes] for one in own] for n in range(processes)]
    started = [subprocess.Popen([*command, *own], env=variables, stderr=subprocess.DEVNULL) for own in shares]
    total = sum(map(len, missing.values()))
    with progress_bar(title="draws and diagnoses", total=total) as bar:
        while any(process.poll() is None for process in started):
            time.sleep(_LOOK)
            bar.update(total - sum(len(_missing(path)) for path in missing) - bar.n)


def _missing(path: Path) -> list[str]:
    return [part for part, (name, _) in PARTS.items() if not path.with_name(name).is_file()]


def main(arguments: Sequence[str]) -> None:
    """Compute the parts named in `arguments`, after the number of resamples and the seed."""
    resamples, seed = int(arguments[0]), int(arguments[1])
    matches: dict[str, Matches] = {}
    for argument in arguments[2:]:
        part, _, path = argument.partition(":")
        if path not in matches:
            matches = {path: load_matches(path)}
        PARTS[part][1](matches[path], resamples, seed)


if __name__ == "__main__":
    main(sys.argv[1:])
