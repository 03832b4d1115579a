"""Schedules of faults with real processes and fake programs of SLURM: the suite's process is killed at any moment."""

import random
import subprocess
import sys
import time

import pytest
from helpers.fake_slurm import Controller, jobs_in
from helpers.slurm_fixtures import COMMAND, ROOT, SlurmLab

# What a user waits for in minutes takes seconds here.
QUICK = """
from suites.cluster import driver, front, states
for module in (driver, front, states):
    module.GRACE = 6.0
front.SETTLE = states.SETTLE = 1.0
"""
PATIENCE = 200.0


@pytest.fixture
def schedule(tmp_path):
    pytest.importorskip("submitit", reason='no submitit: pip install -e ".[slurm]"')
    lab = SlurmLab(tmp_path / "lab")
    lab.set_up(None)
    command = COMMAND.format(root=str(ROOT), tests=str(ROOT / "tests"))
    (lab.folder / "again.py").write_text(command.replace("suite, output, tools =", f"{QUICK}suite, output, tools ="))
    controllers = []

    def run(seed):
        controllers.append(Controller(tmp_path / "slurm", seed))
        return Schedule(seed, lab, controllers[0])

    yield run
    for controller in controllers:
        controller.close()


class Schedule:
    def __init__(self, seed, lab, controller):
        self.random, self.lab, self.controller = random.Random(seed), lab, controller
        lab.tree["LAUNCH"]["RETRIES"] = 3
        lab.rows("A", "B")
        lab.take_time(A=2, B=1)
        self.suite = None

    def start(self):
        command = [sys.executable, self.lab.folder / "again.py", self.lab.write(), self.lab.output, self.lab.tools]
        output = (self.lab.folder / "said").open("a")
        self.suite = subprocess.Popen(
            command, env=self.controller.environment(), stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )

    def done(self):
        return self.lab.complete("A", "B") and (self.lab.output / "report" / "inputs.json").exists()

    def run(self):
        """Faults for a while, then calls of a user until the suite is complete."""
        self.controller.faults(
            lose_reply=0.2, lose_request=0.1, no_answer=0.1, no_accounting=self.random.choice([0, 1])
        )
        begun, kill = time.monotonic(), 0.0
        while time.monotonic() - begun < PATIENCE and not self.done():
            faults = time.monotonic() - begun < 25.0
            if not faults:
                self.controller.faults()
            self.controller.tick(strike=0.01 if faults else 0.0)
            if self.suite is None or self.suite.poll() is not None:
                self.start()
                kill = time.monotonic() + self.random.uniform(0.5, 6.0) if faults else float("inf")
            if time.monotonic() > kill:
                self.suite.kill()
            time.sleep(0.1)
        self.suite.kill()
        self.suite.wait()

    def check(self):
        said = (self.lab.folder / "said").read_text()
        assert self.done(), said[-3000:]
        self.lab.check_ledger()
        problems = self.controller.folder / "problems"
        assert not problems.exists(), problems.read_text()
        with jobs_in(self.controller.folder) as jobs:
            assert len(jobs) < 60


@pytest.mark.parametrize("seed", range(1))
def test_whatever_is_killed_every_stage_is_complete_once(schedule, seed):
    one = schedule(seed)
    one.run()
    one.check()


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(1, 20))
def test_whatever_is_killed_in_many_schedules(schedule, seed):
    one = schedule(seed)
    one.run()
    one.check()
