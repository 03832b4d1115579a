"""Draw the detections in images without truth, each into a file."""

from collections import defaultdict
from collections.abc import Container, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from backbones.core.files import save_atomic
from detection.drawing.choosing import Choice
from detection.drawing.reading import FOUND, Box, Scene
from detection.drawing.scenes import draw_scene, load_image


def save_predictions(folder: Path, tree: Mapping[str, Any], least_score: float) -> list[Path]:
    """Write <name of the image>.png for every image of a COCO tree with scores; return the paths.

    Args:
        least_score: of the boxes that are drawn.
    """
    names = {category["id"]: category["name"] for category in tree["categories"]}
    boxes: dict[int, list[Box]] = defaultdict(list)
    for one in sorted(tree["annotations"], key=lambda one: -one["score"]):
        if one["score"] >= least_score:
            box = Box(tuple(one["bbox"]), names[one["category_id"]], FOUND, one["score"])
            boxes[one["image_id"]].append(box)
    paths: list[Path] = []
    taken: set[str] = set()
    for image in tree["images"]:
        source, number = Path(image["file_name"]), image["id"]
        scene = Scene(number, source, image["width"], image["height"], (), tuple(boxes[number]))
        drawn = draw_scene(scene, load_image(scene), Choice(), 1.0)
        name = _free_name(source.stem, number, taken)
        taken.add(name)
        save_atomic(folder / name, lambda temporary, drawn=drawn: drawn.save(temporary, format="PNG"))
        paths.append(folder / name)
    return paths


def _free_name(stem: str, number: int, taken: Container[str]) -> str:
    """Return a file name that is not taken: images of several folders or types can have the same stem."""
    tries = (f"{stem}{'-' * n}{number}.png" for n in count(1))
    return next(name for name in chain([f"{stem}.png"], tries) if name not in taken)
