"""The data sets that the stages of a suite read, each once: what tools/validate_data.py checks of a suite."""

import sys
from collections.abc import Sequence
from pathlib import Path

from suites.loading import load_suite
from suites.plan import build_plan
from suites.stages import Finetune, Pretrain, Stage

# Blocks of a config that say which data are read.
_BLOCKS = ("DATA.", "DATASETS.")


def stages_by_data(path: Path) -> list[Stage]:
    """Return one training per data set that a suite reads; data that the suite prepares itself are named and left out.

    Raises:
        InputError: a suite that cannot be planned, such as one whose data folder does not exist.
    """
    plan = build_plan(load_suite(path), "none")
    prepared = [source.folder for source in plan.data.values() if source.stage]
    found: dict[object, Stage] = {}
    for stage in plan.stages:
        if isinstance(stage, (Pretrain, Finetune)) and not set(prepared).intersection(stage.reads):
            found.setdefault((stage.config, *_of_data(stage.overrides)), stage)
    for folder in prepared:
        print(f"{folder.name}: written by the suite (PREPARE); not checked", file=sys.stderr)
    return list(found.values())


def _of_data(overrides: Sequence[str]) -> list[tuple[str, str]]:
    pairs = zip(overrides[::2], overrides[1::2], strict=True)
    return [(key, value) for key, value in pairs if key.startswith(_BLOCKS)]
