"""Several processes give one answer: what one refuses is said once, with exit code 2, and none is left behind."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.launched import main

from backbones.core.errors import InputError
from backbones.core.launch import _free_port, wants_launch
from backbones.core.machines import add_launch_arguments

SCRIPT = Path(__file__).parent / "helpers" / "launched.py"


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},
    )


def gone(pid, seconds=10):
    """Whether a process has ended, or ends soon."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def pids(folder, what, count):
    """Of the processes, once all have said so."""
    paths = [folder / f"{what}-{rank}" for rank in range(count)]
    deadline = time.monotonic() + 60
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [int(path.read_text()) for path in paths]


def test_what_all_refuse_is_said_once(tmp_path):
    done = start("refuse", tmp_path, "--num-gpus", 2)
    out, error = done.communicate(timeout=120)
    assert (done.returncode, out, error) == (2, "", "error: the key is wrong; set it right\n")


def test_a_training_that_diverges_keeps_its_exit_code(tmp_path):
    done = start("diverge", tmp_path, "--num-gpus", 2)
    out, error = done.communicate(timeout=120)
    assert (done.returncode, out, error) == (3, "", "error: the loss is not finite\n")


def test_what_one_refuses_ends_the_others(tmp_path):
    with pytest.raises(InputError, match=r"^image 7 is broken; restore it$"):
        main(["image", str(tmp_path), "--num-gpus", "2"])
    waiting = tmp_path / "image-0"
    assert not waiting.exists() or gone(int(waiting.read_text()))


def test_a_crash_keeps_its_exit_code(tmp_path):
    assert main(["crash", str(tmp_path), "--num-gpus", "2"]) == 7


def test_a_process_that_the_kernel_ends_is_named(tmp_path, capsys):
    assert main(["kill", str(tmp_path), "--num-gpus", "2"]) == 128 + 9
    assert capsys.readouterr().err == "error: a process was ended by signal 9 (Killed)\n"


def test_options_that_torchrun_would_override_are_refused(tmp_path, monkeypatch):
    """Silently fewer processes would train."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"^--num-gpus 8: .* one of 4 processes; leave it out under torchrun"):
        main(["sum", str(tmp_path), "--num-gpus", "8"])
    parser = argparse.ArgumentParser()
    add_launch_arguments(parser)
    assert not wants_launch(parser.parse_args(["--num-gpus", "4"]))
    assert not wants_launch(parser.parse_args([]))


def test_two_machines_of_one_process_meet(tmp_path):
    url = f"tcp://127.0.0.1:{_free_port()}"
    machines = [
        start("sum", tmp_path, "--num-machines", 2, "--machine-rank", rank, "--dist-url", url) for rank in (0, 1)
    ]
    for rank, machine in enumerate(machines):
        out, error = machine.communicate(timeout=120)
        assert machine.returncode == 0, error
        assert f"{rank}/2: 3\n" in out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_killed_launcher_leaves_no_process_behind(tmp_path):
    """It would keep writing into the folder that the resumed run writes to."""
    launcher = start("wait", tmp_path, "--num-gpus", 2)
    children = pids(tmp_path, "wait", 2)
    launcher.kill()
    launcher.communicate(timeout=30)
    assert all(gone(pid) for pid in children)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-gpus", "0"], "--num-gpus is 0; it must be at least 1"),
        (["--num-machines", "0"], "--num-machines is 0; it must be at least 1"),
        (["--machine-rank", "1"], "--machine-rank 1 is for several machines; give --num-machines, too"),
        (["--dist-url", "tcp://n1:5"], "--dist-url tcp://n1:5 is for several machines; give --num-machines"),
        (["--num-machines", "1", "--machine-rank", "1"], "--machine-rank is 1; it must be 0"),
        (["--num-machines", "2"], "--dist-url auto: several machines need tcp://HOST:PORT"),
        (["--num-machines", "2", "--dist-url", "file:///tmp/x"], "--dist-url file:///tmp/x: several machines need tcp"),
        (["--num-machines", "2", "--machine-rank", "2"], "--machine-rank is 2; it must be between 0 and 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        main(["sum", str(tmp_path), *options])
    assert not list(tmp_path.iterdir())
