"""Copies our detection config key by key into detectron2's; no key is ignored.

This module does not import detectron2: it fills the config that `detectron2.config.get_cfg()` made.
"""

from typing import Any

from backbones.core.config import CfgNode, flatten
from backbones.core.errors import InputError
from detection.config import get_defaults
from detection.config_pairs import EXTRA_NORM, FPN_BACKBONE

# Keys that only we have, and where this engine uses them.
OWN_KEYS = {
    "ENGINE": "chose this engine",
    "IMPORTS": "imported by the tool",
    "LABEL": "written by the tool",
    "PROTOCOL": "written by the tool",
    "DATASETS.VAL": "read by the tool, which hands over the data",
    "DATASETS.ROOT": "read by the tool, which hands over the data",
    "DATALOADER.CACHE_IMAGES": "without effect, which is logged",
    "SOLVER.OPTIMIZER": "build_optimizer",
    "SOLVER.LOG_PERIOD": "the log hook",
    "TEST.AP_SCORE_THRESH": "used by the evaluator",
    "TEST.BEST": "BestCheckpoint",
    "TEST.EXPECTED_RESULTS": "checked by the tool",
    "TEST.IMS_PER_BATCH": "predict",
}
# Keys with the same name but another meaning in detectron2; set by `fill_config` itself.
_TRANSLATED = (
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
    "SOLVER.CLIP_GRADIENTS.ENABLED",
    "MODEL.RESNETS.NORM",
    "MODEL.FPN.NORM",
    "SOLVER.WEIGHT_DECAY_BIAS",
)

# Keys that turn detectron2's generic config into an FPN detector, from its configs/Base-RCNN-FPN.yaml.
_FPN = {
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
}
# A C4 detector has no pyramid and no box head: these keys must have their defaults.
_NOT_IN_C4 = ("MODEL.FPN.OUT_CHANNELS", "MODEL.FPN.NORM", "MODEL.ROI_BOX_HEAD.NUM_FC", "MODEL.ROI_BOX_HEAD.FC_DIM")


def check_config(cfg: CfgNode) -> None:
    """Refuse by key a value that detectron2 does not support; does not need detectron2."""
    model = cfg.MODEL
    fpn = model.BACKBONE.NAME == FPN_BACKBONE
    heads = ("StandardROIHeads",) if fpn else ("Res5ROIHeads", EXTRA_NORM)
    if model.ROI_HEADS.NAME not in heads:
        raise InputError(
            f"MODEL.ROI_HEADS.NAME: {model.ROI_HEADS.NAME}: MODEL.BACKBONE.NAME {model.BACKBONE.NAME} needs "
            f"{' or '.join(heads)}"
        )
    if not fpn:
        _check_c4(cfg)
    elif len(model.ANCHOR_GENERATOR.SIZES) not in (1, 5):
        raise InputError(f"MODEL.ANCHOR_GENERATOR.SIZES: {model.ANCHOR_GENERATOR.SIZES}: one list per level p2..p6")


def _check_c4(cfg: CfgNode) -> None:
    if cfg.MODEL.RESNETS.DEPTH < 50:
        raise InputError(
            f"MODEL.RESNETS.DEPTH: {cfg.MODEL.RESNETS.DEPTH}: detectron2's C4 head consists of bottleneck blocks, so "
            f"res5 would stay random; set MODEL.BACKBONE.NAME {FPN_BACKBONE}"
        )
    values, defaults = dict(flatten(cfg)), dict(flatten(get_defaults()))
    for key in _NOT_IN_C4:
        if values[key] != defaults[key]:
            raise InputError(f"{key}: {values[key]!r}: a C4 detector has no such part; leave it at {defaults[key]!r}")
    if len(cfg.MODEL.ANCHOR_GENERATOR.SIZES) != 1:
        raise InputError(
            f"MODEL.ANCHOR_GENERATOR.SIZES: {cfg.MODEL.ANCHOR_GENERATOR.SIZES}: a C4 detector has one level; "
            "write [[32, 64, 128, 256, 512]]"
        )


def fill_config(cfg: CfgNode, target: Any, *, device: str, processes: int) -> Any:
    """Copy our keys into `target`, a fresh detectron2 config, and freeze it.

    Args:
        device: "cpu" or "cuda:0".
        processes: number of processes; with one, SyncBN becomes BN, since there is nothing to synchronise.

    Raises:
        InputError: a key that detectron2 does not have, or a value of another type.
    """
    check_config(cfg)
    _check_device(cfg, device, processes)
    values = dict(flatten(cfg))
    fpn = values["MODEL.BACKBONE.NAME"] == FPN_BACKBONE
    known = dict(flatten(target))
    for key, value in values.items():
        if key in OWN_KEYS or key in _TRANSLATED:
            continue
        if key not in known:
            raise InputError(f"{key}: ENGINE detectron2 does not have this key; remove it, or set ENGINE torchvision")
        _set(target, key, value)
    for key, value in (_FPN if fpn else {}).items():
        _set(target, key, value)
    for key in ("MODEL.RESNETS.NORM", "MODEL.FPN.NORM"):
        alone = values[key] == "SyncBN" and processes == 1
        _set(target, key, "BN" if alone else values[key])
    # detectron2 cannot clip the norm over all parameters; a hook of the optimizer does.
    own_clipping = values["SOLVER.CLIP_GRADIENTS.CLIP_TYPE"] == "norm"
    _set(target, "SOLVER.CLIP_GRADIENTS.ENABLED", values["SOLVER.CLIP_GRADIENTS.ENABLED"] and own_clipping)
    if own_clipping:
        _set(target, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm")
    if values["SOLVER.WEIGHT_DECAY_BIAS"] >= 0:  # detectron2's default, None, is WEIGHT_DECAY
        _set(target, "SOLVER.WEIGHT_DECAY_BIAS", values["SOLVER.WEIGHT_DECAY_BIAS"])
    # The cosine covers the iterations after the warm-up, as in backbones/core/schedule.py; steps are not shifted.
    _set(target, "SOLVER.RESCALE_INTERVAL", values["SOLVER.LR_SCHEDULER_NAME"] == "WarmupCosineLR")
    _set(target, "MODEL.DEVICE", device)
    _set(target, "MODEL.WEIGHTS", "")  # the engine loads the backbone itself, with proof
    _set(target, "VERSION", 2)
    target.freeze()
    return target


def _check_device(cfg: CfgNode, device: str, processes: int) -> None:
    """Refuse what detectron2 supports only on GPUs."""
    if device != "cpu":
        return
    if cfg.SOLVER.AMP.ENABLED:
        raise InputError("SOLVER.AMP.ENABLED: True: detectron2's mixed precision needs CUDA; set it to False here")
    for key, norm in (("MODEL.RESNETS.NORM", cfg.MODEL.RESNETS.NORM), ("MODEL.FPN.NORM", cfg.MODEL.FPN.NORM)):
        if norm == "SyncBN" and processes > 1:
            raise InputError(
                f"{key}: SyncBN: synchronises GPUs only; with several processes on the CPU use FrozenBN or GN"
            )


def _set(target: Any, key: str, value: Any) -> None:
    """Set a dotted key, converted to the type of detectron2's default (its steps are tuples; ours can be lists)."""
    *path, leaf = key.split(".")
    for name in path:
        target = target[name]
    old = target[leaf]
    if isinstance(old, (list, tuple)) and isinstance(value, (list, tuple)):
        value = type(old)(value)
    elif isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif old is not None and type(value) is not type(old):
        raise InputError(f"{key}: {value!r}: detectron2 takes a {type(old).__name__} here")
    target[leaf] = value
