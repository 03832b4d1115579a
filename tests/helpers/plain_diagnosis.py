"""The diagnosis of errors computed slowly, from boxes and by the definitions: independent of `comparison.diagnosis`."""

import numpy as np

POINTS = np.linspace(0.0, 1.0, 101)


def repeat(truth, detections, weights):
    """Return the data set with every image as often as its weight, under new ids, and its detections."""
    whole, found = truth | {"images": [], "annotations": []}, []
    for image, weight in zip(truth["images"], np.asarray(weights).astype(int), strict=True):
        for _ in range(weight):
            new = len(whole["images"]) + 1
            whole["images"].append(image | {"id": new})
            for one in truth["annotations"]:
                if one["image_id"] == image["id"]:
                    whole["annotations"].append(one | {"id": len(whole["annotations"]) + 1, "image_id": new})
            found += [one | {"image_id": new} for one in detections if one["image_id"] == image["id"]]
    return whole, found


def iou(a, b, crowd=False):
    """IoU of two boxes; of a crowd region b, the share of a inside it."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inside = width * height
    return inside / (a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - inside)


def precision_points(found, objects, points=POINTS):
    """Precision at the 101 recalls (101,), from (score, hit) of one class, ties in the given order."""
    hits, seen, curve = 0, 0, []
    for _, hit in sorted(found, key=lambda one: -one[0]):
        hits, seen = hits + hit, seen + 1
        curve.append((hits / max(objects, 1), hits / (seen + np.spacing(1))))
    return np.array([max((p for recall, p in curve if recall >= point), default=0.0) for point in points])


def match(truth, detections, threshold=0.5):
    """Match at an IoU threshold; set "partner" (id), "ignored" of copies of the detections, which are returned."""
    result = []
    for image in truth["images"]:
        objects = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        own = sorted((one for one in detections if one["image_id"] == image["id"]), key=lambda one: -one["score"])
        taken = set()
        for one in own:
            same = [o for o in objects if o["category_id"] == one["category_id"]]
            free = [(iou(one["bbox"], o["bbox"]), o["id"]) for o in same if not o["iscrowd"] and o["id"] not in taken]
            best = max((pair for pair in free if pair[0] >= threshold), default=(0.0, None))
            taken.add(best[1])
            inside = any(o["iscrowd"] and iou(one["bbox"], o["bbox"], True) >= threshold for o in same)
            ignored = best[1] is None and inside
            result.append(one | {"partner": best[1], "partner_iou": best[0], "ignored": ignored, "objects": objects})
    return result


def classify(one, taken):
    """Return the kind of error of an unmatched detection, and the object that it is near."""
    near = [(iou(one["bbox"], o["bbox"]), o) for o in one["objects"] if not o["iscrowd"]]
    own = max(
        (pair for pair in near if pair[1]["category_id"] == one["category_id"]), key=lambda p: p[0], default=(0, None)
    )
    other = max((p for p in near if p[1]["category_id"] != one["category_id"]), key=lambda p: p[0], default=(0, None))
    if 0.1 <= own[0] <= 0.5:
        return "Loc", own[1]
    if other[0] >= 0.5:
        return "Cls", other[1]
    if own[0] > 0.5:
        assert own[1]["id"] in taken
        return "Dupe", own[1]
    return ("Bkg" if max(own[0], other[0]) <= 0.1 else "Both"), None


def size_of(area):
    """Name of the size range."""
    return "small" if area <= 32**2 else "medium" if area <= 96**2 else "large"


def class_points(truth, detections, threshold=0.5):
    """Return category -> precision at the 101 recalls, of the classes with objects."""
    matched = match(truth, detections, threshold)
    result = {}
    for category in {o["category_id"] for o in truth["annotations"] if not o["iscrowd"]}:
        own = [one for one in matched if one["category_id"] == category and not one["ignored"]]
        objects = sum(o["category_id"] == category and not o["iscrowd"] for o in truth["annotations"])
        result[category] = precision_points([(one["score"], one["partner"] is not None) for one in own], objects)
    return result


def tide(truth, detections, points=POINTS):
    """Return area range -> error -> dAP, and AP50 under "all"; points: recalls."""
    matched = match(truth, detections)
    objects = [one for one in truth["annotations"] if not one["iscrowd"]]
    taken = {one["partner"] for one in matched} - {None}
    best = {}  # object without a match -> the detection that a correction lets find it
    for one in matched:
        one["kind"], one["near"] = (None, None) if one["partner"] else classify(one, taken)
        one["size"] = size_of(one["near"]["area"] if one["near"] else one["bbox"][2] * one["bbox"][3])
        if one["kind"] in ("Loc", "Cls") and one["near"]["id"] not in taken:
            before = best.get(one["near"]["id"])
            best[one["near"]["id"]] = one if before is None or one["score"] > before["score"] else before

    def mean_precision(error, size):
        def corrected(kind, own):
            return kind == error and size in ("all", own)

        gone = {
            o["id"] for o in objects
            if (o["id"] not in taken and corrected("FN", size_of(o["area"])))
            or (o["id"] not in taken | best.keys() and corrected("Miss", size_of(o["area"])))
        }  # fmt: skip
        found = {o["category_id"]: [] for o in objects}
        for one in matched:
            category, hit = one["category_id"], one["partner"] is not None
            if corrected(one["kind"], one["size"]):
                if one["kind"] not in ("Loc", "Cls") or best.get(one["near"]["id"]) is not one:
                    continue
                category, hit = one["near"]["category_id"], True
            elif one["ignored"] or (not hit and corrected("FP", one["size"])):
                continue
            found.setdefault(category, []).append((one["score"], hit))
        values = []
        for category in {o["category_id"] for o in objects}:
            count = sum(o["category_id"] == category and o["id"] not in gone for o in objects)
            values.append(precision_points(found[category], count, points).mean())
        return float(np.mean(values)) if values else float("nan")

    names = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN")
    before = mean_precision(None, None)
    result = {
        size: {error: mean_precision(error, size) - before for error in names}
        for size in ("all", "small", "medium", "large")
    }
    result["all"]["AP50"] = before
    return result
