"""Drawing of an image of `scenes`, as a pure function of (seed, split, index).

Images are painted at `size` pixels; masks, boxes and areas come from an owner map (the object visible at each pixel) of
`factor` times that resolution.
"""

import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from backbones.data.scenes.backgrounds import BACKGROUNDS, colour, draw_background, noise, wave
from backbones.data.scenes.shapes import CLASSES, Shape, distractor_shape, drawn_shape, fill_ratio, paint_mask

SHARE_RANGE = (0.05, 0.8)  # share of the image covered by the box of the whole object, log-uniform
OCCLUSION_PROBABILITY = 0.2  # probability that an object is partly hidden
LEAST_VISIBLE = 0.65  # smallest visible share of a partly hidden object
LIGHTEST_BACKGROUND = 0.4  # distractors and occluders are below this, too: only objects are light

FILE_SIZE = 512  # pixels of a detection image
DRAWN_SIZE = 256  # pixels at which it is painted before it is enlarged (a third of the time)
MAX_OBJECTS = 8
# Areas of whole objects in file pixels: one range is drawn uniformly, then an area log-uniformly in it.  The ranges are
# COCO's (limits 32**2 and 96**2) with a margin for hidden parts.
AREA_RANGES = ((380, 960), (1200, 8600), (10500, 60000))
MOST_OVERLAP = 0.25  # largest share of the smaller of two boxes

Box = tuple[int, int, int, int]  # x0, y0, x1, y1, half-open pixels


@dataclass(frozen=True)
class ObjectImage:
    """A classification image (S, S, 3) uint8 RGB with one object."""

    image: np.ndarray
    class_name: str
    background: str
    share: float  # share of the image in the box of the whole object, including hidden parts
    mask: np.ndarray  # (S, S) bool, the visible part
    box: Box  # box of the visible part
    occluded: bool


@dataclass(frozen=True)
class SceneObject:
    """One object of a detection image, with box and area (pixels) of its visible part."""

    class_name: str
    box: Box
    area: int


@dataclass(frozen=True)
class SceneImage:
    """A detection image (512, 512, 3) uint8 RGB; owner (512, 512) is i + 1 where objects[i] is visible."""

    image: np.ndarray
    background: str
    objects: tuple[SceneObject, ...]
    owner: np.ndarray


