"""Sets derived from a set of samples: the held-out part, one sample per object, a limit per class.  No image is copied.

"image" means a source image, of which the `mask` version has several samples.  Letters: N samples.
"""

import dataclasses

import numpy as np

from backbones.core.errors import InputError
from backbones.core.sampling import draw_rng
from backbones.core.warning_counter import WarningCounter
from backbones.data.masking import Colour
from backbones.data.samples import PaintedObjects, Samples, build_samples

# Streams that make the draws with one seed independent.
_HOLDOUT_STREAM, _CAP_STREAM = 101, 102
CAP_SEED = 0  # the choice is part of the data set, not of a run


def split_holdout(samples: Samples, count: int, seed: int, *, held_out: bool) -> Samples:
    """Return the `count` images drawn with `seed`, or all others; together they are the whole set, in every process."""
    numbers: dict[str, int] = {}  # of the images, in sample order
    names = np.array([numbers.setdefault(name, len(numbers)) for name in samples.relative])
    images = len(numbers)
    if not 0 < count < images:
        raise InputError(
            f"DATA.HOLDOUT {count} is not less than the {images} images of {samples.name} '{samples.split}'; "
            "lower it, so that some are left for training"
        )
    rng = draw_rng(seed, _HOLDOUT_STREAM)
    chosen = np.zeros(images, bool)
    chosen[rng.permutation(images)[:count]] = True
    return samples.subset(np.flatnonzero(chosen[names] == held_out))


def mask_objects(samples: Samples, colour: Colour) -> Samples:
    """Make one sample per object, with the other objects of its image painted over (ALS Sec. 4.1, App. A.2).

    An image with one object is unchanged; if the samples already are objects, only the colour is set.

    Raises:
        InputError: an image has no usable box.
    """
    if samples.painted is not None:
        recoloured = dataclasses.replace(samples.painted, colour=colour)
        return dataclasses.replace(samples, painted=recoloured).subset(np.arange(len(samples)))
    samples.require_boxes()
    counts = samples.box_counts()
    owner = np.repeat(np.arange(len(samples)), counts)  # the image of each object
    ranges = np.stack([samples.offsets[:-1], samples.offsets[1:]], axis=1)
    ranges[counts == 1, 1] = ranges[counts == 1, 0]
    return build_samples(
        paths=[samples.paths[i] for i in owner],
        relative=[samples.relative[i] for i in owner],
        labels=samples.labels[owner],
        sizes=None if samples.sizes is None else samples.sizes[owner],
        boxes=samples.boxes,
        offsets=np.arange(len(owner) + 1, dtype=np.int64),
        classes=samples.classes,
        name=samples.name,
        split=samples.split,
        display_names=samples.display_names,
        painted=PaintedObjects(samples.boxes, ranges[owner], colour),
    )


def cap_classes(samples: Samples, cap: int, warnings: WarningCounter) -> Samples:
    """Keep at most `cap` samples per class, a random choice that is the same for every run (ALS App. A.2)."""
    rng = draw_rng(CAP_SEED, _CAP_STREAM)
    order = rng.permutation(len(samples))
    by_class = order[np.argsort(samples.labels[order], kind="stable")]
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    rank = np.arange(len(samples)) - np.repeat(np.cumsum(counts) - counts, counts)  # place within the class
    for label in np.flatnonzero(counts > cap):
        warnings.add("samples left out by DATA.CLASS_CAP", samples.classes[label], int(counts[label] - cap))
    return samples if (counts <= cap).all() else samples.subset(np.sort(by_class[rank < cap]))
