"""Checks of YOLO's settings that need no data: InputError with key and value, before any work."""

from backbones.core.checks import ABOVE_0, NO_LIMIT, check_choices, check_ranges
from backbones.core.config import CfgNode, flatten
from backbones.core.errors import InputError
from detection.engines.yolo.anchors import STRIDES, check_anchors

_CHOICES = {
    "MODEL.NORM": ("BN", "FrozenBN", "SyncBN", "GN"),
    "MODEL.FREEZE_AT": (0, 1, 2, 3, 4, 5),
    "CLASS_LABELS.NAME": ("Hard", "LS", "OLS"),
    "CLASS_LABELS.LS.convention": ("all", "k-1"),
    "CLASS_LABELS.OLS.form": ("softmax", "sigmoid"),
    "CLASS_LABELS.OLS.empty": ("uniform", "keep"),
    "SOLVER.OPTIMIZER": ("SGD", "ADAMW"),
}
_RANGES = {
    "SEED": (0, 2**31),
    "DATALOADER.NUM_WORKERS": (0, NO_LIMIT),
    "INPUT.SIZES": (32, NO_LIMIT),
    "INPUT.PERIOD": (1, NO_LIMIT),
    "INPUT.FLIP": (0, 1),
    "INPUT.RANDOM_CROP": (0, 1),
    "INPUT.TRANSLATION": (0, 1),
    "INPUT.MIXUP": (0, 1),
    "INPUT.MIXUP_ALPHA": (ABOVE_0, NO_LIMIT),
    "MODEL.NUM_CLASSES": (0, NO_LIMIT),
    "MODEL.NECK_WIDTH": (8, NO_LIMIT),
    "MODEL.PIXEL_STD": (ABOVE_0, NO_LIMIT),
    "LOSS.POSITIVE_IOU": (0, 1),
    "LOSS.IGNORE_IOU": (0, 1),
    "LOSS.FOCAL_GAMMA": (0, NO_LIMIT),
    "CLASS_LABELS.LS.amount": (0, 1),
    "CLASS_LABELS.OLS.hard_weight": (0, 1),
    "SOLVER.IMS_PER_BATCH": (1, NO_LIMIT),
    "SOLVER.BASE_LR": (ABOVE_0, NO_LIMIT),
    "SOLVER.FINAL_LR": (0, NO_LIMIT),
    "SOLVER.MAX_ITER": (1, NO_LIMIT),
    "SOLVER.WARMUP_ITERS": (0, NO_LIMIT),
    "SOLVER.WARMUP_FACTOR": (0, 1),
    "SOLVER.MOMENTUM": (0, 1),
    "SOLVER.WEIGHT_DECAY": (0, NO_LIMIT),
    "SOLVER.WEIGHT_DECAY_NORM": (-1, NO_LIMIT),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": (ABOVE_0, NO_LIMIT),
    "SOLVER.CHECKPOINT_PERIOD": (1, NO_LIMIT),
    "SOLVER.LOG_PERIOD": (1, NO_LIMIT),
    "TEST.SIZES": (32, NO_LIMIT),
    "TEST.SCORE_THRESH": (0, 1),
    "TEST.NMS_THRESH": (0, 1),
    "TEST.MAX_CANDIDATES": (0, NO_LIMIT),
    "TEST.DETECTIONS_PER_IMAGE": (1, NO_LIMIT),
    "TEST.AP_SCORE_THRESH": (0, 1),
    "TEST.EVAL_PERIOD": (0, NO_LIMIT),
    "TEST.IMS_PER_BATCH": (1, NO_LIMIT),
}


def validate(cfg: CfgNode) -> None:
    """Raise InputError with key and value for invalid settings; reads no data."""
    values = dict(flatten(cfg))
    check_choices(values, _CHOICES)
    check_ranges(values, _RANGES)
    for key in ("INPUT.SIZES", "TEST.SIZES"):
        check_sizes(key, values[key])
    check_anchors(cfg.MODEL.ANCHORS)
    if len(cfg.MODEL.PIXEL_MEAN) != 3 or len(cfg.MODEL.PIXEL_STD) != 3:
        raise InputError("MODEL.PIXEL_MEAN and MODEL.PIXEL_STD: must hold 3 numbers each")
    if cfg.SOLVER.WARMUP_ITERS >= cfg.SOLVER.MAX_ITER:
        raise InputError(
            f"SOLVER.WARMUP_ITERS: {cfg.SOLVER.WARMUP_ITERS}: must be below SOLVER.MAX_ITER {cfg.SOLVER.MAX_ITER}"
        )
    if cfg.SOLVER.FINAL_LR > cfg.SOLVER.BASE_LR:
        raise InputError(f"SOLVER.FINAL_LR: {cfg.SOLVER.FINAL_LR}: above SOLVER.BASE_LR {cfg.SOLVER.BASE_LR}; lower it")
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN: (): name at least one data set")
    if len(cfg.DATASETS.TEST) != 1:
        raise InputError(f"DATASETS.TEST: {cfg.DATASETS.TEST}: name exactly one data set")


def check_sizes(key: str, sizes: tuple[int, ...]) -> None:
    """Refuse sides that do not give whole cells at every level."""
    wrong = [size for size in sizes if size % STRIDES[-1]]
    if wrong:
        raise InputError(f"{key}: {wrong[0]} is not a multiple of {STRIDES[-1]}, the coarsest stride; use a multiple")
