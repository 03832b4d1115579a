"""Draw one scene: its image with objects (dashed) and detections (solid), and what the lines mean."""

from collections.abc import Iterable

import cv2
import numpy as np
from PIL import Image, ImageDraw

from backbones.core.errors import InputError
from backbones.core.images import decode_image
from detection.drawing.choosing import Choice
from detection.drawing.pens import DASHED, DOTTED, SOLID, Area, Labels, Pen, draw_rectangle, load_font
from detection.drawing.reading import CROWD, FOUND, IGNORED, MATCHED, MISSED, WRONG, Box, Scene

DETECTIONS = {
    MATCHED: Pen("#1557c0", SOLID, filled=True),
    WRONG: Pen("#c4320a", SOLID, filled=True),
    IGNORED: Pen("#5f6773", SOLID, filled=True),
    FOUND: Pen("#1557c0", SOLID, filled=True),
}
OBJECTS = {
    MATCHED: Pen("#1a7f37", DASHED, filled=False),
    MISSED: Pen("#a3128c", DASHED, filled=False),
    CROWD: Pen("#5f6773", DOTTED, filled=False),
}
NOT_COUNTED = "not counted"
# The label of a matched object is that of its detection.
MEANING = {
    ("detection", MATCHED): "matched detection",
    ("detection", WRONG): "wrong detection (its label ends with the error)",
    ("detection", IGNORED): "ignored detection",
    ("object", MATCHED): "object, found",
    ("object", MISSED): "object, missed",
    ("object", CROWD): f"crowd or difficult object, {NOT_COUNTED}",
}
BACKGROUND, INK = "white", "#14181f"


def load_image(scene: Scene) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB; raise `InputError` if the file is missing, broken or not of the size in the truth."""
    if not scene.path.is_file():
        raise InputError(f"no such image: {scene.path}; give the folder of the images")
    image = decode_image(scene.path)
    height, width = image.shape[:2]
    if scene.width and (width, height) != (scene.width, scene.height):
        raise InputError(
            f"the image {scene.path} is {width}x{height}, its truth states {scene.width}x{scene.height}; give the "
            "images of the truth"
        )
    return image


def draw_scene(scene: Scene, image: np.ndarray, choice: Choice, scale: float) -> Image.Image:
    """Draw a scene at a scale.

    Args:
        image: (H, W, 3) uint8 RGB.
        choice: boxes to mark; others are thin, and other detections without a label.
    """
    size = [max(round(side * scale), 1) for side in image.shape[1::-1]]
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = Image.fromarray(cv2.resize(image, size, interpolation=way))
    draw, labels = ImageDraw.Draw(canvas), Labels(canvas, font_size(max(size)))
    plain = min(max(round(max(size) / 320), 2), 4)
    boxes = [*reversed(scene.detections), *scene.truth]  # dashes show on solid lines, higher scores on lower ones
    boxes.sort(key=choice.has)
    for box in boxes:
        width = (plain + 2 if choice else plain) if choice.has(box) else 1
        draw_rectangle(draw, _area(box, scale, canvas.size), pen_of(box), width)
    for box in sorted((*scene.truth, *scene.detections), key=choice.has, reverse=True):
        if text := _label(box, choice):
            labels.add(text, _area(box, scale, canvas.size), pen_of(box))
    return canvas


def draw_legend(scenes: Iterable[Scene], width: int, size: int) -> Image.Image:
    """Draw what the lines of the scenes mean, in rows of at most `width` pixels with letters of `size`."""
    present = {_kind(box) for scene in scenes for box in (*scene.detections, *scene.truth)}
    font, gap, sample = load_font(size), size // 2, 3 * size
    step, places, x, y = 2 * size, [], gap, gap
    for kind, text in MEANING.items():
        length = sample + gap + round(font.getlength(text)) + 2 * gap
        if kind in present:
            if x > gap and x + length > width:
                x, y = gap, y + step
            places.append((x, y, kind, text))
            x += length
    legend = Image.new("RGB", (width, y + step if places else 0), BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for x, y, (what, outcome), text in places:
        pen = (DETECTIONS if what == "detection" else OBJECTS)[outcome]
        draw_rectangle(draw, (x, y, x + sample, y + size + 2), pen, 2)
        draw.text((x + sample + gap, y), text, fill=INK, font=font)
    return legend


def font_size(longest: int) -> int:
    """Return the height of letters for an image of a longest side, in pixels."""
    return min(max(round(longest / 50), 12), 22)


def pen_of(box: Box) -> Pen:
    """Return how a box is drawn."""
    return (OBJECTS if box.score is None else DETECTIONS)[box.outcome]


def _kind(box: Box) -> tuple[str, str]:
    return "object" if box.score is None else "detection", box.outcome


def _label(box: Box, choice: Choice) -> str:
    """Return the text beside a box; "" for none."""
    if box.score is None:
        said = {MATCHED: "", MISSED: MISSED, CROWD: NOT_COUNTED}[box.outcome]
        return said and f"{box.label} {said}"
    if not choice.has(box):
        return ""
    said = {MATCHED: "", FOUND: "", WRONG: box.error or WRONG, IGNORED: IGNORED}[box.outcome]
    return f"{box.label} {box.score:.2f} {said}".rstrip()


def _area(box: Box, scale: float, bounds: tuple[int, int]) -> Area:
    """Return the pixels of a half-open box at a scale, at least one and all on the image."""
    x, y, width, height = (side * scale for side in box.xywh)
    x0, y0 = min(max(round(x), 0), bounds[0] - 1), min(max(round(y), 0), bounds[1] - 1)
    x1, y1 = min(max(round(x + width) - 1, x0), bounds[0] - 1), min(max(round(y + height) - 1, y0), bounds[1] - 1)
    return x0, y0, x1, y1
