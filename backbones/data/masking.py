"""Painting over objects in the source image when it is loaded.

Boxes are x0, y0, x1, y1, half-open; a box touches the pixels from floor(x0) to ceil(x1), exclusive.
"""

import numpy as np

Colour = tuple[int, int, int]  # uint8 RGB


def mean_colour(mean: list[float]) -> Colour:
    """Convert a channel mean, RGB in [0, 1], to uint8; ImageNet's is (124, 116, 104)."""
    red, green, blue = (round(255 * value) for value in mean)
    return red, green, blue


def paint_boxes(image: np.ndarray, boxes: np.ndarray, colour: Colour) -> None:
    """Paint every pixel of (H, W, 3) that is touched by one of (m, 4) boxes, in place."""
    for x0, y0, x1, y1 in _touched(boxes):
        image[y0:y1, x0:x1] = colour


def paint_around(image: np.ndarray, boxes: np.ndarray, own: np.ndarray, colour: Colour) -> None:
    """Paint the boxes, except for pixels touched by one of the `own` boxes, in place.

    The paper (ALS App. A.2) does not specify overlapping boxes; here, the kept object stays complete.
    """
    if not len(boxes):
        return
    kept = [(box, image[box[1] : box[3], box[0] : box[2]].copy()) for box in _touched(own)]
    paint_boxes(image, boxes, colour)
    for (x0, y0, x1, y1), pixels in kept:
        image[y0:y1, x0:x1] = pixels


def _touched(boxes: np.ndarray) -> list[tuple[int, int, int, int]]:
    outward = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    return [tuple(box) for box in outward.astype(int).tolist()]
