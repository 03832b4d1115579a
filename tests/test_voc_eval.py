"""VOC's AP against expected numbers of real detections, a slow implementation from its text, and closed forms."""

import json
import math
import re

import numpy as np
import pytest
import torch
from helpers.coco_scenes import scene
from helpers.detectron2_tiny import load_detectron2

from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from detection.data.voc.reader import VOC_CLASSES, load_voc
from detection.evaluation import box_pairs
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.voc import IOU_THRESHOLDS, RECALL_POINTS, evaluate_voc
from detection.evaluation.voc_results import load_comp4

EXPECTED = {
    "11point@0.5": ("VOC_mAP50_11", 0.5960),
    "area@0.5": ("VOC_mAP50", 0.6018),
    "11point@0.75": ("VOC_mAP75_11", 0.3573),
    "area@0.75": ("VOC_mAP75", 0.3608),
}


@pytest.fixture(scope="module")
def real(shared_data):
    """(folder, ground truth of the XML files, detections of the competition files)."""
    folder = shared_data / "voc2012-100"
    data = load_voc(folder / "VOCdevkit" / "VOC2012", "trainval", "voc", WarningCounter(), VOC_CLASSES)
    truth = data.to_coco()
    return folder, truth, load_comp4(folder / "VOCdevkit" / "results" / "VOC2012" / "Main", "trainval", truth)


# ---- agreement ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", EXPECTED)
def test_real_detections_in_full(real, key):
    folder, truth, detections = real
    expected = json.loads((folder / "expected_metrics.json").read_text())[key]
    name, stated = EXPECTED[key]
    ours = evaluate_voc(truth, detections)
    assert round(ours["metrics"][name], 4) == stated
    assert ours["metrics"][name] == pytest.approx(expected["mAP_over_present_classes"], abs=1e-9)
    per_class = ours["per_class"][name.replace("mAP", "AP")]
    assert per_class == pytest.approx(expected["per_class"], abs=1e-9)
    assert len(per_class) == expected["n_classes"] == 20
    assert ours["excluded_classes"] == []
    assert ours["counts"] == {"images": 70, "objects": 178, "difficult": 27, "detections": 324}


def test_the_coco_part_of_the_expected_numbers(real):
    folder = real[0] / "derived_coco_json"
    expected = json.loads((real[0] / "expected_metrics.json").read_text())["coco_style_on_derived_json"]
    ours = evaluate_coco(folder / "instances.json", folder / "detections.json", score_threshold=0.0)
    assert ours["per_class"] == pytest.approx(expected.pop("per_category_AP"), abs=1e-9)
    assert list(ours["metrics"].values()) == pytest.approx(list(expected.values()), abs=1e-9)


def test_the_xml_files_are_the_derived_json(real):
    folder, truth, _ = real
    derived = json.loads((folder / "derived_coco_json" / "instances.json").read_text())
    names = [{image["id"]: image["file_name"] for image in one["images"]} for one in (truth, derived)]
    boxes = [
        sorted((of[a["image_id"]], a["category_id"], *a["bbox"], a["iscrowd"]) for a in one["annotations"])
        for of, one in zip(names, (truth, derived), strict=True)
    ]
    assert boxes[0] == boxes[1]


@pytest.mark.detectron2
@pytest.mark.parametrize(("year", "names"), [(2007, "_11"), (2012, "")])
def test_detectron2s_own_evaluator(real, year, names):
    d2 = load_detectron2()
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    folder, truth, detections = real
    rng = np.random.default_rng(0)
    # Scores that stay distinct when rounded: detectron2 sorts equal ones as numpy's unstable sort happens to.
    scores = rng.permutation(len(detections)) / 1000 + rng.uniform(-4e-4, 4e-4, len(detections)) + 0.001
    boxes = [(np.array(d["bbox"]) * rng.uniform(0.95, 1.05, 4)).tolist() for d in detections]
    moved = [dict(d, bbox=b, score=s) for d, b, s in zip(detections, boxes, scores.tolist(), strict=True)]
    name = f"voc_eval_of_{year}"
    root = folder / "VOCdevkit" / "VOC2012"
    d2.data.MetadataCatalog.get(name).set(
        dirname=str(root), split="trainval", year=year, thing_classes=list(VOC_CLASSES)
    )
    evaluator = PascalVOCDetectionEvaluator(name)
    evaluator.reset()
    for image in truth["images"]:
        here = [d for d in moved if d["image_id"] == image["id"]]
        boxes = torch.tensor([d["bbox"] for d in here], dtype=torch.float64).reshape(-1, 4)
        found = Instances((1, 1), scores=torch.tensor([d["score"] for d in here], dtype=torch.float64))
        found.pred_boxes = Boxes(boxes)
        found.pred_boxes.tensor = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)  # not cut to float32
        found.pred_classes = torch.tensor([d["category_id"] - 1 for d in here])
        evaluator.process([{"image_id": image["file_name"].removesuffix(".jpg")}], [{"instances": found}])
    theirs = (evaluator.evaluate() or {})["bbox"]
    ours = evaluate_voc(truth, moved, rounding="detectron2")["metrics"]
    for key, metric in (("AP50", "VOC_mAP50"), ("AP75", "VOC_mAP75"), ("AP", "VOC_mAP")):
        assert 100 * ours[metric + names] == pytest.approx(theirs[key], abs=1e-9)
    assert ours != evaluate_voc(truth, moved)["metrics"]


