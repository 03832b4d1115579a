"""Write scenes: a contact sheet of all, and a file of each."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from backbones.core.files import save_atomic
from detection.drawing.choosing import Choice, count_errors
from detection.drawing.pens import load_font
from detection.drawing.reading import MATCHED, Scene
from detection.drawing.scenes import BACKGROUND, INK, draw_legend, draw_scene, font_size, load_image

SHEET_FILE, FOLDER = "contact_sheet.png", "images"
TILE = (460, 345)  # largest width and height of an image on the sheet, pixels
MOST_COLUMNS = 6
SHORTEST, LONGEST = 800, 1600  # limits of the longer side of a file of its own, pixels
GAP, CAPTION, TITLE = 10, 12, 18  # space between tiles, and sizes of letters


def save_scenes(folder: Path, scenes: Sequence[Scene], choice: Choice, title: str) -> list[Path]:
    """Write contact_sheet.png and images/<id>.png to a folder; return the paths, the sheet first.

    Raises:
        InputError: an image is unreadable, or not of the size that the truth states.
    """
    tiles, paths = [], []
    for scene in scenes:
        image = load_image(scene)
        longest = max(image.shape[:2])
        drawn = draw_scene(scene, image, choice, min(max(longest, SHORTEST), LONGEST) / longest)
        legend = draw_legend([scene], max(drawn.width, SHORTEST // 2), font_size(max(drawn.size)))
        paths.append(_save(_stack([drawn, legend]), folder / FOLDER / f"{scene.image_id}.png"))
        scale = min(TILE[0] / image.shape[1], TILE[1] / image.shape[0])
        tiles.append(_add_caption(draw_scene(scene, image, choice, scale), caption(scene)))
    return [_save(draw_sheet(tiles, scenes, title), folder / SHEET_FILE), *paths]


def draw_sheet(tiles: Sequence[Image.Image], scenes: Sequence[Scene], title: str) -> Image.Image:
    """Arrange tiles in about as many rows as columns, below a title and the legend."""
    columns = min(math.ceil(math.sqrt(len(tiles))), MOST_COLUMNS)
    rows = [tiles[n : n + columns] for n in range(0, len(tiles), columns)]
    width = columns * (TILE[0] + GAP) + GAP
    head = Image.new("RGB", (width, 2 * TITLE), BACKGROUND)
    text = _shorten(title, width - 2 * GAP, TITLE)
    ImageDraw.Draw(head).text((GAP, TITLE // 2), text, fill=INK, font=load_font(TITLE))
    bands = [head, draw_legend(scenes, width, CAPTION + 2)]
    for row in rows:
        band = Image.new("RGB", (width, max(tile.height for tile in row) + GAP), BACKGROUND)
        for n, tile in enumerate(row):
            band.paste(tile, (GAP + n * (TILE[0] + GAP), 0))
        bands.append(band)
    return _stack(bands)


def caption(scene: Scene) -> str:
    """Return the id, the numbers of matched and wrong detections and of missed objects, and the name of the file."""
    found = sum(box.outcome == MATCHED for box in scene.detections)
    wrong, missed = count_errors(scene.detections), count_errors(scene.truth)
    return f"id {scene.image_id}: {found} matched, {wrong} wrong, {missed} missed   {scene.path.name}"


def _add_caption(image: Image.Image, text: str) -> Image.Image:
    """Return the image with a line of text below, cut to the width of a tile."""
    band = Image.new("RGB", (TILE[0], 2 * CAPTION), BACKGROUND)
    ImageDraw.Draw(band).text((0, CAPTION // 4), _shorten(text, TILE[0], CAPTION), fill=INK, font=load_font(CAPTION))
    return _stack([image, band])


def _shorten(text: str, width: int, size: int) -> str:
    """Return the text, or its start with ... if it is wider than `width` pixels."""
    font = load_font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _stack(images: Sequence[Image.Image]) -> Image.Image:
    """Put images below each other, at the left."""
    width = max(image.width for image in images)
    stacked = Image.new("RGB", (width, sum(image.height for image in images)), BACKGROUND)
    y = 0
    for image in images:
        stacked.paste(image, (0, y))
        y += image.height
    return stacked


def _save(image: Image.Image, path: Path) -> Path:
    save_atomic(path, lambda temporary: image.save(temporary, format="PNG"))
    return path
