"""Checks of a suite before it starts; otherwise a mistyped key in the last row would cost days."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from backbones.core.checks import check_choice
from backbones.core.config import CfgNode
from backbones.core.errors import InputError
from suites.plan import Plan
from suites.stages import Import, Pretrain, Stage
from suites.stages.measures import EPOCH
from suites.stages.results import OfBackbone


class Reader(NamedTuple):
    """How a tool reads and checks its settings; the functions raise `InputError` for what the tool refuses.

    read: maps a config file (or None) and KEY VALUE overrides to complete settings.
    checks: functions that check the settings.
    leaves: for a stage that writes a backbone: returns it from the arguments and settings of the stage, as far as
        these determine it.
    check_backbone: for a fine-tuning: takes its backbone (None: random weights) and its settings.
    """

    read: Callable[[Path | None, Sequence[str]], CfgNode]
    checks: tuple[Callable[[CfgNode], Any], ...]
    leaves: Callable[[Sequence[str], CfgNode], Any] | None = None
    check_backbone: Callable[[Any, CfgNode], Any] | None = None

    def load(self, stage: Stage) -> CfgNode:
        """Return the complete settings of a stage, checked."""
        cfg = self.read(stage.config, stage.overrides)
        for check in self.checks:
            check(cfg)
        return cfg


def check_settings(plan: Plan, readers: Mapping[str, Reader], numbers: Sequence[str]) -> dict[Stage, CfgNode]:
    """Return the settings of every stage whose tool has a reader; print a warning about mixed conventions.

    Args:
        readers: tool name -> reader.
        numbers: those that COMPARE.PRIMARY can name.

    Raises:
        InputError: settings that the stage's tool would refuse (with the stage's title), or a choice that is made on
            the split that is reported.
    """
    check_choice("COMPARE.PRIMARY", plan.suite.compare.primary, numbers)
    settings: dict[Stage, CfgNode] = {}
    load = readers[Pretrain.default_tool].load
    trained = cache(lambda stage: load(stage) if stage.config else CfgNode())  # for all that read it
    left = cache(lambda stage: stage and _left(stage, trained(stage), readers))
    for stage in plan.stages:
        if reader := readers.get(stage.tool):
            try:
                settings[stage] = trained(stage) if isinstance(stage, (Pretrain, Import)) else reader.load(stage)
                if isinstance(stage, Import):
                    left(stage)  # reads the file
                if reader.check_backbone and isinstance(stage, OfBackbone):
                    reader.check_backbone(left(stage.backbone), settings[stage])
            except InputError as error:
                raise InputError(f"{stage.title}: {error}") from None
            for what, of in stage.chosen_by():
                _check_choice(stage.title, what, trained(of), settings[stage])
    if warning := mixed_conventions(settings):
        print(f"warning: {warning}", file=sys.stderr)
    return settings


def _left(stage: Stage, cfg: CfgNode, readers: Mapping[str, Reader]) -> Any:
    """Return the backbone that a stage will write."""
    reader = readers.get(stage.tool, readers[Pretrain.default_tool])  # a selection: that of its points
    return reader.leaves and reader.leaves(stage.command[2:], cfg)


def mixed_conventions(settings: Mapping[Stage, CfgNode]) -> str:
    """Return a warning if rows use several smoothing conventions and a label does not state its own; otherwise "".

    LS defaults to `all`, ALS to the paper's `k-1`: the same amount means two things in one table.
    """
    found: dict[str, list[str]] = {}
    for stage, cfg in settings.items():
        convention = cfg.METHOD[cfg.METHOD.NAME].get("convention") if isinstance(stage, Pretrain) else None
        if convention:
            found.setdefault(convention, []).append(cfg.LABEL or stage.title.partition(": ")[0])
    silent = {label: way for way, labels in found.items() for label in labels if f"({way})" not in label}
    if len(found) < 2 or not silent:
        return ""
    rows = ", ".join(f"{label} by {way}" for label, way in silent.items())
    return (
        f"rows smooth by several conventions, which their labels do not say: {rows}; write it there, as in 'LS (all)'"
    )


def _check_choice(title: str, what: str, trained: CfgNode, cfg: CfgNode) -> None:
    """Raise `InputError` if `cfg` measures the split on which the epoch to report or the grid point is chosen."""
    if what == EPOCH and trained.EVAL.REPORT != "best":
        return
    if (split := trained.DATA.VAL_SPLIT) in (cfg.DATA.VAL_SPLIT, cfg.DATA.SHIFTED_SPLIT):
        said = f"its {what} is selected on DATA.VAL_SPLIT '{split}', which EVALUATE would report"
        raise InputError(f"{title}: {said}; measure another split: EVALUATE.OVERRIDES [DATA.VAL_SPLIT, test]")
