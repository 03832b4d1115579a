"""Object classes of `scenes`: outlines that differ in shape only.

A shape is a list of parts painted one over the other: `(points, solid)` with `points` (n, 2) float in any unit, y
downwards, and `solid` False for a hole.  `drawn_shape` rotates a shape at random and scales it to fill the unit square,
so that the caller determines the box exactly.  Every function takes a generator for the small differences within a
class.
"""

from collections.abc import Callable

import cv2
import numpy as np

Part = tuple[np.ndarray, bool]
Shape = list[Part]

SUBPIXEL_BITS = 4  # cv2 takes vertices as integers in units of 2**-bits pixel
MAX_TURN_DEGREES = 15.0


def polar(radii: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return points (n, 2) at the given radii and angles (radians, from the top, clockwise)."""
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


def ellipse(cx: float, cy: float, rx: float, ry: float, points: int = 40) -> np.ndarray:
    """Return the outline (points, 2) of an axis-parallel ellipse."""
    return polar(np.ones(points), np.linspace(0, 2 * np.pi, points, endpoint=False)) * (rx, ry) + (cx, cy)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Return the outline (4, 2) of a rectangle."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def spikes(count: int, inner: float) -> np.ndarray:
    """Return the outline of a star with `count` points on the unit circle and notches at radius `inner`."""
    radii = np.where(np.arange(2 * count) % 2, inner, 1.0)
    return polar(radii, np.arange(2 * count) * np.pi / count)


def gear(rng: np.random.Generator) -> Shape:
    """Draw a wheel with eight broad square teeth."""
    teeth, inner = 8, rng.uniform(0.66, 0.74)
    corner = np.array([-0.25, -0.21, 0.21, 0.25])  # corners of a tooth, in units of the pitch
    angles = (np.arange(teeth)[:, None] + corner).ravel() * 2 * np.pi / teeth
    hole = rng.uniform(0.26, 0.36)
    return [
        (polar(np.tile([inner, 1, 1, inner], teeth), angles), True),
        (ellipse(0, 0, hole, hole), False),
    ]


def cog(rng: np.random.Generator) -> Shape:
    """Draw the look-alike of the gear: a wheel with twelve slanted saw teeth."""
    teeth, inner = 12, rng.uniform(0.70, 0.76)
    angles = (np.arange(teeth)[:, None] + np.array([0.0, 0.12])).ravel() * 2 * np.pi / teeth
    hole = rng.uniform(0.26, 0.36)
    return [
        (polar(np.tile([1.0, inner], teeth), angles), True),
        (ellipse(0, 0, hole, hole), False),
    ]


def star(rng: np.random.Generator) -> Shape:
    """Draw a star of five points."""
    return [(spikes(5, rng.uniform(0.38, 0.46)), True)]


def hexagram(rng: np.random.Generator) -> Shape:
    """Draw the look-alike of the star: six points."""
    return [(spikes(6, rng.uniform(0.48, 0.58)), True)]


def heart(rng: np.random.Generator) -> Shape:
    """Draw two lobes above a point."""
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [(np.stack([x, y], axis=1) / 16, True)]


def spade(rng: np.random.Generator) -> Shape:
    """Draw the look-alike of the heart: its mirror image, on a foot."""
    body = heart(rng)[0][0] * (1.0, -0.9)
    width = rng.uniform(0.32, 0.45)
    foot = np.array([[-0.08, 0.2], [0.08, 0.2], [0.14, 0.8], [width, 1.15], [-width, 1.15], [-0.14, 0.8]])
    return [(body, True), (foot, True)]


def arrow(rng: np.random.Generator) -> Shape:
    """Draw a shaft with one head."""
    half, neck, tall = rng.uniform(0.2, 0.28), rng.uniform(-0.05, 0.15), rng.uniform(0.65, 0.8)
    head = np.array([[neck, -tall], [1, 0], [neck, tall]])
    return [(rectangle(-1, -half, neck + 0.05, half), True), (head, True)]


def double_arrow(rng: np.random.Generator) -> Shape:
    """Draw the look-alike of the arrow: a shaft with a head at both ends."""
    half, neck, tall = rng.uniform(0.2, 0.28), rng.uniform(0.3, 0.4), rng.uniform(0.65, 0.8)
    head = np.array([[neck, -tall], [1, 0], [neck, tall]])
    shaft = rectangle(-neck - 0.05, -half, neck + 0.05, half)
    return [(shaft, True), (head, True), (head * (-1, 1), True)]


def crescent(rng: np.random.Generator) -> Shape:
    """Draw a crescent moon."""
    shift, radius = rng.uniform(0.42, 0.55), rng.uniform(0.75, 0.82)
    # The intersection of the two circles: beyond it, the inner circle is outside the moon and must not widen its box.
    tip = np.arccos((1 + shift**2 - radius**2) / (2 * shift))
    outer = np.linspace(tip, 2 * np.pi - tip, 40)
    edge = np.arctan2(np.sin(tip), np.cos(tip) - shift)
    bite = np.linspace(2 * np.pi - edge, edge, 30)
    outer_points = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    bite_points = np.stack([shift + radius * np.cos(bite), radius * np.sin(bite)], axis=1)
    return [(np.concatenate([outer_points, bite_points]), True)]


def fish(rng: np.random.Generator) -> Shape:
    """Draw an oval body, a forked tail, a fin and an eye."""
    tall = rng.uniform(0.42, 0.55)
    tail = np.array([[-0.35, 0], [-1, -0.6], [-0.8, 0], [-1, 0.6]])
    fin = np.array([[-0.15, -0.3], [0.05, -tall - 0.28], [0.45, -0.3]])
    eye = ellipse(0.6, -0.1, 0.09, 0.1, 12)
    return [(tail, True), (fin, True), (ellipse(0.25, 0, 0.75, tall), True), (eye, False)]


def mug(rng: np.random.Generator) -> Shape:
    """Draw a cup with one handle."""
    reach, slope = rng.uniform(0.85, 1.0), rng.uniform(0.0, 0.12)
    body = np.array([[-0.75, -0.8], [0.45, -0.8], [0.45 - slope, 0.8], [-0.75 + slope, 0.8]])
    handle = ellipse(0.4, -0.05, reach - 0.4, 0.5)
    hollow = ellipse(0.4, -0.05, reach - 0.62, 0.27)
    return [(handle, True), (hollow, False), (body, True)]


def key(rng: np.random.Generator) -> Shape:
    """Draw a ring, a shaft and two bits."""
    bits, ring = rng.uniform(0.45, 0.6), rng.uniform(0.2, 0.26)
    return [
        (rectangle(-0.2, -0.13, 1, 0.13), True),
        (rectangle(0.82, 0, 1, bits), True),
        (rectangle(0.45, 0, 0.62, bits * 0.85), True),
        (ellipse(-0.5, 0, 0.5, 0.55), True),
        (ellipse(-0.5, 0, ring, ring), False),
    ]


SHAPES: dict[str, Callable[[np.random.Generator], Shape]] = {
    function.__name__: function
    for function in (gear, cog, star, hexagram, heart, spade, arrow, double_arrow, crescent, fish, mug, key)
}
CLASSES: tuple[str, ...] = tuple(SHAPES)
LOOK_ALIKES: tuple[tuple[str, str], ...] = (
    ("gear", "cog"),
    ("star", "hexagram"),
    ("heart", "spade"),
    ("arrow", "double_arrow"),
)


def drawn_shape(name: str, rng: np.random.Generator) -> tuple[Shape, float]:
    """Draw a shape of class `name`, mirrored and rotated at random.

    Returns:
        The parts, scaled to fill the unit square exactly, and the aspect ratio (width / height) of the box before the
        scaling.
    """
    turn = np.radians(rng.uniform(-MAX_TURN_DEGREES, MAX_TURN_DEGREES))
    mirror = rng.choice([-1.0, 1.0])
    matrix = np.array([[mirror * np.cos(turn), mirror * np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    parts = [(points @ matrix, solid) for points, solid in SHAPES[name](rng)]
    every = np.concatenate([points for points, solid in parts if solid])
    low, high = every.min(axis=0), every.max(axis=0)
    unit = [((points - low) / (high - low), solid) for points, solid in parts]
    return unit, float((high - low)[0] / (high - low)[1])


def distractor_shape(rng: np.random.Generator) -> Shape:
    """Draw clutter that belongs to no class: a disc, triangle, rectangle, bar or bent bar, in the unit square."""
    kind = rng.integers(5)
    if kind == 0:
        return [(ellipse(0.5, 0.5, 0.5, 0.5, 20), True)]
    if kind == 1:
        return [(np.array([[rng.uniform(), 0], [1, rng.uniform(0.5, 1)], [0, 1]]), True)]
    if kind == 2:
        return [(rectangle(0, 0, 1, 1), True)]
    slant = rng.uniform(0, 0.6)
    bar = np.array([[slant, 0], [slant + 0.3, 0], [0.35, 1], [0.05, 1]])
    return [(bar, True)] if kind == 3 else [(bar, True), (rectangle(0.05, 0.72, 0.95, 1), True)]


def paint_mask(mask: np.ndarray, shape: Shape, box: tuple[float, float, float, float]) -> None:
    """Set `mask` (H, W) uint8 to 1 inside the shape stretched over box (x0, y0, x1, y1, half-open pixels).

    Holes are set to 0: pass an empty mask for every object.
    """
    corner, extent = np.array(box[:2]), np.array(box[2:]) - np.array(box[:2])
    for points, solid in shape:
        # cv2 has pixel centres at integers and paints the pixels that the outline touches; shortening the extent by
        # half a pixel at both ends makes the painted box equal the requested one.
        pixels = corner + points * (extent - 1)
        cv2.fillPoly(
            mask, [np.round(pixels * 2**SUBPIXEL_BITS).astype(np.int32)], int(solid), cv2.LINE_8, SUBPIXEL_BITS
        )


def fill_ratio(shape: Shape) -> float:
    """Return the share of its box that the shape covers, to about 1 %."""
    mask = np.zeros((128, 128), np.uint8)
    paint_mask(mask, shape, (0, 0, 128, 128))
    return float(mask.mean())
