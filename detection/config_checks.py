"""Checks of the settings that need no data: InputError with key and value, before any work."""

from backbones.core.checks import ABOVE_0, NO_LIMIT, check_choices, check_ranges
from backbones.core.config import CfgNode, flatten
from backbones.core.errors import InputError
from detection.config_pairs import refuse_pairs
from detection.evaluation.expected import check_expected


def validate(cfg: CfgNode) -> None:
    """Raise InputError with key and value for settings that no engine supports; reads no data."""
    values = dict(flatten(cfg))
    check_choices(values, _CHOICES)
    check_ranges(values, _RANGES)
    _check_schedule(cfg.SOLVER)
    _check_model(cfg.MODEL)
    check_expected(cfg.TEST.EXPECTED_RESULTS)
    refuse_pairs(cfg)
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN: (): name at least one data set")
    if len(cfg.DATASETS.TEST) != 1:
        raise InputError(f"DATASETS.TEST: {cfg.DATASETS.TEST}: name exactly one data set")
    if cfg.DATALOADER.CACHE_IMAGES and len(cfg.INPUT.MIN_SIZE_TRAIN) != 1:
        raise InputError("DATALOADER.CACHE_IMAGES: True: needs a single size in INPUT.MIN_SIZE_TRAIN")


_CHOICES = {
    "INPUT.FORMAT": ("RGB", "BGR"),
    "INPUT.RANDOM_FLIP": ("horizontal", "none"),
    "MODEL.BACKBONE.NAME": ("build_resnet_fpn_backbone", "build_resnet_backbone"),
    "MODEL.BACKBONE.FREEZE_AT": (0, 1, 2, 3, 4, 5),
    "MODEL.RESNETS.DEPTH": (18, 34, 50, 101, 152),
    "MODEL.RESNETS.NORM": ("BN", "FrozenBN", "SyncBN", "GN"),
    "MODEL.FPN.NORM": ("", "BN", "SyncBN", "GN"),
    "MODEL.ROI_HEADS.NAME": ("StandardROIHeads", "Res5ROIHeads", "Res5ROIHeadsExtraNorm"),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign"),
    "SOLVER.OPTIMIZER": ("SGD", "ADAMW"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("full_model", "norm"),
}
_RANGES = {
    "SEED": (0, 2**31),
    "DATALOADER.NUM_WORKERS": (0, NO_LIMIT),
    "INPUT.MIN_SIZE_TRAIN": (1, NO_LIMIT),
    "INPUT.MAX_SIZE_TRAIN": (1, NO_LIMIT),
    "INPUT.MIN_SIZE_TEST": (1, NO_LIMIT),
    "INPUT.MAX_SIZE_TEST": (1, NO_LIMIT),
    "MODEL.PIXEL_STD": (ABOVE_0, NO_LIMIT),
    "MODEL.FPN.OUT_CHANNELS": (1, NO_LIMIT),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": (1, NO_LIMIT),
    "MODEL.RPN.POSITIVE_FRACTION": (0, 1),
    "MODEL.RPN.IOU_THRESHOLDS": (0, 1),
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": (1, NO_LIMIT),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": (1, NO_LIMIT),
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": (1, NO_LIMIT),
    "MODEL.RPN.POST_NMS_TOPK_TEST": (1, NO_LIMIT),
    "MODEL.RPN.NMS_THRESH": (0, 1),
    "MODEL.RPN.SMOOTH_L1_BETA": (0, NO_LIMIT),
    "MODEL.ROI_HEADS.NUM_CLASSES": (0, NO_LIMIT),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": (1, NO_LIMIT),
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": (0, 1),
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": (0, 1),
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": (0, 1),
    "MODEL.ROI_BOX_HEAD.NUM_FC": (1, NO_LIMIT),
    "MODEL.ROI_BOX_HEAD.FC_DIM": (1, NO_LIMIT),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": (1, NO_LIMIT),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (0, NO_LIMIT),
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": (0, NO_LIMIT),
    "SOLVER.IMS_PER_BATCH": (1, NO_LIMIT),
    "SOLVER.BASE_LR": (ABOVE_0, NO_LIMIT),
    "SOLVER.MAX_ITER": (1, NO_LIMIT),
    "SOLVER.GAMMA": (ABOVE_0, 1),
    "SOLVER.WARMUP_ITERS": (0, NO_LIMIT),
    "SOLVER.WARMUP_FACTOR": (0, 1),
    "SOLVER.MOMENTUM": (0, 1),
    "SOLVER.WEIGHT_DECAY": (0, NO_LIMIT),
    "SOLVER.WEIGHT_DECAY_NORM": (0, NO_LIMIT),
    "SOLVER.WEIGHT_DECAY_BIAS": (-1, NO_LIMIT),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": (ABOVE_0, NO_LIMIT),
    "SOLVER.CHECKPOINT_PERIOD": (1, NO_LIMIT),
    "SOLVER.LOG_PERIOD": (1, NO_LIMIT),
    "TEST.PRECISE_BN.NUM_ITER": (1, NO_LIMIT),
    "TEST.DETECTIONS_PER_IMAGE": (1, NO_LIMIT),
    "TEST.AP_SCORE_THRESH": (0, 1),
    "TEST.EVAL_PERIOD": (0, NO_LIMIT),
    "TEST.IMS_PER_BATCH": (1, NO_LIMIT),
}


def _check_schedule(solver: CfgNode) -> None:
    steps = list(solver.STEPS)
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        if steps != sorted(set(steps)) or (steps and steps[0] < 1):
            raise InputError(f"SOLVER.STEPS: {steps}: must be positive and increasing")
        if steps and steps[-1] >= solver.MAX_ITER:
            raise InputError(
                f"SOLVER.STEPS: {steps}: a step at or beyond SOLVER.MAX_ITER {solver.MAX_ITER} is never reached"
            )
    elif steps:
        raise InputError(f"SOLVER.STEPS: {steps}: a cosine schedule has no steps; set it to []")
    if solver.WARMUP_ITERS >= solver.MAX_ITER:
        raise InputError(f"SOLVER.WARMUP_ITERS: {solver.WARMUP_ITERS}: must be below SOLVER.MAX_ITER {solver.MAX_ITER}")


def _check_model(model: CfgNode) -> None:
    width = 64 if model.RESNETS.DEPTH in (18, 34) else 256
    if width != model.RESNETS.RES2_OUT_CHANNELS:
        raise InputError(
            f"MODEL.RESNETS.RES2_OUT_CHANNELS: {model.RESNETS.RES2_OUT_CHANNELS}: "
            f"must be {width} at MODEL.RESNETS.DEPTH {model.RESNETS.DEPTH}"
        )
    if len(model.RPN.IOU_THRESHOLDS) != 2 or model.RPN.IOU_THRESHOLDS[0] > model.RPN.IOU_THRESHOLDS[1]:
        raise InputError(f"MODEL.RPN.IOU_THRESHOLDS: {model.RPN.IOU_THRESHOLDS}: must be [background, object]")
    if len(model.ROI_HEADS.IOU_THRESHOLDS) != 1:
        raise InputError(f"MODEL.ROI_HEADS.IOU_THRESHOLDS: {model.ROI_HEADS.IOU_THRESHOLDS}: must be one number")
    if len(model.PIXEL_MEAN) != 3 or len(model.PIXEL_STD) != 3:
        raise InputError("MODEL.PIXEL_MEAN and MODEL.PIXEL_STD: must hold 3 numbers each")
    if model.ROI_HEADS.SCORE_THRESH_TEST != 0:
        raise InputError(
            f"MODEL.ROI_HEADS.SCORE_THRESH_TEST: {model.ROI_HEADS.SCORE_THRESH_TEST}: must be 0, because AR and "
            "calibration need every detection; choose AP's threshold with TEST.AP_SCORE_THRESH"
        )
