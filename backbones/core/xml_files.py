"""Reading of XML annotation files in the encoding they declare; every error names the file."""

import codecs
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from backbones.core.errors import InputError

# Without a byte order mark, the declaration is ASCII in every encoding.
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?\sencoding\s*=\s*["']([^"']*)["']""")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is a prefix of it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def load_xml(path: str | Path) -> ElementTree.Element:
    """Read and parse an XML file.

    Raises:
        InputError: the file cannot be read, its encoding is unknown or wrong, or it is not valid XML.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the annotation {path}: {error.strerror}; restore the file") from None
    try:
        return parse_xml(data)
    except ValueError as error:
        raise InputError(f"the annotation {path} {error}; restore the file") from None


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parse the bytes of an XML file.

    They are decoded by Python, which supports more encodings than the parser: GB2312, Big5, Shift-JIS, Windows code
    pages.

    Raises:
        ValueError: the encoding is unknown or wrong, or the XML is not valid; the message is the end of a sentence that
            begins with the file name.
    """
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except LookupError:
        raise ValueError(f"declares the unknown encoding '{encoding}'") from None
    except UnicodeError as error:
        raise ValueError(f"is not valid in its encoding '{encoding}' ({error})") from None
    try:
        return ElementTree.fromstring(text)
    # Apart from ParseError, the parser raises ValueError, LookupError or UnicodeError, depending on its version.
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"is broken XML ({error})") from None


def only(element: ElementTree.Element, tag: str) -> ElementTree.Element | None:
    """Return the child `tag`, or None if absent.

    Raises:
        ValueError: `element` has several, which contradict each other.
    """
    found = element.findall(tag)
    if len(found) > 1:
        raise ValueError(f"has {len(found)} elements <{tag}> in one <{element.tag}>, where one is allowed")
    return found[0] if found else None


def only_text(element: ElementTree.Element, tag: str) -> str | None:
    """Return the stripped text of the child `tag`; "" if it is empty, None if absent."""
    found = only(element, tag)
    return None if found is None else (found.text or "").strip()


def _encoding(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    declared = _DECLARED.match(data)
    return declared[1].decode("ascii", "replace") if declared else "utf-8"
