"""Settings of a YOLO fine-tuning: commented defaults, those of Zhang et al. 2021 (OLS, Table VIII).

The paper's test at several scales is in configs/yolo/voc0712.yaml; TEST here is that of the code base, at one size.
Keys that are also in detection/config.py have the same meaning here.  Where the paper is silent, values are those of
the code base that agrees with it elsewhere, the MobileNetV2 branch of Peterisfar/YOLOV3; a NOTE marks where we differ.
The role of a key (backbones/core/roles.py), stated with its default or that of its block, defines what depends on it.
"""

from typing import Any

from backbones.core.config import CfgNode, config_hash
from backbones.core.roles import COMPARED, CONTENT, MACHINE, NAMING, NUMBER, PROTOCOL, SEED, TEST, WEIGHTS, Block, Roles
from detection.choice import with_choice
from detection.engines.yolo.config_checks import validate

__all__ = [
    "ROLES",
    "are_hard",
    "describe_protocol",
    "get_defaults",
    "label_name",
    "label_settings",
    "protocol_hash",
    "validate",
]

_C = Block()
# The engine that has this config.
_C.ENGINE = MACHINE("yolo")
# Your own Python files and detectors, relative to the yaml file; a run keeps copies (backbones/core/imports.py).
_C.IMPORTS = CONTENT([])
# Seed of the new layers, the order of images and every augmentation.
_C.SEED = SEED(0)
# First part of the row's name in tables; empty: the backbone's own label.  The class labels are the second part.
_C.LABEL = NAMING("")
# Readable name of the protocol; only results with the same protocol hash are compared.  Empty: derived.
_C.PROTOCOL = NAMING("")

_C.DATASETS = Block()
# Root folder of the data sets named in detection/data/catalog.py; ~ and $VARIABLES are expanded.
_C.DATASETS.ROOT = MACHINE("$SMOOTH2DET_DATA")
# Names from the catalog, or "voc:<folder>:<split>[:<classes.txt>]", or "coco:<json>:<image folder>".
# Several training sets are joined (VOC 07+12).
_C.DATASETS.TRAIN = CONTENT(("voc_2007_trainval", "voc_2012_trainval"))
# The one test set, named likewise.
_C.DATASETS.TEST = CONTENT(("voc_2007_test",))
# One more name, of the data set on which TEST.EVAL_PERIOD measures AP and loss; empty: AP on the test set.
_C.DATASETS.VAL = CONTENT("")

_C.DATALOADER = Block()
# Worker processes that read images; 0 reads in the training process.
_C.DATALOADER.NUM_WORKERS = MACHINE(4)
# Skip training images without any box to learn from (`difficult` boxes are never learned).
_C.DATALOADER.FILTER_EMPTY_ANNOTATIONS = NUMBER(True)
# Keep decoded training images in memory (per worker), at most as large as INPUT.SIZES needs; for small data sets.
_C.DATALOADER.CACHE_IMAGES = MACHINE(False)

_C.INPUT = Block(NUMBER)
# Sides in pixels of the square network input, multiples of 32; a new one is drawn every PERIOD iterations.
# NOTE: the reference starts with 448; here the first side is drawn like any other.
_C.INPUT.SIZES = (320, 352, 384, 416, 448, 480, 512, 544, 576, 608)
# Iterations with the same side.
_C.INPUT.PERIOD = 10
# Probability of a horizontal flip.
_C.INPUT.FLIP = 0.5
# Probability of a crop that keeps every box whole.
_C.INPUT.RANDOM_CROP = 0.5
# Probability of a shift that keeps every box whole.
_C.INPUT.TRANSLATION = 0.5
# Probability that a second image is blended in; the weight of the first is ~ Beta(MIXUP_ALPHA, MIXUP_ALPHA), and
# boxes are weighted like their image.
_C.INPUT.MIXUP = 0.5
# Parameter of this distribution, above 0.
_C.INPUT.MIXUP_ALPHA = 1.5

