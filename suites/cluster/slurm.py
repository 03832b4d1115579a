"""SLURM behind the contract of a cluster: `sbatch` through submitit, `squeue`, `sacct` and `scancel`."""

import getpass
import io
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from backbones.core.errors import InputError
from suites.cluster.jobs import ClusterError, Job, RefusedError, Request
from suites.config import Cluster as Settings
from suites.training import ROOT

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "srun")
# Seconds to wait for an answer.
_PATIENCE = 120.0
# Seconds between SIGUSR2 and the time limit, in which a training writes its checkpoint.
_WARNING = 120
# What sbatch says when it has not submitted a job, and when it never will.
_REFUSALS = (
    *("Invalid", "invalid", "not permitted", "not available", "unrecognized", "Unable to open", "Access denied"),
    *("Job violates", "Job dependency problem", "specification", "Resource temporarily unavailable", "Unspecified"),
)
# Of these, what passes by itself.
FULL = ("SubmitJob", "temporarily")
# Variables of SLURM that name the cluster; all others describe the job that this process runs in, if any.
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS")
_PREFIXES = ("SLURM", "SBATCH_", "SRUN_", "SQUEUE_", "SACCT_", "SUBMITIT_", "PMI", "SCANCEL_")


class Slurm:
    """The SLURM cluster of this machine.

    Args:
        settings: of the suite.

    Raises:
        InputError: SLURM or submitit is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        if missing := [name for name in PROGRAMS if not shutil.which(name)]:
            raise InputError(
                f"LAUNCH.EXECUTOR slurm: no program {missing[0]} here; call from a login node of a SLURM cluster, or "
                f"set LAUNCH.EXECUTOR local"
            )
        if find_spec("submitit") is None:
            raise InputError('LAUNCH.EXECUTOR slurm needs submitit; run: pip install -e ".[slurm]"')

    def jobs(self, prefix: str) -> list[Job]:
        """Ask `squeue` for all states."""
        said = _call("squeue", "--me", "--noheader", "--states=all", "--format=%i|%j|%T|%V|%N|%r")
        return _parse(said, prefix)

    def history(self, prefix: str, since: float) -> list[Job] | None:
        """Ask `sacct`, whose window begins at midnight unless it is told."""
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since))
        options = ("--allocations", "--noheader", "--parsable2", f"--starttime={start}")
        fields = "--format=JobID,JobName,State,Submit,NodeList,Reason"
        try:
            return _parse(_call("sacct", *options, f"--user={getpass.getuser()}", fields), prefix)
        except (ClusterError, KeyError) as error:
            if "accounting storage is disabled" in str(error) or not shutil.which("sacct"):
                return None
            raise

    def submit(self, request: Request, call: Callable[[], object]) -> str:
        """Call `sbatch` through submitit."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        request.folder.mkdir(parents=True, exist_ok=True)
        executor = SlurmExecutor(request.folder, max_num_timeout=request.timeouts)
        executor.update_parameters(**parameters(request, self.settings))
        try:
            with outside_jobs(), redirect_stderr(io.StringIO()):
                return executor.submit(call).job_id
        except (FailedJobError, FailedSubmissionError) as error:
            said = " ".join(str(error).split()) or "no answer"
            refused = any(text in said for text in _REFUSALS) and "timed out" not in said
            raise (RefusedError if refused else ClusterError)(f"sbatch: {said}") from None

    def adopt(self, folder: Path, job: str) -> None:
        """Name the file of the job's call by its id, as submitit does right after `sbatch`."""
        from submitit import SlurmJob

        target = SlurmJob(folder, job).paths.submitted_pickle
        unnamed = [path for path in folder.glob("*.pkl") if not path.name.endswith(("_submitted.pkl", "_result.pkl"))]
        if not target.exists() and len(unnamed) == 1:
            with suppress(FileNotFoundError):  # submitit has done it meanwhile
                unnamed[0].rename(target)

    def cancel(self, ids: Sequence[str]) -> None:
        """Call `scancel`."""
        _call("scancel", *ids)


def parameters(request: Request, settings: Settings) -> dict[str, Any]:
    """Return what submitit is told about a job."""
    resources, processes = request.resources, request.processes
    options = dict(_option(text) for text in (*settings.extra, *resources.extra))
    texts = {name: getattr(resources, name) or getattr(settings, name) for name in
             ("partition", "account", "qos", "constraint")}  # fmt: skip
    return {
        "job_name": request.name,
        "time": resources.time or settings.time,
        "nodes": resources.nodes,
        "ntasks_per_node": 1,
        # The job itself is one task, which starts a task on each node (suites/cluster/spread.py).
        "srun_args": ["--nodes=1", "--ntasks=1"] if resources.nodes > 1 else [],
        "cpus_per_task": (resources.cores or resources.threads) * processes,
        "mem": f"{max(round(resources.memory * processes * 1024), 1)}M",
        **({"gpus_per_node": resources.gpus * processes} if resources.gpus else {}),
        **{name: text for name, text in texts.items() if text},
        "dependency": request.dependency,
        "signal_delay_s": _WARNING,
        "wckey": None,
        "stderr_to_stdout": True,
        "setup": [f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}", *settings.setup],
        "additional_parameters": {"kill-on-invalid-dep": "yes", "requeue": True, **options},
    }


def _option(text: str) -> tuple[str, Any]:
    name, separator, value = text.removeprefix("--").partition("=")
    return name, value if separator else True


@contextmanager
def outside_jobs() -> Iterator[None]:
    """Hide the variables of the job that this process runs in: `sbatch` and `srun` would take them as options."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES) and name not in _KEPT}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _call(*command: str) -> str:
    """Call a program of SLURM and return its output, with times as seconds since 1970."""
    try:
        with outside_jobs():
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PATIENCE, check=False, stdin=subprocess.DEVNULL,
                env=os.environ | {"SLURM_TIME_FORMAT": "%s"},
            )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"{command[0]} did not answer: {error}; call again later") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ClusterError(f"{command[0]} did not answer: {said}; call again later")
    return done.stdout


def _parse(said: str, prefix: str) -> list[Job]:
    """Read lines of ID|NAME|STATE|SUBMITTED|NODE|REASON."""
    found = []
    for line in said.splitlines():
        fields = line.split("|")
        if len(fields) >= 6 and fields[1].startswith(prefix):
            number, name, state, submitted, node, reason = fields[:6]
            when = float(submitted) if submitted.isdigit() else 0.0
            found.append(Job(number, name, state.split()[0].rstrip("+"), when, node, reason))
    return found
