"""Code shared by the readers of file formats: checks of every image and box, and listing of folders.

A reader is a function registered in `DATASETS` that turns (root, split, warnings) into `Samples`, usually with a
`SampleBuilder`.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import load_lines
from backbones.core.images import ImageHeader, read_header_and_frames
from backbones.core.warning_counter import WarningCounter
from backbones.data.geometry import clip_boxes
from backbones.data.ilsvrc_xml import composed
from backbones.data.samples import Samples, build_samples

# The suffixes read by torchvision's ImageFolder.
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Warnings about files that every reader counts.
CONVERTED = "grey or CMYK images converted"
TURNED = "images that EXIF asks to turn (TIFF alone is turned)"
FRAMES = "images of several frames, the first read"
COUNTED_BY_IMAGES = (CONVERTED, TURNED, FRAMES)  # a check of the images finds the same, in more detail
HIDDEN = "hidden files left out"
OTHER_FILES = "other files and folders left out"


class SampleBuilder:
    """Collects the images and boxes of a reader, checks them against the files, and counts what had to be fixed."""

    def __init__(self, name: str, root: Path, split: str, classes: list[str], warnings: WarningCounter) -> None:
        self.name, self.root, self.split, self.classes, self.warnings = name, root, split, classes, warnings
        self.rows: list[tuple[str, int, tuple[int, int], np.ndarray]] = []

    def add(self, relative: str, label: int, boxes: list[tuple[float, ...]]) -> tuple[int, int]:
        """Add an image (path below the root) with its half-open boxes, and return its width and height."""
        header, animated = read_header_and_frames(self.root / relative)
        count_header(header, animated, self.warnings, relative)
        width, height = header.width, header.height
        with np.errstate(over="ignore"):  # beyond float32: refused below
            array = np.array(boxes, np.float32).reshape(-1, 4)
        if not np.isfinite(array).all():
            raise InputError(f"{self.root / relative} has the box {boxes}, which is not finite; correct its annotation")
        clipped = clip_boxes(array, width, height)
        if (changed := (clipped != array).any(axis=1).sum()) > 0:
            self.warnings.add("boxes clipped to the image", relative, int(changed))
        solid = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
        if not solid.all():
            self.warnings.add("boxes of zero area dropped", relative, int((~solid).sum()))
        self.rows.append((relative, label, (width, height), clipped[solid]))
        return width, height

    def build(self, display_names: list[str] | None = None) -> Samples:
        """Return the samples, sorted by path."""
        if not self.rows:
            raise InputError(
                f"no image ({', '.join(IMAGE_SUFFIXES)}) of {self.name} '{self.split}' below {self.root}; "
                "check DATA.ROOT and the layout described in its reader in backbones/data"
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


class Listing(NamedTuple):
    """The names in a folder, sorted.

    Attributes:
        images: files with a suffix of IMAGE_SUFFIXES, in any case.
        others: other visible files, and folders (with a trailing slash).
        hidden: names that begin with a dot, such as macOS's ._* and .DS_Store.
    """

    images: list[str]
    others: list[str]
    hidden: list[str]


def count_header(header: ImageHeader, animated: bool, warnings: WarningCounter, example: str) -> None:
    """Count the peculiarities of an image."""
    if header.mode != "RGB":
        warnings.add(CONVERTED, example)
    if header.turned:
        warnings.add(TURNED, example)
    if animated:
        warnings.add(FRAMES, example)


def list_folders(folder: Path) -> list[str]:
    """Return the names of the visible folders in `folder`, sorted."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(_usable_name(folder, name) for name in names)


def list_folder(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Listing:
    """List a folder of images, or of files with other suffixes (in lower case)."""
    found = Listing([], [], [])
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                found.hidden.append(_shown(name))
            elif name.lower().endswith(suffixes):
                found.images.append(_usable_name(folder, name))
            else:
                found.others.append(_shown(name) + "/" * entry.is_dir())
    return Listing(*map(sorted, found))


def list_images(folder: Path, warnings: WarningCounter, place: str) -> list[str]:
    """Return the image files in `folder`, sorted, and count all others, with `place` before their names."""
    found = list_folder(folder)
    count_left_out([f"{place}/{n}" for n in found.others], [f"{place}/{n}" for n in found.hidden], warnings)
    return found.images


def count_beside_folders(folder: Path, warnings: WarningCounter, place: str) -> None:
    """Count the files beside class folders, which belong to no class."""
    images, others, hidden = list_folder(folder)
    if images:
        warnings.add("images beside the class folders left out", f"{place}/{images[0]}", len(images))
    files = [f"{place}/{name}" for name in others if not name.endswith("/")]
    count_left_out(files, [f"{place}/{name}" for name in hidden], warnings)


def count_left_out(others: list[str], hidden: list[str], warnings: WarningCounter) -> None:
    """Count files and folders that are not images, and hidden ones."""
    for what, names in ((OTHER_FILES, others), (HIDDEN, hidden)):
        if names:
            warnings.add(what, names[0], len(names))


def _usable_name(folder: Path, name: str) -> str:
    """Return the name; raise `InputError` if it cannot be a line of a UTF-8 text file."""
    if "\n" in name or (not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name)):
        raise InputError(f"{folder} holds the name {name!a}, which is not one line of UTF-8; rename it")
    return name


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]


def find_split(root: Path, split: str, splits: list[str]) -> Path:
    """Return the folder of a split; raise `InputError` with the existing splits if it does not exist."""
    if split not in splits:
        found = f"splits found: {', '.join(splits)}" if splits else "found no split there: check DATA.ROOT"
        raise InputError(f"no split '{split}' in the data set {root}; {found}")
    return root / split


def read_classes(root: Path, folder: Path) -> list[str]:
    """Return the classes in label order: those of classes.txt, else the folders of `train`, else those of `folder`."""
    listed = root / "classes.txt"
    if not listed.is_file():
        return list_folders(root / "train" if (root / "train").is_dir() else folder)
    classes = load_lines(listed)
    label_numbers(classes, listed)
    return classes


def label_numbers(classes: list[str], place: Path) -> dict[str, int]:
    """Map each class, with composed accents, to its label; look up `composed(name)`.

    Raises:
        InputError: `place` lists a class twice.
    """
    numbers: dict[str, int] = {}
    for label, name in enumerate(classes):
        if numbers.setdefault(composed(name), label) != label:
            raise InputError(f"{place} names the class '{name}' twice; list each class once")
    return numbers


def read_display_names(root: Path, classes: list[str]) -> list[str]:
    """Return readable names: the first synonym in `words.txt` (WordNet id, tab, synonyms), else the class itself."""
    words = root / "words.txt"
    if not words.is_file():
        return classes
    pairs = (line.split("\t", 1) for line in load_lines(words) if "\t" in line)
    names = {composed(wnid.strip()): synonyms.split(",")[0].strip() for wnid, synonyms in pairs}
    return [names.get(composed(name)) or name for name in classes]
