"""ImageNet's CLS-LOC layout: class folders with one ILSVRC XML a picture.  Embedded `scenes` is written in it too.

    ROOT/<split>/<class>/<stem>.JPEG
    ROOT/annotations/<split>/<class>/<stem>.xml     no file: the picture has no box
    ROOT/classes.txt                                optional: one class a line, the order of the labels
    ROOT/words.txt                                  optional: class, tab, readable names

Without classes.txt the classes are the folders of `train` (else of the split), sorted.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.warnings import WarningCounter
from backbones.data.reading import SampleBuilder, find_split, list_folders, list_pictures, read_display_names
from backbones.data.samples import DATASETS, Samples

ANNOTATIONS = "annotations"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@DATASETS.register()
def imagenet_xml(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """Read one split; boxes of other classes than the folder's do not count."""
    folder = find_split(root, split, [name for name in list_folders(root) if name != ANNOTATIONS])
    classes = _read_classes(root, folder)
    builder = SampleBuilder("imagenet_xml", root, split, classes, warnings)
    for name in list_folders(folder):
        if name not in classes:
            raise InputError(f"{folder / name} is not one of the {len(classes)} classes of {root}; move it away")
        _add_class(builder, name, classes.index(name))
    return builder.build(read_display_names(root, classes))


def _read_classes(root: Path, folder: Path) -> list[str]:
    listed = root / "classes.txt"
    if not listed.is_file():
        return list_folders(root / "train" if (root / "train").is_dir() else folder)
    classes = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(set(classes)) < len(classes):
        raise InputError(f"{listed} names a class twice; list each class once")
    return classes


def _add_class(builder: SampleBuilder, name: str, label: int) -> None:
    annotations = builder.root / ANNOTATIONS / builder.split / name
    for file in list_pictures(builder.root / builder.split / name):
        path = annotations / f"{file.rpartition('.')[0]}.xml"
        boxes, noted = read_ilsvrc_xml(path, name) if path.is_file() else ([], None)
        relative = f"{builder.split}/{name}/{file}"
        size = builder.add(relative, label, boxes)
        if noted not in (None, size):
            builder.warnings.add("picture sizes differ from the XML's; the picture's taken", relative)


def read_ilsvrc_xml(path: Path, name: str) -> tuple[list[tuple[float, ...]], tuple[int, int] | None]:
    """Half-open boxes of the objects called `name`, and the size noted (width, height) if any.

    ILSVRC's corners are inclusive and count from 0: a box over the whole picture ends at width - 1.
    """
    try:
        tree = ElementTree.fromstring(path.read_bytes())
        boxes = [_read_box(item.find("bndbox")) for item in tree.iter("object") if item.findtext("name") == name]
        size = tree.find("size")
        return boxes, None if size is None else (int(size.findtext("width", "")), int(size.findtext("height", "")))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise InputError(f"cannot read the annotation {path}: {error}; correct or remove it") from None


def _read_box(box: ElementTree.Element | None) -> tuple[float, ...]:
    if box is None:
        raise ValueError("an object without bndbox")
    x0, y0, x1, y1 = (float(box.findtext(corner, "")) for corner in CORNERS)
    return x0, y0, x1 + 1, y1 + 1
