"""TEST.BEST and DATASETS.VAL: which checkpoint of a training gives the results, and on which data it is chosen.

Both are optional keys of an engine.  Without TEST.BEST, hashes and checkpoints are those of a version without it.
"""

from collections.abc import Mapping
from typing import Any

from backbones.core.config import CfgNode
from backbones.core.errors import InputError

BEST, PERIOD, VAL = "TEST.BEST", "TEST.EVAL_PERIOD", "DATASETS.VAL"


def evaluation_period(cfg: CfgNode) -> int:
    """Return TEST.EVAL_PERIOD; 0 for an engine without it."""
    return cfg.TEST.EVAL_PERIOD if "EVAL_PERIOD" in cfg.TEST else 0


def best_metric(cfg: CfgNode) -> str:
    """Return TEST.BEST; "" for an engine without it."""
    return cfg.TEST.BEST if "BEST" in cfg.TEST else ""


def validation_name(cfg: CfgNode) -> str:
    """Return DATASETS.VAL; "" for an engine without it."""
    return cfg.DATASETS.VAL if "VAL" in cfg.DATASETS else ""


def check_settings(cfg: CfgNode) -> None:
    """Raise `InputError` for settings of the choice that have no effect without others; reads no data."""
    period, stop = evaluation_period(cfg), cfg.SOLVER.MAX_ITER
    for key, value in ((BEST, best_metric(cfg)), (VAL, validation_name(cfg))):
        if value and not period:
            raise InputError(
                f"{key}: {value}: nothing is evaluated during the training at {PERIOD} 0; set the period, or leave "
                f"{key} empty"
            )
    if best_metric(cfg) and period >= stop:
        raise InputError(
            f"{BEST}: {best_metric(cfg)}: at {PERIOD} {period} and SOLVER.MAX_ITER {stop}, only the last iteration is "
            f"evaluated; lower {PERIOD}"
        )


def with_choice(settings: Mapping[str, Any], cfg: CfgNode) -> dict[str, Any]:
    """Return settings that a hash covers with those of the choice: with TEST.BEST, numbers depend on the period, too.

    Args:
        settings: {dotted key: value}, with or without TEST.BEST.
    """
    others = {key: value for key, value in settings.items() if key not in (BEST, PERIOD)}
    return others | ({BEST: best_metric(cfg), PERIOD: evaluation_period(cfg)} if best_metric(cfg) else {})
