"""Checks of classification data before a long run, with the readers used in training.

A reader stops at the first problem of the annotations, which then is the verdict; the images are all checked.
"""

from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.findings import ERROR, WARNING, Findings, Kind, Report
from backbones.core.image_checks import StatedImage, check_images, default_workers
from backbones.core.warning_counter import WarningCounter
from backbones.data.cifar10h import load_cifar10h
from backbones.data.reading import COUNTED_BY_IMAGES, IMAGE_SUFFIXES, OTHER_FILES
from backbones.data.samples import UNUSED, Samples, load_samples

REFUSED = Kind(ERROR, "refusal by the reader", "it stops at the first problem: fix it and check again")
NO_BOX = Kind(WARNING, "images without box", "methods that need the object's size cannot use them (DATA.VERSION box)")
DISAGREEMENT = Kind(WARNING, "images on which annotators disagree", "the most common answer has less than half")
FIXED = "the reader handles them as stated"
FIXES = {  # where FIXED does not apply to a warning of the readers
    UNUSED: "they are never learned",
    OTHER_FILES: f"images have the suffixes {', '.join(IMAGE_SUFFIXES)}",
}
HUMAN_LABELS = "cifar10h"  # only labels, of the test images of CIFAR-10


def check_samples(
    name: str, root: Path, split: str, *, decode: bool = True, images: bool = True, workers: int = 0
) -> Report:
    """Check one split of a classification data set.

    Args:
        name: DATA.NAME, or "cifar10h", which has human labels only.
        root: DATA.ROOT.
        split: such as "train".
        decode: decode every image completely; False reads headers only.
        images: check every image; False runs the reader only.
        workers: number of threads; 0: chosen for the machine.

    Raises:
        InputError: the folder does not exist.
    """
    if not root.is_dir():
        raise InputError(f"no folder {root}; give the folder of {name} as --root")
    if name == HUMAN_LABELS:
        return _check_human_labels(root)
    report = Report(f"{name} {split}", Findings())
    counter = WarningCounter()
    try:
        samples = load_samples(name, root, split, drop_without_box=False, need_boxes=False, warnings=counter)
    except InputError as error:
        report.findings.add(REFUSED, str(error))
        return report
    for entry in counter.as_list():
        what = entry["what"]
        if what not in COUNTED_BY_IMAGES or not images:
            report.findings.add(Kind(WARNING, what, FIXES.get(what, FIXED)), entry["examples"], entry["count"])
    if images and samples.stored is None:
        sizes = np.zeros((len(samples), 2), int) if samples.sizes is None else samples.sizes
        files = [StatedImage(path, w, h, "") for path, (w, h) in zip(samples.paths, sizes.tolist(), strict=True)]
        check_images(list(dict.fromkeys(files)), report.findings, decode=decode, workers=workers or default_workers())
    _summarize(samples, report)
    return report


def _summarize(samples: Samples, report: Report) -> None:
    counts, boxes = np.bincount(samples.labels, minlength=len(samples.classes)), samples.box_counts()
    if len(samples.boxes):
        bare = np.flatnonzero(boxes == 0).tolist()
        report.findings.add(NO_BOX, (samples.relative[n] for n in bare), len(bare))
    summary: dict[str, Any] = {
        "samples": len(samples), "classes": len(samples.classes), "boxes": len(samples.boxes),
        "per_class": {"min": int(counts.min()), "median": float(np.median(counts)), "max": int(counts.max())},
    }  # fmt: skip
    spread = ", ".join(f"{key} {value:g}" for key, value in summary["per_class"].items())
    report.summary = summary
    report.lines = [
        f"{len(samples)} samples of {len(samples.classes)} classes, {len(samples.boxes)} boxes",
        f"samples per class: {spread}",
    ]


def _check_human_labels(root: Path) -> Report:
    report = Report(HUMAN_LABELS, Findings())
    try:
        table = load_cifar10h(root)
    except InputError as error:
        report.findings.add(REFUSED, str(error))
        return report
    torn = np.flatnonzero(table.max(axis=1) < 0.5).tolist()
    report.findings.add(DISAGREEMENT, (f"image {n}" for n in torn), len(torn))
    report.summary = {"images": len(table), "classes": table.shape[1]}
    report.lines = [f"labels of {len(table)} images, {table.shape[1]} classes; holds no images"]
    return report
