"""Checks of pairs of settings that do not fit together; each has silently spoiled a benchmark.

`refuse_pairs` raises for rejected settings; `warn_pairs` counts suspicious ones.  A rule is a function of the config
(for warnings, also of the number of processes) that returns the offending keys and values, or "".  docs/protocols.md
lists all rules.  Sources: issues of detectron2, MoCo and others, by repository and number.
"""

from collections.abc import Callable

from backbones.core.config import CfgNode
from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter

FPN_BACKBONE, EXTRA_NORM = "build_resnet_fpn_backbone", "Res5ROIHeadsExtraNorm"
TRAINED_BN = ("BN", "SyncBN")
FEWEST_IMAGES = 8  # with fewer, the batch statistics are too noisy (Wu & He 2018, arXiv:1803.08494, Fig. 1)
LR_PER_IMAGE = 0.02 / 16  # detectron2's default and linear scaling rule (Goyal et al. 2017, arXiv:1706.02677)
LATE = 0.99  # fraction of MAX_ITER after which a last step has hardly any effect
IMAGENET_RGB = (123.675, 116.280, 103.530)


def refuse_pairs(cfg: CfgNode) -> None:
    """Raise InputError for two settings of which one makes the other meaningless; reads no data."""
    for (what, remedy), find in ERRORS.items():
        if found := find(cfg):
            raise InputError(f"{found}: {what}; {remedy}")


def warn_pairs(cfg: CfgNode, processes: int, warnings: WarningCounter) -> None:
    """Count each suspicious pair.

    Args:
        processes: number of processes that share SOLVER.IMS_PER_BATCH.
    """
    for what, find in WARNINGS.items():
        if found := find(cfg, processes):
            warnings.add(what, found)


def _is_fpn(cfg: CfgNode) -> bool:
    return cfg.MODEL.BACKBONE.NAME == FPN_BACKBONE


def _norms(cfg: CfgNode) -> dict[str, str]:
    """Return the normalisation of each part of the detector, by key."""
    norms = {"MODEL.RESNETS.NORM": cfg.MODEL.RESNETS.NORM}
    return {**norms, "MODEL.FPN.NORM": cfg.MODEL.FPN.NORM} if _is_fpn(cfg) else norms


# ------------------------------------------------------------------------------------------ errors


def _fpn_without_norm(cfg: CfgNode) -> str:
    forgotten = _is_fpn(cfg) and cfg.MODEL.RESNETS.NORM == "SyncBN" and cfg.MODEL.FPN.NORM == ""
    return "MODEL.RESNETS.NORM SyncBN with MODEL.FPN.NORM ''" if forgotten else ""


def _frozen_extra_norm(cfg: CfgNode) -> str:
    frozen = cfg.MODEL.ROI_HEADS.NAME == EXTRA_NORM and cfg.MODEL.RESNETS.NORM == "FrozenBN"
    return f"MODEL.ROI_HEADS.NAME {EXTRA_NORM} with MODEL.RESNETS.NORM FrozenBN" if frozen else ""


def _nothing_to_estimate(cfg: CfgNode) -> str:
    norms, frozen = _norms(cfg), cfg.MODEL.BACKBONE.FREEZE_AT == 5 and cfg.MODEL.ROI_HEADS.NAME != EXTRA_NORM
    trained = [key for key, norm in norms.items() if norm in TRAINED_BN and not (frozen and "RESNETS" in key)]
    idle = cfg.TEST.PRECISE_BN.ENABLED and not trained
    values = ", ".join(f"{key} {norm!r}" for key, norm in norms.items())
    values += ", MODEL.BACKBONE.FREEZE_AT 5" * frozen
    return f"TEST.PRECISE_BN.ENABLED True with {values}" if idle else ""


# (what is wrong, what to do) -> rule
ERRORS: dict[tuple[str, str], Callable[[CfgNode], str]] = {
    ("an FPN without norm on a backbone with SyncBN gives NaN (moco#23)", "set MODEL.FPN.NORM SyncBN"): (
        _fpn_without_norm
    ),
    ("the new norm after res5 would be frozen as the identity", "use BN or SyncBN, or Res5ROIHeads"): (
        _frozen_extra_norm
    ),
    ("no batch norm is trained, so there are no statistics to recompute", "set TEST.PRECISE_BN.ENABLED False"): (
        _nothing_to_estimate
    ),
}


# ---------------------------------------------------------------------------------------- warnings


