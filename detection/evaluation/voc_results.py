"""Read VOC's competition files, comp4_det_<split>_<class>.txt, as COCO results.

A line is "<image> <score> <xmin> <ymin> <xmax> <ymax>", pixels counted from 1 and the last one included, as in the
annotations: x = xmin - 1, w = xmax - x.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.errors import InputError
from backbones.core.files import load_text
from detection.data.fields import parse_number


def load_comp4(folder: str | Path, split: str, ground_truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Load COCO results (image_id, category_id, bbox, score) from one file per class; a class can have none.

    Args:
        folder: folder of the files; split: part of their names, such as "test".
        ground_truth: COCO instances; file names without suffix name the images, categories the classes.
    Raises:
        InputError: no file found; a line that is not a name and five numbers, or of an unknown image; a file that is
            not text; two images of one name.
    """
    image_ids = _name_images(ground_truth)
    found = {
        category["id"]: path
        for category in ground_truth["categories"]
        if (path := Path(folder) / f"comp4_det_{split}_{category['name']}.txt").is_file()
    }
    if not found:
        raise InputError(f"{folder}: no file comp4_det_{split}_<class>.txt for any class; check the folder and split")
    return [result for category_id, path in found.items() for result in _read(path, category_id, image_ids)]


def _name_images(ground_truth: Mapping[str, Any]) -> dict[str, int]:
    """Return image ids by file name without suffix."""
    image_ids: dict[str, int] = {}
    for image in ground_truth["images"]:
        file = image.get("file_name")
        if not isinstance(file, str):
            raise InputError(f"ground truth: image id {image['id']} has no file_name, by which VOC names it; add it")
        stem = Path(file).stem
        if stem in image_ids:
            raise InputError(
                f"ground truth: image ids {image_ids[stem]} and {image['id']} have the same name '{stem}', "
                "by which VOC tells them apart; rename one"
            )
        image_ids[stem] = image["id"]
    return image_ids


def _read(path: Path, category_id: int, image_ids: Mapping[str, int]) -> list[dict[str, Any]]:
    results = []
    for number, line in enumerate(load_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        image, *fields = line.strip().rsplit(None, 5)  # names can contain spaces
        numbers = _numbers(fields)
        if image not in image_ids or numbers is None:
            what = f"unknown image '{image}'" if numbers else "not '<image> <score> <xmin> <ymin> <xmax> <ymax>'"
            raise InputError(f"{path}: line {number}: {what}; correct the file")
        score, xmin, ymin, xmax, ymax = numbers
        box = [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]
        results.append({"image_id": image_ids[image], "category_id": category_id, "bbox": box, "score": score})
    return results


def _numbers(fields: list[str]) -> list[float] | None:
    """Parse five finite numbers; None if invalid."""
    numbers = [parse_number(field) for field in fields]
    return numbers if len(numbers) == 5 and np.isfinite(numbers).all() else None
