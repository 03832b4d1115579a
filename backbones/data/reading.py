"""What the readers of file formats share: the checks of every picture and box, and the ways of folders.

A reader is a function registered in `DATASETS` that turns (root, split, warnings) into `Samples`, mostly through a
`SampleBuilder`.
"""

import os
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError
from backbones.core.warnings import WarningCounter
from backbones.data.geometry import clip_boxes
from backbones.data.jpeg_header import picture_header
from backbones.data.samples import Samples, build_samples

PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png")


class SampleBuilder:
    """Collects what a reader finds, checks it against the pictures, and counts what had to be mended."""

    def __init__(self, name: str, root: Path, split: str, classes: list[str], warnings: WarningCounter) -> None:
        self.name, self.root, self.split, self.classes, self.warnings = name, root, split, classes, warnings
        self.rows: list[tuple[str, int, tuple[int, int], np.ndarray]] = []

    def add(self, relative: str, label: int, boxes: list[tuple[float, ...]]) -> tuple[int, int]:
        """Add a picture (path below the root) and its half-open boxes; returns its width and height."""
        width, height, mode = picture_header(self.root / relative)
        if mode != "RGB":
            self.warnings.add("grey or CMYK pictures converted", relative)
        array = np.array(boxes, np.float32).reshape(-1, 4)
        clipped = clip_boxes(array, width, height)
        if (changed := (clipped != array).any(axis=1).sum()) > 0:
            self.warnings.add("boxes clipped to the picture", relative, int(changed))
        solid = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
        if not solid.all():
            self.warnings.add("boxes of zero area dropped", relative, int((~solid).sum()))
        self.rows.append((relative, label, (width, height), clipped[solid]))
        return width, height

    def build(self, display_names: list[str] | None = None) -> Samples:
        """The samples, sorted by path."""
        if not self.rows:
            raise InputError(
                f"no picture ({', '.join(PICTURE_SUFFIXES)}) of {self.name} '{self.split}' below {self.root}; "
                "check DATA.ROOT and the layout, which its reader in backbones/data describes"
            )
        relative, labels, sizes, boxes = map(list, zip(*sorted(self.rows, key=lambda row: row[0]), strict=True))
        return build_samples(
            paths=[str(self.root / path) for path in relative],
            relative=relative,
            labels=labels,
            sizes=np.array(sizes, np.int64),
            boxes=boxes,
            classes=self.classes,
            name=self.name,
            split=self.split,
            display_names=display_names or self.classes,
        )


def list_folders(folder: Path) -> list[str]:
    """Names of the visible folders in `folder`, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def list_pictures(folder: Path) -> list[str]:
    """Names of the picture files in `folder`, sorted."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name.lower().endswith(PICTURE_SUFFIXES) and e.name[0] != ".")


def find_split(root: Path, split: str, splits: list[str]) -> Path:
    """The folder of a split; `InputError` with the splits found."""
    if split not in splits:
        found = f"splits found: {', '.join(splits)}" if splits else "found no split there: check DATA.ROOT"
        raise InputError(f"no split '{split}' in the data set {root}; {found}")
    return root / split


def read_classes(root: Path, folder: Path) -> list[str]:
    """The classes in the order of their labels: those of classes.txt, else the folders of `train`, else of `folder`."""
    listed = root / "classes.txt"
    if not listed.is_file():
        return list_folders(root / "train" if (root / "train").is_dir() else folder)
    classes = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(set(classes)) < len(classes):
        raise InputError(f"{listed} names a class twice; list each class once")
    return classes


def read_display_names(root: Path, classes: list[str]) -> list[str]:
    """Readable names from `words.txt` (WordNet id, tab, synonyms): the first synonym; else the class itself."""
    words = root / "words.txt"
    if not words.is_file():
        return classes
    pairs = (line.split("\t", 1) for line in words.read_text(encoding="utf-8").splitlines() if "\t" in line)
    names = {wnid: synonyms.split(",")[0].strip() for wnid, synonyms in pairs}
    return [names.get(name, name) for name in classes]
