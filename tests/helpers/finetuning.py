"""A fine-tuning small enough for tests, as arguments of tools/finetune_coco.py."""

import os
import subprocess
import sys

import torch

from backbones.models import build_model
from backbones.models.weights import backbone_spec, save_backbone
from helpers.killing import ROOT

TOOL = [sys.executable, str(ROOT / "tools" / "finetune_coco.py")]
CONFIG = ROOT / "configs" / "detection" / "quick.yaml"
# As in configs/detection/quick.yaml, in pretraining's range 0..1.
MEAN, STD = (0.233, 0.228, 0.223), (0.210, 0.214, 0.210)
PROVENANCE = {
    "label": "made up", "method": "CE", "seed": 0, "config_hash": "-", "data_fingerprint": "-", "version": "-",
}  # fmt: skip
TINY = [
    "INPUT.MIN_SIZE_TRAIN", "[64]", "INPUT.MAX_SIZE_TRAIN", 96, "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96,
    "MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50,
    "MODEL.RPN.POST_NMS_TOPK_TEST", 30, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16,
    "SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 9, "SOLVER.WARMUP_ITERS", 2, "SOLVER.CHECKPOINT_PERIOD", 3,
    "SOLVER.LOG_PERIOD", 1, "SOLVER.BASE_LR", 1e-3, "TEST.IMS_PER_BATCH", 4,
]  # fmt: skip


def arguments(scenes, out, *overrides, backbone="random", flags=()):
    """Return argv: a tiny quick.yaml on the folder of the `small_scenes` fixture."""
    command = ["--config-file", CONFIG, "--backbone", backbone, "--output-dir", out, *flags]
    return [str(v) for v in (*command, "DATASETS.ROOT", scenes.parent, *TINY, *overrides)]


def run(argv):
    """Run the tool in a separate process; return the finished process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*TOOL, *argv], capture_output=True, text=True, cwd=ROOT, env=environment)


def write_backbone(path, mean=MEAN, **spec):
    """Write a backbone file with random weights; `spec` overrides its declared properties."""
    torch.manual_seed(0)
    model = build_model("resnet18", num_classes=3, norm="BN")
    own = backbone_spec(model, mean=mean, std=STD, image_size=64, classes=["a", "b", "c"])
    save_backbone(path, model, {**own, **spec}, PROVENANCE)
    return path
