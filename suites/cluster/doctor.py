"""Checks of the SLURM cluster of this machine, for `tools/doctor.py`."""

import getpass
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile

from backbones.core.doctor import OK, PROBLEM, Check
from suites.cluster.slurm import PROGRAMS, outside_jobs

# Seconds to wait for an answer, and for the test job.
_PATIENCE, _JOB = 20, 120


def check_slurm(output_dir: Path, *, test_job: bool = False) -> list[Check]:
    """Check programs, partitions, accounting and limits; test_job: also that a job sees `output_dir`."""
    if not shutil.which("sbatch"):
        return [Check("SLURM", OK, "not on this machine; suites run here, with LAUNCH.EXECUTOR local")]
    return list(_checks(output_dir, test_job))


def _checks(output_dir: Path, test_job: bool) -> Iterator[Check]:
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        yield Check("SLURM", PROBLEM, f"no program {', '.join(missing)}", "ask your site for SLURM's commands")
        return
    if find_spec("submitit") is None:
        yield Check("SLURM", PROBLEM, "no submitit, which submits jobs", 'pip install -e ".[slurm]"')
    said, error = _ask("sinfo", "--noheader", "--format=%P|%l|%D|%c|%G")
    if error:
        yield Check("SLURM partitions", PROBLEM, error, "call from a login node while the controller answers")
        return
    rows = [line.split("|") for line in said.splitlines()]
    parts = [f"{row[0]}: {row[2]} nodes of {row[3]} cores, {row[4]}, limit {row[1]}" for row in rows]
    yield Check("SLURM partitions", OK, "; ".join(parts).replace("(null)", "no GPU"))
    said, error = _ask("sacct", "--noheader", "--allocations", f"--user={getpass.getuser()}")
    without = "none: a job that has left the queue is judged by its folder only"
    yield Check("SLURM accounting", OK, "answers" if not error else without)
    yield _check_limits()
    if test_job:
        yield _check_job(output_dir)


def _check_limits() -> Check:
    """Check how many jobs may be submitted; with a full queue, a suite needs several calls."""
    user = getpass.getuser()
    said, error = _ask("sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={user}", "format=MaxSubmit")
    limits = sorted({int(line) for line in said.split() if line.isdigit()})
    if error or not limits:
        return Check("SLURM limits", OK, "none known for your submissions")
    return Check("SLURM limits", OK, f"{limits[0]} jobs may be submitted at once; larger suites need several calls")


def _check_job(output_dir: Path) -> Check:
    """Run a job of two seconds that reads a file in the output folder."""
    name, folder = "SLURM job", output_dir.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=folder, prefix=".slurm-") as file:
            file.write("seen")
            file.flush()
            options = ("--time=1", "--ntasks=1", "--job-name=s2d-doctor", f"--immediate={_JOB - 20}")
            said, error = _ask("srun", *options, "sh", "-c", f"sleep 2; hostname; cat '{file.name}'", seconds=_JOB)
    except OSError as failed:
        return Check(name, PROBLEM, f"cannot write {folder}: {failed.strerror}", "choose another --output-dir")
    if error or not said.endswith("seen"):
        shared = "a job did not see a file in " + str(folder) if said else f"a job did not run: {error}"
        return Check(name, PROBLEM, shared, "choose an --output-dir that all nodes share; if none is free, ask again")
    return Check(name, OK, f"ran on {said.split()[0]}, which shares {folder}")


def _ask(*command: str, seconds: float = _PATIENCE) -> tuple[str, str]:
    """Return what a program says, and why it does not."""
    try:
        with outside_jobs():
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    said = " ".join(done.stderr.split()) or f"{command[0]} ended with exit code {done.returncode}"
    return done.stdout.strip(), said if done.returncode else ""
