"""Engines: the same config in, the same predictions out.

An engine is a module with three functions:

    check_config(cfg) -> None
        Raises InputError, by key, for a value that the engine cannot honour; reads no data, and needs
        nothing installed.
    require() -> None
        Raises InputError where what the engine needs is not installed.
    finetune(cfg, backbone, train, test, run_dir, resume, eval_only, begin=None) -> list of detections
        Trains from `backbone` (BackboneFile; None: random initialisation) on `train`, writes
        checkpoint and metrics into `run_dir`, and returns every detection on `test` at score 0 as
        COCO results: [{"image_id", "category_id" (the json's id), "bbox" [x, y, w, h] in pixels of
        the original, "score"}], complete on the main process.  The account of the loaded backbone
        goes to loading.json, with the proof that what FREEZE_AT froze did not move.
        `begin()` is called on every process when nothing can be refused any more, before anything is written; it
        returns the folder of loading.json (default: `run_dir`).
"""

from __future__ import annotations

import importlib
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from backbones.core.checks import check_choice
from backbones.core.files import save_json

ENGINES = {
    "torchvision": "detection.engines.torchvision.engine",
    "detectron2": "detection.engines.detectron2.engine",
}
LOADING_FILE = "loading.json"


def build_engine(name: str) -> ModuleType:
    """The engine's module; imports nothing of the others."""
    return importlib.import_module(ENGINES[check_choice("ENGINE", name, ENGINES)])


def save_loading(run_dir: Path, report: Any, frozen: dict[str, Any] | None = None) -> None:
    """Keeps a LoadReport beside the run: which tensors came from the backbone, which did not.

    Args:
        frozen: of `FrozenStages.prove`, when the training is over.
    """
    save_json(run_dir / LOADING_FILE, {**asdict(report), "counts": report.counts(), "frozen": frozen})
