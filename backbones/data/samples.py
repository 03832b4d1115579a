"""A data set as arrays: which pictures, of which class, with which boxes.  Readers of file formats fill them in.

A reader is a function registered in `DATASETS` that turns (root, split, warnings) into `Samples`, through a
`SampleBuilder`, which does the checks that all formats share.  N samples, M boxes of all samples together, K classes.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from backbones.core.logging import get_logger
from backbones.core.pictures import read_header
from backbones.core.registry import Registry
from backbones.core.warnings import WarningCounter
from backbones.data.geometry import clip_boxes

DATASETS = Registry("data set")  # name -> function(root: Path, split: str, warnings: WarningCounter) -> Samples

PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass
class Samples:
    """The samples of one split, sorted by path.

    paths: N file names. labels: (N,) int64.
    boxes: (M, 4) float32 x0, y0, x1, y1, half-open source pixels, clipped to the picture, none of zero area, all of the
        sample's own class; those of sample i are rows offsets[i] .. offsets[i + 1] - 1.
    offsets: (N + 1,) int64. classes: K names in the order of the labels.
    fingerprint: 12 hex digits over relative paths, labels, boxes, sizes and classes; independent of the data's place.
    relative: paths below the root. sizes: (N, 2) int64 width, height. display_names: K names for people.
    """

    paths: list[str]
    labels: np.ndarray
    boxes: np.ndarray
    offsets: np.ndarray
    classes: list[str]
    fingerprint: str
    name: str
    split: str
    relative: list[str] = field(default_factory=list)
    sizes: np.ndarray | None = None
    display_names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.relative = self.relative or self.paths
        self.display_names = self.display_names or self.classes

    def __len__(self) -> int:
        return len(self.paths)

    def boxes_of(self, index: int) -> np.ndarray:
        """(m, 4) boxes of one sample."""
        return self.boxes[self.offsets[index] : self.offsets[index + 1]]

    def box_counts(self) -> np.ndarray:
        """(N,) number of boxes of each sample."""
        return np.diff(self.offsets)

    def require_boxes(self) -> None:
        """`InputError` that names the first picture without a usable box."""
        without = np.flatnonzero(self.box_counts() == 0)
        if len(without):
            raise InputError(
                f"{len(without)} of {len(self)} pictures of {self.name} '{self.split}' have no usable box of their "
                f"class, which this run needs, the first is {self.paths[without[0]]}; "
                "annotate them, or drop them for every method with DATA.DROP_WITHOUT_BOX True"
            )

    def subset(self, kept: np.ndarray) -> "Samples":
        """The samples with these sorted indices, with a fingerprint of their own."""
        boxes = [self.boxes_of(i) for i in kept]
        return build_samples(
            paths=[self.paths[i] for i in kept],
            relative=[self.relative[i] for i in kept],
            labels=self.labels[kept],
            sizes=None if self.sizes is None else self.sizes[kept],
            boxes=boxes,
            classes=self.classes,
            name=self.name,
            split=self.split,
            display_names=self.display_names,
        )


def build_samples(
    *,
    paths: list[str],
    relative: list[str],
    labels: Iterable[int],
    sizes: np.ndarray | None,
    boxes: list[np.ndarray],
    classes: list[str],
    name: str,
    split: str,
    display_names: list[str],
) -> Samples:
    """`Samples` from one (m, 4) array of boxes a picture; the order of the pictures is kept."""
    labels = np.asarray(labels, np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(b) for b in boxes])]).astype(np.int64)
    flat = np.concatenate([*boxes, np.zeros((0, 4))]).astype(np.float32)
    arrays = [labels, flat, offsets] + ([] if sizes is None else [sizes])
    digest = fingerprint(name, split, "\n".join(relative), "\n".join(classes), *arrays)
    return Samples(paths, labels, flat, offsets, classes, digest, name, split, relative, sizes, display_names)


class SampleBuilder:
    """Collects what a reader finds, checks it against the pictures, and counts what had to be mended."""

    def __init__(self, name: str, root: Path, split: str, classes: list[str], warnings: WarningCounter) -> None:
        self.name, self.root, self.split, self.classes, self.warnings = name, root, split, classes, warnings
        self.rows: list[tuple[str, int, tuple[int, int], np.ndarray]] = []

    def add(self, relative: str, label: int, boxes: list[tuple[float, ...]]) -> tuple[int, int]:
        """Add a picture (path below the root) and its half-open boxes; returns its width and height."""
        width, height, mode = read_header(self.root / relative)
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
                f"check DATA.ROOT and the layout, which backbones/data/{self.name}.py describes"
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


def load_samples(
    name: str,
    root: str | Path,
    split: str,
    *,
    drop_without_box: bool,
    need_boxes: bool,
    warnings: WarningCounter,
) -> Samples:
    """Read one split of the data set registered as `name`, and log what was found.

    Args:
        drop_without_box: leave out (and count) pictures without a usable box, whatever the method.
        need_boxes: a picture without a usable box is an `InputError`.
    """
    read = DATASETS.get(name)
    if not str(root) or not Path(root).is_dir():
        raise InputError(f"no data set at DATA.ROOT '{root}'; set DATA.ROOT to the folder that holds {name}")
    samples = read(Path(root), split, warnings)
    if drop_without_box:
        samples = _drop_without_box(samples, warnings)
    if need_boxes:
        samples.require_boxes()
    get_logger().info(
        f"{name} '{split}': {len(samples):,} pictures, {len(samples.boxes):,} boxes, {len(samples.classes)} classes, "
        f"fingerprint {samples.fingerprint}"
    )
    return samples


def _drop_without_box(samples: Samples, warnings: WarningCounter) -> Samples:
    boxed = samples.box_counts() > 0
    for index in np.flatnonzero(~boxed):
        warnings.add("pictures dropped", samples.relative[index])
    if not boxed.any():
        raise InputError(
            f"no picture of {samples.name} '{samples.split}' has a usable box; check the annotations, "
            "or set DATA.DROP_WITHOUT_BOX False"
        )
    return samples if boxed.all() else samples.subset(np.flatnonzero(boxed))


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


def read_display_names(root: Path, classes: list[str]) -> list[str]:
    """Readable names from `words.txt` (WordNet id, tab, synonyms): the first synonym; else the class itself."""
    words = root / "words.txt"
    if not words.is_file():
        return classes
    pairs = (line.split("\t", 1) for line in words.read_text(encoding="utf-8").splitlines() if "\t" in line)
    names = {wnid: synonyms.split(",")[0].strip() for wnid, synonyms in pairs}
    return [names.get(name, name) for name in classes]
