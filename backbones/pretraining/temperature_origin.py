"""The images that a method fitted the temperature of its teacher on, as results.json and a resumed run need them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbones.config import ROLES
from backbones.core.config import CfgNode, flatten, load_yaml
from backbones.core.errors import InputError
from backbones.core.roles import TEST
from backbones.core.runs import CONFIG_FILE
from backbones.pretraining.teacher import CachedTeacher, OnlineTeacher

KEY = "temperature"  # in the checkpoint


def temperature_origin(cfg: CfgNode, teacher: OnlineTeacher | CachedTeacher | None, measured: str) -> dict[str, str]:
    """Return the split of a temperature that is fitted now, and what identifies its images.

    Args:
        measured: identifies the validation images and their preprocessing (`Validation`).
    """
    if isinstance(teacher, CachedTeacher):
        return {"split": teacher.fitted_on or cfg.DATA.VAL_SPLIT, "measured": teacher.identity}
    return {"split": cfg.DATA.VAL_SPLIT, "measured": measured}


def restore_origin(cfg: CfgNode, state: Mapping[str, Any], now: dict[str, str], path: Path) -> dict[str, str]:
    """Return the origin of the temperature in the checkpoint `state`, read from `path`.

    Args:
        now: origin of a temperature that would be fitted now; empty if the method fits none.

    Raises:
        InputError: the temperature would be fitted on other images now.
    """
    if not now:
        return now
    before = state[KEY] if KEY in state else _origin_of_earlier_version(cfg, now, path)
    if before["measured"] != now["measured"]:
        raise InputError(
            f"cannot resume {path}: the temperature of its teacher was fitted on other images (split "
            f"{before['split']}, now {now['split']}); set DATA.VAL_SPLIT and DATA.EVAL_* back, or start in another "
            "folder"
        )
    return dict(before)


def _origin_of_earlier_version(cfg: CfgNode, now: dict[str, str], path: Path) -> dict[str, str]:
    """Return the origin in a checkpoint that does not record it; equal keys count as equal images."""
    config = path.parent / CONFIG_FILE
    before = dict(flatten(load_yaml(config))) if config.exists() else {}
    keys = {key: value for key, value in ROLES.select(cfg, TEST).items() if key.startswith("DATA.")}
    if cfg.TEACHER.CACHE or all(before.get(key, value) == value for key, value in keys.items()):
        return now
    return {"split": str(before.get("DATA.VAL_SPLIT", "")), "measured": "unknown"}