def slow_voc(truth, detections):
    """{(class name, threshold): (area, 11 points)} from the definition, one box at a time; classes with objects."""

    def overlap(a, b):
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = ((x + 1, y + 1, x + w, y + h) for x, y, w, h in (a, b))
        width, height = min(ax1, bx1) - max(ax0, bx0) + 1, min(ay1, by1) - max(ay0, by0) + 1
        both = max(width, 0) * max(height, 0)
        return both / ((ax1 - ax0 + 1) * (ay1 - ay0 + 1) + (bx1 - bx0 + 1) * (by1 - by0 + 1) - both)

    result = {}
    for category in truth["categories"]:
        objects = [a for a in truth["annotations"] if a["category_id"] == category["id"]]
        total = sum(not a["iscrowd"] for a in objects)
        found = [d for d in detections if d["category_id"] == category["id"]]
        found.sort(key=lambda d: (-d["score"], d["image_id"]))
        for threshold in IOU_THRESHOLDS if total else ():
            taken, hits, misses, curve = set(), 0, 0, []
            for one in found:
                here = [a for a in objects if a["image_id"] == one["image_id"]]
                near = max(here, key=lambda a: overlap(a["bbox"], one["bbox"]), default=None)
                if near is None or not overlap(near["bbox"], one["bbox"]) > threshold or near["id"] in taken:
                    misses += 1
                elif not near["iscrowd"]:
                    taken.add(near["id"])
                    hits += 1
                curve.append((hits / total, hits / max(hits + misses, 1)))
            area = last = 0.0
            for n, (recall, _) in enumerate(curve):
                area += (recall - last) * max(p for _, p in curve[n:])
                last = recall
            points = sum(max((p for r, p in curve if r >= t), default=0.0) for t in RECALL_POINTS) / 11
            result[category["name"], float(threshold)] = area, points
    return result


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"crowd": 0.5},
        {"levels": 5, "grid": 16, "most_objects": 12},  # equal scores, equal IoUs
        {"classes": 1, "most_detections": 80, "levels": 9},
        {"classes": 8, "most_objects": 1, "images": 9, "crowd": 0.4},  # classes without objects, or difficult ones only
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_slow_implementation_agrees(options, seed, monkeypatch):
    monkeypatch.setattr(box_pairs, "CHUNK", 50)
    truth, detections = scene(seed, **options)
    ours, slow = evaluate_voc(truth, detections), slow_voc(truth, detections)
    names = [c["name"] for c in truth["categories"]]
    known = sorted({name for name, _ in slow})
    assert ours["excluded_classes"] == [name for name in names if name not in known]
    for part, end in enumerate(("", "_11")):
        for metric, thresholds in (("AP50", [0.5]), ("AP75", [0.75]), ("AP", IOU_THRESHOLDS.tolist())):
            per_class = {name: np.mean([slow[name, t][part] for t in thresholds]) for name in known}
            measured = ours["per_class"][f"VOC_{metric}{end}"]
            assert {k: v for k, v in measured.items() if k in known} == pytest.approx(per_class, abs=1e-12)
            assert all(math.isnan(measured[name]) for name in ours["excluded_classes"])
            mean = np.mean(list(per_class.values())) if known else math.nan
            assert ours["metrics"][f"VOC_m{metric}{end}"] == pytest.approx(mean, abs=1e-12, nan_ok=True)


# ---- closed forms -------------------------------------------------------------------------------------------------


def make(objects, detections):
    """One image, one class: objects [(box, difficult)], detections [(box, score)]."""
    keys = {"image_id": 1, "category_id": 1}
    annotations = [
        {"id": n, "bbox": list(box), "area": box[2] * box[3], "iscrowd": int(difficult), **keys}
        for n, (box, difficult) in enumerate(objects, start=1)
    ]
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}], "annotations": annotations}
    return truth, [{"bbox": list(box), "score": score, **keys} for box, score in detections]


