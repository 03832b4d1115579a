"""Fake programs of SLURM, whose jobs are real processes: `sbatch`, `squeue`, `sacct`, `scancel`, `scontrol`, `srun`.

Each is this file, called with its name.  A job is a JSON file in $FAKE_SLURM; `Controller.tick`, in the test's process,
starts jobs and sees them end.  $FAKE_SLURM/faults holds how likely a submission loses its answer, or is not made.
"""

import fcntl
import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

NAMES = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "srun")
ALIVE = ("PENDING", "RUNNING")
_KEPT = 20.0  # seconds for which squeue shows a job that has ended


@contextmanager
def jobs_in(folder):
    """The jobs by id, which nobody else changes meanwhile; changes are kept."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / "jobs.json"
        jobs = json.loads(path.read_text()) if path.exists() else {}
        yield jobs
        path.with_suffix(".part").write_text(json.dumps(jobs))
        path.with_suffix(".part").rename(path)


def happens(folder, fault):
    return random.random() < json.loads((folder / "faults").read_text()).get(fault, 0.0)


def fail(message):
    sys.exit(f"error: {message}")


def sbatch(folder, arguments):
    text = Path(arguments[0]).read_text()
    options = dict(re.findall(r"(?m)^#SBATCH --([\w-]+)=(.*)$", text))
    options = {name: value.strip("'") for name, value in options.items()}
    if happens(folder, "lose_request"):
        fail("Batch job submission failed: Unable to contact slurm controller (connect failure)")
    with jobs_in(folder) as jobs:
        number = str(len(jobs) + 1)
        same = [job for job in jobs.values() if job["name"] == options["job-name"] and job["state"] in ALIVE]
        if same:
            (folder / "problems").open("a").write(f"{options['job-name']} submitted while {same[0]['id']} is alive\n")
        jobs[number] = {
            "id": number, "name": options["job-name"], "state": "PENDING", "submitted": time.time(), "ended": 0.0,
            "after": options["dependency"].split(","), "script": text, "output": options["output"], "restart": 0,
            "reason": "", "pid": 0,
        }  # fmt: skip
    if happens(folder, "lose_reply"):
        fail("Batch job submission failed: Socket timed out on send/recv operation")
    print(f"Submitted batch job {number}")


def squeue(folder, arguments):
    if happens(folder, "no_answer"):
        fail("slurm_load_jobs error: Socket timed out on send/recv operation")
    with jobs_in(folder) as jobs:
        for job in jobs.values():
            if job["state"] in ALIVE or time.time() - job["ended"] < _KEPT:
                print("{id}|{name}|{state}|{submitted:.0f}|n1|{reason}".format(**job))


def sacct(folder, arguments):
    if happens(folder, "no_accounting"):
        fail("Slurm accounting storage is disabled")
    with jobs_in(folder) as jobs:
        for job in jobs.values():
            print("{id}|{name}|{state}|{submitted:.0f}|n1|None".format(**job))


def scancel(folder, arguments):
    with jobs_in(folder) as jobs:
        for number in arguments:
            if jobs[number]["state"] in ALIVE:
                end(jobs[number], "CANCELLED")


def scontrol(folder, arguments):
    assert arguments[0] == "requeue"
    with jobs_in(folder) as jobs:
        requeue(jobs[arguments[1]])


def srun(folder, arguments):
    start = next(number for number, text in enumerate(arguments) if text == sys.executable)
    os.execv(sys.executable, arguments[start:])


def end(job, state):
    if job["pid"]:
        for one in processes_of(job["pid"]):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
    job.update(state=state, ended=time.time(), pid=0)


def requeue(job):
    end(job, "PENDING")
    job.update(ended=0.0, restart=job["restart"] + 1)


def processes_of(session):
    """All processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            found += [int(path.parent.name)] if int(fields[3]) == session else []
    return found


class Controller:
    """Starts the jobs of the programs in `folder`/bin, and sees them end."""

    def __init__(self, folder, seed):
        self.folder, self.random, self.children = folder, random.Random(seed), {}
        (folder / "bin").mkdir(parents=True)
        for name in NAMES:
            path = folder / "bin" / name
            path.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {__file__} {name} "$@"\n')
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.faults()

    def faults(self, **chances):
        (self.folder / "faults.part").write_text(json.dumps(chances))
        (self.folder / "faults.part").rename(self.folder / "faults")

    def environment(self):
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return os.environ | {"PATH": path, "FAKE_SLURM": str(self.folder)}

    def tick(self, strike=0.0):
        """Start what can start, note what has ended; strike: how likely each running job is killed or requeued."""
        with jobs_in(self.folder) as jobs:
            for job in jobs.values():
                if job["state"] == "RUNNING":
                    self._look(job)
                if job["state"] == "RUNNING" and self.random.random() < strike:
                    state = self.random.choice(["", "FAILED", "NODE_FAIL"])
                    end(job, state) if state else requeue(job)
            running = sum(job["state"] == "RUNNING" for job in jobs.values())
            for job in jobs.values():
                if job["state"] == "PENDING" and running < 2:
                    met = self._met(job, jobs)
                    if met is None:
                        job.update(state="CANCELLED", ended=time.time())
                    elif met:
                        self._start(job)
                        running += 1

    def close(self):
        with jobs_in(self.folder) as jobs:
            for job in jobs.values():
                end(job, "CANCELLED")

    def _look(self, job):
        code = self.children[job["pid"]].poll() if job["pid"] in self.children else None
        if code is not None:
            end(job, "FAILED" if code else "COMPLETED")

    def _start(self, job):
        environment = {"SLURM_JOB_ID": job["id"], "SLURM_RESTART_COUNT": str(job["restart"]), "SLURM_PROCID": "0"}
        with open(job["output"].replace("%j", job["id"]), "ab") as output:
            child = subprocess.Popen(
                ["bash", "-c", job["script"]], stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                start_new_session=True, env=self.environment() | environment,
            )  # fmt: skip
        self.children[child.pid] = child
        job.update(state="RUNNING", pid=child.pid)

    def _met(self, job, jobs):
        for part in job["after"]:
            kind, *numbers = part.split(":")
            if kind == "singleton":
                same = [one for one in jobs.values() if one["name"] == job["name"] and one["state"] in ALIVE]
                if any(int(one["id"]) < int(job["id"]) for one in same):
                    return False
            elif any(jobs[number]["state"] in ALIVE for number in numbers):
                return False
            elif kind == "afterok" and any(jobs[number]["state"] != "COMPLETED" for number in numbers):
                return None
        return True


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(os.environ["FAKE_SLURM"]), sys.argv[2:])
