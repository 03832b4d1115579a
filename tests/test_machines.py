"""Trainings over several machines, by hand or srun: they meet, or say in one line why not, and equal one machine's."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from helpers.killing import ROOT, assert_equal_trees, reported
from helpers.two_nodes import finetune, pretrain
from torch.distributed import TCPStore

from backbones.core import joining, locking
from backbones.core.checkpoint import load_checkpoint
from backbones.core.errors import InputError
from backbones.core.launch import _free_port
from backbones.core.locking import RUN_LOCK
from backbones.core.machines import Machines, Tasks, add_launch_arguments, find_machines, find_tasks, first_node

SCRIPT = ROOT / "tests" / "helpers" / "launched.py"


def task(rank, count=2, nodes=2, local=0, job=None):
    """The environment that srun gives a task; the nodes are this machine."""
    return {
        "SLURM_JOB_ID": str(job or 4_000_000 + os.getpid()), "SLURM_STEP_ID": "3", "SLURM_NTASKS": str(count),
        "SLURM_STEP_NUM_TASKS": str(count), "SLURM_STEP_NUM_NODES": str(nodes), "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(local), "SLURM_NODEID": str(rank), "SLURM_STEP_NODELIST": "localhost,other",
    }  # fmt: skip


def start(command, **environment):
    return subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


def start_tasks(command, **options):
    """Start the command as two tasks of srun."""
    return [start(command, **task(rank, **options)) for rank in (0, 1)]


def outcomes(processes):
    """Return (exit code, standard output, standard error) of each."""
    said = [process.communicate(timeout=200) for process in processes]
    return [(process.returncode, *both) for process, both in zip(processes, said, strict=True)]


def parse(*options):
    parser = argparse.ArgumentParser()
    add_launch_arguments(parser)
    return parser.parse_args([str(option) for option in options])


@pytest.fixture
def under_srun(monkeypatch):
    """Make this process a task."""

    def become(*args, **kwargs):
        for name, text in task(*args, **kwargs).items():
            monkeypatch.setenv(name, text)

    return become


# ---- who is who ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"), ("n1,n2", "n1"), ("n[08-10],m3", "n08"), ("n[3,7-9]", "n3"), ("a[0-1]b[02-03]", "a0b02"),
        ("gpu-a[1-2].cluster,x", "gpu-a1.cluster"), ("", ""),
    ],
)  # fmt: skip
def test_the_first_node_of_a_list(nodes, first):
    assert first_node(nodes) == first


def test_only_several_tasks_of_srun_are_a_group():
    """A batch script has the variables of its job, but is not a step; srun of one task is a process like any other."""
    batch = {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert find_tasks({}) is find_tasks(batch) is find_tasks(task(0, count=1, nodes=1)) is None
    assert find_tasks(task(3, count=4, local=1)) == Tasks(4, 2, 3, 1)


def test_a_task_is_a_machine_and_all_of_a_step_meet_at_one_place(under_srun):
    found = []
    for rank in (0, 1):
        under_srun(rank, job=7)
        found.append(find_machines(parse("--num-gpus", 8)))
    assert [one.rank for one in found] == [0, 1]
    assert {one._replace(rank=0) for one in found} == {Machines(2, 0, "localhost", 12000 + 7 + 3 * 997, 0)}
    under_srun(3, count=4, local=1, job=7)
    assert find_machines(parse()) == Machines(4, 3, "localhost", found[0].port, 1)
    under_srun(1, job=8)
    assert find_machines(parse()).port != found[0].port
    assert find_machines(parse("--dist-url", "tcp://127.0.0.1:29500"))[2:] == ("127.0.0.1", 29500, 0)
    assert find_machines(parse("--num-machines", 1)) == Machines(1, 0, "127.0.0.1", 0)  # each task alone


@pytest.mark.parametrize(
    ("options", "tasks", "message"),
    [
        (("--num-machines", 3), {}, r"^--num-machines 3: this is task 1 of the 2 that srun has started; leave the opt"),
        (("--machine-rank", 0), {}, r"^--machine-rank 0: this is task 1 of the 2"),
        (("--num-gpus", 2), {"nodes": 1, "local": 1}, r"^--num-gpus 2: srun has started 2 tasks on 1 node\(s\); start"),
        (
            ("--dist-url", "tcp://nowhere.invalid:1"),
            {},
            r"^--dist-url tcp://nowhere.invalid:1: no machine of this name",
        ),
        (("--dist-url", "tcp://127.0.0.1:70000"), {}, "port is 70000; it must be between 1 and 65535"),
    ],
)
def test_options_that_contradict_srun_are_refused(under_srun, options, tasks, message):
    under_srun(1, **tasks)
    with pytest.raises(InputError, match=message):
        find_machines(parse(*options))


def test_a_node_of_unknown_address_is_named(under_srun, monkeypatch):
    under_srun(0)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "nowhere[1-2].invalid")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"^srun: the address of the first node 'nowhere1.invalid' is not known here"):
        find_machines(parse())


# ---- meeting -------------------------------------------------------------------------------------------------------


def meet(*processes):
    """Let processes, given as (rank, size), meet in threads; return the errors."""
    listening = TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=20), wait_for_workers=False)
    errors = []

    def come(own, size):
        store = TCPStore("127.0.0.1", listening.port, None, False, timedelta(seconds=20), wait_for_workers=False)
        try:
            joining._meet(store, own, size, "tcp://n1:5")
        except InputError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=come, args=one) for one in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return errors


def test_processes_that_agree_meet():
    assert meet((0, 3), (1, 3), (2, 3)) == []


@pytest.mark.parametrize(
    ("processes", "line"),
    [
        (
            [(0, 4), (1, 4), (1, 2)],
            "tcp://n1:5: the main process expects 4 processes, process 1 says 2; give every",
        ),
        ([(0, 2), (1, 2), (1, 2)], "tcp://n1:5: process 1 has come twice; give every machine its own --machine-rank"),
        ([(0, 3), (2, 3)], "tcp://n1:5: only 2 of 3 processes came within 0.5 s; start all machines with the same"),
    ],
)
def test_processes_that_do_not_are_all_told_why(monkeypatch, processes, line):
    monkeypatch.setattr(joining, "JOIN_SECONDS", 0.5 if "0.5" in line else 20.0)
    monkeypatch.setattr(joining, "LISTEN_SECONDS", 0.2)
    errors = meet(*processes)
    # Of two that come twice, the first may have met the others before.
    assert len(errors) == len(processes) or "twice" in line
    assert errors
    assert all(error.startswith(line) for error in errors), errors


def test_a_port_that_does_not_answer_or_is_taken_is_named(monkeypatch):
    monkeypatch.setattr(joining, "JOIN_SECONDS", 0.3)
    port = _free_port()
    with pytest.raises(InputError, match=rf"^tcp://127.0.0.1:{port}: no answer from the main process within 0.3"):
        joining._open_store("127.0.0.1", port, main=False)
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        with pytest.raises(InputError, match=rf"^tcp://127.0.0.1:{port}: Address already in use; choose another port"):
            joining._open_store("127.0.0.1", port, main=True)


def test_a_folder_that_is_not_shared_is_refused_on_all(tmp_path, monkeypatch):
    """The second process would not find the checkpoint from which the first one resumes."""
    said = []
    monkeypatch.setattr(
        locking, "gather_objects", lambda mine: said.append(mine) or ["12\nn1\n", mine][len(said) - 1 :]
    )
    monkeypatch.setattr(locking, "is_main", lambda: False)
    monkeypatch.setattr(locking, "rank", lambda: 1)
    monkeypatch.setattr(locking, "_VISIBLE", 0.2)
    path = tmp_path / RUN_LOCK
    path.write_text("13\nn3\n")
    with pytest.raises(
        InputError, match=rf"^process 1 on .* does not see {path} of the main process; --output-dir must"
    ):
        locking._check_shared(path, False)
    said.clear()
    path.write_text("12\nn1\n")
    locking._check_shared(path, False)
    assert said == ["", ""]


# ---- ends ----------------------------------------------------------------------------------------------------------


def test_tasks_meet_without_options_and_a_lost_connection_is_one_line(tmp_path):
    first, second = outcomes(start_tasks([SCRIPT, "leave", tmp_path], nodes=1))
    assert (first[:2], second) == ((1, "0/2: 3\n"), (7, "1/2: 3\n", ""))
    assert first[2].startswith(
        "error: process 0 has lost the connection to another process of the training, which says"
    )
    assert first[2].count("\n") == 1


@pytest.mark.exhaustive
def test_the_cause_of_a_lost_connection_on_the_same_machine_is_what_counts(tmp_path):
    (alone,) = outcomes([start([SCRIPT, "leave", tmp_path, "--num-gpus", 2])])
    assert (alone[0], alone[2]) == (7, "")


@pytest.mark.exhaustive
def test_what_all_refuse_is_said_by_each_machine_the_first_one_before(tmp_path):
    begun = time.monotonic()
    first, second = start_tasks([SCRIPT, "refuse", tmp_path])
    line = "error: the key is wrong; set it right\n"
    assert outcomes([first]) == [(2, "", line)]
    waited = time.monotonic() - begun
    assert outcomes([second]) == [(2, "", line)]
    assert time.monotonic() - begun > waited


@pytest.mark.exhaustive
def test_a_signal_that_srun_passes_on_ends_both_tasks(tmp_path):
    """SIGUSR1 alone: srun answers SIGTERM with SIGKILL to all of its tasks."""
    tasks = start_tasks([SCRIPT, "wait", tmp_path])
    paths = [tmp_path / f"wait-{rank}" for rank in (0, 1)]
    deadline = time.monotonic() + 100
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for process in tasks:
        process.send_signal(signal.SIGUSR1)
    assert [code for code, *_ in outcomes(tasks)] == [143, 143]


# ---- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [pretrain, pytest.param(finetune, marks=pytest.mark.exhaustive)])
def test_two_nodes_train_what_one_does_bit_for_bit(small_scenes, tmp_path, command):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = start(command(small_scenes, one, "--num-gpus", 2))
    done = outcomes([*start_tasks(command(small_scenes, two)), alone])
    assert [code for code, *_ in done] == [0, 0, 0], done
    assert "top-1" in done[0][1] or "AP" in done[0][1]
    assert done[1][1] == ""  # the first node reports
    assert_equal_trees(load_checkpoint(one / "checkpoint.pth"), load_checkpoint(two / "checkpoint.pth"))
    assert reported(one) == reported(two)