def metrics(objects, detections, **options):
    return evaluate_voc(*make(objects, detections), **options)["metrics"]


WHOLE, AWAY, LEFT = (0, 0, 10, 10), (50, 50, 10, 10), (0, 0, 5, 10)


def test_half_of_the_objects_found():
    """Precision 1 up to recall 0.5: area 0.5, and six of eleven points."""
    found = metrics([(WHOLE, 0), (AWAY, 0)], [(WHOLE, 0.9)])
    assert found["VOC_mAP50"] == pytest.approx(1 / 2)
    assert found["VOC_mAP50_11"] == pytest.approx(6 / 11)


def test_objects_as_detections_are_perfect_and_no_detection_is_none():
    truth, _ = scene(3, crowd=0.0)
    perfect = evaluate_voc(truth, [dict(a, score=0.5) for a in truth["annotations"]])["metrics"]
    assert list(perfect.values()) == pytest.approx([1.0] * 6)
    assert set(evaluate_voc(truth, [])["metrics"].values()) == {0.0}


def test_the_threshold_is_strict_and_sides_include_the_last_pixel():
    """LEFT is exactly half of WHOLE in whole pixels: not above 0.5.  COCO counts it."""
    half, more = metrics([(WHOLE, 0)], [(LEFT, 0.9)]), metrics([(WHOLE, 0)], [((0, 0, 5.001, 10), 0.9)])
    assert (half["VOC_mAP50"], more["VOC_mAP50"]) == (0, 1)
    assert evaluate_coco(*make([(WHOLE, 0)], [(LEFT, 0.9)]), score_threshold=0)["metrics"]["AP50"] > 0.999
    three_quarters = metrics([((0, 0, 4, 1), 0)], [((0, 0, 3, 1), 0.9)])
    assert (three_quarters["VOC_mAP50"], three_quarters["VOC_mAP75"]) == (1, 0)
    assert three_quarters["VOC_mAP"] == pytest.approx(5 / 10)


def test_difficult_objects_count_neither_way_however_often_they_are_found():
    easy, hard = (WHOLE, 0), (AWAY, 1)
    assert metrics([easy, hard], [(AWAY, 0.9), (AWAY, 0.8), (WHOLE, 0.7)])["VOC_mAP50"] == 1
    assert metrics([easy, (AWAY, 0)], [(AWAY, 0.9), (AWAY, 0.8), (WHOLE, 0.7)])["VOC_mAP50"] == pytest.approx(5 / 6)
    assert metrics([easy, hard], [((200, 0, 9, 9), 0.9), (WHOLE, 0.7)])["VOC_mAP50"] == pytest.approx(1 / 2)
    only_hard = evaluate_voc(*make([hard], [(AWAY, 0.9)]))
    assert only_hard["excluded_classes"] == ["cat"]
    assert math.isnan(only_hard["metrics"]["VOC_mAP50"])


def test_a_duplicate_is_false_even_beside_a_free_object():
    """Two objects that overlap; both detections overlap the first most.  COCO gives the second one the other."""
    objects = [((0, 0, 100, 10), 0), ((8, 0, 100, 10), 0)]
    detections = [((0, 0, 100, 10), 0.9), ((1, 0, 100, 10), 0.8)]
    assert metrics(objects, detections)["VOC_mAP50"] == pytest.approx(1 / 2)
    assert evaluate_coco(*make(objects, detections), score_threshold=0)["metrics"]["AP50"] == pytest.approx(1)


def test_of_two_objects_equally_near_the_first_is_looked_at():
    """Midway between an easy and a difficult object."""
    easy, hard, midway = ((0, 0, 100, 10), 0), ((2, 0, 100, 10), 1), [((1, 0, 100, 10), 0.9)]
    assert metrics([easy, hard], midway)["VOC_mAP50"] == 1
    assert metrics([hard, easy], midway)["VOC_mAP50"] == 0


