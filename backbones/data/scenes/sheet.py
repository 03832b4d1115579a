"""Contact sheets of `scenes`: an overview of the images."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from backbones.core.files import save_atomic
from backbones.data.scenes.drawing import ObjectImage, draw_detection_image, draw_object_image
from backbones.data.scenes.sets import SceneParameters
from backbones.data.scenes.shapes import CLASSES

TILE = 96  # pixels of a classification image on the sheet
COLUMNS = 12  # images per class, by increasing share
SCENE_TILE = 320
SCENES = 12
MARGIN = 120  # pixels for the class names
RED, INK = (220, 30, 30), (20, 20, 20)


def write_text(image: np.ndarray, text: str, x: int, y: int, ink: tuple[int, int, int] = INK) -> None:
    """Write small letters on the image, baseline at (x, y)."""
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, 1, cv2.LINE_AA)


def object_tile(scene: ObjectImage) -> np.ndarray:
    """Return an image enlarged to (TILE, TILE, 3) with its box."""
    scale = TILE / len(scene.image)
    tile = cv2.resize(scene.image, (TILE, TILE), interpolation=cv2.INTER_NEAREST)
    x0, y0, x1, y1 = (round(edge * scale) for edge in scene.box)
    return cv2.rectangle(tile, (x0, y0), (x1 - 1, y1 - 1), RED, 1)


def class_sheet(seed: int, split: str, drawing: dict[str, Any]) -> np.ndarray:
    """Draw a labelled row of images per class, by increasing share: (rows * TILE, MARGIN + COLUMNS * TILE, 3) uint8."""
    rows = []
    for label, name in enumerate(CLASSES):
        indices = range(label, COLUMNS * len(CLASSES), len(CLASSES))
        images = [draw_object_image(seed, split, i, **drawing) for i in indices]
        title = np.full((TILE, MARGIN, 3), 255, np.uint8)
        write_text(title, name, 8, TILE // 2)
        rows.append(np.hstack([title, *(object_tile(p) for p in sorted(images, key=lambda p: p.share))]))
    return np.vstack(rows)


def scene_sheet(seed: int, split: str) -> np.ndarray:
    """Draw SCENES detection images, four per row, with boxes and names: (3 * SCENE_TILE, 4 * SCENE_TILE, 3) uint8."""
    tiles = []
    for index in range(SCENES):
        scene = draw_detection_image(seed, split, index)
        tile = cv2.resize(scene.image, (SCENE_TILE, SCENE_TILE), interpolation=cv2.INTER_AREA)
        for item in scene.objects:
            x0, y0, x1, y1 = (round(edge * SCENE_TILE / len(scene.image)) for edge in item.box)
            cv2.rectangle(tile, (x0, y0), (x1 - 1, y1 - 1), RED, 1)
            write_text(tile, item.class_name, x0, y0 - 3 if y0 > 15 else y1 + 12, (255, 255, 255))
        tiles.append(tile)
    return np.vstack([np.hstack(tiles[i : i + 4]) for i in range(0, SCENES, 4)])


def write_contact_sheets(folder: Path, parameters: SceneParameters) -> None:
    """Write contact_sheet.png (classification) and contact_sheet_detection.png below `folder`."""
    p = parameters
    sheets = {
        "contact_sheet.png": class_sheet(p.seed, "train", p.drawing(p.correlation)),
        "contact_sheet_detection.png": scene_sheet(p.seed, "train"),
    }
    for name, sheet in sheets.items():
        png = cv2.imencode(".png", sheet[..., ::-1])[1].tobytes()
        save_atomic(folder / name, lambda path, png=png: path.write_bytes(png), png)
