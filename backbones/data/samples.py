"""A data set as arrays: images, their classes and their boxes, filled in by readers of file formats.

A reader is a function registered in `DATASETS` that turns (root, split, warnings) into `Samples`; reading.py holds the
code that readers share, versions.py derives other sets (versions, held-out parts).  Letters: N samples, M boxes of all
samples together, K classes, P images in memory, Q painted rectangles.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from backbones.core.images import decode_image
from backbones.core.registry import Registry
from backbones.core.run_log import get_logger
from backbones.core.warning_counter import WarningCounter
from backbones.data.masking import Colour, paint_around

UNUSED = "classes without image"  # name of the counted warning
# name -> function(root: Path, split: str, warnings: WarningCounter) -> Samples
DATASETS = Registry("data set", "backbones.data")


@dataclass(frozen=True)
class StoredImages:
    """Images of a data set that is held in memory (CIFAR, SVHN ...).

    pixels: (P, H, W, 3) uint8 RGB, all images of the split that was read.
    rows: (N,) int64, the row of each sample, as a part of a data set shares the pixels of the whole.
    digest: fingerprint of `pixels`.
    """

    pixels: np.ndarray
    rows: np.ndarray
    digest: str


@dataclass(frozen=True)
class PaintedObjects:
    """Objects that are painted over in the image of each sample ("mask" version, ALS Sec. 4.1).

    boxes: (Q, 4) float32 as `Samples.boxes`, the objects of all images together.
    ranges: (N, 2) int64, sample i paints the rows ranges[i, 0] .. ranges[i, 1] - 1 (its own object can be among them:
        pixels inside the sample's own boxes are never painted).
    colour: uint8 RGB.
    """

    boxes: np.ndarray
    ranges: np.ndarray
    colour: Colour


@dataclass
class Samples:
    """The samples of one split, sorted by path.

    paths: N file names. labels: (N,) int64.
    boxes: (M, 4) float32 x0, y0, x1, y1, half-open source pixels, clipped to the image, none of zero area, all of the
        sample's own class; those of sample i are rows offsets[i] .. offsets[i + 1] - 1.
    offsets: (N + 1,) int64. classes: K names in label order.
    fingerprint: 12 hex digits over everything that defines the samples; independent of the location of the data.
    relative: paths below the root. sizes: (N, 2) int64 width, height. display_names: K readable names.
    stored: the images if they are held in memory; `paths` then are only names.
    painted: objects to paint over when an image is loaded; None: nothing.
    clean_labels: (N,) int64, the labels before noise was added; None: no noise.
    source: fingerprint of the data set before any draw with the run's seed (held-out part, noise), which runs with
        different seeds share.
    drawn: DATA.HOLDOUT if the samples are the part drawn with the run's seed, or the rest of the split; 0: all of it.
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
    stored: StoredImages | None = None
    painted: PaintedObjects | None = None
    clean_labels: np.ndarray | None = None
    source: str = ""
    drawn: int = 0

    def __post_init__(self) -> None:
        self.relative = self.relative or self.paths
        self.display_names = self.display_names or self.classes
        self.source = self.source or self.fingerprint

    def __len__(self) -> int:
        return len(self.paths)

    def load_image(self, index: int) -> np.ndarray:
        """Return one image as a new uint8 (H, W, 3) RGB array; raise `InputError` for a broken file."""
        if self.stored is not None:
            image = self.stored.pixels[self.stored.rows[index]].copy()
        else:
            image = decode_image(self.paths[index])
        if self.painted is not None:
            low, high = self.painted.ranges[index]
            paint_around(image, self.painted.boxes[low:high], self.boxes_of(index), self.painted.colour)
        return image

    def boxes_of(self, index: int) -> np.ndarray:
        """Return the (m, 4) boxes of one sample."""
        return self.boxes[self.offsets[index] : self.offsets[index + 1]]

    def box_counts(self) -> np.ndarray:
        """Return the number of boxes per sample, (N,)."""
        return np.diff(self.offsets)

    def identify(self, images: np.ndarray) -> str:
        """Return 12 hex digits that are equal for the same images with the same labels, wherever the data are."""
        names = "\n".join(self.relative[i] for i in images.tolist())
        return fingerprint(self.source, names, self.labels[images].astype(np.int64))

    def require_boxes(self) -> None:
        """Raise `InputError` if an image has no usable box, with the first one's path."""
        without = np.flatnonzero(self.box_counts() == 0)
        if len(without):
            raise InputError(
                f"{len(without)} of {len(self)} images of {self.name} '{self.split}' have no usable box of their "
                f"class, which this run needs; the first is {self.paths[without[0]]}; "
                "annotate them, or drop them for every method with DATA.VERSION box"
            )

    def subset(self, kept: np.ndarray) -> "Samples":
        """Return the samples with these sorted indices, with a fingerprint of their own."""
        part = build_samples(
            paths=[self.paths[i] for i in kept],
            relative=[self.relative[i] for i in kept],
            labels=self.labels[kept],
            sizes=None if self.sizes is None else self.sizes[kept],
            boxes=self.boxes[ragged_rows(self.offsets, kept)],
            offsets=_offsets(self.box_counts()[kept]),
            classes=self.classes,
            name=self.name,
            split=self.split,
            display_names=self.display_names,
            stored=self.stored and StoredImages(self.stored.pixels, self.stored.rows[kept], self.stored.digest),
            painted=self.painted and PaintedObjects(self.painted.boxes, self.painted.ranges[kept], self.painted.colour),
        )
        part.clean_labels = None if self.clean_labels is None else self.clean_labels[kept]
        return part


def build_samples(
    *,
    paths: list[str],
    relative: list[str],
    labels: Iterable[int],
    sizes: np.ndarray | None,
    boxes: list[np.ndarray] | np.ndarray,
    classes: list[str],
    name: str,
    split: str,
    display_names: list[str],
    offsets: np.ndarray | None = None,
    stored: StoredImages | None = None,
    painted: PaintedObjects | None = None,
) -> Samples:
    """Build `Samples` from one (m, 4) array of boxes per image, or one array of all boxes and `offsets`, in order."""
    labels = np.asarray(labels, np.int64)
    if offsets is None:
        offsets = _offsets([len(b) for b in boxes])
        boxes = np.concatenate([*boxes, np.zeros((0, 4))])
    flat = np.asarray(boxes, np.float32).reshape(-1, 4)
    parts: list[str | np.ndarray] = [labels, flat, offsets] + ([] if sizes is None else [sizes])
    parts += [] if stored is None else [stored.digest, stored.rows]
    parts += [] if painted is None else [painted.boxes, painted.ranges, np.array(painted.colour)]
    digest = fingerprint(name, split, "\n".join(relative), "\n".join(classes), *parts)
    return Samples(
        paths, labels, flat, offsets, classes, digest, name, split, relative, sizes, display_names, stored, painted
    )


def _offsets(counts: Iterable[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))]).astype(np.int64)


