"""YOLO's augmentations and the letterbox, as functions of an image, its boxes and a generator.

An image is (h, w, 3) uint8 RGB, boxes are (n, 4) float32 x0, y0, x1, y1 in its pixels, half-open.  All shifts are whole
pixels, and only the letterbox scales, once, so that boxes follow exactly.
"""

from typing import NamedTuple

import cv2
import numpy as np

GREY = 128  # fill value outside an image


class Letterbox(NamedTuple):
    """Placement of an image in a square: x -> x * scale_x + left, y -> y * scale_y + top.

    The two scales differ by the rounding of the resized image to whole pixels.
    """

    width: int  # of the resized image
    height: int
    left: int
    top: int
    scale_x: float
    scale_y: float


def letterbox(width: int, height: int, side: int) -> Letterbox:
    """Place an image of (width, height) in the centre of a square of `side` pixels, as large as it fits."""
    scale = side / max(width, height)
    new_width, new_height = (min(max(round(length * scale), 1), side) for length in (width, height))
    return Letterbox(
        new_width, new_height, (side - new_width) // 2, (side - new_height) // 2, new_width / width, new_height / height
    )


def letterbox_boxes(boxes: np.ndarray, box: Letterbox) -> np.ndarray:
    """Map (n, 4) boxes from the image to the square."""
    return boxes * _scales(box, boxes) + _offsets(box, boxes)


def undo_letterbox(boxes: np.ndarray, box: Letterbox) -> np.ndarray:
    """Map (n, 4) boxes from the square to the image, without clipping."""
    return (boxes - _offsets(box, boxes)) / _scales(box, boxes)


def letterbox_image(image: np.ndarray, box: Letterbox, side: int) -> np.ndarray:
    """Return the resized image on grey, (side, side, 3)."""
    shrinks = box.width < image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(image), (box.width, box.height), interpolation=method)
    square = np.full((side, side, 3), GREY, np.uint8)
    square[box.top : box.top + box.height, box.left : box.left + box.width] = resized
    return square


def flip(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mirror image and boxes left to right."""
    mirrored = boxes.copy()
    mirrored[:, 0], mirrored[:, 2] = image.shape[1] - boxes[:, 2], image.shape[1] - boxes[:, 0]
    return image[:, ::-1], mirrored


def random_crop(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Crop without cutting any box; each side loses a uniformly drawn share of its free margin.

    NOTE: the reference takes the larger of its right (lower) edge and the image's, and so crops only left and top.
    """
    left, top, right, bottom = (int(free * rng.random()) for free in _free_margins(image, boxes))
    height, width = image.shape[:2]
    shift = np.array([left, top, left, top], boxes.dtype)
    return image[top : height - bottom, left : width - right], boxes - shift


def random_shift(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shift by a uniformly drawn number of whole pixels that keeps every box whole; the new area is grey.

    NOTE: it is black in the reference, whose letterbox is grey.
    """
    left, top, right, bottom = _free_margins(image, boxes)
    dx, dy = int(rng.integers(-int(left), int(right) + 1)), int(rng.integers(-int(top), int(bottom) + 1))
    height, width = image.shape[:2]
    moved = np.full_like(image, GREY)
    moved[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = image[
        max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)
    ]
    return moved, boxes + np.array([dx, dy, dx, dy], boxes.dtype)


def mix(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Return weight * first + (1 - weight) * second, rounded; both (side, side, 3) uint8."""
    return cv2.addWeighted(first, weight, second, 1 - weight, 0)


def _free_margins(image: np.ndarray, boxes: np.ndarray) -> tuple[float, float, float, float]:
    """Return the pixels left of, above, right of and below all boxes; 0 without boxes, so that such an image stays."""
    height, width = image.shape[:2]
    if not len(boxes):
        return 0.0, 0.0, 0.0, 0.0
    x0, y0 = np.maximum(boxes[:, :2].min(axis=0), 0)
    x1, y1 = np.minimum(boxes[:, 2:].max(axis=0), [width, height])
    return float(x0), float(y0), float(width - x1), float(height - y1)


def _scales(box: Letterbox, like: np.ndarray) -> np.ndarray:
    return np.array([box.scale_x, box.scale_y] * 2, like.dtype)


def _offsets(box: Letterbox, like: np.ndarray) -> np.ndarray:
    return np.array([box.left, box.top] * 2, like.dtype)
