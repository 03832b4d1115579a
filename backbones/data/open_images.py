"""Open Images with boxes, one sample per object: the eight steps of ALS App. A.2 from the original files.

    ROOT/class-descriptions-boxable.csv     also with a prefix, such as oidv6-
    ROOT/bbox_labels_600_hierarchy.json
    ROOT/<split>-annotations-bbox.csv       train, validation, test; also with a prefix
    ROOT/<split>/<ImageID>.jpg

1. Take all boxes 2. of classes that are leaves of the hierarchy, 3. without the classes removed by
open_images_classes.yaml, 4. with the classes that it merges; 5. make one sample per object, with the others painted
over; 6. keep at most DATA.CLASS_CAP training samples per class; 7. treat validation and test alike, without step 6;
8. leave out boxes of groups, depictions and insides.

Step 6 and the colour of step 5 are set in the config: DATA.VERSION and DATA.EVAL_VERSION must be `mask`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from backbones.core.errors import InputError
from backbones.core.images import read_header_and_frames
from backbones.core.run_log import get_logger
from backbones.core.warning_counter import WarningCounter
from backbones.data.geometry import box_areas
from backbones.data.open_images_csv import FLAGS, Rows, leaf_labels, read_boxes, read_class_names
from backbones.data.reading import count_header, list_images
from backbones.data.samples import DATASETS, PaintedObjects, Samples, build_samples

CHOICE = Path(__file__).with_name("open_images_classes.yaml")
CLASSES, HIERARCHY, BOXES = "class-descriptions-boxable.csv", "bbox_labels_600_hierarchy.json", "annotations-bbox.csv"
COLOUR = (124, 116, 104)  # ImageNet's mean, until replaced with that of the config


@dataclass(frozen=True)
class Classes:
    """The chosen classes; names: K, sorted; labels: LabelNames of the kept leaves; number: class of each label."""

    names: list[str]
    labels: list[str]
    number: np.ndarray


@DATASETS.register()
def open_images(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """Read one split.  Missing images are only counted, as partial downloads of Open Images are common."""
    path = _find(root, f"{split}-{BOXES}")
    classes = choose_classes(read_class_names(_find(root, CLASSES)), leaf_labels(root / HIERARCHY), warnings)
    rows = read_boxes(path, classes.labels)
    kept = _kept_rows(rows, split, warnings)
    held = _held_images(root / split, split, warnings)
    there = np.array([name in held for name in rows.images])
    absent = np.setdiff1d(rows.image[kept], np.flatnonzero(there))
    if len(absent):
        warnings.add("annotated images that are not there", f"{split}/{rows.images[absent[0]]}", len(absent))
    kept = kept[there[rows.image[kept]]]
    if unused := sorted(held.keys() - {rows.images[i] for i in np.unique(rows.image[kept])}):
        warnings.add("images without a box of a chosen class", f"{split}/{held[unused[0]]}", len(unused))
    if not len(kept):
        raise InputError(f"{root / split} holds none of the images of {path.name}; put <ImageID>.jpg files there")
    return _build(root, split, classes, rows, kept, held, warnings)


def choose_classes(names: dict[str, str], leaves: set[str], warnings: WarningCounter) -> Classes:
    """Return the leaves without the removed classes, merged as specified in open_images_classes.yaml."""
    choice = yaml.safe_load(CHOICE.read_text(encoding="utf-8"))
    removed = {name for group in choice["removed"] for name in group["classes"]}
    merged = {name: group["classes"][0] for group in choice["merged"] for name in group["classes"]}
    leaf_names = {label: names[label] for label in sorted(leaves) if label in names}
    for name in sorted((removed | set(merged)) - set(leaf_names.values())):
        warnings.add("classes of open_images_classes.yaml that are no leaf of this hierarchy", name)
    kept = {label: merged.get(name, name) for label, name in leaf_names.items() if name not in removed}
    ordered = sorted(set(kept.values()))
    get_logger().info(
        f"open_images: {len(names)} classes, {len(leaf_names)} of them leaves, {len(kept)} not removed, "
        f"{len(ordered)} after merging (the paper has 480)"
    )
    number = {name: k for k, name in enumerate(ordered)}
    return Classes(ordered, list(kept), np.array([number[name] for name in kept.values()], np.int64))


def _kept_rows(rows: Rows, split: str, warnings: WarningCounter) -> np.ndarray:
    """Return the indices of the rows kept by steps 2, 3 and 8, and log the counts."""
    chosen = rows.labels >= 0
    for name in FLAGS:
        if name not in rows.flags:
            warnings.add("columns that the boxes lack, so that none is left out for them", f"{split}: {name}")
            continue
        if marked := int((chosen & rows.flags[name]).sum()):
            warnings.add(f"boxes left out, {name}", split, marked)
        chosen = chosen & ~rows.flags[name]
    get_logger().info(
        f"open_images '{split}': {len(rows.labels):,} boxes, {int((rows.labels >= 0).sum()):,} of chosen classes, "
        f"{int(chosen.sum()):,} without groups, depictions and insides"
    )
    return np.flatnonzero(chosen)


def _held_images(folder: Path, split: str, warnings: WarningCounter) -> dict[str, str]:
    """Map the ImageID of each image file to its name."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; put the images there as <ImageID>.jpg")
    held: dict[str, str] = {}
    for name in list_images(folder, warnings, split):
        if (first := held.setdefault(name.rpartition(".")[0], name)) != name:
            warnings.add("images left out beside another of the same ImageID", f"{split}/{name} beside {first}")
    return held


