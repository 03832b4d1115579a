"""Statistics of a detection data set: objects by COCO's sizes, by class and by image."""

from typing import Any

import numpy as np

from detection.data.scan import Scan

SIZES = ("small", "medium", "large")
SIZE_BORDERS = (32**2, 96**2)  # pixels; COCO counts an object at a border in both classes, here in the larger


def summarize(scan: Scan, sizes: np.ndarray) -> dict[str, Any]:
    """Count the usable boxes of a data set; crowd and difficult ones separately, as they are not trained on.

    Args:
        sizes: (P, 2) width and height of the images; 0 if unknown.
    """
    usable = scan.usable()
    crowd = usable & scan.iscrowd
    counted = usable & ~scan.iscrowd
    boxes = np.where(usable, scan.bbox[:, 2] * scan.bbox[:, 3], 0)
    area = np.where(np.isnan(scan.area), boxes, scan.area)
    per_class = np.bincount(scan.label[counted], minlength=len(scan.categories))
    per_image = np.bincount(scan.image[counted], minlength=len(scan.images))
    known = sizes[(sizes > 0).all(axis=1)]
    return {
        "images": len(scan.images),
        "images_without_objects": int((per_image == 0).sum()),
        "annotations": len(scan.label),
        "objects": int(counted.sum()),
        "crowd_or_difficult": int(scan.iscrowd.sum()),
        "categories": len(scan.categories),
        "categories_annotated": int((np.bincount(scan.label[usable], minlength=len(scan.categories)) > 0).sum()),
        "by_area": _by_size(area[counted]),
        "by_box_area": _by_size(boxes[counted]),
        "crowd_by_box_area": _by_size(boxes[crowd]),
        "objects_per_class": _spread(per_class[per_class > 0]),
        "rarest_class": _named(scan, per_class, least=True),
        "commonest_class": _named(scan, per_class, least=False),
        "objects_per_image": _spread(per_image),
        "width": _spread(known[:, 0]),
        "height": _spread(known[:, 1]),
        "per_class": {name: int(n) for name, n in zip(scan.categories, per_class, strict=True)},
    }


def describe(summary: dict[str, Any]) -> list[str]:
    """Format the summary as text lines."""
    s = summary
    lines = [
        f"{s['images']} images ({s['images_without_objects']} without an object to train on), "
        f"{s['annotations']} annotations ({s['crowd_or_difficult']} crowd or difficult), "
        f"{s['categories_annotated']} of {s['categories']} categories annotated",
        f"objects by area:       {_size_line(s['by_area'])}",
        f"objects by box area:   {_size_line(s['by_box_area'])}",
    ]
    if s["crowd_or_difficult"]:
        lines.append(f"crowd or difficult:    {_size_line(s['crowd_by_box_area'])} (by box area)")
    if s["objects"]:
        ends = f" (rarest: {s['rarest_class']}, commonest: {s['commonest_class']})"
        lines.append(f"objects per class:     {_spread_line(s['objects_per_class'])}{ends}")
        lines.append(f"objects per image:    {_spread_line(s['objects_per_image'])}")
    if s["width"]:
        lines.append(f"width, height:         {_spread_line(s['width'])}; {_spread_line(s['height'])}")
    return lines


def _by_size(area: np.ndarray) -> dict[str, int]:
    place = np.searchsorted(SIZE_BORDERS, area, side="right")
    return dict(zip(SIZES, np.bincount(place, minlength=len(SIZES)).tolist(), strict=True))


def _spread(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}


def _named(scan: Scan, counts: np.ndarray, *, least: bool) -> str:
    if not counts.any():
        return ""
    found = np.where(counts > 0, counts, counts.max() + 1).argmin() if least else counts.argmax()
    return scan.categories[int(found)]


def _size_line(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.items())


def _spread_line(spread: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in spread.items())
