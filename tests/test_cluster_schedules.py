"""Random schedules of everything that can go wrong on a cluster: no stage is lost, none runs or is submitted twice."""

import random
from contextlib import suppress

import pytest
from helpers.cluster_sim import Faults, Sim, mortal
from helpers.suite_lab import Lab

from suites.cluster.driver import Driver, prepare_folder
from suites.cluster.executor import ClusterExecutor
from suites.cluster.jobs import ClusterError

FAULTS = Faults(
    refuse=0.03, lose_reply=0.08, lose_request=0.05, no_answer=0.1, strike=0.15, reuse_ids=0.05, another=0.05
)
GRID = {"KEYS": {"METHOD.LS.amount": [0.1, 0.2]}, "OVERRIDES": ["EPOCHS", 1]}
CALM = 300  # calls after the last fault


class Schedule:
    """A suite on a simulated cluster, with random faults for a while."""

    def __init__(self, seed, folder):
        self.random = random.Random(seed)
        self.lab = Lab(folder)
        self.lab.tree["LAUNCH"] = {"EXECUTOR": "slurm", "RETRIES": self.random.choice([0, 1, 3])}
        rows = [{"LABEL": "LS", "OVERRIDES": ["METHOD.NAME", "LS"], "GRID": GRID}] if seed % 3 == 0 else []
        self.lab.tree["ROWS"] = self.lab.tree["ROWS"][: 1 + seed % 3] + rows
        self.lab.tree["RESOURCES"] = {"PRETRAIN": {"PARALLEL": seed % 3}}
        self.sim = Sim(
            seed, self.lab.call_here, FAULTS.scaled(self.random.choice([0.3, 1.0, 2.0])),
            accounting=self.random.random() < 0.7, lag=self.random.choice([0.0, 20.0, 120.0]),
            skew=self.random.uniform(-60, 60), kills_stuck=self.random.random() < 0.7,
        )  # fmt: skip
        self.sim.another = lambda: self.call(dies=False)
        self.found, self.plan = None, prepare_folder(self.lab.plan())

    def call(self, dies, anew=True):
        """One call of the suite by somebody, which may end between any two lines."""
        with mortal(self.random.randrange(4000) if dies else 10**9):
            try:
                executor = ClusterExecutor(self.plan, self.sim, clock=lambda: self.sim.now)
                self.found = Driver(self.plan, executor, ["again"]).advance(anew=anew)
            except ClusterError:
                self.found = None

    def run(self):
        for _ in range(self.random.randrange(5, 25)):
            self.call(dies=self.random.random() < 0.5, anew=self.random.random() < 0.7)
            self.sim.run(self.random.choice([5, 60, 300]))
            if self.random.random() < 0.05:
                ids = [job.id for job in self.sim.table if job.state in ("PENDING", "RUNNING")]
                with suppress(ClusterError):
                    self.sim.cancel(self.random.sample(ids, min(len(ids), 2)))
        self.sim.faults = Faults()
        for _ in range(CALM):
            self.call(dies=False)
            if self.found and self.found.ended and not self.found.failures:
                return
            self.sim.run(60)

    def check(self, seed):
        assert self.sim.problems == [], seed
        assert self.found, f"seed {seed}: the scheduler never answered"
        assert not self.found.failures, (seed, self.found.failures)
        assert self.found.ended, {key: state for key, state in self.found.states.items() if state.what != "complete"}
        assert {state.what for state in self.found.states.values()} == {"complete"}
        assert self.lab.to_run() == []


def check_schedules(folder, seeds):
    for seed in seeds:
        schedule = Schedule(seed, folder / f"lab{seed}")
        schedule.run()
        schedule.check(seed)


@pytest.mark.parametrize("tens", range(1))
def test_no_stage_is_lost_and_none_runs_twice(tmp_path, tens):
    check_schedules(tmp_path, range(10 * tens, 10 * tens + 10))


@pytest.mark.exhaustive
@pytest.mark.parametrize("tens", range(1, 30))
def test_no_stage_is_lost_and_none_runs_twice_in_many_schedules(tmp_path, tens):
    check_schedules(tmp_path, range(10 * tens, 10 * tens + 10))