@pytest.mark.parametrize("chunk", [1, 5, 10**6])
def test_best_partners_against_one_row_at_a_time(monkeypatch, chunk):
    monkeypatch.setattr(box_pairs, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    rows, columns, value = rng.integers(9, size=40), rng.integers(7, size=25), rng.integers(3, size=(40, 25))
    best, partner = box_pairs.best_partner(rows, columns, lambda r, c: value[r, c])
    for n in range(40):
        possible = np.flatnonzero(columns == rows[n])
        expected = max(possible, key=lambda g: value[n, g], default=-1)  # the first of equals
        assert partner[n] == expected
        assert best[n] == (value[n, expected] if len(possible) else -np.inf)


def test_scores_are_not_rounded_unless_asked():
    """The right one scores higher in the fifth decimal; rounded, the two tie and go as listed."""
    pair = [(AWAY, 0.50001), (WHOLE, 0.50002)]
    assert metrics([(WHOLE, 0)], pair)["VOC_mAP50"] == 1
    for rounding in ("detectron2", "yolo"):
        assert metrics([(WHOLE, 0)], pair, rounding=rounding)["VOC_mAP50"] == pytest.approx(1 / 2)
    fourth = [(AWAY, 0.5001), (WHOLE, 0.5002)]
    assert metrics([(WHOLE, 0)], fourth, rounding="yolo")["VOC_mAP50"] == 1
    assert metrics([(WHOLE, 0)], fourth, rounding="detectron2")["VOC_mAP50"] == pytest.approx(1 / 2)


def test_corners_are_rounded_to_a_tenth_or_cut_to_integers():
    """Of ten columns, 5.04, 5.06 and 5.96 are detected, in VOC's corners xmax = 5.04, 5.06 and 5.96."""

    def ap(width, rounding):
        return metrics([(WHOLE, 0)], [((0, 0, width, 10), 0.9)], rounding=rounding)["VOC_mAP50"]

    assert [ap(w, None) for w in (5.04, 5.06, 5.96)] == [1, 1, 1]
    assert [ap(w, "detectron2") for w in (5.04, 5.06, 5.96)] == [0, 1, 1]
    assert [ap(w, "yolo") for w in (5.04, 5.06, 5.96, 6)] == [0, 0, 0, 1]


def test_only_scores_above_the_threshold_count():
    pair = [(AWAY, 0.9), (WHOLE, 0.05)]
    assert metrics([(WHOLE, 0)], pair, score_threshold=0.05)["VOC_mAP50"] == 0
    assert metrics([(WHOLE, 0)], pair, score_threshold=0.049)["VOC_mAP50"] == pytest.approx(1 / 2)
    truth, detections = scene(6)
    kept = [d for d in detections if d["score"] > 0.3]
    assert evaluate_voc(truth, detections, score_threshold=0.3) == evaluate_voc(truth, kept)


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_unknown_rounding_and_broken_detections_are_named():
    truth, detections = scene(4)
    with pytest.raises(InputError, match="rounding: 'reference': choices: None, 'detectron2', 'yolo'"):
        evaluate_voc(truth, detections, rounding="reference")
    with pytest.raises(InputError, match="image_id 12345"):
        evaluate_voc(truth, [dict(detections[0], image_id=12345)])


def test_two_boxes_without_area_do_not_overlap():
    """In VOC's pixels, a side of w has w pixels: the reference divides 0 by 0."""
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for n, box in enumerate(([10, 10, 20, 20], [5, 5, 0, 0]), start=1)
        ],
    }
    boxes = (([10, 10, 20, 20], 0.9), ([5, 5, 0, 0], 0.1))
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": score} for box, score in boxes]
    assert evaluate_voc(truth, found)["metrics"]["VOC_mAP50"] == 0.5


TRUTH = {
    "images": [{"id": 4, "file_name": "a.jpg"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}


def test_competition_files_count_pixels_from_one(tmp_path):
    (tmp_path / "comp4_det_test_dog.txt").write_text("a 0.5 1 1 10 20\n\na 0.25 3.5 4 4.5 4\n")
    assert load_comp4(tmp_path, "test", TRUTH) == [
        {"image_id": 4, "category_id": 2, "bbox": [0, 0, 10, 20], "score": 0.5},
        {"image_id": 4, "category_id": 2, "bbox": [2.5, 3, 2, 1], "score": 0.25},
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("b 0.5 1 1 2 2", "line 2: unknown image 'b'"),
        ("a 0.5 1 1 2", "line 2: not '<image>"),
        ("a 0.5 1 1 2 two", "line 2: not '<image>"),
        ("a nan 1 1 2 2", "line 2: not '<image>"),
    ],
)
def test_broken_competition_files_are_named(tmp_path, line, says):
    with pytest.raises(InputError, match=r"no file comp4_det_test_<class>\.txt"):
        load_comp4(tmp_path, "test", TRUTH)
    (tmp_path / "comp4_det_test_cat.txt").write_text(f"a 0.5 1 1 2 2\n{line}\n")
    with pytest.raises(InputError, match=rf"comp4_det_test_cat\.txt: {re.escape(says)}"):
        load_comp4(tmp_path, "test", TRUTH)
    (tmp_path / "comp4_det_test_cat.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"comp4_det_test_cat\.txt is not a text file in UTF-8"):
        load_comp4(tmp_path, "test", TRUTH)
