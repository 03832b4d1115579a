"""Results of many methods, seeds and protocols from simulated detectors, for tests of tables and pages."""

import numpy as np

from detection.evaluation.coco import evaluate_coco
from helpers.coco_scenes import scene
from helpers.result_folders import add, backbone

# Share of the objects found, and standard deviation over seeds.
METHODS = {
    "CE": (0.60, 0.02), "LS": (0.60, 0.02), "ALS (all)": (0.72, 0.02), "OLS": (0.62, 0.05), "ILS2": (0.50, 0.02),
    "CutMix": (0.61, 0.03),
}  # fmt: skip
CLASSIFIER = {"top1": 0.8, "nll": 0.7, "ece15": 0.05, "context_average_confidence": 0.5, "max_box_acc_v2": 0.6}


def add_many(root, *, methods=METHODS, seeds=5, protocols=("faster-rcnn@1", "yolo@2"), images=60):
    """Add backbones and detectors, each protocol with its own test set; return the folder."""
    rng = np.random.default_rng(0)
    truths = {protocol: scene(n, images=images, classes=4, span=500)[0] for n, protocol in enumerate(protocols)}
    for label, (share, spread) in methods.items():
        for seed in range(seeds):
            who = backbone(label, label.split(" ")[0], seed=seed)
            numbers = {name: value + rng.normal(0, 0.01) for name, value in CLASSIFIER.items()}
            add(root, "backbone", who, numbers)
            for protocol, truth in truths.items():
                detections = detect(truth, share + rng.normal(0, spread), np.random.default_rng([seed, len(label)]))
                place = {"protocol": protocol, "folder": f"{label}-{seed}-{protocol}"}
                folder = add(root, "detection", who, {}, **place)
                found = evaluate_coco(truth, detections, score_threshold=0.05, matches_path=folder / "matches.npz")
                data = {"test": {"name": f"scenes {protocol}", "area": "segmentation", **found["counts"]}}
                add(root, "detection", who, found["metrics"], data=data, details={"seed": seed}, **place)
    return root


def detect(truth, share, rng):
    """Return detections that find this share of the objects, with errors of position, class and duplicates."""
    found = []
    classes = [category["id"] for category in truth["categories"]]
    for item in truth["annotations"]:
        if rng.random() > share:
            continue
        x, y, w, h = item["bbox"]
        shift = rng.normal(0, 0.08, 4) * [w, h, w, h]
        category = item["category_id"] if rng.random() < 0.9 else int(rng.choice(classes))
        box = [float(v) for v in np.array([x, y, w, h]) + shift]
        box[2:] = [max(v, 1.0) for v in box[2:]]
        one = {"image_id": item["image_id"], "category_id": category, "bbox": box, "score": float(rng.uniform(0.3, 1))}
        found += [one] if rng.random() < 0.9 else [one, one | {"score": one["score"] * 0.9}]
    for image in truth["images"]:
        for _ in range(rng.poisson(1.5)):
            box = [*rng.uniform(0, 400, 2).tolist(), *rng.uniform(20, 200, 2).tolist()]
            score, category = float(rng.uniform(0.05, 0.6)), int(rng.choice(classes))
            found.append({"image_id": image["id"], "category_id": category, "bbox": box, "score": score})
    return found
