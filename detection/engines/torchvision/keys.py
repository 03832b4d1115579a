"""Keys that the torchvision engine supports: all of them, some only with certain values.

Together the two tables name every key of detection/config.py (enforced by a test): no key is ignored.
"""

from backbones.core.config import CfgNode, flatten
from backbones.core.errors import InputError

# Supported with every valid value, and where they are used.
HONOURED = {
    "ENGINE": "detection/engines",
    "SEED": "order, flips, new layers, sampling",
    "LABEL": "results.json",
    "PROTOCOL": "results.json",
    "DATASETS.ROOT": "catalog",
    "DATASETS.TRAIN": "catalog",
    "DATASETS.TEST": "catalog",
    "DATASETS.VAL": "catalog",
    "DATALOADER.NUM_WORKERS": "loader",
    "DATALOADER.ASPECT_RATIO_GROUPING": "loader",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "loader",
    "DATALOADER.CACHE_IMAGES": "loader",
    "INPUT.MIN_SIZE_TRAIN": "loader",
    "INPUT.MAX_SIZE_TRAIN": "loader",
    "INPUT.MIN_SIZE_TEST": "loader",
    "INPUT.MAX_SIZE_TEST": "loader",
    "INPUT.RANDOM_FLIP": "loader",
    "SOLVER.OPTIMIZER": "optimizer",
    "SOLVER.IMS_PER_BATCH": "loader",
    "SOLVER.BASE_LR": "schedule",
    "SOLVER.MAX_ITER": "loop",
    "SOLVER.LR_SCHEDULER_NAME": "schedule",
    "SOLVER.STEPS": "schedule",
    "SOLVER.GAMMA": "schedule",
    "SOLVER.WARMUP_ITERS": "schedule",
    "SOLVER.WARMUP_FACTOR": "schedule",
    "SOLVER.MOMENTUM": "optimizer",
    "SOLVER.NESTEROV": "optimizer",
    "SOLVER.WEIGHT_DECAY": "optimizer",
    "SOLVER.WEIGHT_DECAY_NORM": "optimizer",
    "SOLVER.WEIGHT_DECAY_BIAS": "optimizer",
    "SOLVER.CLIP_GRADIENTS.ENABLED": "loop",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": "loop",
    "SOLVER.AMP.ENABLED": "loop, in bfloat16",
    "SOLVER.CHECKPOINT_PERIOD": "loop",
    "SOLVER.LOG_PERIOD": "loop",
    "TEST.AP_SCORE_THRESH": "evaluation",
    "TEST.EXPECTED_RESULTS": "the tool",
    "TEST.EVAL_PERIOD": "EvaluationHook",
    "TEST.BEST": "BestCheckpoint",
    "IMPORTS": "the tool",
    "TEST.IMS_PER_BATCH": "loader",
    "TEST.PRECISE_BN.ENABLED": "measure_statistics",
    "TEST.PRECISE_BN.NUM_ITER": "measure_statistics",
    "MODEL.PIXEL_MEAN": "build_detector",
    "MODEL.PIXEL_STD": "build_detector",
    "MODEL.BACKBONE.FREEZE_AT": "build_detector",
    "MODEL.RESNETS.DEPTH": "build_detector",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": "build_detector",
    "MODEL.FPN.OUT_CHANNELS": "build_detector",
    "MODEL.ANCHOR_GENERATOR.SIZES": "build_detector",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": "build_detector",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": "build_detector",
    "MODEL.RPN.POSITIVE_FRACTION": "build_detector",
    "MODEL.RPN.IOU_THRESHOLDS": "build_detector",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": "build_detector",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": "build_detector",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": "build_detector",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "build_detector",
    "MODEL.RPN.NMS_THRESH": "build_detector",
    "MODEL.RPN.SMOOTH_L1_BETA": "build_detector",
    "MODEL.ROI_HEADS.NUM_CLASSES": "build_detector",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "build_detector",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": "build_detector",
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": "build_detector",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "build_detector",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "build_detector",
    "MODEL.ROI_BOX_HEAD.NUM_FC": "build_detector",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "build_detector",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": "build_detector",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": "build_detector",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "build_detector",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": "build_detector",
    "TEST.DETECTIONS_PER_IMAGE": "build_detector",
}
# Supported with these values only.
LIMITED = {
    "INPUT.FORMAT": ("RGB",),
    "MODEL.BACKBONE.NAME": ("build_resnet_fpn_backbone",),
    "MODEL.RESNETS.NORM": ("BN", "FrozenBN", "GN"),
    "MODEL.RESNETS.STRIDE_IN_1X1": (False,),
    "MODEL.FPN.NORM": ("", "BN", "GN"),
    "MODEL.ROI_HEADS.NAME": ("StandardROIHeads",),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("full_model",),
}
LEVELS = 5  # p2 .. p6


def check_config(cfg: CfgNode) -> None:
    """Raise InputError with the key of a value that this engine does not support; reads no data."""
    values = dict(flatten(cfg))
    for key, allowed in LIMITED.items():
        if values[key] not in allowed:
            raise InputError(
                f"{key}: {values[key]!r}: ENGINE torchvision supports only {', '.join(map(repr, allowed))}; "
                "change it or choose ENGINE detectron2"
            )
    sizes, ratios = cfg.MODEL.ANCHOR_GENERATOR.SIZES, cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS
    for key, lists, lengths in (("SIZES", sizes, (LEVELS,)), ("ASPECT_RATIOS", ratios, (1, LEVELS))):
        # All levels share one head, which predicts the same number of anchors at each.
        if len(lists) not in lengths or len({len(one) for one in lists}) != 1:
            raise InputError(
                f"MODEL.ANCHOR_GENERATOR.{key}: {lists}: ENGINE torchvision needs {' or '.join(map(str, lengths))} "
                "lists of the same length"
            )
    if cfg.MODEL.FPN.NORM == "GN" and cfg.MODEL.FPN.OUT_CHANNELS % 32:
        raise InputError(f"MODEL.FPN.OUT_CHANNELS: {cfg.MODEL.FPN.OUT_CHANNELS}: FPN.NORM GN needs a multiple of 32")
