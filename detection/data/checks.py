"""Checks of detection data before a long run: all problems of a set, or of all sets of a config, in one pass."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from backbones.core.config import CfgNode
from backbones.core.findings import ERROR, WARNING, Findings, Kind, Report
from backbones.core.picture_checks import check_pictures, default_workers
from detection.data.catalog import CocoFiles, locate, require_files
from detection.data.scan import Scan, check_boxes, check_use
from detection.data.scan_coco import scan_coco
from detection.data.scan_voc import scan_voc
from detection.data.summary import describe, summarize

NOT_LOOKED_AT = Kind(WARNING, "pictures not looked at", "run again without --no-pictures")
OTHER_CATEGORIES = Kind(ERROR, "category list that differs within the config", "use sets of one list")
SHARED = Kind(WARNING, "test pictures that are trained on", "do not report such numbers as a test")


@dataclass(frozen=True)
class Options:
    """How thoroughly to look.

    Attributes:
        pictures: look at the picture files at all.
        decode: decode them wholly; False reads headers alone and misses truncated files.
        workers: threads; 0: as many as suit the machine.
    """

    pictures: bool = True
    decode: bool = True
    workers: int = 0


def check_detection(
    name: str, root: str, options: Options, num_classes: int | None = None
) -> tuple[Report, Scan | None]:
    """Check one data set.

    Args:
        name: of the catalog, "coco:<json>:<picture folder>" or "voc:<folder>:<split>".
        root: DATASETS.ROOT.
        num_classes: MODEL.ROI_HEADS.NUM_CLASSES; None: not checked.

    Returns:
        the report, and what was read (None: nothing could be).

    Raises:
        InputError: unknown name, or no such folder or annotation file.
    """
    found = locate(name, root)
    require_files(found, options.pictures)
    report = Report(found.name, Findings())
    if isinstance(found, CocoFiles):
        scan = scan_coco(found.annotations, found.images, report.findings)
    else:
        scan = scan_voc(found.folder, found.listing, found.classes, report.findings)
    if scan is None:
        return report, None
    sizes = np.array([(p.width, p.height) for p in scan.pictures], np.int64).reshape(-1, 2)
    if options.pictures:
        workers = options.workers or default_workers()
        seen = check_pictures(scan.pictures, report.findings, decode=options.decode, workers=workers)
        sizes = np.where(sizes > 0, sizes, seen)
    else:
        report.findings.add(NOT_LOOKED_AT, found.name, len(scan.pictures))
    check_boxes(scan, sizes, report.findings)
    check_use(scan, num_classes, report.findings)
    report.summary = summarize(scan, sizes)
    report.lines = describe(report.summary)
    return report, scan


def check_config_data(cfg: CfgNode, root: str | None, options: Options) -> list[Report]:
    """Check every data set of a config, against NUM_CLASSES and each other.

    Args:
        root: in place of DATASETS.ROOT; None: as the config says.
    """
    names = list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]))
    base = cfg.DATASETS.ROOT if root is None else root
    checked = {name: check_detection(name, base, options, cfg.MODEL.ROI_HEADS.NUM_CLASSES) for name in names}
    first = next((scan for _, scan in checked.values() if scan), None)
    for report, scan in checked.values():
        if first and scan and (scan.categories, scan.category_ids) != (first.categories, first.category_ids):
            report.findings.add(OTHER_CATEGORIES, f"{len(scan.categories)}, the first set has {len(first.categories)}")
    trained = {path for name in cfg.DATASETS.TRAIN for path in _paths(checked[name][1])}
    for name in cfg.DATASETS.TEST:
        checked[name][0].findings.add(SHARED, sorted(trained & _paths(checked[name][1])))
    return [report for report, _ in checked.values()]


def _paths(scan: Scan | None) -> set[str]:
    return {os.path.abspath(picture.path) for picture in scan.pictures} if scan else set()
