"""Size, colours and orientation of an image file; for a JPEG, from its first bytes in a tenth of PIL's time."""

import struct
from typing import NamedTuple

HEADER_BYTES = 4096
ORIENTATION = 0x0112  # EXIF's tag, and TIFF's; 1 is upright
MODES = {1: "L", 3: "RGB", 4: "CMYK"}  # components -> PIL's mode
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _APP1 = 0xDA, 0xE1
_EXIF = b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_SHORT = 3  # EXIF's type of a 16-bit integer


class ImageHeader(NamedTuple):
    """Content of the header of an image file.

    Attributes:
        width, height: in pixels, as stored.
        mode: PIL's mode, such as "RGB", "L", "CMYK", "I;16".
        turned: EXIF asks viewers to rotate or mirror the image; the readers ignore this.  NOTE: PIL itself turns TIFF.
    """

    width: int
    height: int
    mode: str
    turned: bool = False


def jpeg_header(data: bytes) -> ImageHeader | None:
    """Return the header if `data` holds a plain JPEG up to its first scan; None: leave the file to PIL."""
    if data[:2] != b"\xff\xd8":
        return None
    found, turned, at = None, False, 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if marker == _SCAN:
            return found and ImageHeader(*found, turned)
        if marker < 0xC0 or 0xD0 <= marker < 0xDA or length < 2:  # not a segment with a length
            return None
        if marker in _FRAMES:
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            mode = MODES.get(data[at + 9])
            if data[at + 4] != 8 or mode is None or not (width and height) or found:
                return None
            found = (width, height, mode)
        if marker == _APP1:
            asked = _orientation(data[at + 4 : at + 2 + length])
            if asked is None or turned:
                return None
            turned = asked not in (0, 1)
        at += 2 + length
    return None


def _orientation(segment: bytes) -> int | None:
    """Return the orientation in the first directory of an EXIF segment, a 16-bit integer; None: leave it to PIL."""
    order = _BYTE_ORDERS.get(segment[6:10])
    if not segment.startswith(_EXIF) or order is None:  # XMP, which can state it too, or damaged
        return None
    tiff = segment[6:]
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", tiff, entry)
            if tag == ORIENTATION and (kind, values) == (_SHORT, 1):
                return struct.unpack_from(order + "H", tiff, entry + 8)[0]
    except struct.error:  # shorter than stated
        return None
    return None
