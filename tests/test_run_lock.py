"""One process at a time in a folder: who comes second is refused and writes nothing; a dead owner locks nobody out."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from backbones.core import locking
from backbones.core.errors import InputError
from backbones.core.launch import _free_port
from backbones.core.locking import RUN_LOCK, Owner, lock_run

ROOT = Path(__file__).resolve().parent.parent
# Holds every folder that it is told; "fork" leaves a process that lives on.
HOLD = """
import os, sys, time
from contextlib import ExitStack
from backbones.core.locking import lock_run
held = ExitStack()
for line in sys.stdin:
    if line == "fork\\n":
        child = os.fork()
        if not child:
            time.sleep(100)
        print(child, flush=True)
    else:
        held.enter_context(lock_run(line.strip()))
        print("held", flush=True)
"""


def start_holder():
    return subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def tell(process, line):
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def end(process):
    process.kill()
    process.communicate()


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch):
    """Nobody here has just been killed."""
    monkeypatch.setattr(locking, "_GRACE", 0.1)


@pytest.fixture(scope="module")
def process():
    process = start_holder()
    yield process
    end(process)


@pytest.fixture
def holder(process, tmp_path):
    """A process that holds the folder `run`."""
    assert tell(process, tmp_path / "run") == "held"
    return process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_second_is_refused_in_a_line_and_writes_nothing(holder, tmp_path, load_tool):
    run, before = tmp_path / "run", (tmp_path / "run" / RUN_LOCK).stat()
    (run / "config.yaml").write_text("the first one's")
    line = f"process {holder.pid} on {socket.gethostname()} is already writing to {run}; wait for it to end, or choose"
    options = ["--output-dir", str(run), "DATA.ROOT", str(tmp_path)]
    for argv in (options, ["--resume", *options]):
        with pytest.raises(InputError, match=re.escape(line)):
            load_tool("pretrain").main(argv)
    assert names(run) == ["config.yaml", RUN_LOCK]
    assert (run / "config.yaml").read_text() == "the first one's"
    after = (run / RUN_LOCK).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def detector(name, run, *flags):
    config = {"finetune_coco": "detection/quick.yaml", "finetune_voc": "yolo/quick.yaml"}[name]
    return ["--config-file", str(ROOT / "configs" / config), "--backbone", "random", "--output-dir", str(run), *flags]


@pytest.mark.parametrize("name", ["finetune_coco", "finetune_voc"])
@pytest.mark.parametrize("flag", ["", "--resume", "--eval-only"])
def test_no_detector_trains_or_evaluates_where_another_trains(holder, tmp_path, load_tool, name, flag):
    run = tmp_path / "run"
    if flag == "--eval-only":
        (run / "checkpoint.pth").write_text("the first one's")
    before = names(run)
    with pytest.raises(InputError, match=rf"^process {holder.pid} on .* is already writing to"):
        load_tool(name).main(detector(name, run, *filter(None, [flag])))
    assert names(run) == before


def test_other_tools_hold_what_they_write_to(holder, tmp_path, load_tool):
    """Two of them would leave files of both; two that draw a data set delete each other's."""
    run = str(tmp_path / "run")
    for argv in (
        ["evaluate_backbone", str(tmp_path), "--output-dir", run],
        ["localize", str(tmp_path), "--output-dir", run],
        ["attack_backbone", str(tmp_path), "--output-dir", run],
        ["cache_teacher", str(tmp_path), "--output-dir", run],
        ["prepare_data", "scenes", "--output-dir", run],
        ["prepare_data", "scenes-voc", "--output-dir", run],
        ["gaussian_study", "--output-dir", run],
    ):
        with pytest.raises(InputError, match=rf"^process {holder.pid} on .* is already writing to"):
            load_tool(argv[0]).main(argv[1:])
    assert names(tmp_path / "run") == [RUN_LOCK]


def test_a_killed_owner_locks_nobody_out_nor_does_what_it_forked(tmp_path, monkeypatch):
    """Loader processes look for their parent every few seconds; a resumed run must not wait for them."""
    run, owner = tmp_path / "run", start_holder()
    assert tell(owner, run) == "held"
    child = int(tell(owner, "fork"))
    try:
        with pytest.raises(InputError, match=f"process {owner.pid}"), lock_run(run):
            pass
        owner.kill()
        owner.wait()
        os.kill(child, 0)  # it lives
        slept = []
        monkeypatch.setattr(locking.time, "sleep", slept.append)
        with lock_run(run):
            assert (run / RUN_LOCK).read_text().split() == [str(os.getpid()), socket.gethostname()]
        monkeypatch.undo()
        assert slept == []  # it did not wait
        assert names(run) == []
    finally:
        os.kill(child, signal.SIGKILL)
        end(owner)


def test_a_lock_ends_with_its_block(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), lock_run(tmp_path / "a/b"):
            raise KeyError
    assert names(tmp_path) == []  # the folders that hold nothing go, too
    with lock_run(tmp_path / "a/b"):
        (tmp_path / "a/b/results.json").touch()
    assert names(tmp_path / "a/b") == ["results.json"]


def test_a_file_that_its_owner_deletes_meanwhile_is_not_a_lock(tmp_path, monkeypatch):
    """Of two that opened it before, one would lock a file that nobody else sees."""
    path, real, calls = tmp_path / RUN_LOCK, fcntl.flock, []

    def flock(descriptor, how):
        if not calls:
            path.unlink()
        calls.append(descriptor)
        return real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_run(tmp_path):
        assert len(calls) == 2
        assert path.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog, number):
    def flock(descriptor, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(locking.get_logger(), "propagate", True)
    with lock_run(tmp_path):
        pass
    assert f"cannot lock {tmp_path / RUN_LOCK} ({os.strerror(number)}): make sure that no other process" in caplog.text


def test_an_owner_elsewhere_counts_as_alive():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not Owner(gone.pid, socket.gethostname()).alive()
    assert Owner(gone.pid, "another-machine").alive()
    assert Owner(os.getpid(), "").alive()
    assert not Owner(0, "").alive()


GROUP = """
import sys
from backbones.core.distributed import setup_distributed
from backbones.core.errors import InputError
from backbones.core.locking import lock_run
setup_distributed()
for folder in sys.argv[1:]:
    try:
        with lock_run(folder):
            print("held")
    except InputError as error:
        print(error)
"""


def test_of_several_processes_the_main_one_locks_and_all_are_refused(holder, tmp_path):
    port = _free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", GROUP, str(tmp_path / "run"), str(tmp_path / "free")],
            stdout=subprocess.PIPE, text=True,
            env={**environment, "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert said[0] == said[1]
    assert said[0][0].startswith(f"process {holder.pid} on ")
    assert said[0][1] == "held"
