"""ILSVRC's annotations (PASCAL VOC's XML): boxes of one class and the size noted, from 1.28M small files.

Nearly all files are written alike.  A regular expression that only such a file matches as a whole reads them, several
times faster than a parser; every other file goes to the parser.  Both give the same (tests/test_data_index.py).
"""

import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from backbones.core.errors import InputError

Boxes = list[tuple[float, ...]]
Size = tuple[int, int]

CORNERS = ("xmin", "ymin", "xmax", "ymax")
READ_BYTES = 1 << 16  # an annotation has less than one kilobyte an object

_SPACE = rb"[ \t\r\n]*"
_TEXT = rb"[ -%'-;=?-~]*"  # printable ASCII without & < >: it means what it says
_NUMBER = rb"(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)"
_WHOLE = rb"([0-9]{1,9})"


def _element(name: str, content: bytes, *, optional: bool = False) -> bytes:
    tag = name.encode()
    element = rb"<" + tag + rb">" + content + rb"</" + tag + rb">" + _SPACE
    return rb"(?:" + element + rb")?" if optional else element


_BOX = _SPACE + b"".join(_element(corner, _NUMBER) for corner in CORNERS)
_OBJECT = _element(
    "object",
    _SPACE
    + _element("name", rb"(" + _TEXT + rb")")
    + b"".join(_element(tag, _TEXT, optional=True) for tag in ("pose", "truncated", "occluded", "difficult"))
    + _element("bndbox", _BOX),
)
_SIZE = _element(
    "size",
    _SPACE + _element("width", _WHOLE) + _element("height", _WHOLE) + _element("depth", _TEXT, optional=True),
)
_SOURCE = _element("source", _SPACE + _element("database", _TEXT, optional=True), optional=True)
_HEAD = (
    _SPACE
    + rb"<annotation>"
    + _SPACE
    + b"".join(_element(tag, _TEXT, optional=True) for tag in ("folder", "filename", "path"))
    + _SOURCE
    + _SIZE
    + _element("segmented", _TEXT, optional=True)
)
# Within the whole, the objects' own groups would hold the last object only: they are read in a second pass.
_UNGROUPED = re.sub(rb"(?<!\\)\((?!\?)", rb"(?:", _OBJECT)
DOCUMENT = re.compile(_HEAD + rb"((?:" + _UNGROUPED + rb")*)</annotation>" + _SPACE)
OBJECT = re.compile(_OBJECT)


def read_ilsvrc_xml(path: str | Path, name: str) -> tuple[Boxes, Size | None]:
    """Half-open boxes of the objects called `name`, and the size noted (width, height) if any.

    ILSVRC's corners are inclusive and count from 0: a box over the whole picture ends at width - 1.
    """
    try:
        data = read_bytes(path)
        found = parse_usual(data, name)
        return parse_any(data, name) if found is None else found
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise InputError(f"cannot read the annotation {path}: {error}; correct or remove it") from None


def read_bytes(path: str | Path) -> bytes:
    """A small file, in three system calls."""
    handle = os.open(path, os.O_RDONLY)
    try:
        data = os.read(handle, READ_BYTES)
        while len(data) % READ_BYTES == 0 and (more := os.read(handle, READ_BYTES)):
            data += more
        return data
    finally:
        os.close(handle)


def parse_usual(data: bytes, name: str) -> tuple[Boxes, Size | None] | None:
    """What `parse_any` gives, for a file of the usual form; None for any other."""
    document = DOCUMENT.fullmatch(data)
    if document is None:
        return None
    width, height, objects = document.groups()
    own = name.encode()
    boxes = [
        (float(x0), float(y0), float(x1) + 1, float(y1) + 1)
        for called, x0, y0, x1, y1 in OBJECT.findall(objects)
        if called == own
    ]
    return boxes, (int(width), int(height))


def parse_any(data: bytes, name: str) -> tuple[Boxes, Size | None]:
    """Any XML; raises ParseError or ValueError for what is none, or lacks a number."""
    tree = ElementTree.fromstring(data)
    boxes = [_read_box(item.find("bndbox")) for item in tree.iter("object") if item.findtext("name") == name]
    size = tree.find("size")
    return boxes, None if size is None else (int(size.findtext("width", "")), int(size.findtext("height", "")))


def _read_box(box: ElementTree.Element | None) -> tuple[float, ...]:
    if box is None:
        raise ValueError("an object without bndbox")
    x0, y0, x1, y1 = (float(box.findtext(corner, "")) for corner in CORNERS)
    return x0, y0, x1 + 1, y1 + 1
