"""Settings of a fine-tuning: commented defaults.

Keys have the names and meanings of detectron2's; the few of our own are marked "(ours)".  One CfgNode
serves both engines: each engine refuses by name the values that it does not support
(`check_config` in detection/engines), so that no key is ever ignored.  The role of a key
(backbones/core/roles.py), stated with its default or that of its block, defines what depends on it.
"""

from typing import Any

from backbones.core.config import CfgNode, config_hash
from backbones.core.roles import CONTENT, MACHINE, NAMING, NUMBER, PROTOCOL, SEED, TEST, WEIGHTS, Block, Roles
from detection.choice import with_choice
from detection.config_checks import validate

__all__ = ["ROLES", "describe_protocol", "get_defaults", "protocol_hash", "protocol_name", "validate"]

_C = Block()
# Implementation that trains: "torchvision" needs nothing outside the package index;
# "detectron2" is the engine of the paper-scale configs and must be installed.  Other engines: detection/engines.
_C.ENGINE = NUMBER("torchvision")
# Your own Python files and detectors, relative to the yaml file; a run keeps copies (backbones/core/imports.py).
_C.IMPORTS = CONTENT([])
# Seed of the new layers, the order of images, flips and the sampling of proposals.
_C.SEED = SEED(0)
# Name of the row in tables; empty: the backbone's own label.  (ours)
_C.LABEL = NAMING("")
# Readable name of the protocol; only results with the same protocol hash are compared.  Empty: derived.  (ours)
_C.PROTOCOL = NAMING("")

_C.DATASETS = Block()
# Root folder of the data sets named in detection/data/catalog.py; ~ and $VARIABLES are expanded, and if
# SMOOTH2DET_DATA is not set, DETECTRON2_DATASETS is used instead.  (ours)
_C.DATASETS.ROOT = MACHINE("$SMOOTH2DET_DATA")
# Names from the catalog, or "coco:<json>:<image folder>" or "voc:<folder>:<split>[:<classes.txt>]".
# Several training sets are joined (VOC 07+12).
_C.DATASETS.TRAIN = CONTENT(("scenes_train",))
# The one test set, named likewise.
_C.DATASETS.TEST = CONTENT(("scenes_val",))
# One more name, of the data set on which TEST.EVAL_PERIOD measures AP and loss; empty: AP on the test set.  (ours)
_C.DATASETS.VAL = CONTENT("")

_C.DATALOADER = Block()
# Worker processes that read images; 0 reads in the training process.
_C.DATALOADER.NUM_WORKERS = MACHINE(4)
# Batches hold only wide or only tall images, which saves padding.
_C.DATALOADER.ASPECT_RATIO_GROUPING = NUMBER(True)
# Skip training images without any box to learn from.
_C.DATALOADER.FILTER_EMPTY_ANNOTATIONS = NUMBER(True)
# Keep decoded, resized training images in memory (per worker); for small sets and one
# MIN_SIZE_TRAIN: 1,500 images of 128 px are 74 MB.  (ours)
_C.DATALOADER.CACHE_IMAGES = MACHINE(False)

_C.INPUT = Block(NUMBER)
# Channel order that the backbone was trained with.
_C.INPUT.FORMAT = "RGB"
# Length of the shorter side in pixels; if several, one is drawn per image.
_C.INPUT.MIN_SIZE_TRAIN = (640, 672, 704, 736, 768, 800)
# Largest length of the longer side in pixels; the image is made smaller until it fits.
_C.INPUT.MAX_SIZE_TRAIN = 1333
# The same lengths at the test: the shorter side ...
_C.INPUT.MIN_SIZE_TEST = TEST(800)
# ... and the largest longer side.
_C.INPUT.MAX_SIZE_TEST = TEST(1333)
# "horizontal" (probability one half) or "none".
_C.INPUT.RANDOM_FLIP = "horizontal"

_C.MODEL = Block(NUMBER)
# Mean per channel, range 0..255, in the order of INPUT.FORMAT.
_C.MODEL.PIXEL_MEAN = [123.675, 116.280, 103.530]
# Standard deviation per channel, likewise.
_C.MODEL.PIXEL_STD = [58.395, 57.120, 57.375]

_C.MODEL.BACKBONE = Block()
# "build_resnet_fpn_backbone" (FPN) or "build_resnet_backbone" (C4).
_C.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
# Stages that do not train: 0 none, 1 stem, 2 + res2, 3 + res3, 4 + res4, 5 + res5 (C4: also the head's; ours).
_C.MODEL.BACKBONE.FREEZE_AT = 2

