"""Independent, slow readers of annotation files in plain Python, for comparison with the real readers.

They do not validate: they are used only on files that a real reader has accepted.
"""

import codecs
import json
import re
from xml.dom import minidom

import numpy as np


def coco_objects(data: bytes) -> list[tuple]:
    """Return (image id, category name, crowd, box x0 y0 x1 y1) of every object that remains after clipping, sorted."""
    tree = json.loads(data)
    sizes = {int(image["id"]): (float(image["width"]), float(image["height"])) for image in tree["images"]}
    names = {int(category["id"]): str(category.get("name", category["id"])) for category in tree["categories"]}
    found = []
    for item in tree["annotations"]:
        x, y, w, h = map(float, item["bbox"])
        box = clip((x, y, x + w, y + h), sizes[int(item["image_id"])]) if min(w, h) > 0 else None
        if box:
            key = (int(item["image_id"]), names[int(item["category_id"])], says_yes(item.get("iscrowd", 0)))
            found.append((*key, *box))
    return sorted(found)


def voc_objects(data: bytes, size: tuple[int, int]) -> list[tuple]:
    """Return (name, difficult, box x0 y0 x1 y1) of every object that remains after clipping to `size`, sorted."""
    found = []
    for item, name in _named_objects(data):
        difficult = [says_yes(_text(node)) for node in _children(item, "difficult")]
        for x0, y0, x1, y1 in _boxes(item):
            box = clip((x0 - 1, y0 - 1, x1, y1), size)
            if box:
                found.append((name, any(difficult), *box))
    return sorted(found)


def voc_size(data: bytes) -> tuple[int, int]:
    """Return the stated width and height; 0 if absent."""
    size = _children(_document(data), "size")[0]
    width, height = (sum(float(_text(node) or 0) for node in _children(size, side)) for side in ("width", "height"))
    return int(width), int(height)


def ilsvrc_boxes(data: bytes, name: str) -> list[tuple]:
    """Return the half-open boxes of the objects named `name`, sorted."""
    return sorted(
        (x0, y0, x1 + 1, y1 + 1)
        for item, called in _named_objects(data)
        if called == name
        for x0, y0, x1, y1 in _boxes(item)
    )


def clip(box: tuple, size: tuple) -> tuple | None:
    """Clip the box to (width, height), rounded to a thousandth; None if it is empty in single precision."""
    x0, y0, x1, y1 = (min(max(value, 0), side) for value, side in zip(box, (*size, *size), strict=True))
    solid = np.float32(x1) > np.float32(x0) and np.float32(y1) > np.float32(y0)
    return tuple(round(float(value), 3) for value in (x0, y0, x1, y1)) if solid else None


def says_yes(value: object) -> bool:
    """Whether an accepted flag has the value 1."""
    return str(value).strip().lower() in ("1", "1.0", "true")


def _named_objects(data: bytes) -> list[tuple]:
    return [(item, _text(_children(item, "name")[0])) for item in _document(data).getElementsByTagName("object")]


def _boxes(item: minidom.Element) -> list[tuple]:
    corners = ("xmin", "ymin", "xmax", "ymax")
    return [tuple(float(_text(_children(box, c)[0])) for c in corners) for box in _children(item, "bndbox")]


def _document(data: bytes) -> minidom.Element:
    declared = re.match(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([^"']*)["']""", data)
    encoding = declared[1].decode() if declared else "utf-8"
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    text = data.decode(next((name for mark, name in marks.items() if data.startswith(mark)), encoding))
    return minidom.parseString(re.sub(r"^\s*<\?xml.*?\?>", "", text, flags=re.S).encode()).documentElement


def _children(node: minidom.Element, tag: str) -> list:
    return [child for child in node.childNodes if child.nodeType == child.ELEMENT_NODE and child.tagName == tag]


def _text(node: minidom.Element) -> str:
    """Return the text before the first child element, without surrounding white space."""
    parts = []
    for child in node.childNodes:
        if child.nodeType == child.ELEMENT_NODE:
            break
        if child.nodeType in (child.TEXT_NODE, child.CDATA_SECTION_NODE):
            parts.append(child.data)
    return "".join(parts).strip()
