"""Detectors of known quality: what interval_coverage.py measures, evaluated by the evaluator and the bootstrap.

A sample of images is drawn anew for every simulation.  Image i has 1 + Poisson(2.5) objects of K classes.  Object g of
image i has an ease e, the same for every detector.  The quality of seed s of method m on image i is a logit:

    q[m, s, i] = mu[m] + a[i] + b[m, i] + c[m, s] + d[m, s, i]

    mu  quality of the method          b  method x image        d  seed x image
    a   ease of the image              c  seed                  a, b, c, d: normal with mean 0

A detector finds an object with probability logistic(q + e), and confuses its class with probability
logistic(-3 - q / 2).  Its box is off by a share of 0.07 exp(-q / 4) of the object's sides, normal, in place and size.
False detections, Poisson(exp(0.8 - 0.4 q)) per image, lie anywhere.  The score of a detection is the logistic of a
normal number with standard deviation 1, and mean 1 + (q + e) / 2 around an object, -1 elsewhere.

All but `mu` is drawn anew for a new method, all but `mu`, a, b and e for a new seed.  With b = 0, methods of one `mu`
have their effects of images in common, so that C of `comparison.verdicts.nested` is 0.

Letters: I images, G objects, K classes, N detections, R resamples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from backbones.core.matches import Matches, build_matches
from comparison.resampling.weighted import average_precision
from detection.evaluation.coco import coco_numbers
from detection.evaluation.matching import AREA_NAMES, IOU_THRESHOLDS, Boxes, counted, match, rank_detections
from detection.evaluation.reading import GroundTruth
from detection.evaluation.valid import build_detections

CLASSES, SIDE = 4, 640.0  # pixels of an image
MORE_OBJECTS, EASE = 2.5, 1.0
SIDES = (30.0, 200.0)  # pixels of an object
QUALITY = 0.8  # mu of method B


@dataclass(frozen=True)
class Effects:
    """Standard deviations of a, b, c and d above, and `shift`, mu of method A minus mu of method B."""

    shift: float
    image: float
    method_image: float
    seed: float
    seed_image: float


@dataclass(frozen=True)
class Scene:
    """A sample of images.

    tree: COCO instances json; truth: the same as read; ease: (G,) e; image_ease: (I,) a.
    """

    tree: dict[str, Any]
    truth: GroundTruth
    ease: np.ndarray
    image_ease: np.ndarray


def draw_scene(rng: np.random.Generator, images: int, effects: Effects) -> Scene:
    """Draw images with their objects."""
    count = 1 + rng.poisson(MORE_OBJECTS, images)
    image = np.repeat(np.arange(images), count)
    category, boxes = rng.integers(CLASSES, size=len(image)), _boxes(rng, len(image))
    columns = zip(image.tolist(), category.tolist(), boxes.tolist(), strict=True)
    tree = {
        "images": [{"id": i + 1, "width": int(SIDE), "height": int(SIDE)} for i in range(images)],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(CLASSES)],
        "annotations": [
            {"id": g + 1, "image_id": i + 1, "category_id": k + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for g, (i, k, box) in enumerate(columns)
        ],
    }
    return Scene(tree, GroundTruth(tree), rng.normal(0, EASE, len(image)), rng.normal(0, effects.image, images))


def draw_method(rng: np.random.Generator, scene: Scene, effects: Effects, shift: float) -> np.ndarray:
    """Draw a method, whose mu is `shift` above QUALITY; return its quality on every image (I,): mu + a + b."""
    own = rng.normal(0, effects.method_image, len(scene.image_ease))
    return QUALITY + shift + scene.image_ease + own


def draw_run(rng: np.random.Generator, scene: Scene, method: np.ndarray, effects: Effects) -> Boxes:
    """Draw a seed of a method, and return its detections."""
    quality = method + rng.normal(0, effects.seed) + rng.normal(0, effects.seed_image, len(method))
    objects = scene.truth.objects
    found = np.flatnonzero(rng.random(len(objects)) < _logistic(quality[objects.image] + scene.ease))
    image, sides = objects.image[found], objects.xywh[found, 2:]
    confused = rng.random(len(found)) < _logistic(-3 - quality[image] / 2)
    label = (objects.category[found] + confused * rng.integers(1, CLASSES, len(found))) % CLASSES
    spread = 0.07 * np.exp(-quality[image] / 4)[:, None]
    moved = objects.xywh[found, :2] + sides * spread * rng.normal(size=sides.shape)
    near = np.concatenate([moved, sides * np.exp(spread * rng.normal(size=sides.shape))], 1)
    score = rng.normal(1 + (quality[image] + scene.ease[found]) / 2)
    false = np.repeat(np.arange(len(quality)), rng.poisson(np.exp(0.8 - 0.4 * quality)))
    return build_detections(
        np.concatenate([image, false]),
        np.concatenate([label, rng.integers(CLASSES, size=len(false))]),
        np.concatenate([near, _boxes(rng, len(false))]),
        _logistic(np.concatenate([score, rng.normal(-1, 1, len(false))])),
    )


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw boxes (count, 4) x, y, w, h inside the image."""
    sides = np.exp(rng.uniform(np.log(SIDES[0]), np.log(SIDES[1]), (count, 2)))
    return np.concatenate([rng.random((count, 2)) * (SIDE - sides), sides], 1)


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# ---- the number ---------------------------------------------------------------------------------------------------


def measure(scene: Scene, run: Boxes) -> float:
    """Return AP50 as the evaluator computes it."""
    return coco_numbers(scene.truth, run, 0.0)["metrics"]["AP50"]


def resample(scene: Scene, run: Boxes, weights: np.ndarray) -> np.ndarray:
    """Return AP50 of every resample (R,), as the bootstrap computes it; weights: (R, I)."""
    return average_precision(match_at_50(scene, run), weights)[:, 0]


def match_at_50(scene: Scene, run: Boxes) -> Matches:
    """Return the evaluator's matches at an IoU of 0.5 and of any area: all that AP50 depends on."""
    objects, (ranked, rank, _) = scene.truth.objects, rank_detections(run)
    arrays = {
        "image": ranked.image,
        "category": ranked.category,
        "score": ranked.score,
        "rank": rank,
        "outcome": match(ranked, objects)[0][:, :1, :1],
        "object_image": objects.image,
        "object_category": objects.category,
        "object_counts": counted(objects)[:, :1],
        "image_ids": scene.truth.image_ids,
        "category_ids": scene.truth.category_ids,
        "area_names": np.array(AREA_NAMES[:1]),
        "iou_thresholds": IOU_THRESHOLDS[:1],
        "score_threshold": np.array(0.0),
    }
    return build_matches(arrays)
