"""Detection data that can be verified from its pixels: dark images with one rectangle per category, in its colour."""

import json

import numpy as np
from PIL import Image

from backbones.core.warning_counter import WarningCounter
from detection.data.coco.reader import load_coco

COLOURS = {7: (255, 0, 0), 9: (0, 0, 255)}  # json category id -> colour; the label is the position in this dict
SIZES = ((96, 64), (64, 96), (64, 64))  # (width, height) in turn


def write_rectangles(folder, count=6, sizes=SIZES, grid=8, seed=0, suffix="png"):
    """Write images and instances.json to `folder`; return the path of the json.

    Corners are multiples of `grid`, so that they stay integers after a resize.  Image ids are 100, 101, ...
    """
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(count):
        width, height = sizes[number % len(sizes)]
        pixels = np.zeros((height, width, 3), np.uint8)
        halves = (0, width // 2), (width // 2, width)  # one rectangle in each half: they never overlap
        for category, (left, right) in zip(COLOURS, halves, strict=True):
            x0, x1 = _span(rng, left // grid, right // grid)
            y0, y1 = _span(rng, 0, height // grid)
            x, y, w, h = (grid * v for v in (x0, y0, x1 - x0, y1 - y0))
            pixels[y : y + h, x : x + w] = COLOURS[category]
            box = {"image_id": 100 + number, "category_id": category, "bbox": [x, y, w, h], "area": w * h}
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **box})
        Image.fromarray(pixels).save(folder / f"{number}.{suffix}", quality=100, subsampling=0)
        images.append({"id": 100 + number, "file_name": f"{number}.{suffix}", "width": width, "height": height})
    categories = [{"id": key, "name": f"colour {key}"} for key in COLOURS]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def load_rectangles(folder, **kwargs):
    """Load the data set of `write_rectangles`."""
    return load_coco(write_rectangles(folder, **kwargs), folder, "rectangles", WarningCounter())


def boxes_in_pixels(image):
    """Return {label: [x0, y0, x1, y1]} of the rectangles in an image (3, H, W), found by colour only."""
    found = {}
    for label, colour in enumerate(COLOURS.values()):
        bright = np.asarray(image)[int(np.argmax(colour))] >= 128
        if bright.any():
            rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
            found[label] = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    return found


def _span(rng, low, high):
    first, last = sorted(rng.choice(np.arange(low, high + 1), 2, replace=False).tolist())
    return first, last
