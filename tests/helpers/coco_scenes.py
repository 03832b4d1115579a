"""Random detection scenes, and the metrics of pycocotools for them."""

import contextlib
import copy
import io
import math

import numpy as np

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def pycocotools_numbers(ground_truth, detections):
    """Return the 12 metrics of pycocotools, with NaN instead of -1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(ground_truth)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        name: math.nan if value == -1 else float(value) for name, value in zip(NAMES, evaluation.stats, strict=True)
    }


def scene(seed, *, images=12, classes=3, most_objects=7, most_detections=30, crowd=0.15, levels=0, grid=0, span=300):
    """Return random ground truth, and detections around it.

    levels > 0 rounds scores to create ties; grid > 0 rounds boxes, so that IoUs tie and areas fall on their limits.
    """
    rng = np.random.default_rng(seed)

    def snap(box):
        return [float(v) for v in (box if not grid else np.maximum(1, np.round(np.array(box) / grid)) * grid)]

    annotations, detections = [], []
    for image in range(100, 100 + 7 * images, 7):
        here = []
        for _ in range(rng.integers(0, most_objects + 1)):
            box = snap([*rng.uniform(0, span, 2), *np.exp(rng.uniform(np.log(8), np.log(0.85 * span), 2))])
            here.append(
                {
                    "id": len(annotations) + len(here) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(classes)) * 3 + 2,
                    "bbox": box,
                    "area": box[2] * box[3] * (1.0 if grid else rng.uniform(0.4, 1)),
                    "iscrowd": int(rng.random() < crowd),
                }
            )
        annotations += here
        for _ in range(rng.integers(0, most_detections + 1)):
            box = [*rng.uniform(0, span, 2), *rng.uniform(5, 0.7 * span, 2)]
            category = int(rng.integers(classes)) * 3 + 2
            if here and rng.random() < 0.7:
                source = here[rng.integers(len(here))]
                box, category = np.array(source["bbox"]) * rng.uniform(0.85, 1.15, 4), source["category_id"]
            score = float(rng.random() if not levels else rng.integers(levels) / levels)
            detections.append({"image_id": image, "category_id": category, "bbox": snap(box), "score": score})
    truth = {
        "images": [{"id": 100 + 7 * n, "width": 640, "height": 640} for n in range(images)],
        "categories": [{"id": 3 * k + 2, "name": f"class {k}"} for k in range(classes)],
        "annotations": annotations,
    }
    return truth, detections


def repeated(truth, detections, weights):
    """The data set with every image as often as its weight, under new ids, and its detections."""
    whole, found = truth | {"images": [], "annotations": []}, []
    objects = {image["id"]: [] for image in truth["images"]}
    others = copy.deepcopy(objects)
    for one in truth["annotations"]:
        objects[one["image_id"]].append(one)
    for one in detections:
        others[one["image_id"]].append(one)
    for image, weight in zip(truth["images"], weights.astype(int), strict=True):
        for _ in range(weight):
            new = len(whole["images"]) + 1
            whole["images"].append(image | {"id": new})
            for one in objects[image["id"]]:
                whole["annotations"].append(one | {"id": len(whole["annotations"]) + 1, "image_id": new})
            found += [one | {"image_id": new} for one in others[image["id"]]]
    return whole, found
