"""A YOLO fine-tuning small enough for tests, as arguments of tools/finetune_voc.py, on 12 scenes in VOC's layout."""

import sys

from backbones.data.scenes.parameters import VocParameters
from backbones.data.scenes.voc_layout import write_scenes_voc
from helpers.killing import ROOT

TOOL = [sys.executable, str(ROOT / "tools" / "finetune_voc.py")]
CONFIG = ROOT / "configs" / "yolo" / "quick.yaml"
TINY = [
    "INPUT.SIZES", "[64, 96]", "INPUT.PERIOD", 2, "INPUT.MIXUP", 0.5, "MODEL.NECK_WIDTH", 32, "SOLVER.IMS_PER_BATCH", 4,
    "SOLVER.MAX_ITER", 9, "SOLVER.WARMUP_ITERS", 2, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.LOG_PERIOD", 1,
    "TEST.SIZES", "[64]", "TEST.IMS_PER_BATCH", 4,
]  # fmt: skip
EPOCH = 3  # iterations


def write_data(folder, train=12, val=6):
    """Write the data sets scenes_voc_train and scenes_voc_val; return their ROOT."""
    write_scenes_voc(folder / "scenes-voc", VocParameters(train=train, val=val), workers=1, overwrite=False)
    return folder


def arguments(root, out, *overrides, backbone="random", flags=()):
    """Return argv: a tiny quick.yaml."""
    command = ["--config-file", CONFIG, "--backbone", backbone, "--output-dir", out, *flags]
    return [str(v) for v in (*command, "DATASETS.ROOT", root, *TINY, *overrides)]
