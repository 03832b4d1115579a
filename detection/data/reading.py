"""From a scan to a verdict on it or to training data: the one way that both the checker and training take."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backbones.core.findings import Findings
from backbones.core.image_checks import OTHER_SIZE, Picture, check_pictures, default_workers
from backbones.core.images import read_header
from backbones.core.warning_counter import WarningCounter
from detection.data.records import DetectionData, build_records, list_categories
from detection.data.scan import NO_PICTURES, Scan, check_boxes, count_warnings, refuse


def examine(scan: Scan, findings: Findings, *, pictures: bool, decode: bool, workers: int = 0) -> np.ndarray:
    """Look at the image files and the boxes.

    Args:
        pictures: look at the files at all.
        decode: decode them wholly, which finds truncated ones.
        workers: threads; 0: as many as suit the machine.

    Returns:
        (P, 2) width and height of the pictures as stated, else as the files have them; 0 where unknown.
    """
    if not scan.pictures:
        findings.add(NO_PICTURES, "0 pictures")
    sizes = np.array([(picture.width, picture.height) for picture in scan.pictures], np.int64).reshape(-1, 2)
    if pictures:
        blank = [picture._replace(width=0, height=0) for picture in scan.pictures]  # sizes are compared here
        seen = check_pictures(blank, findings, decode=decode, workers=workers or default_workers())
        other = np.flatnonzero((sizes > 0).all(axis=1) & (seen > 0).all(axis=1) & (sizes != seen).any(axis=1)).tolist()
        findings.add(OTHER_SIZE, (_describe_size(scan.pictures[n], seen[n].tolist()) for n in other), len(other))
        sizes = np.where(sizes > 0, sizes, seen)
    check_boxes(scan, sizes, findings)
    return sizes


def _describe_size(picture: Picture, seen: list[int]) -> str:
    width, height = seen
    cause = ""
    if (picture.height, picture.width) == (width, height):
        turned = read_header(picture.path).turned
        cause = ", as EXIF would turn it: store the image turned" if turned else ": width and height are exchanged"
    return f"{picture.path} ({picture.key}): stated {picture.width}x{picture.height}, is {width}x{height}{cause}"


def build_data(
    scan: Scan | None,
    findings: Findings,
    name: str,
    root: Path,
    annotations_path: Path,
    warnings: WarningCounter,
    *,
    form: str = "coco",
    classes_from: str = "",
) -> DetectionData:
    """Training data of a scan whose pictures were looked at: each exists and has the stated size.

    Args:
        findings: of the scan; its warnings are counted in `warnings`.
        classes_from: as `DetectionData`.

    Raises:
        InputError: the first error that the checker finds too, and training cannot mend.
    """
    refuse(findings, str(annotations_path))
    assert scan is not None  # otherwise something was refused
    sizes = examine(scan, findings, pictures=True, decode=False)
    refuse(findings, str(annotations_path))
    count_warnings(findings, warnings)
    records, content = build_records(scan, sizes, warnings)
    return DetectionData(
        name=name,
        root=str(root),
        annotations_path=str(annotations_path),
        categories=list_categories(scan),
        records=records,
        fingerprint=content,
        warnings=warnings,
        form=form,
        classes_from=classes_from,
    )