def image_rng(seed: int, split: str, index: int) -> np.random.Generator:
    """Return the generator that draws image `index` of a split."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def mask_box(mask: np.ndarray) -> Box:
    """Return the tight box of a non-empty mask (H, W) bool."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class Canvas:
    """An image under construction: image (S, S, 3) float32 in [0, 1], owner (S * factor, S * factor) uint8."""

    def __init__(self, image: np.ndarray, factor: int) -> None:
        self.image, self.factor = image, factor
        self.size = len(image) * factor
        self.owner = np.zeros((self.size, self.size), np.uint8)

    def cut(self, shape: Shape, box: Box) -> tuple[np.ndarray, tuple[slice, slice]]:
        """Return the mask of a shape over `box` (owner pixels) and its place, aligned to image pixels."""
        f = self.factor
        x0, y0 = max(box[0], 0) // f * f, max(box[1], 0) // f * f
        x1, y1 = min(-(-box[2] // f) * f, self.size), min(-(-box[3] // f) * f, self.size)
        mask = np.zeros((max(y1 - y0, f), max(x1 - x0, f)), np.uint8)
        paint_mask(mask, shape, (box[0] - x0, box[1] - y0, box[2] - x0, box[3] - y0))
        return mask, (slice(y0, y0 + len(mask)), slice(x0, x0 + mask.shape[1]))

    def paint(self, mask: np.ndarray, place: tuple[slice, slice], texture: np.ndarray, owner: int) -> None:
        """Blend a texture (h, w, 3) over the image inside a mask from `cut` and note its owner."""
        self.owner[place][mask > 0] = owner
        rows, columns = (slice(s.start // self.factor, s.stop // self.factor) for s in place)
        target = self.image[rows, columns]
        alpha = cv2.resize(mask.astype(np.float32), target.shape[1::-1], interpolation=cv2.INTER_AREA)[..., None]
        target += alpha * (texture[: target.shape[0], : target.shape[1]] - target)

    def finished(self, rng: np.random.Generator) -> np.ndarray:
        """Return the image as uint8, with camera noise."""
        grain = rng.standard_normal(self.image.shape[:2], dtype=np.float32) * rng.uniform(1, 5)
        levels = self.image * 255
        levels += grain[..., None]
        return cv2.convertScaleAbs(np.maximum(levels, 0, out=levels))  # rounds, and clips at 255


def object_texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a light texture (height, width, 3): plain, shaded, striped or mottled, of any pale colour."""
    base = colour(rng.uniform(0, 360), rng.uniform(0, 0.4), rng.uniform(0.85, 1.0))
    direction, unit = rng.uniform(0, 2 * np.pi), np.float32(1 / max(height, width))
    x, y = np.arange(width, dtype=np.float32) * unit, np.arange(height, dtype=np.float32)[:, None] * unit
    along = x * float(np.cos(direction)) + y * float(np.sin(direction))
    kind = rng.integers(4)
    if kind == 0:
        pattern = np.zeros_like(along)
    elif kind == 1:
        pattern = np.clip(0.5 + along, 0, 1)
    elif kind == 2:
        pattern = wave(along * rng.uniform(3, 6) + rng.random())
    else:
        pattern = noise(rng, max(height, width), 7, 7)[:height, :width]
    return base * (1 - 0.2 * pattern[..., None])


def clutter_texture(rng: np.random.Generator) -> np.ndarray:
    """Draw a plain colour (1, 1, 3), no lighter than a background."""
    return colour(rng.uniform(0, 360), rng.uniform(0.1, 0.7), rng.uniform(0.1, LIGHTEST_BACKGROUND))[None, None]


def add_outline(mask: np.ndarray, texture: np.ndarray, factor: int) -> np.ndarray:
    """Darken a texture along the inside of the outline, so that light objects stand out from each other."""
    reach = max(3, 2 * round(0.02 * max(mask.shape)) + 1)
    inside = cv2.erode(mask, np.ones((reach, reach), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    inside = cv2.resize(inside.astype(np.float32), texture.shape[1::-1], interpolation=cv2.INTER_AREA)[..., None]
    return texture * (0.62 + 0.38 * inside)


def add_object(canvas: Canvas, rng: np.random.Generator, shape: Shape, box: Box, owner: int) -> None:
    """Paint a light object over `box` (owner pixels)."""
    mask, place = canvas.cut(shape, box)
    texture = object_texture(rng, len(mask) // canvas.factor, mask.shape[1] // canvas.factor)
    if rng.random() < 0.5:
        texture = add_outline(mask, texture, canvas.factor)
    canvas.paint(mask, place, texture, owner)


def add_distractors(canvas: Canvas, rng: np.random.Generator, most: int) -> None:
    """Paint up to `most` small unlabelled shapes anywhere; objects painted later hide them."""
    for _ in range(rng.integers(most + 1)):
        width, height = (rng.uniform(0.04, 0.13, 2) * canvas.size).astype(int)
        x, y = rng.integers(canvas.size - width), rng.integers(canvas.size - height)
        mask, place = canvas.cut(distractor_shape(rng), (x, y, x + width, y + height))
        canvas.paint(mask, place, clutter_texture(rng), 0)


def add_occluder(canvas: Canvas, rng: np.random.Generator, box: Box, owner: int) -> bool:
    """Hide a part of this object only, at most 1 - LEAST_VISIBLE, from its edge; return False if all tries fail."""
    whole = np.count_nonzero(canvas.owner == owner)
    width, height = box[2] - box[0], box[3] - box[1]
    for _ in range(5):
        w, h = int(width * rng.uniform(0.25, 0.6)) + 1, int(height * rng.uniform(0.25, 0.6)) + 1
        edge = rng.permutation(
            np.array([rng.integers(2), rng.uniform()])
        )  # a point on two opposite sides, horizontal or vertical
        x, y = int(box[0] + edge[0] * width - w / 2), int(box[1] + edge[1] * height - h / 2)
        x, y = min(max(x, 0), canvas.size - w), min(max(y, 0), canvas.size - h)
        mask, place = canvas.cut(distractor_shape(rng), (x, y, x + w, y + h))
        below = np.bincount(canvas.owner[place][mask > 0], minlength=owner + 1)
        if 0 < below[owner] <= (1 - LEAST_VISIBLE) * whole and below[1:].sum() == below[owner]:
            canvas.paint(mask, place, clutter_texture(rng), 0)
            return True
    return False


def draw_kind(rng: np.random.Generator, label: int, correlation: float) -> str:
    """Draw the background of an image of class `label`: its own with probability `correlation`, else any other."""
    if rng.random() < correlation:
        return BACKGROUNDS[label]
    other = rng.integers(len(BACKGROUNDS) - 1)
    return BACKGROUNDS[other + (other >= label)]


def placed_box(rng: np.random.Generator, width: float, height: float, size: int) -> Box:
    """Draw a box of about this size (pixels), placed uniformly inside the image."""
    w, h = (int(np.clip(round(extent), 4, size)) for extent in (width, height))
    x, y = int(rng.integers(size - w + 1)), int(rng.integers(size - h + 1))
    return x, y, x + w, y + h


def draw_object_image(
    seed: int,
    split: str,
    index: int,
    *,
    size: int = 64,
    correlation: float = 0.8,
    shares: tuple[float, float] = SHARE_RANGE,
) -> ObjectImage:
    """Draw classification image `index` of a split: class index % 12, the rest at random.

    Args:
        size: side in pixels.
        correlation: P(background is that of the class), in [0, 1]; 1 / 12 makes it independent of the class.
        shares: smallest and largest share of the image in the box of the whole object, in (0, 1].
    """
    rng = image_rng(seed, split, index)
    label = index % len(CLASSES)
    kind = draw_kind(rng, label, correlation)
    canvas = Canvas(draw_background(kind, rng, size), factor=4)
    add_distractors(canvas, rng, most=4)
    shape, aspect = drawn_shape(CLASSES[label], rng)
    share = float(np.exp(rng.uniform(*np.log(shares))))
    aspect = np.clip(aspect * np.exp(rng.uniform(-0.15, 0.15)), share, 1 / share)  # so that it fits
    width, height = np.sqrt(share * aspect) * canvas.size, np.sqrt(share / aspect) * canvas.size
    box = placed_box(rng, width, height, canvas.size)
    add_object(canvas, rng, shape, box, owner=1)
    occluded = bool(rng.random() < OCCLUSION_PROBABILITY) and add_occluder(canvas, rng, box, owner=1)
    seen = cv2.resize((canvas.owner == 1).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) >= 0.5
    return ObjectImage(canvas.finished(rng), CLASSES[label], kind, share, seen, mask_box(seen), occluded)


def overlap(box: Box, others: list[Box]) -> float:
    """Return the largest intersection of `box` with another box, over the smaller of the two areas."""
    if not others:
        return 0.0
    a, b = np.array(box, dtype=float), np.array(others, dtype=float)
    sides = np.clip(np.minimum(a[2:], b[:, 2:]) - np.maximum(a[:2], b[:, :2]), 0, None)
    areas = (b[:, 2:] - b[:, :2]).prod(axis=1)
    return float((sides.prod(axis=1) / np.minimum(areas, (a[2:] - a[:2]).prod())).max())


def plan_objects(rng: np.random.Generator) -> list[tuple[str, Shape, Box]]:
    """Draw 1 to 8 objects and boxes (file pixels), large ones first; an object that does not fit is left out."""
    wanted = []
    for _ in range(rng.integers(1, MAX_OBJECTS + 1)):
        name = CLASSES[rng.integers(len(CLASSES))]
        shape, aspect = drawn_shape(name, rng)
        aspect = np.clip(aspect * np.exp(rng.uniform(-0.15, 0.15)), 0.5, 2)
        area = np.exp(rng.uniform(*np.log(AREA_RANGES[rng.integers(len(AREA_RANGES))]))) / fill_ratio(shape)
        wanted.append((area, aspect, name, shape))
    planned: list[tuple[str, Shape, Box]] = []
    for area, aspect, name, shape in sorted(wanted, key=lambda item: -item[0]):
        for _ in range(30):
            box = placed_box(rng, np.sqrt(area * aspect), np.sqrt(area / aspect), FILE_SIZE)
            if overlap(box, [other for _, _, other in planned]) <= MOST_OVERLAP:
                planned.append((name, shape, box))
                break
    return planned


def draw_detection_image(seed: int, split: str, index: int) -> SceneImage:
    """Draw detection image `index` of a split: any background, 1 to 8 objects of any classes."""
    rng = image_rng(seed, f"detection/{split}", index)
    kind = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    canvas = Canvas(draw_background(kind, rng, DRAWN_SIZE), factor=FILE_SIZE // DRAWN_SIZE)
    add_distractors(canvas, rng, most=8)
    planned = plan_objects(rng)
    for owner, (_, shape, box) in enumerate(planned, start=1):
        add_object(canvas, rng, shape, box, owner)
    for owner, (_, _, box) in enumerate(planned, start=1):
        if rng.random() < OCCLUSION_PROBABILITY:
            add_occluder(canvas, rng, box, owner)
    objects = []
    for owner, (name, _, _) in enumerate(planned, start=1):
        seen = canvas.owner == owner
        assert seen.any()  # MOST_OVERLAP and LEAST_VISIBLE leave a part of each visible
        objects.append(SceneObject(name, mask_box(seen), int(np.count_nonzero(seen))))
    image = cv2.resize(canvas.finished(rng), (FILE_SIZE, FILE_SIZE), interpolation=cv2.INTER_LINEAR)
    return SceneImage(image, kind, tuple(objects), canvas.owner)
