"""The resume key, which a checkpoint must match, and the learning rate schedule of the Faster R-CNN config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbones.core.config import CfgNode
from backbones.core.distributed import world_size
from backbones.core.errors import InputError
from backbones.core.run_log import get_logger
from backbones.core.schedule import Schedule, build_schedule
from backbones.models.weights import BackboneFile
from detection.data.records import DetectionData

# Names of the data fingerprints in a resume key: data sets are identified by them, not by name or path.
TRAINING_DATA, TEST_DATA = "training data", "test data"
# The data on which TEST.BEST chooses: the fingerprint of DATASETS.VAL, or TEST_DATA.
CHOOSING_DATA = "data of TEST.BEST"


def build_resume_key(
    settings: Mapping[str, Any], data: DetectionData, backbone: BackboneFile | None, test: DetectionData | None = None
) -> dict[str, str]:
    """Return everything that the weights depend on as text: settings, data and backbone; and the test data."""
    return as_texts(settings) | name_inputs(data, backbone, test)


def as_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Convert values to text as stored in a checkpoint; a tuple is written as a list."""
    return {key: str(list(value) if isinstance(value, tuple) else value) for key, value in settings.items()}


def name_inputs(data: DetectionData, backbone: BackboneFile | None, test: DetectionData | None) -> dict[str, str]:
    """Return the fingerprints of the data sets and the hash of the backbone."""
    named = {TRAINING_DATA: data.fingerprint, "backbone": backbone.hash if backbone else "random"}
    return named | ({TEST_DATA: test.fingerprint} if test else {})


def refuse_other_settings(before: Mapping[str, str], now: Mapping[str, str], path: Path) -> None:
    """Raise `InputError` if anything but the test data has changed since the checkpoint at `path` was written."""
    asked = {key: value for key, value in now.items() if key != TEST_DATA}
    changed = [f"{key} ({before.get(key)} -> {value})" for key, value in asked.items() if before.get(key) != value]
    if changed:
        raise InputError(f"{path} was made with other settings: {', '.join(changed)}; use a new output folder")


def require_finished(path: Path, finished: int, total: int) -> None:
    """Raise `InputError` for the checkpoint at `path` of a run that has not finished its iterations."""
    if finished < total:
        raise InputError(f"{path} is at iteration {finished} of {total}; finish it with --resume first")


def warn_of_other_processes(state: Mapping[str, Any]) -> None:
    """Warn if the number of processes has changed, so that a resumed training will not equal an uninterrupted one.

    Each process has its own random numbers, and the batch of BN is the share of one process.

    Args:
        state: a checkpoint; "processes" is the number that wrote it.
    """
    if state.get("processes", world_size()) != world_size():
        get_logger().warning(
            "resuming with %d process(es) after %d: their random numbers differ, so results will differ from those of "
            "an uninterrupted run as between seeds; with NORM BN, whose batch is the share of one process, by more",
            world_size(), state["processes"],
        )  # fmt: skip


def build_detector_schedule(solver: CfgNode) -> Schedule:
    """Build the schedule, which maps an iteration to its learning rate."""
    steps = solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR"
    return build_schedule(
        "steps" if steps else "cosine",
        base_lr=solver.BASE_LR,
        max_iter=solver.MAX_ITER,
        steps=solver.STEPS if steps else (),
        gamma=solver.GAMMA,
        warmup_iters=solver.WARMUP_ITERS,
        warmup_factor=solver.WARMUP_FACTOR,
    )