def ragged_rows(offsets: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the rows of the samples `kept`, in order, in a ragged array with these (N + 1,) offsets."""
    counts = np.diff(offsets)[kept]
    starts = np.repeat(offsets[:-1][kept] - _offsets(counts)[:-1], counts)
    return starts + np.arange(len(starts))


def load_samples(
    name: str,
    root: str | Path,
    split: str,
    *,
    drop_without_box: bool,
    need_boxes: bool,
    warnings: WarningCounter,
) -> Samples:
    """Read one split of the data set registered as `name`.

    Args:
        drop_without_box: leave out (and count) images without a usable box, for every method.
        need_boxes: raise `InputError` if an image has no usable box.
    """
    read = DATASETS.get(name)
    if not str(root) or not Path(root).is_dir():
        raise InputError(f"no data set at DATA.ROOT '{root}'; set DATA.ROOT to the folder that holds {name}")
    samples = read(Path(root), split, warnings)
    if drop_without_box:
        samples = leave_out_unboxed(samples, split, warnings)
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    for label in np.flatnonzero(counts == 0):
        warnings.add(UNUSED, samples.display_names[label])
    if need_boxes:
        samples.require_boxes()
    return samples


def log_samples(samples: Samples) -> None:
    """Log one line with the numbers of images and boxes, and the range of images per class."""
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    get_logger().info(
        f"{samples.name} '{samples.split}': {len(samples):,} images, {len(samples.boxes):,} boxes, "
        f"{len(samples.classes)} classes with {counts.min():,} to {counts.max():,} images "
        f"(median {np.median(counts):,.0f}), fingerprint {samples.fingerprint}"
    )


def leave_out_unboxed(samples: Samples, split: str, warnings: WarningCounter) -> Samples:
    """Return the samples with a usable box, and count the others; `split` names them if no sample has one."""
    boxed = samples.box_counts() > 0
    for index in np.flatnonzero(~boxed):
        warnings.add("images dropped", samples.relative[index])
    if not boxed.any():
        raise InputError(
            f"no image of {samples.name} '{split}' has a usable box; check the annotations, "
            "or set DATA.VERSION (for a validation split DATA.EVAL_VERSION) full"
        )
    return samples if boxed.all() else samples.subset(np.flatnonzero(boxed))