_C.MODEL = Block(NUMBER)
# The backbone: "mobilenetv2", or a ResNet of backbones/models, such as "resnet18".
_C.MODEL.ARCH = "mobilenetv2"
# Number of categories listed in the data; checked against the data.  0: that of the data.
_C.MODEL.NUM_CLASSES = 20
# Mean per channel, range 0..255, RGB.
_C.MODEL.PIXEL_MEAN = [123.675, 116.280, 103.530]
# Standard deviation per channel, likewise.
_C.MODEL.PIXEL_STD = [58.395, 57.120, 57.375]
# Anchors (width, height) of the strides 8, 16 and 32, in units of the stride; tools/estimate_anchors.py
# estimates others.
_C.MODEL.ANCHORS = [
    [[1.25, 1.625], [2.0, 3.75], [4.125, 2.875]],
    [[1.875, 3.8125], [3.875, 2.8125], [3.6875, 7.4375]],
    [[3.625, 2.8125], [4.875, 6.1875], [11.656, 10.188]],
]
# Channels of the neck at stride 32; half as many at 16, a quarter at 8.
_C.MODEL.NECK_WIDTH = 512
# Normalisation: "BN" (statistics of this process), "FrozenBN" (the backbone's statistics; the neck has BN), "SyncBN"
# or "GN" (no batch statistics).
_C.MODEL.NORM = "BN"
# Stages of the backbone that do not train: 0 none, 1 stem, 2 + res2, 3 + res3, 4 + res4, 5 + res5.
_C.MODEL.FREEZE_AT = 0

_C.LOSS = Block(NUMBER)
# Every anchor whose IoU with a box (common centre) is above this learns it; a box without one gets its best anchor.
_C.LOSS.POSITIVE_IOU = 0.3
# A cell whose predicted box has at least this IoU with a true one is not background.
_C.LOSS.IGNORE_IOU = 0.5
# Exponent of the focal objectness loss; 0 is plain cross-entropy.
_C.LOSS.FOCAL_GAMMA = 2.0

_C.CLASS_LABELS = Block(COMPARED)
# Target of the class loss at positives: "Hard" (one-hot), "LS" or "OLS".  This is what rows compare, so it is part of a
# row's name instead of the protocol.  Blocks hold the arguments of the classes in labels.py.
_C.CLASS_LABELS.NAME = "Hard"
_C.CLASS_LABELS.Hard = CfgNode()
_C.CLASS_LABELS.LS = CfgNode()
# Smoothing in [0, 1]; 0 is the hard label.  The code base uses 0.01, classification 0.1.
_C.CLASS_LABELS.LS.amount = 0.1
# "all": amount / K for every class (the code base); "k-1": amount / (K - 1) for every wrong one.
_C.CLASS_LABELS.LS.convention = "all"
_C.CLASS_LABELS.OLS = CfgNode()
# Share of the one-hot label in [0, 1]; 1 is the hard label.
_C.CLASS_LABELS.OLS.hard_weight = 0.5
# Prediction that the table averages: "softmax" of the class logits, or "sigmoid", sigmoids divided by their sum.
_C.CLASS_LABELS.OLS.form = "softmax"
# Soft label of a class without correct predictions: "uniform" (paper), or "keep" the last one.
_C.CLASS_LABELS.OLS.empty = "uniform"

_C.SOLVER = Block(NUMBER)
# "SGD" or "ADAMW".
_C.SOLVER.OPTIMIZER = "SGD"
# Images per iteration, over all processes.
_C.SOLVER.IMS_PER_BATCH = 8
# Learning rate: linear warm-up from WARMUP_FACTOR * BASE_LR, then a cosine to FINAL_LR, per iteration.
_C.SOLVER.BASE_LR = 1e-4
# Learning rate at the end of the cosine.
_C.SOLVER.FINAL_LR = 1e-6
# Length of the training in iterations: 120 epochs of the 16,551 images of VOC 07+12.
_C.SOLVER.MAX_ITER = 248160
# Iterations of the warm-up, two epochs; 0: none.
_C.SOLVER.WARMUP_ITERS = 4136
# Share of BASE_LR at which the warm-up begins.
_C.SOLVER.WARMUP_FACTOR = 0.0
# Momentum of SGD; 0: none.
_C.SOLVER.MOMENTUM = 0.9
# Whether SGD uses Nesterov's form of the momentum.
_C.SOLVER.NESTEROV = False
# For every weight, normalisation layers and biases included, as in the code base ...
_C.SOLVER.WEIGHT_DECAY = 5e-4
# ... except scales and shifts of normalisation layers if this is not negative; negative: WEIGHT_DECAY.
_C.SOLVER.WEIGHT_DECAY_NORM = -1.0
_C.SOLVER.CLIP_GRADIENTS = Block()
# Whether gradients are clipped by their norm over all parameters.
_C.SOLVER.CLIP_GRADIENTS.ENABLED = False
# Largest norm.
_C.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 10.0
_C.SOLVER.AMP = Block()
# Mixed precision in bfloat16.
_C.SOLVER.AMP.ENABLED = False
# Iterations between resumable checkpoints (one is always written at the end).
_C.SOLVER.CHECKPOINT_PERIOD = MACHINE(2068)
# Iterations between lines of metrics.jsonl.
_C.SOLVER.LOG_PERIOD = MACHINE(20)

