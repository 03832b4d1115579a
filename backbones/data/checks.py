"""Checks of classification data before a long run, with the readers used in training.

A reader stops at the first problem of the annotations, which then is the verdict; the images are all checked.
"""

from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.config import CfgNode, expand_path
from backbones.core.errors import InputError
from backbones.core.findings import ERROR, WARNING, Findings, Kind, Report
from backbones.core.image_checks import StatedImage, check_images, default_workers
from backbones.core.warning_counter import WarningCounter
from backbones.data.cifar10h import load_cifar10h
from backbones.data.defaults import HOLDOUT
from backbones.data.geometry import box_areas, objectness
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
    name: str, root: Path, split: str, *, decode: bool = True, images: bool = True, workers: int = 0, cap: int = 0
) -> Report:
    """Check one split of a classification data set.

    Args:
        name: DATA.NAME, or "cifar10h", which has human labels only.
        root: DATA.ROOT.
        split: such as "train".
        decode: decode every image completely; False reads headers only.
        images: check every image; False runs the reader only.
        workers: number of threads; 0: chosen for the machine.
        cap: largest number of samples per class that are trained on; 0: no limit.

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
    sizes = np.zeros((len(samples), 2), int) if samples.sizes is None else samples.sizes
    if images and samples.stored is None:
        stated = [StatedImage(path, w, h, "") for path, (w, h) in zip(samples.paths, sizes.tolist(), strict=True)]
        files = {file: number for number, file in enumerate(dict.fromkeys(stated))}
        found = check_images(list(files), report.findings, decode=decode, workers=workers or default_workers())
        sizes = found[[files[file] for file in stated]]
    _summarize(samples, sizes, cap, report)
    return report


def check_config_samples(cfg: CfgNode, root: str | None, **options: Any) -> list[Report]:
    """Check every split that a pretraining's config reads; see `check_samples`.

    Args:
        root: replaces DATA.ROOT; None: the config's value.
    """
    data = cfg.DATA
    named = [data.TRAIN_SPLIT, data.VAL_SPLIT, data.SHIFTED_SPLIT, cfg.EVAL.TEMPERATURE_SPLIT]
    splits = [split for split in dict.fromkeys(named) if split not in ("", HOLDOUT)]  # that is a part of another
    folder = expand_path(data.ROOT if root is None else root)
    caps = {data.TRAIN_SPLIT: data.CLASS_CAP}
    return [check_samples(data.NAME, folder, split, cap=caps.get(split, 0), **options) for split in splits]


def _summarize(samples: Samples, sizes: np.ndarray, cap: int, report: Report) -> None:
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
        *([f"DATA.CLASS_CAP {cap}: at most {np.minimum(counts, cap).sum()} of them are trained on"] if cap else []),
        *_measure_boxes(samples, sizes, summary),
    ]


def _measure_boxes(samples: Samples, sizes: np.ndarray, summary: dict[str, Any]) -> list[str]:
    """Add quartiles of the side of a box and of the object's share of its image, on which ALS depends, as lines, too.

    Args:
        sizes: (N, 2) width and height of the images; 0 if unknown.
    """
    if not len(samples.boxes):
        return []
    known = np.flatnonzero((sizes > 0).all(axis=1) & (samples.box_counts() > 0)).tolist()
    shares = [objectness(samples.boxes_of(n), (0, 0, *sizes[n].tolist())) for n in known]
    summary["box_side"] = _quartiles(np.sqrt(box_areas(samples.boxes)))
    summary["object_share"] = _quartiles(np.array(shares)) if shares else {}
    lines = {"side of a box (pixels, root of its area)": "box_side", "share of an image in its boxes": "object_share"}
    return [
        f"{text}: {', '.join(f'{key} {value:.3g}' for key, value in summary[name].items())}"
        for text, name in lines.items()
        if summary[name]
    ]


def _quartiles(values: np.ndarray) -> dict[str, float]:
    names = ("min", "lower quartile", "median", "upper quartile", "max")
    return {name: float(value) for name, value in zip(names, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]), strict=True)}


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
