"""COCO instances json -> DetectionData, checked as tools/validate_data.py checks it."""

from __future__ import annotations

from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.findings import Findings
from backbones.core.warning_counter import WarningCounter
from detection.data.coco.scan import scan_coco
from detection.data.reading import build_data
from detection.data.records import DetectionData


def load_coco(annotations: Path, images: Path, name: str, warnings: WarningCounter) -> DetectionData:
    """Read a COCO instances json.

    The categories are those that the file lists, annotated or not, without a root that repeats its child's name.
    Annotations with `iscrowd` stay, for the evaluation; the loader leaves them out of training.

    Args:
        annotations: the json file.
        images: folder that its `file_name`s are below.
        warnings: counts boxes clipped or dropped, images converted, and whatever else is read in spite of a flaw.

    Raises:
        InputError: names file, key and id of what is wrong.
    """
    if not images.is_dir():
        raise InputError(f"{name}: no image folder {images}; check DATASETS.ROOT")
    findings = Findings()
    scan = scan_coco(annotations, images, findings)
    return build_data(scan, findings, name, images, annotations, warnings)