_C.TEST = Block(TEST)
# Sides of the square input; if several, their detections are joined before suppression.
_C.TEST.SIZES = (544,)
# Also detect on the mirrored image.
_C.TEST.FLIP = False
# Detections below this score are dropped; AP and AR count all others.
_C.TEST.SCORE_THRESH = 0.01
# IoU above which the weaker of two detections of a class is suppressed.
_C.TEST.NMS_THRESH = 0.5
# Number of best candidates per image and view that enter suppression; 0: all.
_C.TEST.MAX_CANDIDATES = 1000
# True: every class of a box is a candidate; False: only its best one, as in the code base.
_C.TEST.MULTI_LABEL = False
# Largest number of detections of an image, those of the highest scores.
_C.TEST.DETECTIONS_PER_IMAGE = 100
# COCO AP counts detections above this score.
_C.TEST.AP_SCORE_THRESH = 0.01
# Iterations between evaluations during the training, as in detection/config.py; 0: none.
_C.TEST.EVAL_PERIOD = MACHINE(0)
# Metric of these evaluations that chooses the weights of the results, as in detection/config.py; empty: the last ones.
_C.TEST.BEST = NUMBER("")
# Images per batch and process at inference.
_C.TEST.IMS_PER_BATCH = 8

ROLES = Roles(_C)


def get_defaults() -> CfgNode:
    """Return a fresh copy of the defaults above."""
    return _C.clone()


def protocol_hash(cfg: CfgNode, *fingerprints: str) -> str:
    """Return 12 hex digits over everything that a result depends on, except backbone, seed and class labels.

    Args:
        fingerprints: of the training and test data, and with TEST.BEST of the data that it was chosen on.
    """
    settings = with_choice(ROLES.select(cfg, *PROTOCOL), cfg)
    return config_hash({"detector": "yolo", "settings": settings, "data": list(fingerprints)})


def protocol_name(cfg: CfgNode) -> str:
    """Return PROTOCOL, or a name derived from the main settings, such as "YOLO mobilenetv2 BN 544 px 248160 it"."""
    sizes = "/".join(map(str, cfg.TEST.SIZES)) + (" flip" if cfg.TEST.FLIP else "")
    return cfg.PROTOCOL or f"YOLO {cfg.MODEL.ARCH} {cfg.MODEL.NORM} {sizes} px {cfg.SOLVER.MAX_ITER} it"


def describe_protocol(cfg: CfgNode, *fingerprints: str) -> dict[str, Any]:
    """Return the protocol block of results.json: name, hash (`protocol_hash`) and the settings that it covers."""
    settings = with_choice(ROLES.select(cfg, *PROTOCOL), cfg)
    return {"name": protocol_name(cfg), "hash": protocol_hash(cfg, *fingerprints), "settings": settings}


def weight_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return every setting that the weights depend on; of CLASS_LABELS, NAME and the arguments of the chosen class."""
    labels = cfg.CLASS_LABELS
    settings = with_choice(ROLES.select(cfg, *WEIGHTS), cfg)
    settings = {key: value for key, value in settings.items() if not key.startswith("CLASS_LABELS.")}
    used = {"NAME": labels.NAME, **label_settings(labels)}
    return settings | {f"CLASS_LABELS.{key}": value for key, value in used.items()}


def label_settings(labels: CfgNode) -> dict[str, object]:
    """Return the arguments of the chosen class labels."""
    return dict(labels[labels.NAME])


def are_hard(labels: CfgNode) -> bool:
    """Whether the class labels are the default, so that a result belongs to the backbone itself."""
    return labels.NAME == _C.CLASS_LABELS.NAME


def label_name(labels: CfgNode) -> str:
    """Return their name in tables: "hard labels", "LS 0.1 labels", "OLS labels"; lists non-default arguments."""
    if are_hard(labels):
        return "hard labels"
    settings, usual = labels[labels.NAME], _C.CLASS_LABELS[labels.NAME]
    parts = [f"{key} {value}" for key, value in settings.items() if value != usual[key] and key != "amount"]
    amount = [f"{settings.amount:g}"] if "amount" in settings else []
    return " ".join([labels.NAME, *amount, *parts, "labels"])