def _build(
    root: Path,
    split: str,
    classes: Classes,
    rows: Rows,
    kept: np.ndarray,
    held: dict[str, str],
    warnings: WarningCounter,
) -> Samples:
    order = np.argsort(np.array(rows.images)[rows.image[kept]], kind="stable")
    kept = kept[order]  # by image; within an image, in file order
    used, owner = np.unique(rows.image[kept], return_inverse=True)
    files = [f"{split}/{held[rows.images[i]]}" for i in used]
    headers = [read_header_and_frames(root / file) for file in files]
    sizes = np.array([header[:2] for header, _ in headers], np.int64)
    for file, (header, animated) in zip(files, headers, strict=True):
        count_header(header, animated, warnings, file)
    inside = np.clip(rows.boxes[kept], 0, 1)
    if len(clipped := np.flatnonzero((inside != rows.boxes[kept]).any(axis=1))):
        warnings.add("boxes clipped to the image", files[owner[clipped[0]]], len(clipped))
    boxes = inside * np.tile(sizes, 2)[owner]
    solid = box_areas(boxes) > 0
    if not solid.all():
        warnings.add("boxes of zero area dropped", files[owner[np.flatnonzero(~solid)[0]]], int((~solid).sum()))
    boxes, owner, kept = boxes[solid].astype(np.float32), owner[solid], kept[solid]
    counts = np.bincount(owner, minlength=len(used))
    # Rows of one image are adjacent: each object has the others of its range painted over.
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    ranges = np.repeat(np.stack([starts, np.append(starts[1:], len(owner))], axis=1), counts[owner[starts]], axis=0)
    ranges[counts[owner] == 1, 1] = ranges[counts[owner] == 1, 0]
    return build_samples(
        paths=[f"{root}/{files[i]}" for i in owner],
        relative=[files[i] for i in owner],
        labels=classes.number[rows.labels[kept]],
        sizes=sizes[owner],
        boxes=boxes,
        offsets=np.arange(len(owner) + 1, dtype=np.int64),
        classes=classes.names,
        name="open_images",
        split=split,
        display_names=classes.names,
        painted=PaintedObjects(boxes, ranges, COLOUR),
    )


def _find(root: Path, name: str) -> Path:
    """Return the file `name`, or the only one with a prefix (oidv6-train-annotations-bbox.csv)."""
    if (root / name).is_file():
        return root / name
    found = sorted(root.glob(f"*-{name}"))
    if len(found) != 1:
        what = f"found {len(found)} files with this ending" if found else "found none"
        raise InputError(f"open_images expects {root / name} ({what}); put the original file there")
    return found[0]
