"""Kill a training with -9, and compare the resumed run with an uninterrupted one."""

import os
import signal
import subprocess
import time
from pathlib import Path

import torch

from backbones.core.results import load_results
from backbones.core.run_log import read_metrics

ROOT = Path(__file__).resolve().parents[2]
CLOCK = {"seconds_per_iteration", "eta_seconds"}


def kill_after(command, folder, lines):
    """Start `command`, wait until metrics.jsonl in `folder` has `lines` lines, then kill it with -9."""
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    metrics = Path(folder) / "metrics.jsonl"
    deadline = time.time() + 120
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= lines):
        assert process.poll() is None, process.stderr.read().decode()[-500:]
        assert time.time() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()


def reported(folder):
    """Return every number that a run reports, except clock times."""
    lines = [{k: v for k, v in line.items() if k not in CLOCK} for line in read_metrics(folder / "metrics.jsonl")]
    return lines, load_results(folder)["metrics"]


def assert_equal_trees(a, b, where=""):
    """Assert bit-equality of nested containers of tensors and plain types."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal_trees(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_equal_trees(*pair, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def kill_this_process(*_):
    """End this process as the kernel does when the memory is full."""
    os.kill(os.getpid(), signal.SIGKILL)
