"""A full disk is one line: what, how much is needed, how much is free; the old file stays, no half file is left."""

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.small_disk import small_disk_at
from matplotlib.figure import Figure

from backbones.core import entry, files
from backbones.core.checkpoint import load_checkpoint, save_checkpoint
from backbones.core.disk import content_size, shortage, size_text, writing
from backbones.core.errors import InputError
from backbones.core.files import load_json, save_atomic, save_json, save_text
from backbones.core.locking import RUN_LOCK, lock_run
from backbones.core.run_log import MetricsWriter, get_logger, log_to_file, read_metrics
from backbones.core.runs import check_writable
from backbones.data.batch import Batch
from backbones.measuring.run import save_predictions
from backbones.pretraining.teacher import write_cache
from suites.folder import LOCK, lock_folder

ROOT = Path(__file__).resolve().parent.parent
DISK = 1 << 20  # bytes


@pytest.fixture(scope="module")
def mounted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    with small_disk_at(folder, DISK):
        yield folder
        log_to_file(Path(os.devnull))  # lets go of the disk


@pytest.fixture
def disk(mounted):
    """An empty disk of 1 MiB."""
    yield mounted
    for path in mounted.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def fill(disk, left=0):
    """Leave no more than `left` bytes of the disk (a multiple of 4096)."""
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(disk / "filler", (disk / "filler").stat().st_size - left)


LINE = r"^cannot write {path}: No space left on device.*; {needed} needed, {free} free in {disk}; free some space, or "


def refused(disk, path, needed, free="0 B"):
    line = LINE.format(path=re.escape(str(path)), needed=needed, free=re.escape(free), disk=re.escape(str(disk)))
    return pytest.raises(InputError, match=line)


