"""A detectron2 fine-tuning small enough for tests: ResNet-18 FPN at 64 px."""

import dataclasses

import numpy as np
import pytest

from backbones.core.config import load_config
from detection.config import get_defaults, validate
from detection.engines.detectron2 import engine
from detection.engines.detectron2.config import fill_config
from helpers.rectangles import load_rectangles

TINY = [
    "ENGINE", "detectron2", "DATALOADER.NUM_WORKERS", "0", "INPUT.MIN_SIZE_TRAIN", "[48, 64]",
    "INPUT.MAX_SIZE_TRAIN", "96", "INPUT.MIN_SIZE_TEST", "48", "INPUT.MAX_SIZE_TEST", "96", "MODEL.RESNETS.DEPTH", "18",
    "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "32",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", "50", "MODEL.RPN.POST_NMS_TOPK_TEST", "20", "MODEL.ROI_HEADS.NUM_CLASSES", "2",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.RESNETS.NORM", "BN",
    "SOLVER.IMS_PER_BATCH", "2", "SOLVER.BASE_LR", "0.005", "SOLVER.MAX_ITER", "3", "SOLVER.STEPS", "[2]",
    "SOLVER.WARMUP_ITERS", "1", "SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.LOG_PERIOD", "1",
]  # fmt: skip

# Nothing is sampled: all anchors and proposals are in the loss, and images have one size.  Thus the mean loss over two
# processes equals the loss of one process.
EVERYTHING_SAMPLED = [
    "INPUT.MIN_SIZE_TRAIN", "[64]", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "100000", "MODEL.RPN.POSITIVE_FRACTION", "1.0",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "10000",
]  # fmt: skip


def make_cfg(*overrides):
    """Return the small config with KEY, VALUE overrides."""
    cfg = load_config(get_defaults(), None, [*TINY, *map(str, overrides)])
    validate(cfg)
    return cfg


def settings_of(d2, cfg):
    """Return detectron2's config for one process on the CPU."""
    return fill_config(cfg, d2.config.get_cfg(), device="cpu", processes=1)


def load_detectron2():
    """Return detectron2's subpackages; skip the test without them."""
    pytest.importorskip("detectron2", reason="detectron2, the optional engine, is not installed")
    return engine.import_detectron2()


def load_data(folder):
    """Load six wide and tall images of a red and a blue rectangle; the first also has a crowd over the whole image."""
    data = load_rectangles(folder, sizes=((96, 64), (64, 96)), grid=16)
    first = data.records[0]
    crowd = {
        "bbox": np.array([[0.0, 0.0, first.width, first.height]]),
        "labels": np.array([1]),
        "iscrowd": np.array([True]),
        "area": np.array([float(first.width * first.height)]),
    }
    fields = {name: np.concatenate([getattr(first, name), value]) for name, value in crowd.items()}
    return dataclasses.replace(data, records=[dataclasses.replace(first, **fields), *data.records[1:]])
