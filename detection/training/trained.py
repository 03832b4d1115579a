"""A finished fine-tuning as a detector for images of any folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbones.core.config import CfgNode
from backbones.core.distributed import setup_distributed
from backbones.core.errors import InputError
from backbones.core.images import decode_image, read_header
from backbones.core.runs import CONFIG_FILE
from backbones.core.warning_counter import WarningCounter
from detection.data.records import DetectionData, Record
from detection.engines import build_engine, load_engine_config
from detection.engines.base import Detector
from detection.exchange.detections import load_test_set
from detection.training.best import FIELD, require_evaluated
from detection.training.checkpoint import CHECKPOINT, read_detector, restore_detector
from detection.training.resuming import require_finished


class TrainedDetector:
    """The detector of a finished fine-tuning, on this process's device.

    Attributes:
        cfg: the run's config.
        categories: [{"id", "name"}] of its data.
    """

    def __init__(self, cfg: CfgNode, detector: Detector, categories: list[dict[str, Any]]) -> None:
        self.cfg, self.categories, self._detector = cfg, categories, detector

    @property
    def model(self) -> torch.nn.Module:
        """The network, an implementation detail of its engine."""
        return self._detector.model

    def detect(self, images: Sequence[str | Path]) -> dict[str, Any]:
        """Detect in image files.

        The images of the run's test set, in its order, give the run's own detections: those of an image depend slightly
        on the others of its batch, which pad it to the same size.

        Returns:
            a COCO tree {"images", "categories", "annotations"}; an annotation has "image_id", "category_id", "bbox"
            [x, y, w, h] in pixels of the file, and "score".  Ids of images are their positions, from 1.
        Raises:
            InputError: an image cannot be read.
        """
        return self._detect([_record(number, path) for number, path in enumerate(images, start=1)])

    def detect_readable(self, images: Sequence[str | Path]) -> tuple[dict[str, Any], list[str]]:
        """Detect as `detect` does, without the images that cannot be read; also return what is wrong with each."""
        records, wrong = [], []
        for number, path in enumerate(images, start=1):
            try:
                records.append(_record(number, path))
            except InputError as error:
                wrong.append(str(error))
        try:
            return self._detect(records), wrong
        except InputError:  # an image is broken behind its header
            kept, broken = _decodable(records)
            if not broken:
                raise
            return self._detect(kept), [*wrong, *broken]

    def _detect(self, records: list[Record]) -> dict[str, Any]:
        data = DetectionData("images", "", "", self.categories, records, "", WarningCounter())
        found = self._detector.detect(data) if records else []
        images = [{"id": r.image_id, "file_name": r.path, "width": r.width, "height": r.height} for r in records]
        return {"images": images, "categories": self.categories, "annotations": found}


def load_detector(run: str | Path) -> TrainedDetector:
    """Load the detector of a finished fine-tuning.

    Raises:
        InputError: not such a run, or its engine is not installed.
    """
    folder = Path(run)
    cfg, state = read_run(folder)
    engine = build_engine(cfg.ENGINE)
    engine.check_config(cfg)
    engine.require()
    detector = engine.rebuild(cfg, setup_distributed())
    restore_detector(folder / CHECKPOINT, detector, state, finished=True)
    return TrainedDetector(cfg, detector, state.get("categories") or _categories(folder))


def read_run(folder: Path) -> tuple[CfgNode, dict[str, Any]]:
    """Return the config and the checkpoint of a finished fine-tuning; its engine need not be installed.

    Its "model" holds the weights of the results: the last ones, or with TEST.BEST the best ones.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise InputError(f"{folder}: no {CHECKPOINT}; give the folder of a finished fine-tuning")
    state = read_detector(path)
    cfg = load_engine_config(folder / CONFIG_FILE, otherwise=state["engine"])
    cfg.freeze()
    require_finished(path, state["iteration"], cfg.SOLVER.MAX_ITER)
    if FIELD in state:
        require_evaluated(path, state[FIELD]["evaluated"], cfg.SOLVER.MAX_ITER)
        state["model"] = state[FIELD]["weights"]
    return cfg, state


def _categories(folder: Path) -> list[dict[str, Any]]:
    """Return the categories of a run whose checkpoint, of an earlier version, does not hold them."""
    try:
        return load_test_set(folder, None).categories
    except InputError as error:
        raise InputError(
            f"{folder / CHECKPOINT} does not name its classes, and its data cannot be read: {error}"
        ) from None


def _record(number: int, path: str | Path) -> Record:
    if not Path(path).is_file():
        raise InputError(f"no such image: {path}")
    header = read_header(path)
    empty = np.zeros(0)
    return Record(
        image_id=number,
        path=str(path),
        width=header.width,
        height=header.height,
        bbox=np.zeros((0, 4)),
        labels=empty.astype(np.int64),
        iscrowd=empty.astype(bool),
        area=empty,
    )


def _decodable(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Return the images that can be decoded, and what is wrong with the others."""
    kept, broken = [], []
    for record in records:
        try:
            decode_image(record.path)
            kept.append(record)
        except InputError as error:
            broken.append(str(error))
    return kept, broken
