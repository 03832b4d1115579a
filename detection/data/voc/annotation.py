"""One VOC annotation in XML: its size, its objects, and all its problems.

Repeated elements are never ignored: all <bndbox> of one <object> are boxes of its name (as ybat writes them), any other
repeated element is refused by name.
"""

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from backbones.core.findings import ERROR, WARNING, Kind
from backbones.core.flags import parse_flag
from backbones.core.xml_files import only, only_text, parse_xml
from detection.data.coco.instances import BAD_FLAG
from detection.data.fields import parse_number, read_sides, say

NO_XML = Kind(ERROR, "listed images without XML", "restore the annotations or remove the lines")
BROKEN_XML = Kind(ERROR, "broken XML files", "restore them")
REPEATED_ELEMENT = Kind(ERROR, "repeated elements in XML", "keep one of them")
BAD_SIZE = Kind(ERROR, "XML whose size is not a pair of integers", "correct them")
NO_SIZE = Kind(ERROR, "XML without size", "add the width and height of the image that the boxes refer to")
ZERO_SIZE = Kind(WARNING, "XML whose size is 0", "the size of the image file is used")
NO_CLASS = Kind(ERROR, "objects without a name", "name their class")
NO_DIFFICULT = Kind(WARNING, "objects without `difficult`", "they count as not difficult")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Box(NamedTuple):
    """One box: its class, its corners as stated (NaN: not a number), whether it is difficult."""

    name: str
    corners: tuple[float, ...]
    difficult: bool


@dataclass
class Annotation:
    """One XML file.

    Attributes:
        size: width and height in pixels; (0, 0) if not stated.
        filename: image file name, as stated; can be "".
        problems: (kind, location) of each problem.
    """

    size: tuple[int, int] = (0, 0)
    filename: str = ""
    boxes: list[Box] = field(default_factory=list)
    problems: list[tuple[Kind, str]] = field(default_factory=list)


def read_annotation(path: Path) -> Annotation:
    """Read the file despite its problems."""
    found = Annotation()
    try:
        root = parse_xml(path.read_bytes())
    except OSError as error:
        found.problems.append((NO_XML, f"{path} ({error.strerror})"))
        return found
    except ValueError as error:
        found.problems.append((BROKEN_XML, f"{path} {error}"))
        return found
    try:
        found.filename = only_text(root, "filename") or ""
        _read_size(root, path, found)
    except ValueError as error:
        found.problems.append((REPEATED_ELEMENT, f"{path} {error}"))
    for item in root.iter("object"):
        try:
            _read_object(item, path, found)
        except ValueError as error:
            found.problems.append((REPEATED_ELEMENT, f"{path} {error}"))
    return found


def _read_size(root: ElementTree.Element, path: Path, found: Annotation) -> None:
    element = only(root, "size")
    if element is None:
        found.problems.append((NO_SIZE, str(path)))
        return
    texts = [only_text(element, side) or "0" for side in ("width", "height")]  # some tools write 0, or nothing
    numbers = [parse_number(text) for text in texts]
    if min(numbers) <= 0 and all(map(math.isfinite, numbers)):
        found.problems.append((ZERO_SIZE, str(path)))
        return
    sides, bad = read_sides(numbers)
    if bad.any():
        found.problems.append((BAD_SIZE, f"{path}: width {say(texts[0])}, height {say(texts[1])}"))
        return
    found.size = int(sides[0]), int(sides[1])


def _read_object(item: ElementTree.Element, path: Path, found: Annotation) -> None:
    name, stated = only_text(item, "name") or "", only_text(item, "difficult")
    where = f"{path}: object '{name}'"
    difficult = False if stated is None else parse_flag(stated)
    corners = [tuple(parse_number(only_text(box, corner)) for corner in _CORNERS) for box in item.findall("bndbox")]
    corners = corners or [(math.nan,) * 4]
    if not name:
        found.problems.append((NO_CLASS, str(path)))
    if stated is None:
        found.problems.append((NO_DIFFICULT, where))
    if difficult is None:
        found.problems.append((BAD_FLAG, f"{where}: difficult must be 0 or 1, is {say(stated)}"))
    found.boxes += [Box(name, one, bool(difficult)) for one in corners]
