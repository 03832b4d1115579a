"""Results of many methods, seeds and protocols from simulated detectors, for tests of tables and pages."""

import json

import numpy as np

from backbones.core.per_image import ImageGroup, Mean, save_per_image
from detection.evaluation.coco import evaluate_coco
from helpers.coco_scenes import scene
from helpers.result_folders import add, backbone

# Share of the objects found, and standard deviation over seeds.
METHODS = {
    "CE": (0.60, 0.02), "LS": (0.60, 0.02), "ALS (all)": (0.72, 0.02), "OLS": (0.62, 0.05), "ILS2": (0.50, 0.02),
    "CutMix": (0.61, 0.03),
}  # fmt: skip
CLASSIFIER = {"top1": 0.8, "nll": 0.7, "ece15": 0.05, "context_average_confidence": 0.5, "max_box_acc_v2": 0.6}


ITERATIONS = 400


def add_many(root, *, methods=METHODS, seeds=5, protocols=("faster-rcnn@1", "yolo@2"), images=60, logged=False):
    """Add backbones and detectors, each protocol with its own test set; return the folder.

    logged: also what runs log, and store per image of the classifiers.
    """
    rng = np.random.default_rng(0)
    truths = {protocol: scene(n, images=images, classes=4, span=500)[0] for n, protocol in enumerate(protocols)}
    for label, (share, spread) in methods.items():
        for seed in range(seeds):
            who = backbone(label, label.split(" ")[0], seed=seed)
            numbers = {name: value + rng.normal(0, 0.01) for name, value in CLASSIFIER.items()}
            add_classifier(root, who, numbers) if logged else add(root, "backbone", who, numbers)
            for protocol, truth in truths.items():
                detections = detect(truth, share + rng.normal(0, spread), np.random.default_rng([seed, len(label)]))
                place = {"protocol": protocol, "folder": f"{label}-{seed}-{protocol}"}
                folder = add(root, "detection", who, {}, **place)
                found = evaluate_coco(truth, detections, score_threshold=0.05, matches_path=folder / "matches.npz")
                data = {"test": {"name": f"scenes {protocol}", "area": "segmentation", **found["counts"]}}
                add(root, "detection", who, found["metrics"], data=data, details={"seed": seed}, **place)
                if logged:
                    log_run(folder, ("loss",), np.random.default_rng(seed))
    return root


def add_classifier(root, who, metrics, images=300):
    """Add a pretraining with its log, and the measures of a classifier with values per image."""
    rng = np.random.default_rng([who.seed, len(who.label)])
    folder = add(root, "pretraining", who, {"top1": metrics["top1"]}, data={"val": {"name": "made"}})
    log_run(folder, ("loss", "train_top1", "val_nll", "val_top1"), rng)
    confidence = rng.uniform(0.2, 1, images)
    numbers = {"top1": Mean(rng.random(images) < confidence), "average_confidence": Mean(confidence)}
    stated = metrics | {name: float(number.value.mean()) for name, number in numbers.items()}
    folder = add(root, "backbone", who, stated)
    files = save_per_image(folder, [ImageGroup("val", "made", np.arange(images), numbers)])
    add(root, "backbone", who, stated, files=files)


def log_run(folder, names, rng, iterations=ITERATIONS):
    """Write metrics.jsonl: numbers that fall to 1, with noise; validations every tenth time."""
    lines = []
    for at in range(9, iterations, 10):
        values = {name: 1 + 3 * np.exp(-at / 80) + rng.normal(0, 0.1) for name in names}
        values |= {name: 0.9 - 0.2 * values[name] for name in names if "top1" in name}
        lines.append({"iteration": at, **{n: v for n, v in values.items() if "val" not in n or at % 100 == 99}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(
        json.dumps(results | {"files": results["files"] | {"metrics": "metrics.jsonl"}})
    )


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
