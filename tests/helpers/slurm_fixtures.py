"""A real SLURM cluster on this machine for the tests of jobs: controller, accounting and two nodes of two cores."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import pytest

from helpers.suite_fakes import SCRIPT
from helpers.suite_lab import Lab, wait_for

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "tests" / "slurm" / "cluster"
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "sacctmgr", "mariadbd", "munged")
# What a fake tool does first: it writes a line when it starts and at every tick, for the seconds in the file `seconds`,
# and counts the ticks in its folder, so that a call that follows a killed one takes only what is left.
SLOW = """
import os, pathlib, sys, time
folder, output = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[sys.argv.index("--output-dir") + 1])
counted, told = output / "counted", folder / "seconds"
output.mkdir(parents=True, exist_ok=True)

def say(what):
    with open(folder / "ledger", "a") as file:
        file.write(f"{what} {output.name} {os.getpid()}\\n")

say("start")
orders = [line.split() for line in told.read_text().splitlines()] if told.exists() else []
for _, seconds in [order for order in orders if order[0] in output.name]:
    for tick in range(int(counted.read_text() or 0) if counted.exists() else 0, int(float(seconds) * 5)):
        time.sleep(0.2)
        counted.write_text(str(tick + 1))
        say("tick")
"""
COMMAND = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from backbones.core.entry import run_tool
from suites.cluster.front import run_on_cluster
from suites.cluster import driver, front, states
from suites.loading import load_suite
from suites.plan import build_plan
for module in (driver, front, states):  # otherwise, an interrupted submission is repeated after minutes
    module.GRACE = 30.0
suite, output, tools = sys.argv[1:4]
plan = build_plan(load_suite(suite), output, tools=Path(tools))
run_tool(lambda _: run_on_cluster(plan, [sys.executable, *sys.argv[:4]], wait="--wait" in sys.argv))
"""


def free_ports(count):
    """The first of `count` ports in a row that are free."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1]
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return first
    raise AssertionError("no free ports")


class SlurmLab(Lab):
    """A lab whose suite runs on the cluster in `folder`."""

    def set_up(self, cluster):
        self.cluster = cluster
        self.tree["LAUNCH"] = {"EXECUTOR": "slurm", "RETRIES": 0}
        self.tree["DATA"], self.tree["PRETRAIN"]["OVERRIDES"] = [], []
        self.tree |= {"FINETUNE": [], "EVALUATE": {"ENABLED": False}, "LOCALIZE": {"ENABLED": False}}
        (self.tools / "pretrain.py").write_text(SLOW + SCRIPT)
        (self.folder / "again.py").write_text(COMMAND.format(root=str(ROOT), tests=str(ROOT / "tests")))

    def rows(self, *labels):
        self.tree["ROWS"] = [{"LABEL": name, "OVERRIDES": ["METHOD.NAME", "CE", "ROW", name]} for name in labels]

    def call(self, *options, background=False):
        """Call the suite as a user does."""
        command = [sys.executable, self.folder / "again.py", self.write(), self.output, self.tools, *options]
        if background:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    def take_time(self, **seconds):
        self.tell("seconds", "".join(f"{name}- {value}\n" for name, value in seconds.items()))

    def ledger(self):
        path = self.tools / "ledger"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def starts(self, label):
        return sum(what == "start" and name.startswith(f"{label}-") for what, name, *_ in self.ledger())

    def runs(self, label):
        """Whether the tool of a row has been counting for a moment."""
        return any(path.read_text() not in ("", "0") for path in self.output.glob(f"runs/{label}-*/counted"))

    def job(self, label):
        """Id of the job of a row that is in the queue."""
        lines = squeue("%i %j %T")
        return next((line.split()[0] for line in lines if f"-{label}-s0" in line), None)

    def complete(self, *labels):
        done = {path.parent.name.split("-")[0] for path in self.output.glob("runs/*/suite.json")}
        return done >= set(labels)

    def check_ledger(self):
        """No two calls of a tool for one folder at the same time: once another has begun, the first says nothing."""
        for name in {line[1] for line in self.ledger()}:
            pids = [pid for _, other, pid in self.ledger() if other == name]
            changes = sum(one != other for one, other in pairwise(pids))
            assert changes == len(set(pids)) - 1, self.ledger()


def squeue(form):
    done = subprocess.run(["squeue", "--noheader", f"--format={form}"], capture_output=True, text=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="session")
def slurm_cluster():
    """Start the cluster; yields a function that calls its script."""
    if os.geteuid():
        pytest.skip("a SLURM cluster on this machine needs root")
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"no {missing[0]}: apt-get install slurm-wlm slurmdbd mariadb-server munge")
    pytest.importorskip("submitit", reason='no submitit: pip install -e ".[slurm]"')
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)

    def call(action, *arguments):
        # Its daemons keep what they inherit open.
        with (folder / "said").open("a") as said:
            command = [CLUSTER, action, folder, *arguments]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=120)
        assert done.returncode == 0, (folder / "said").read_text()

    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        call("start", str(free_ports(5)))
        yield call
    finally:
        call("stop")
        os.environ.pop("SLURM_CONF") if before is None else os.environ.update(SLURM_CONF=before)
        time.sleep(2.0)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm_lab(slurm_cluster, tmp_path):
    lab = SlurmLab(tmp_path / "lab")
    lab.set_up(slurm_cluster)
    yield lab
    subprocess.run(["scancel", "--me"], check=False)
    wait_for(lambda: not squeue("%i"), 30.0)
