"""The checkpoint of a fine-tuning, the same for every engine: checkpoint.pth in the run's folder.

engine      name of the engine that wrote it
iteration   number of finished iterations
processes   number of processes that trained
resume_key  name -> text of everything that the weights depend on (`build_resume_key`)
model       state dict of `Detector.model`
categories  [{"id", "name"}] of the data
meters      losses since the last line of metrics.jsonl, empty unless a signal has stopped the run between two lines
best        with TEST.BEST only: the best weights so far and their origin (detection/training/best.py)
optimizer, ...   state dicts of `Detector.parts`; with --keep weights, the last checkpoint has no optimizer
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from backbones.core.checkpoint import OPTIMIZER, load_checkpoint, load_state, refuse_unfinished, save_checkpoint
from backbones.core.distributed import barrier, is_main, world_size
from backbones.core.errors import InputError
from detection.engines.base import Detector

CHECKPOINT = "checkpoint.pth"
_FIELDS = ("engine", "iteration", "processes", "resume_key", "model")


def save_detector(
    path: Path,
    detector: Detector,
    finished: int,
    resume_key: dict[str, str],
    categories: Sequence[dict[str, Any]],
    without: Collection[str] = (),
    **more: dict[str, Any],
) -> None:
    """Write the checkpoint; called on every process.

    Args:
        finished: number of finished iterations.
        categories: of the data.
        without: parts of the detector to leave out.
        more: further fields.
    """
    detector.meters.gather(detector.device)
    if is_main():
        save_checkpoint(
            path,
            engine=detector.cfg.ENGINE,
            iteration=finished,
            processes=world_size(),
            resume_key=resume_key,
            model=detector.model.state_dict(),
            categories=[{"id": one["id"], "name": one["name"]} for one in categories],
            meters=detector.meters.state_dict(),
            **more,
            **{name: part.state_dict() for name, part in detector.parts().items() if name not in without},
        )
    barrier()


def read_detector(path: Path) -> dict[str, Any]:
    """Return the fields of a checkpoint; fields that version 0.4 named differently get their present names.

    Raises:
        InputError: not a checkpoint of a fine-tuning.
    """
    state = load_checkpoint(path)
    if "settings" in state and "resume_key" not in state:  # version 0.4, in which two engines did not store their name
        state.setdefault("engine", "yolo" if "task" in state else "torchvision")
        state = {{"settings": "resume_key", "task": "model"}.get(name, name): value for name, value in state.items()}
        state.setdefault("processes", world_size())
    if missing := [name for name in _FIELDS if name not in state]:
        raise InputError(
            f"{path} is not a checkpoint of a fine-tuning: it lacks {missing[0]}; delete it or use a new output folder"
        )
    return state


def restore_detector(path: Path, detector: Detector, state: dict[str, Any], *, finished: bool = False) -> None:
    """Load `state` (from `read_detector`) into `detector`.

    Args:
        finished: no iterations are left, so that no optimizer is needed.

    Raises:
        InputError: the checkpoint of another engine or network, or without the optimizer that is needed.
    """
    engine, parts = detector.cfg.ENGINE, detector.parts()
    if state["engine"] != engine:
        raise InputError(
            f"{path} is a checkpoint of ENGINE {state['engine']}, not of {engine}; use a new output folder"
        )
    refuse_unfinished(state, path, finished=finished)
    if missing := [name for name in parts if name not in state and name != OPTIMIZER]:
        raise InputError(
            f"{path} is not a checkpoint of ENGINE {engine}: it lacks {missing[0]}; use a new output folder"
        )
    load_state(detector.model, state["model"], where=path)
    detector.meters.load_state_dict(state.get("meters", {}))
    for name, part in parts.items():
        if name in state:
            part.load_state_dict(state[name])
