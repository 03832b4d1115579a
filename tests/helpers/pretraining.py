"""A pretraining small enough for tests, as arguments of tools/pretrain.py."""

import os
import subprocess
import sys

from helpers.killing import ROOT

TOOL = [sys.executable, str(ROOT / "tools" / "pretrain.py")]
TINY = [
    "DATA.IMAGE_SIZE", 32, "DATA.EVAL_CROP", 32, "DATA.EVAL_RESIZE", 32, "DATA.CROP_AREA", "[0.5, 1.0]",
    "MODEL.ARCH", "resnet29_cifar", "SOLVER.OPTIMIZER", "ADAMW", "SOLVER.BASE_LR", "1e-3",
    "SOLVER.LR_SCHEDULE", "cosine", "SOLVER.BATCH_SIZE", 8, "LOG_PERIOD", 3,
]  # fmt: skip


def arguments(scenes, out, *overrides, resume=False):
    flags = ["--resume"] if resume else []
    return ["--output-dir", str(out), *flags, "DATA.ROOT", str(scenes), *map(str, (*TINY, *overrides))]


def run(command, **kwargs):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, **kwargs)
