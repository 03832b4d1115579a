"""ILSVRC's annotations (PASCAL VOC's XML): boxes of one class and the stated size, from 1.28M small files.

Nearly all files have the same form.  They are read by a regular expression that must match the whole file, several
times faster than by a parser; all other files are parsed.  Both give the same result (tests/test_data_index.py).
"""

import math
import os
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.xml_files import only, only_text, parse_xml

Boxes = list[tuple[float, ...]]
Size = tuple[int, int]

CORNERS = ("xmin", "ymin", "xmax", "ymax")
READ_BYTES = 1 << 16  # an annotation has less than one kilobyte per object

_SPACE = rb"[ \t\r\n]*"
_TEXT = rb"[ -%'-;=?-~]*"  # printable ASCII without & < >: needs no unescaping
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
    + _element("name", rb"( *[!-%'-;=?-~]" + _TEXT + rb")")
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
# In a match of the whole document, groups of an object would hold only the last object: a second pass reads them.
_UNGROUPED = re.sub(rb"(?<!\\)\((?!\?)", rb"(?:", _OBJECT)
DOCUMENT = re.compile(_HEAD + rb"((?:" + _UNGROUPED + rb")*)</annotation>" + _SPACE)
OBJECT = re.compile(_OBJECT)


def read_ilsvrc_xml(path: str | Path, name: str) -> tuple[Boxes, Size | None]:
    """Return the half-open boxes of the objects called `name`, and the stated size (width, height), None if absent.

    ILSVRC's corners are inclusive and count from 0: a box over the whole image ends at width - 1.

    Raises:
        InputError: the file is missing, broken, inconsistent or lacks a number.
    """
    try:
        data = read_bytes(path)
        found = parse_usual(data, name)
        return parse_any(data, name) if found is None else found
    except OSError as error:
        raise InputError(f"cannot read the annotation {path}: {error.strerror}; restore or remove it") from None
    except ValueError as error:
        raise InputError(f"the annotation {path} {error}; correct or remove it") from None


def read_bytes(path: str | Path) -> bytes:
    """Read a small file with three system calls."""
    handle = os.open(path, os.O_RDONLY)
    try:
        data = os.read(handle, READ_BYTES)
        while len(data) % READ_BYTES == 0 and (more := os.read(handle, READ_BYTES)):
            data += more
        return data
    finally:
        os.close(handle)


def parse_usual(data: bytes, name: str) -> tuple[Boxes, Size | None] | None:
    """Return the result of `parse_any` for a file of the usual form; None for any other file."""
    document = DOCUMENT.fullmatch(data)
    if document is None:
        return None
    width, height, objects = document.groups()
    own = name.strip().encode()
    boxes = [
        (float(x0), float(y0), float(x1) + 1, float(y1) + 1)
        for called, x0, y0, x1, y1 in OBJECT.findall(objects)
        if called.strip() == own
    ]
    return boxes, (int(width), int(height))


def parse_any(data: bytes, name: str) -> tuple[Boxes, Size | None]:
    """Parse any XML annotation.

    All boxes of an object are returned.  Names are compared after stripping and with composed accents.

    Raises:
        ValueError: the annotation is not valid; the message is the end of a sentence that begins with the file name.
    """
    tree = parse_xml(data)
    own = composed(name.strip())
    objects = [item for item in tree.iter("object") if composed(_read_name(item)) == own]
    boxes = [_read_box(box) for item in objects for box in _own_boxes(item)]
    size = only(tree, "size")
    return boxes, None if size is None else (_read_side(size, "width"), _read_side(size, "height"))


def composed(text: str) -> str:
    """Return the text with composed accents (NFC), which most systems use in file names, but not macOS."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _read_name(item: ElementTree.Element) -> str:
    name = only_text(item, "name")
    if not name:
        raise ValueError("has an object without a name")
    return name


def _own_boxes(item: ElementTree.Element) -> list[ElementTree.Element]:
    boxes = item.findall("bndbox")
    if not boxes:
        raise ValueError("has an object without bndbox")
    return boxes


def _read_box(box: ElementTree.Element) -> tuple[float, ...]:
    x0, y0, x1, y1 = (_read_number(box, corner) for corner in CORNERS)
    return x0, y0, x1 + 1, y1 + 1


def _read_side(size: ElementTree.Element, tag: str) -> int:
    number = _read_number(size, tag)
    if not number.is_integer():
        raise ValueError(f"has the {tag} {number:g} in its size, where an integer is needed")
    return int(number)


def _read_number(element: ElementTree.Element, tag: str) -> float:
    text = only_text(element, tag)
    try:
        number = float((text or "").replace("_", "x"))  # only Python reads 1_0 as 10
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        found = "nothing" if not text else f"'{text}'"
        raise ValueError(f"has {found} as <{tag}> in <{element.tag}>, where a number is needed")
    return number
