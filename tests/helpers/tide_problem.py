"""The problems on which tests/files/tide/reference.py ran tidecv; needs numpy only."""

import numpy as np

from helpers.coco_scenes import scene


def tide_problem(seed, *, images=40, classes=3, crowd=0.15, wrong=0.15, **options):
    """Return random ground truth and detections with all kinds of errors; areas are those of the boxes."""
    truth, detections = scene(seed, images=images, classes=classes, crowd=crowd, **options)
    rng = np.random.default_rng(seed)
    for one in truth["annotations"]:
        one["area"] = one["bbox"][2] * one["bbox"][3]
    for one in detections:
        if rng.random() < wrong:
            one["category_id"] = int(rng.integers(classes)) * 3 + 2
    return truth, detections


def with_a_class_of_detections_only(truth, detections):
    """Return the problem with one more class, which has two detections and no object."""
    box = [600.0, 600.0, 20.0, 20.0]
    images = [image["id"] for image in truth["images"][:2]]
    more = [{"image_id": image, "category_id": 90, "bbox": box, "score": 0.5} for image in images]
    return truth | {"categories": [*truth["categories"], {"id": 90, "name": "nowhere"}]}, [*detections, *more]
