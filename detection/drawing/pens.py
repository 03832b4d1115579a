"""Lines and labels on an image: solid, dashed and dotted rectangles, and text that avoids other text."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HALO = "white"  # around every line, so that it is visible on any image
SOLID, DASHED, DOTTED = (1, 0), (5, 3), (1, 2)  # lengths of line and gap, in line widths
MOST_COVERED, MOST_TEXT = 0.1, 0.4  # share of a label over earlier labels; share of an image under labels

Area = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, both ends included


@dataclass(frozen=True)
class Pen:
    """How a kind of box is drawn; filled: its label is white on the colour, not the reverse."""

    colour: str
    dash: tuple[int, int]
    filled: bool


@cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which has the letters of most alphabets, from matplotlib's files."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def draw_rectangle(draw: ImageDraw.ImageDraw, area: Area, pen: Pen, width: int) -> None:
    """Draw the outline of an area, `width` pixels inwards, with a halo."""
    x0, y0, x1, y1 = area
    pieces = [(x0, y0, x1, y0 + width - 1), (x0, y1 - width + 1, x1, y1)]
    pieces = [piece for side in pieces for piece in _cut(side, pen.dash, width, across=True)]
    sides = [(x0, y0, x0 + width - 1, y1), (x1 - width + 1, y0, x1, y1)]
    pieces += [piece for side in sides for piece in _cut(side, pen.dash, width, across=False)]
    for left, top, right, bottom in pieces:
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=HALO)
    for piece in pieces:
        draw.rectangle(piece, fill=pen.colour)


def _cut(side: Area, dash: tuple[int, int], width: int, *, across: bool) -> list[Area]:
    """Cut a side of a rectangle into its dashes; the first and the last one reach its ends."""
    x0, y0, x1, y1 = side
    start, end = (x0, x1) if across else (y0, y1)
    on, gap = (length * max(width, 2) for length in dash)  # thinner dashes would run together
    if end < start or x1 < x0 or y1 < y0:
        return []
    count = max(round((end - start + 1 + gap) / (on + gap)), 1) if gap else 1
    if count == 1:
        return [side]
    step = (end - start + 1 - on) / (count - 1)
    cuts = [(round(start + n * step), min(round(start + n * step) + on - 1, end)) for n in range(count)]
    return [(low, y0, high, y1) if across else (x0, low, x1, high) for low, high in cuts]


class Labels:
    """Labels on one image; each is put at the corner of its box where it covers the least of the earlier ones.

    A label is left out if it would cover others, or if labels cover much of the image already: give the important
    ones first.
    """

    def __init__(self, image: Image.Image, size: int) -> None:
        self.draw, self.bounds, self.font = ImageDraw.Draw(image), image.size, load_font(size)
        self.pad = max(size // 6, 1)
        self.taken: list[Area] = []
        self.room = MOST_TEXT * image.width * image.height

    def add(self, text: str, box: Area, pen: Pen) -> None:
        """Write `text` beside the box, if there is room."""
        width = min(round(self.font.getlength(text)) + 2 * self.pad + 1, self.bounds[0])
        height = sum(self.font.getmetrics()) + self.pad
        x0, y0, x1, y1 = box
        spots = [
            *((x0, y0 - height), (x0, y1 + 1), (x1 - width + 1, y0 - height), (x1 - width + 1, y1 + 1)),
            *((x0, y0), (x0, y1 - height + 1), (x1 - width + 1, y0), (x1 - width + 1, y1 - height + 1)),
        ]
        areas = [self._inside(x, y, width, height) for x, y in spots]
        covered = [sum(_overlap(area, other) for other in self.taken) for area in areas]
        best = areas[covered.index(min(covered))]
        if self.taken and (min(covered) > MOST_COVERED * width * height or self.room < width * height):
            return
        self.taken.append(best)
        self.room -= width * height
        self.draw.rectangle(best, fill=pen.colour if pen.filled else HALO, outline=pen.colour)
        ink = HALO if pen.filled else pen.colour
        self.draw.text((best[0] + self.pad, best[1] + self.pad // 2), text, fill=ink, font=self.font)

    def _inside(self, x: int, y: int, width: int, height: int) -> Area:
        """Return the area of a label, moved into the image."""
        x, y = max(min(x, self.bounds[0] - width), 0), max(min(y, self.bounds[1] - height), 0)
        return x, y, x + width - 1, y + height - 1


def _overlap(one: Area, other: Area) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    return max(width, 0) * max(height, 0)
