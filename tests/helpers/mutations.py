"""Hypothesis strategies that damage sound files as editors, converters, disks and users do."""

import copy
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

# Values that users and converters write in place of a number, a name or a flag.
NASTY = [
    *(None, True, False, 0, 1, -1, 2, 2**31, 2**63, 10**400, 0.5, 96.0, -0.0, 1e308, float("nan"), float("inf")),
    *("", " ", "0", "1", "False", "true", "96", "1e3", "nan", "a\\b.jpg", "\u202e", "é", "e\u0301", "\x00", "x" * 300),
    *([], [0], [0, 0, 1, 1], ["0", "0", "1", "1"], [0, 0, 1], {}, {"id": 1}, [[1, 2, 3, 4]]),
]


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes, tokens: Sequence[bytes] = ()) -> bytes:
    """Return `data` after one to three edits: bytes flipped, cut, doubled, moved or inserted."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 40)))
        part = data[start:stop]
        new = draw(
            st.one_of(
                st.sampled_from([b"", part + part, part[::-1], data[start:] + part, part.upper(), *tokens]),
                st.binary(max_size=4),
            )
        )
        keep_rest = draw(st.integers(0, 9)) > 0
        data = data[:start] + new + (data[stop:] if keep_rest else b"")
    return data


@st.composite
def damaged_tree(draw: st.DrawFn, tree: Any) -> Any:
    """Return a JSON or yaml tree after one to three edits: values replaced, removed, doubled, keys renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        parent, key = _place(draw, tree)
        if parent is None:
            continue
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "rename", "borrow"]))
        if kind == "replace":
            parent[key] = copy.deepcopy(draw(st.sampled_from(NASTY)))
        elif kind == "remove":
            del parent[key]
        elif kind == "double" and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif kind == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["id", "x", str(key).upper(), f" {key}"]))] = parent.pop(key)
        elif kind == "borrow":
            other, name = _place(draw, tree)
            if other is not None:
                parent[key] = copy.deepcopy(other[name])
    return tree


@st.composite
def damaged_xml(draw: st.DrawFn, text: str) -> bytes:
    """Return an XML file after one to three edits: texts replaced, elements doubled, moved, removed or renamed.

    The file is written in its declared encoding, or sometimes in another one.
    """
    root = ElementTree.fromstring(text.encode())
    for _ in range(draw(st.integers(1, 3))):
        places = [(parent, child) for parent in root.iter() for child in parent]
        if not places:
            break
        parent, child = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["text", "text", "pad", "double", "double", "move", "remove", "rename"]))
        if kind == "text":
            child.text = draw(st.sampled_from([v for v in NASTY if isinstance(v, str) and "\x00" not in v]))
        elif kind == "pad":
            child.text = f"\n   {child.text}\t"
        elif kind == "double":
            parent.insert(draw(st.integers(0, len(parent))), copy.deepcopy(child))
        elif kind == "move":
            parent.remove(child)
            draw(st.sampled_from([item for item in root.iter() if item not in child.iter()])).append(child)
        elif kind == "remove":
            parent.remove(child)
        else:
            child.tag = draw(st.sampled_from(["name", "object", "bndbox", "XMIN", "size"]))
    declared = draw(
        st.sampled_from(["utf-8", "utf8", "UTF-8", "GB2312", "latin-1", "windows-1252", "utf-16", "nonsense"])
    )
    encoding = draw(st.sampled_from([declared, declared, "utf-8", "utf-8-sig"]))
    body = ElementTree.tostring(root, encoding="unicode")
    try:
        return f"<?xml version='1.0' encoding='{declared}'?>\n{body}".encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return body.encode()


def _place(draw: st.DrawFn, tree: Any) -> tuple[Any, Any]:
    """Draw a container of the tree and a key in it; (None, None) if the walk ends in an empty container."""
    parent, key, node = None, None, tree
    for _ in range(draw(st.integers(1, 4))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        if not keys:
            break
        parent, key = node, draw(st.sampled_from(keys))
        node = parent[key]
    return parent, key
