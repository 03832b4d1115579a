"""Jobs of a real SLURM cluster: whatever is killed, every stage is complete in the end, and none ran twice at once."""

import os
import signal
import subprocess
import time

import pytest
from helpers.suite_lab import wait_for

pytest_plugins = ["helpers.slurm_fixtures"]

PATIENCE = 240.0


def finish(lab, *labels):
    """Call the suite until it is complete, as a user would."""
    for _ in range(12):
        done = lab.call()
        assert done.returncode in (0, 1), done.stderr
        if wait_for(lambda: lab.complete(*labels) and (lab.output / "report" / "inputs.json").exists(), 20.0):
            break
    assert lab.complete(*labels), done.stdout + done.stderr
    lab.check_ledger()
    assert lab.to_run() == []


def pid_of(lab):
    return int(lab.ledger()[-1][2])


def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


def test_one_call_trains_and_compares(slurm_lab):
    """The job that follows the training submits the comparison; nothing stays here."""
    slurm_lab.rows("A")
    done = slurm_lab.call()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 stages: 1 queued")
    assert wait_for(lambda: (slurm_lab.output / "report" / "inputs.json").exists(), PATIENCE)
    assert slurm_lab.starts("A") == 1
    done = slurm_lab.call()
    assert done.stdout.splitlines()[0] == "2 stages: 2 complete"
    assert done.stdout.splitlines()[-1].startswith("report: ")


def test_a_requeued_job_resumes(slurm_lab):
    slurm_lab.rows("A")
    slurm_lab.take_time(A=6)
    slurm_lab.call()
    assert wait_for(lambda: slurm_lab.runs("A"), PATIENCE)
    subprocess.run(["scontrol", "requeue", slurm_lab.job("A")], check=True)
    finish(slurm_lab, "A")
    assert slurm_lab.starts("A") == 2


def test_a_killed_job_is_submitted_again_by_the_next_call(slurm_lab):
    slurm_lab.rows("A")
    slurm_lab.tree["LAUNCH"]["RETRIES"] = 1
    slurm_lab.take_time(A=6)
    slurm_lab.call()
    assert wait_for(lambda: slurm_lab.runs("A"), PATIENCE)
    os.kill(parent(pid_of(slurm_lab)), signal.SIGKILL)  # the job's process: its tool ends with it
    finish(slurm_lab, "A")
    assert slurm_lab.starts("A") == 2


@pytest.mark.exhaustive
def test_a_cancelled_job_is_submitted_again_by_a_user_only(slurm_lab):
    slurm_lab.rows("A")
    slurm_lab.take_time(A=6)
    slurm_lab.call()
    assert wait_for(lambda: slurm_lab.runs("A"), PATIENCE)
    subprocess.run(["scancel", slurm_lab.job("A")], check=True)
    time.sleep(30.0)  # the job that follows has come and seen
    assert slurm_lab.starts("A") == 1
    finish(slurm_lab, "A")
    assert slurm_lab.starts("A") == 2


@pytest.mark.exhaustive
def test_a_node_whose_daemon_dies_with_its_job(slurm_lab):
    slurm_lab.rows("A")
    slurm_lab.take_time(A=10)
    slurm_lab.call()
    assert wait_for(lambda: slurm_lab.runs("A"), PATIENCE)
    job = slurm_lab.job("A")
    node = subprocess.run(["squeue", "-h", "-j", job, "-o", "%N"], capture_output=True, text=True).stdout.strip()
    wrapper = parent(pid_of(slurm_lab))
    slurm_lab.cluster("node", node, "down")
    os.kill(wrapper, signal.SIGKILL)
    try:
        finish(slurm_lab, "A")
    finally:
        slurm_lab.cluster("node", node, "up")
    assert slurm_lab.starts("A") == 2


@pytest.mark.exhaustive
def test_a_node_whose_daemon_dies_without_its_job(slurm_lab):
    """SLURM starts the job again on the other node; it waits there until the first has ended."""
    slurm_lab.rows("A")
    slurm_lab.take_time(A=40)
    slurm_lab.call()
    assert wait_for(lambda: slurm_lab.runs("A"), PATIENCE)
    node = subprocess.run(
        ["squeue", "-h", "-j", slurm_lab.job("A"), "-o", "%N"], capture_output=True, text=True
    ).stdout.strip()
    slurm_lab.cluster("node", node, "down")
    try:
        finish(slurm_lab, "A")
    finally:
        slurm_lab.cluster("node", node, "up")
    slurm_lab.check_ledger()


@pytest.mark.exhaustive
def test_a_time_limit_is_a_pause(slurm_lab):
    """The limit of a running job is lowered, and raised for the next one: nobody waits half an hour."""
    slurm_lab.rows("A")
    slurm_lab.take_time(A=150)
    slurm_lab.call()
    assert wait_for(lambda: slurm_lab.runs("A"), PATIENCE)
    job = slurm_lab.job("A")
    subprocess.run(["scontrol", "update", f"jobid={job}", "timelimit=3"], check=True)
    assert wait_for(lambda: slurm_lab.starts("A") == 2, PATIENCE)  # stopped two minutes before
    assert slurm_lab.job("A") == job
    subprocess.run(["scontrol", "update", f"jobid={job}", "timelimit=60"], check=True)
    finish(slurm_lab, "A")
    assert slurm_lab.starts("A") == 2


@pytest.mark.exhaustive
def test_a_controller_that_is_restarted(slurm_lab):
    slurm_lab.rows("A", "B")
    slurm_lab.take_time(A=6, B=6)
    slurm_lab.call()
    assert wait_for(lambda: slurm_lab.runs("A"), PATIENCE)
    slurm_lab.cluster("controller", "down")
    done = slurm_lab.call()
    slurm_lab.cluster("controller", "up")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    finish(slurm_lab, "A", "B")
    assert slurm_lab.starts("A") == slurm_lab.starts("B") == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_a_login_process_that_is_killed(slurm_lab, jobs):
    """When the n-th job has been submitted: before or after its id is written."""
    labels = [f"R{number}" for number in range(4)]
    slurm_lab.rows(*labels)
    suite = slurm_lab.call(background=True)
    attempts = slurm_lab.output / "jobs"
    assert wait_for(lambda: len(list(attempts.glob("*/*/*submission*"))) >= jobs, PATIENCE)
    suite.kill()
    suite.wait()
    finish(slurm_lab, *labels)
    assert [slurm_lab.starts(label) for label in labels] == [1] * 4


@pytest.mark.exhaustive
def test_the_same_command_twice_at_once(slurm_lab):
    labels = [f"R{number}" for number in range(4)]
    slurm_lab.rows(*labels)
    both = [slurm_lab.call(background=True) for _ in range(2)]
    assert all(suite.wait(PATIENCE) == 0 for suite in both)
    finish(slurm_lab, *labels)
    assert [slurm_lab.starts(label) for label in labels] == [1] * 4
