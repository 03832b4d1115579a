"""Check a scan and turn it into training data; shared by the checker and by training."""

from pathlib import Path

import numpy as np

from backbones.core.findings import Findings
from backbones.core.image_checks import OTHER_SIZE, StatedImage, check_images, default_workers
from backbones.core.images import read_header
from backbones.core.warning_counter import WarningCounter
from detection.data.records import DetectionData, build_records, list_categories
from detection.data.scan import NO_IMAGES, Scan, check_boxes, count_warnings, refuse


def examine(scan: Scan, findings: Findings, *, images: bool, decode: bool, workers: int = 0) -> np.ndarray:
    """Check the image files and the boxes.

    Args:
        images: check the image files.
        decode: decode each image fully, which finds truncated files.
        workers: number of threads; 0: chosen for the machine.

    Returns:
        (P, 2) width and height of the images as stated, else as in the files; 0 if unknown.
    """
    if not scan.images:
        findings.add(NO_IMAGES, "0 images")
    sizes = np.array([(image.width, image.height) for image in scan.images], np.int64).reshape(-1, 2)
    if images:
        blank = [image._replace(width=0, height=0) for image in scan.images]  # sizes are compared below
        seen = check_images(blank, findings, decode=decode, workers=workers or default_workers())
        other = np.flatnonzero((sizes > 0).all(axis=1) & (seen > 0).all(axis=1) & (sizes != seen).any(axis=1)).tolist()
        findings.add(OTHER_SIZE, (_describe_size(scan.images[n], seen[n].tolist()) for n in other), len(other))
        sizes = np.where(sizes > 0, sizes, seen)
    check_boxes(scan, sizes, findings)
    return sizes


def _describe_size(image: StatedImage, seen: list[int]) -> str:
    width, height = seen
    cause = ""
    if (image.height, image.width) == (width, height):
        turned = read_header(image.path).turned
        cause = ", as EXIF rotates it: store the image rotated" if turned else ": width and height are swapped"
    return f"{image.path} ({image.key}): stated {image.width}x{image.height}, is {width}x{height}{cause}"


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
    """Check a scan and its images, and build the training data; every image exists and has the stated size.

    Args:
        findings: findings of the scan; its warnings are counted in `warnings`.
        classes_from: as in `DetectionData`.

    Raises:
        InputError: the first error of the checker that training cannot fix.
    """
    refuse(findings, str(annotations_path))
    assert scan is not None  # otherwise something was refused
    sizes = examine(scan, findings, images=True, decode=False)
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
