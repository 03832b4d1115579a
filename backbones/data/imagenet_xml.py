"""ImageNet's CLS-LOC layout: class folders with one ILSVRC XML per image; the embedded `scenes` uses it, too.

    ROOT/<split>/<class>/<stem>.JPEG                or .png, .webp ...: IMAGE_SUFFIXES in backbones/data/reading.py
    ROOT/annotations/<split>/<class>/<stem>.xml     or annotations/<split>/<stem>.xml; if absent, the image has no box
    ROOT/annotations/index_<split>.npz              optional: an index, which saves reading all files at every start
    ROOT/classes.txt                                optional: one class per line, in label order
    ROOT/words.txt                                  optional: class, tab, readable names

Without classes.txt the classes are the folders of `train` (else of the split), sorted.
"""

from pathlib import Path

import numpy as np

from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from backbones.data.annotation_index import fresh_index
from backbones.data.class_folders import ANNOTATIONS, ClassImages, count_beside, read_class
from backbones.data.ilsvrc_xml import composed, read_ilsvrc_xml
from backbones.data.reading import (
    IMAGE_SUFFIXES,
    find_split,
    label_numbers,
    list_folders,
    read_classes,
    read_display_names,
)
from backbones.data.samples import DATASETS, Samples, build_samples

__all__ = ["imagenet_xml", "read_ilsvrc_xml"]


@DATASETS.register()
def imagenet_xml(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """Read one split; boxes of other classes than that of the folder are ignored."""
    folder = find_split(root, split, [name for name in list_folders(root) if name != ANNOTATIONS])
    classes = read_classes(root, folder)
    names = list_folders(folder)
    labels = label_numbers(classes, root / "classes.txt")
    label_numbers(names, folder)
    for name in names:
        if composed(name) not in labels:
            raise InputError(f"{folder / name} is not one of the {len(classes)} classes of {root}; move it away")
    found = fresh_index(root, split, names) or [read_class(root, split, name) for name in names]
    for own in found:
        own.count_warnings(split, warnings)
    count_beside(root, split, found, warnings)
    if not any(own.files for own in found):
        raise InputError(
            f"no image ({', '.join(IMAGE_SUFFIXES)}) of imagenet_xml '{split}' below {root}; "
            "check DATA.ROOT and the layout described in backbones/data/imagenet_xml.py"
        )
    return _join(root, split, classes, found, labels)


def _join(root: Path, split: str, classes: list[str], found: list[ClassImages], labels: dict[str, int]) -> Samples:
    found = sorted(found, key=lambda own: f"{own.name}/")  # so that the paths are sorted
    relative = [f"{split}/{own.name}/{file}" for own in found for file in own.files]
    base = f"{root}/"
    return build_samples(
        paths=[base + path for path in relative],
        relative=relative,
        labels=np.repeat([labels[composed(own.name)] for own in found], [len(own.files) for own in found]),
        sizes=np.concatenate([own.sizes for own in found]),
        boxes=np.concatenate([own.boxes for own in found]),
        offsets=np.concatenate([[0], np.cumsum(np.concatenate([own.counts for own in found]))]).astype(np.int64),
        classes=classes,
        name="imagenet_xml",
        split=split,
        display_names=read_display_names(root, classes),
    )