_C.MODEL.RESNETS = Block()
# 18, 34, 50, 101 or 152.
_C.MODEL.RESNETS.DEPTH = 50
# "BN" (statistics of this process), "FrozenBN" (the backbone's statistics), "SyncBN" or "GN".
_C.MODEL.RESNETS.NORM = "FrozenBN"
# Whether a bottleneck strides in its 1x1 convolution: False for torchvision's weights and ours, True for MSRA's.
_C.MODEL.RESNETS.STRIDE_IN_1X1 = False
# 256 with bottlenecks; 64 for ResNet-18 and ResNet-34.
_C.MODEL.RESNETS.RES2_OUT_CHANNELS = 256

_C.MODEL.FPN = Block()
# Channels of every level of the pyramid.
_C.MODEL.FPN.OUT_CHANNELS = 256
# "" (none), "BN", "SyncBN" or "GN".
_C.MODEL.FPN.NORM = ""

_C.MODEL.ANCHOR_GENERATOR = Block()
# Side lengths in pixels of the network's input, one list per level p2..p6.
_C.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
# Height over width; a single list applies to every level.
_C.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0, 2.0]]

_C.MODEL.RPN = Block()
# Anchors per image in the loss.
_C.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 256
# Largest share of them that is positive.
_C.MODEL.RPN.POSITIVE_FRACTION = 0.5
# An anchor below the first IoU is background, at or above the second an object.
_C.MODEL.RPN.IOU_THRESHOLDS = [0.3, 0.7]
# Proposals kept per level before suppression, in training.
_C.MODEL.RPN.PRE_NMS_TOPK_TRAIN = 2000
# The same at the test.
_C.MODEL.RPN.PRE_NMS_TOPK_TEST = TEST(1000)
# Proposals kept per image after suppression, in training ...
_C.MODEL.RPN.POST_NMS_TOPK_TRAIN = 1000
# ... and at the test.
_C.MODEL.RPN.POST_NMS_TOPK_TEST = TEST(1000)
# IoU above which the weaker of two proposals of a level is suppressed.
_C.MODEL.RPN.NMS_THRESH = 0.7
# Point at which smooth L1 turns from quadratic to linear; 0 is plain L1.
_C.MODEL.RPN.SMOOTH_L1_BETA = 0.0

_C.MODEL.ROI_HEADS = Block()
# "StandardROIHeads" (FPN), "Res5ROIHeads" (C4) or "Res5ROIHeadsExtraNorm" (C4 with a RESNETS.NORM after res5, as MoCo).
_C.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
# Number of categories listed in the data, without background; checked against the data.  0: that of the data.
_C.MODEL.ROI_HEADS.NUM_CLASSES = 80
# Regions per image in the loss of the second stage.
_C.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 512
# Largest share of them that is positive.
_C.MODEL.ROI_HEADS.POSITIVE_FRACTION = 0.25
# A region with at least this IoU with an object is positive, any other background.
_C.MODEL.ROI_HEADS.IOU_THRESHOLDS = [0.5]
# IoU above which the weaker of two detections of a class is suppressed.
_C.MODEL.ROI_HEADS.NMS_THRESH_TEST = TEST(0.5)
# Detections are made once, at score 0, the only valid value.  For AP use TEST.AP_SCORE_THRESH.
_C.MODEL.ROI_HEADS.SCORE_THRESH_TEST = TEST(0.0)

_C.MODEL.ROI_BOX_HEAD = Block()
# Number of hidden linear layers of the box head (FPN) ...
_C.MODEL.ROI_BOX_HEAD.NUM_FC = 2
# ... and the channels of each.
_C.MODEL.ROI_BOX_HEAD.FC_DIM = 1024
# Cells per side of a pooled region.
_C.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
# Samples per cell and side; 0: as many as pixels.
_C.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = 0
# "ROIAlignV2" (half-pixel exact) or "ROIAlign" (its first version).
_C.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIAlignV2"
# Point at which smooth L1 turns from quadratic to linear; 0 is plain L1.
_C.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA = 0.0

