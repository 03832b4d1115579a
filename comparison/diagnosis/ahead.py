"""Compute what a comparison keeps beside each matches.npz, of several files at once.

The comparison finds the files and reads them (`comparison.resampling.draws`, `comparison.diagnosis.of_run`); what is
missing, it computes itself.  Processes are started as programs, as a caller's script need not be importable:

    python -m comparison.diagnosis.ahead RESAMPLES SEED MATCHES.npz ...
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from backbones.core.machine import count_cores
from backbones.core.matches import load_matches
from comparison.diagnosis.of_run import INFLUENCE_FILE, NUMBERS_FILE, diagnose, influence_of_images
from comparison.resampling.draws import DRAWS_FILE, draw

LARGE = 10_000_000  # bytes of all files, from which several processes are worth their start


def compute_ahead(files: Sequence[Path], *, resamples: int, seed: int) -> None:
    """Compute what is not there yet, in as many processes as there are cores; not for small or single files."""
    missing = [path for path in files if not _kept(path)]
    processes = min(count_cores(), len(missing))
    if processes < 2 or sum(path.stat().st_size for path in missing) < LARGE:
        return
    root = str(Path(__file__).resolve().parents[2])
    places = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": places}
    command = [sys.executable, "-m", "comparison.diagnosis.ahead", str(resamples), str(seed)]
    started = [
        subprocess.Popen([*command, *map(str, missing[n::processes])], env=variables, stderr=subprocess.DEVNULL)
        for n in range(processes)
    ]
    for process in started:
        process.wait()


def _kept(path: Path) -> bool:
    return all(path.with_name(name).is_file() for name in (DRAWS_FILE, NUMBERS_FILE, INFLUENCE_FILE))


def main(arguments: Sequence[str]) -> None:
    """Compute the numbers of the files named in `arguments`, after the number of resamples and the seed."""
    resamples, seed = int(arguments[0]), int(arguments[1])
    for path in arguments[2:]:
        matches = load_matches(path)
        draw(matches, resamples=resamples, seed=seed)
        diagnose(matches, resamples=resamples, seed=seed)
        influence_of_images(matches)


if __name__ == "__main__":
    main(sys.argv[1:])