def _frozen_batch_norm(cfg: CfgNode, processes: int) -> str:
    freeze, norm = cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.RESNETS.NORM
    return f"MODEL.BACKBONE.FREEZE_AT {freeze}, MODEL.RESNETS.NORM {norm}" if freeze and norm in TRAINED_BN else ""


def _part_of_the_backbone_trains(cfg: CfgNode, processes: int) -> str:
    return "MODEL.BACKBONE.FREEZE_AT 4" if cfg.MODEL.BACKBONE.FREEZE_AT == 4 else ""


def _no_norm_after_res5(cfg: CfgNode, processes: int) -> str:
    model = cfg.MODEL
    bare = model.ROI_HEADS.NAME == "Res5ROIHeads" and model.RESNETS.NORM in TRAINED_BN
    return f"MODEL.ROI_HEADS.NAME {model.ROI_HEADS.NAME}, MODEL.RESNETS.NORM {model.RESNETS.NORM}" if bare else ""


def _few_images(cfg: CfgNode, processes: int) -> str:
    images = cfg.SOLVER.IMS_PER_BATCH
    shares = {"BN": images // processes, "SyncBN": images}
    small = [f"{key} {norm}" for key, norm in _norms(cfg).items() if shares.get(norm, FEWEST_IMAGES) < FEWEST_IMAGES]
    return f"SOLVER.IMS_PER_BATCH {images} on {processes} process(es), {', '.join(small)}" if small else ""


def _late_step(cfg: CfgNode, processes: int) -> str:
    steps, stop = list(cfg.SOLVER.STEPS), cfg.SOLVER.MAX_ITER
    return f"SOLVER.STEPS {steps}, SOLVER.MAX_ITER {stop}" if steps and steps[-1] > LATE * stop else ""


def _step_in_warm_up(cfg: CfgNode, processes: int) -> str:
    steps, warm_up = list(cfg.SOLVER.STEPS), cfg.SOLVER.WARMUP_ITERS
    return f"SOLVER.STEPS {steps}, SOLVER.WARMUP_ITERS {warm_up}" if steps and steps[0] < warm_up else ""


def _unscaled_rate(cfg: CfgNode, processes: int) -> str:
    solver = cfg.SOLVER
    usual = LR_PER_IMAGE * solver.IMS_PER_BATCH
    # Rounded, so that exactly half (protocol als) is inside.
    far = solver.OPTIMIZER == "SGD" and not 0.5 <= round(solver.BASE_LR / usual, 6) <= 2
    return f"SOLVER.BASE_LR {solver.BASE_LR:g}, SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH}" if far else ""


def _order_of_channels(cfg: CfgNode, processes: int) -> str:
    order, mean = cfg.INPUT.FORMAT, list(cfg.MODEL.PIXEL_MEAN)
    wrong = IMAGENET_RGB[::-1] if order == "RGB" else IMAGENET_RGB
    close = all(abs(a - b) < 0.5 for a, b in zip(mean, wrong, strict=True))
    return f"INPUT.FORMAT {order}, MODEL.PIXEL_MEAN {mean}" if close else ""


def _scale_of_pixels(cfg: CfgNode, processes: int) -> str:
    mean, std = list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD)
    # MSRA's and Caffe's weights use a deviation of 1, and BGR.
    odd = max(map(abs, mean)) <= 1 < 255 * max(std) or (cfg.INPUT.FORMAT == "RGB" and max(std) <= 1)
    return f"INPUT.FORMAT {cfg.INPUT.FORMAT}, MODEL.PIXEL_MEAN {mean}, MODEL.PIXEL_STD {std}" if odd else ""


# Text of the warning in the log and in results.json -> rule.
WARNINGS: dict[str, Callable[[CfgNode, int], str]] = {
    "trained batch norm, but frozen stages (detectron2#2022)": _frozen_batch_norm,
    "a frozen backbone whose res5 is trained; FREEZE_AT 5 freezes it, too": _part_of_the_backbone_trains,
    "C4 with trained batch norm and no norm after res5 (MoCo: Res5ROIHeadsExtraNorm)": _no_norm_after_res5,
    f"batch norm over fewer than {FEWEST_IMAGES} images": _few_images,
    "a last step so close to the end that it has hardly any effect": _late_step,
    "a step within the warm-up": _step_in_warm_up,
    "a learning rate more than a factor of two from 0.02 per 16 images (linear scaling)": _unscaled_rate,
    "a mean in the opposite channel order": _order_of_channels,
    "a mean and deviation that do not fit pixels in 0..255": _scale_of_pixels,
}