_C.SOLVER = Block(NUMBER)
# "SGD" or "ADAMW".  (ours)
_C.SOLVER.OPTIMIZER = "SGD"
# Images per iteration, over all processes.
_C.SOLVER.IMS_PER_BATCH = 16
# Learning rate for SOLVER.IMS_PER_BATCH images.
_C.SOLVER.BASE_LR = 0.02
# Length of the training in iterations.
_C.SOLVER.MAX_ITER = 90000
# "WarmupMultiStepLR" or "WarmupCosineLR".
_C.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
# Iterations after which the learning rate is multiplied by GAMMA.
_C.SOLVER.STEPS = (60000, 80000)
# Factor of the learning rate at each of STEPS.
_C.SOLVER.GAMMA = 0.1
# Iterations of linear warm-up from WARMUP_FACTOR * BASE_LR; 0: none.
_C.SOLVER.WARMUP_ITERS = 1000
# Share of BASE_LR at which the warm-up begins.
_C.SOLVER.WARMUP_FACTOR = 0.001
# Momentum of SGD; 0: none.
_C.SOLVER.MOMENTUM = 0.9
# Whether SGD uses Nesterov's form of the momentum.
_C.SOLVER.NESTEROV = False
# Weight decay of weights; 0: none.
_C.SOLVER.WEIGHT_DECAY = 0.0001
# Weight decay of the scale and shift of normalisation layers.
_C.SOLVER.WEIGHT_DECAY_NORM = 0.0
# Weight decay of biases; negative: WEIGHT_DECAY.
_C.SOLVER.WEIGHT_DECAY_BIAS = -1.0
_C.SOLVER.CLIP_GRADIENTS = Block()
# Whether gradients are clipped by their norm.
_C.SOLVER.CLIP_GRADIENTS.ENABLED = False
# "full_model": the norm over all parameters; "norm": each parameter's own norm, as in detectron2.
_C.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
# Largest norm.
_C.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1.0
_C.SOLVER.AMP = Block()
# Mixed precision: bfloat16 in the torchvision engine, detectron2's own in the other.
_C.SOLVER.AMP.ENABLED = False
# Iterations between resumable checkpoints (one is always written at the end).
_C.SOLVER.CHECKPOINT_PERIOD = MACHINE(5000)
# Iterations between lines of metrics.jsonl.  (ours)
_C.SOLVER.LOG_PERIOD = MACHINE(20)

_C.TEST = Block(TEST)
# Largest number of detections of an image, those of the highest scores.
_C.TEST.DETECTIONS_PER_IMAGE = 100
# COCO and VOC AP count detections above this score (detectron2: 0.05, the ALS paper's code: 0); AR counts all.  (ours)
_C.TEST.AP_SCORE_THRESH = 0.05
_C.TEST.PRECISE_BN = Block(NUMBER)
# Re-estimate batch norm statistics over NUM_ITER training batches before the test; the saved weights keep them.
_C.TEST.PRECISE_BN.ENABLED = False
# Number of these batches.
_C.TEST.PRECISE_BN.NUM_ITER = 200
# [[what, value, largest difference], ...] that a run must end with: "loss" of the last line of
# metrics.jsonl, "detections", or a COCO metric.  (as in detectron2, which has its own metrics)
_C.TEST.EXPECTED_RESULTS = MACHINE([])
# Iterations between evaluations during the training, on DATASETS.VAL or else the test set, written to metrics.jsonl; 0:
# none.  They change nothing, unless BEST chooses by them: the weights and the results are those of a run without them.
_C.TEST.EVAL_PERIOD = MACHINE(0)
# Metric of these evaluations, such as "AP", whose highest value decides which weights give the results and are used and
# exported; the first of equal ones; empty: those of the last iteration.  (ours)
_C.TEST.BEST = NUMBER("")
# Images per batch and process at inference.  (ours)
_C.TEST.IMS_PER_BATCH = 8

ROLES = Roles(_C)


def get_defaults() -> CfgNode:
    """Return a fresh copy of the defaults above."""
    return _C.clone()


def protocol_hash(cfg: CfgNode, *fingerprints: str) -> str:
    """Return 12 hex digits over everything that a result depends on, except backbone and seed.

    Args:
        fingerprints: of the training and test data, and with TEST.BEST of the data that it was chosen on.
    """
    return config_hash({"settings": with_choice(ROLES.select(cfg, *PROTOCOL), cfg), "data": list(fingerprints)})


def protocol_name(cfg: CfgNode) -> str:
    """Return PROTOCOL, or a name derived from the main settings, such as "R18-FPN BN freeze0 400 it"."""
    model = cfg.MODEL
    pyramid = "FPN" if model.BACKBONE.NAME == "build_resnet_fpn_backbone" else "C4"
    derived = f"R{model.RESNETS.DEPTH}-{pyramid} {model.RESNETS.NORM} freeze{model.BACKBONE.FREEZE_AT}"
    return cfg.PROTOCOL or f"{derived} {cfg.SOLVER.MAX_ITER} it"


def describe_protocol(cfg: CfgNode, *fingerprints: str) -> dict[str, Any]:
    """Return the protocol block of results.json: name, hash (`protocol_hash`) and the settings that it covers."""
    settings = with_choice(ROLES.select(cfg, *PROTOCOL), cfg)
    return {"name": protocol_name(cfg), "hash": protocol_hash(cfg, *fingerprints), "settings": settings}


def weight_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return every setting that the weights depend on; PRECISE_BN.NUM_ITER counts only if it is enabled."""
    settings, precise = with_choice(ROLES.select(cfg, *WEIGHTS), cfg), cfg.TEST.PRECISE_BN
    kept = {key: value for key, value in settings.items() if not key.startswith("TEST.PRECISE_BN.")}
    return kept | {"TEST.PRECISE_BN": precise.NUM_ITER if precise.ENABLED else "off"}