# Every kind of writer that goes through `save_atomic`; 4 MB each.
NUMBERS = np.random.default_rng(0).random(500_000)
PREDICTIONS = SimpleNamespace(logits=NUMBERS, labels=NUMBERS[:3], index=NUMBERS[:3])
WRITERS = {
    "text": (lambda path: save_text(path, "x" * 4_000_000), r"about 4\.0 MB"),
    "json": (lambda path: save_json(path, ["x" * 4_000_000]), r"about 4\.0 MB"),
    "checkpoint": (lambda path: save_checkpoint(path, model={"w": torch.zeros(1_000_000)}), r"about 4\.0 MB"),
    "checkpoint of many": (
        lambda path: save_checkpoint(path, model=[torch.zeros(1000) for _ in range(1000)]), r"about 4\.0 MB",
    ),
    "npz": (lambda path: save_predictions(path, {"val": PREDICTIONS}), r"about 4\.0 MB"),
    "bytes": (lambda path: save_atomic(path, lambda p: p.write_bytes(bytes(4_000_000))), r"more than \d+\.\d kB"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_names_what_it_needs_and_keeps_the_old_file(disk, name):
    path = disk / "a.npz"
    path.write_bytes(b"old")
    fill(disk, left=8 * 4096)
    write, needed = WRITERS[name]
    with refused(disk, path, needed, "32.8 kB"):
        write(path)
    assert path.read_bytes() == b"old"
    assert sorted(p.name for p in disk.iterdir()) == ["a.npz", "filler"]


def test_figures(disk):
    fill(disk, left=4096)
    figure = Figure((8, 8))
    figure.add_subplot().imshow(NUMBERS.reshape(500, 1000))
    with pytest.raises(InputError, match=rf"^cannot write {disk}/a\.png: No space .* 4\.1 kB free in {disk}; free"):
        save_atomic(disk / "a.png", figure.savefig)
    assert [p.name for p in disk.iterdir()] == ["filler"]


class Teacher(torch.nn.Module):
    """A teacher of 1000 classes whose logits are all 1."""

    mean, hash, trained_on = torch.zeros(3), "0", "0"
    model = torch.nn.Identity()

    def forward(self, images):
        return torch.ones(len(images), 1000)

    def temperature(self, batches, names):
        return 1.0


class ManySamples:
    """1000 samples of 1000 classes, without images."""

    paths, classes, fingerprint, name, split = ["x"] * 1000, ["c"] * 1000, "0", "n", "s"

    def __len__(self):
        return 1000


def test_logits_of_a_teacher(disk):
    """In a memory-mapped file, they would end the process with a bus error."""
    samples = ManySamples()
    batches = [
        Batch(torch.zeros(100, 1), torch.zeros(100, dtype=torch.int64), index=torch.arange(first, first + 100))
        for first in range(0, 1000, 100)
    ]
    with refused(disk, disk / "logits.npy", r"about 4\.0 MB", "1.0 MB"):
        write_cache(disk, Teacher(), samples, batches, [])
    assert not list(disk.iterdir())


def test_lines_of_metrics_are_whole_or_absent(disk):
    writer = MetricsWriter(disk)
    writer.write(0, loss=1.0)
    writer._events.close()
    writer._events = SimpleNamespace(add_scalar=lambda *_: None, close=lambda: None)  # the lines alone
    fill(disk)
    with refused(disk, disk / "metrics.jsonl", r"about \d+ B"):
        write_many(writer)
    text = (disk / "metrics.jsonl").read_text()
    assert text.endswith("}\n")
    assert len(read_metrics(disk / "metrics.jsonl")) == text.count("\n")
    writer.close()


def write_many(writer):
    for iteration in range(200_000):
        writer.write(iteration, loss=1.0)


def test_events_of_tensorboard(disk, monkeypatch):
    """A thread writes them: its error comes with a later call, and is shown once."""
    monkeypatch.setattr(threading, "excepthook", entry._report_thread)  # as `run_tool` does
    before = threading.enumerate()
    writer = MetricsWriter(disk)
    writer._file.close()
    writer._file = Path(os.devnull).open("ab", buffering=0)  # noqa: SIM115 - of the events alone
    fill(disk)
    with pytest.raises(InputError, match=rf"^cannot write {disk}/tensorboard: No space left .* 0 B free in {disk}"):
        write_many(writer)
    for thread in set(threading.enumerate()) - set(before):
        thread.join()
    with pytest.raises(InputError, match="tensorboard"):
        writer.close()
    with pytest.raises(InputError, match="tensorboard"), writer:
        pass
    with pytest.raises(ValueError, match="the first error"), writer:
        raise ValueError("the first error")


def test_log(disk):
    log_to_file(disk / "log.txt")
    get_logger().info("x")
    fill(disk)
    with refused(disk, disk / "log.txt", "about .* B"):
        for _ in range(200):
            get_logger().info("x" * 100)
    assert (disk / "log.txt").read_text().endswith("x\n")
    log_to_file(Path(os.devnull))


def test_locks(disk):
    fill(disk)
    for lock, name in ((lock_folder, LOCK), (lock_run, RUN_LOCK)):
        line = rf"^cannot write {disk / name}: No space left .*; 0 B free in {disk}; free"
        with pytest.raises(InputError, match=line), lock(disk):
            pass


TOOL = """
import sys
from pathlib import Path
from types import SimpleNamespace
from backbones.core.entry import run_tool
def main(argv):
    if sys.argv[1] == "stdout":
        for number in range(100_000):
            print("a line", number)
    elif sys.argv[1] == "unguarded":
        Path(sys.argv[2]).write_bytes(bytes(4_000_000))
    elif sys.argv[1] == "stderr":
        for number in range(100_000):
            print("a line", number, file=sys.stderr)
        print("done")
    return 0
run_tool(main)
"""


@pytest.mark.parametrize("what", ["stdout", "unguarded", "stderr"])
def test_a_tool_ends_with_one_line(disk, tmp_path, what):
    (tmp_path / "tool.py").write_text(TOOL)
    fill(disk)
    (disk / "x").touch()
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with (disk / "x").open("w") as file:
        streams |= {what: file} if what != "unguarded" else {}
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(tmp_path / "tool.py"), what, str(disk / "y")]
        done = subprocess.run(command, text=True, env=environment, check=False, **streams)
    if what == "stderr":  # progress, which nothing depends on
        assert (done.returncode, done.stdout) == (0, "done\n")
        return
    name = "standard output" if what == "stdout" else "a file"
    line = f"error: cannot write {name}: No space left on device; free some space, or write to another disk\n"
    assert (done.returncode, done.stderr) == (2, line)


# ------------------------------------------------------------------------------------------ simulated


@pytest.mark.parametrize(
    ("number", "end"),
    [
        (errno.ENOSPC, r"No space left on device; about 6 B needed, .* free in .*; free some space, or choose another"),
        (
            errno.EDQUOT,
            r"Disk quota exceeded; about 6 B needed, .*, whose quota is used up; free some space",
        ),
        (errno.EROFS, r"Read-only file system; choose another folder$"),
        (errno.EACCES, r"Permission denied; choose another folder$"),
    ],
)
@pytest.mark.parametrize("step", ["write", "replace"])
def test_errors_of_the_system(tmp_path, monkeypatch, number, end, step):
    path = tmp_path / "a.json"
    save_json(path, "old")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    def write(temporary):
        temporary.write_text("half")
        if step == "write":
            fail()

    if step == "replace":
        monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(InputError, match=rf"^cannot write {path}: {end}"):
        save_atomic(path, write, "123456")
    monkeypatch.undo()
    assert load_json(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
        "[enforce fail at inline_container.cc:603] . PytorchStreamWriter failed writing file data/0: file write failed",
    ],
)
def test_what_torch_says_of_a_full_disk(tmp_path, monkeypatch, said):
    path = tmp_path / "c.pth"
    save_checkpoint(path, w=torch.ones(3))

    def save(state, temporary):
        temporary.write_bytes(b"half")
        raise RuntimeError(said)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(
        InputError, match=rf"^cannot write {path}: No space left on device \(torch: .*; about 12 B needed"
    ):
        save_checkpoint(path, w=torch.zeros(3))
    assert torch.equal(load_checkpoint(path)["w"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


def test_another_error_of_torch_is_not_a_full_disk(tmp_path, monkeypatch):
    def save(state, temporary):
        raise RuntimeError("a tensor is on the meta device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RuntimeError, match="meta device"):
        save_checkpoint(tmp_path / "c.pth", w=torch.zeros(3))


def test_a_disk_that_holds_no_more_files(tmp_path, monkeypatch):
    real = os.statvfs(tmp_path)
    values = list(real)
    values[7] = 0  # f_favail
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(values))
    with (
        pytest.raises(InputError, match=r"free in .*, which can hold no more files; free some space"),
        writing(tmp_path / "a"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_does_not_fit(tmp_path, monkeypatch):
    def mkdir(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(
        InputError, match=rf"^cannot write {tmp_path}/a/b: No space left on device; .* free in {tmp_path}; free"
    ):
        check_writable(tmp_path / "a/b")


def test_sizes():
    assert content_size({"a": torch.zeros(3), "b": [np.zeros(2), "\u03b1", b"12"], "c": 7}) == 12 + 16 + 2 + 2
    sizes = [size_text(n) for n in (0, 999, 1000, 1_500_000, 2_000_000_000_000)]
    assert sizes == ["0 B", "999 B", "1.0 kB", "1.5 MB", "2.0 TB"]


def test_a_process_that_could_say_nothing(disk):
    fill(disk)
    assert shortage(disk / "a.log") == f"; 0 B free in {disk}"
    assert shortage(ROOT / "a.log") == ""
