"""Tiny-ImageNet-200 in its original layout: 64 px JPEGs, one box each.

    ROOT/train/<wnid>/images/*.JPEG      ROOT/train/<wnid>/<wnid>_boxes.txt      file, x0, y0, x1, y1 (tabs)
    ROOT/val/images/*.JPEG               ROOT/val/val_annotations.txt            file, wnid, x0, y0, x1, y1
    ROOT/words.txt                       optional: wnid, tab, readable names

Corners are inclusive, from 0 to 63: an object with x0 = x1 is one pixel wide.  Such boxes (17 in the shared subset) are
kept, so that every image has its box, but counted.  The classes are the folders of `train`, sorted.
"""

import math
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.files import load_text
from backbones.core.warning_counter import WarningCounter
from backbones.data.reading import (
    SampleBuilder,
    count_beside_folders,
    find_split,
    list_folders,
    list_images,
    read_display_names,
)
from backbones.data.samples import DATASETS, Samples

Row = tuple[str, list[float]]  # class, half-open box


@DATASETS.register()
def tiny_imagenet(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """Read `train` or `val`; the images of `test` have no labels."""
    folder = find_split(root, split, [name for name in list_folders(root) if name in ("train", "val")])
    classes = list_folders(find_split(root, "train", list_folders(root)))
    builder = SampleBuilder("tiny_imagenet", root, split, classes, warnings)
    if split == "val":
        rows = _read_rows(folder / "val_annotations.txt", classes, None)
        _add_images(builder, "val/images", rows)
        return builder.build(read_display_names(root, classes))
    count_beside_folders(folder, warnings, split)
    for name in classes:
        rows = _read_rows(folder / name / f"{name}_boxes.txt", classes, name)
        _add_images(builder, f"train/{name}/images", rows)
    return builder.build(read_display_names(root, classes))


def _read_rows(path: Path, classes: list[str], name: str | None) -> dict[str, Row]:
    """Read file name -> (class, box); `name` is the class for a file without a class column."""
    rows: dict[str, Row] = {}
    for number, line in enumerate(load_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            file, *label, x0, y0, x1, y1 = line.split()
            (label,) = [name] if name else label
            box = [float(x0), float(y0), float(x1) + 1, float(y1) + 1]
            if not all(map(math.isfinite, box)):
                raise ValueError
        except ValueError:
            raise InputError(f"{path}, line {number}: cannot read '{line}'; correct or remove it") from None
        if label not in classes:
            raise InputError(f"{path}, line {number}: class '{label}' has no folder in train; correct or remove it")
        if file in rows:
            raise InputError(f"{path}, line {number}: a second line for {file}; remove one")
        rows[file] = (label, box)
    return rows


def _add_images(builder: SampleBuilder, folder: str, rows: dict[str, Row]) -> None:
    if not (builder.root / folder).is_dir():
        raise InputError(f"no folder {builder.root / folder}; restore it or remove its class")
    files = list_images(builder.root / folder, builder.warnings, folder)
    if lost := rows.keys() - set(files):
        raise InputError(f"{builder.root / folder / min(lost)} is annotated but absent; restore it")
    for file in files:
        if file not in rows:
            raise InputError(f"{builder.root / folder / file} has no line in its box file; add one or remove it")
        name, box = rows[file]
        if box[2] - box[0] == 1 or box[3] - box[1] == 1:
            builder.warnings.add("boxes one pixel wide or high kept", f"{folder}/{file}")
        builder.add(f"{folder}/{file}", builder.classes.index(name), [tuple(box)])
