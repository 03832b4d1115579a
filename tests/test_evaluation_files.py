"""What an evaluation leaves for others: matches that tell the kinds of error, VOC beside COCO, complete predictions."""

import dataclasses
import json
import runpy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers.coco_scenes import scene
from helpers.rectangles import load_rectangles
from helpers.torchvision_tiny import FindsColours, make_cfg
from helpers.voc_files import annotation, box, read_voc

from detection.config import protocol_hash
from detection.data.records import join
from detection.engines.torchvision import engine
from detection.evaluation import reading
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.evaluators import OF_FORM, measure
from detection.evaluation.voc import evaluate_voc
from detection.training import gathering

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "coco_eval.py"


def iou(a, b):
    """Of two boxes x, y, w, h."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


# ---- matches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_matches_say_what_every_detection_is_near(tmp_path, seed):
    """Enough to tell a wrong class, a bad place, a duplicate, background and a missed object apart."""
    truth, detections = scene(seed, crowd=0.3, images=8)
    evaluate_coco(truth, detections, score_threshold=0.05, matches_path=tmp_path / "matches.npz")
    objects = truth["annotations"]
    with np.load(tmp_path / "matches.npz") as file:
        found = dict(file)
    assert sorted(found["index"]) == list(range(len(detections)))
    for n, index in enumerate(found["index"]):
        one = detections[index]
        assert one["score"] == found["score"][n]
        assert one["image_id"] == found["image_ids"][found["image"][n]]
        near = {"own": (0.0, -1), "other": (0.0, -1)}
        for g, item in enumerate(objects):
            if item["image_id"] == one["image_id"] and not item["iscrowd"]:
                kind = "own" if item["category_id"] == one["category_id"] else "other"
                overlap = iou(one["bbox"], item["bbox"])
                near[kind] = max(near[kind], (overlap, g if overlap else -1))
        for kind, (largest, g) in near.items():
            assert found[f"{kind}_iou"][n] == pytest.approx(largest, abs=1e-6)
            assert found[f"{kind}_object"][n] == g
        taken = found["partner"][n]
        assert (taken >= 0) == (found["outcome"][n, 0, 0] != 0)  # every detection's area counts in "all"
        if taken >= 0:
            assert objects[taken]["category_id"] == one["category_id"]
            assert bool(objects[taken]["iscrowd"]) == (found["outcome"][n, 0, 0] == -1)
    hits = found["partner"][found["outcome"][:, 0, 0] == 1]
    assert len(set(hits)) == len(hits)  # no object is found twice


def test_recall_per_class_averages_to_ar100():
    truth, detections = scene(4, classes=4)
    result = evaluate_coco(truth, detections, score_threshold=0.3)
    assert np.nanmean(list(result["per_class_AR"].values())) == pytest.approx(result["metrics"]["AR100"])
    one = {**truth, "annotations": [a for a in truth["annotations"] if a["category_id"] == 5]}
    alone = evaluate_coco(one, detections, score_threshold=0.3)
    assert alone["metrics"]["AR100"] == pytest.approx(result["per_class_AR"]["class 1"])
    assert list(result["per_class_AR"]) == list(result["per_class"]) == [f"class {k}" for k in range(4)]


# ---- results ------------------------------------------------------------------------------------------------------


def detections_of(data):
    """Every object, and a duplicate of the first."""
    objects = data.to_coco()["annotations"]
    keys = ("image_id", "category_id", "bbox")
    return [{key: a[key] for key in keys} | {"score": 0.9 - 0.1 * n} for n, a in enumerate([*objects, objects[0]])]


def test_a_voc_test_set_is_measured_by_both_definitions(tmp_path):
    data, _ = read_voc(tmp_path, annotation(box("cat", 1, 1, 9, 9), box("dog", 11, 1, 30, 20, difficult=1)))
    found = detections_of(data)
    measured = measure(data, found, 0.05, tmp_path / "matches.npz")
    voc = evaluate_voc(data.to_coco(), found, score_threshold=0.05)
    coco = evaluate_coco(data.to_coco(), found, score_threshold=0.05)
    assert measured.metrics == pytest.approx(coco["metrics"] | voc["metrics"], nan_ok=True)
    assert measured.metrics["VOC_mAP50"] == 1
    assert measured.details["voc"]["excluded_classes"] == ["dog"]
    assert measured.details["voc"]["per_class"]["VOC_AP50_11"]["cat"] == pytest.approx(1)
    assert measured.details["per_class_AR"]["cat"] == 1
    assert (data.form, data.area) == ("voc", "box")
    assert measured.files == {"matches": "matches.npz", "matches_voc": "matches_voc.npz"}
    assert all((tmp_path / name).is_file() for name in measured.files.values())


def test_a_coco_test_set_has_coco_numbers_alone(tmp_path):
    data = load_rectangles(tmp_path)
    measured = measure(data, detections_of(data), 0.05, tmp_path / "matches.npz")
    assert not any(name.startswith("VOC") for name in measured.metrics)
    assert "voc" not in measured.details
    assert measured.files == {"matches": "matches.npz"}
    assert len(measured.metrics) == 12
    assert join([data, data]).form == "coco"


@pytest.mark.parametrize("form", OF_FORM)
def test_truth_and_detections_are_read_once_and_fast(tmp_path, monkeypatch, form):
    """However many evaluators share them: a million detections take a second to read, value by value many."""
    reads = []

    def count(name):
        original = getattr(reading, name)

        def counted(*args):
            found = original(*args)
            reads.append((name, found is not None))
            return found

        monkeypatch.setattr(reading, name, counted)

    count("read_valid_truth")
    count("read_valid_detections")
    data = dataclasses.replace(load_rectangles(tmp_path), form=form)
    measured = measure(data, detections_of(data), 0.05, tmp_path / "matches.npz")
    assert ("VOC_mAP50" in measured.metrics) == (form == "voc")
    assert reads == [("read_valid_truth", True), ("read_valid_detections", True)]


def test_whose_area_sorts_by_size_is_told_and_separates_protocols(tmp_path):
    """Boxes alike, areas not: size numbers differ, and so does the protocol that keeps them apart."""
    folders = [tmp_path / name for name in ("box", "mask")]
    sets = []
    for folder, share in zip(folders, (1, 0.6), strict=True):
        folder.mkdir()
        load_rectangles(folder)
        path = folder / "instances.json"
        content = json.loads(path.read_text())
        for item in content["annotations"]:
            item["area"] *= share
        path.write_text(json.dumps(content))
        sets.append(engine_data(path))
    assert [data.area for data in sets] == ["box", "segmentation"]
    hashes = {protocol_hash(make_cfg(), data.fingerprint, data.fingerprint) for data in sets}
    assert len(hashes) == 2


def engine_data(path):
    from backbones.core.warning_counter import WarningCounter
    from detection.data.coco.reader import load_coco

    return load_coco(path, path.parent, "rectangles", WarningCounter())


# ---- several processes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["none", "duplicate", "drop", "both", "foreign"])
def test_a_image_tested_twice_or_never_stops_the_evaluation(tmp_path, monkeypatch, fault):
    """Two processes, of which the other one has the second half, but for one image too many or too few."""
    data = load_rectangles(tmp_path)
    ids = [record.image_id for record in data.records]

    def gather(found):
        halves = [found[:3], found[3:]]
        if fault in ("drop", "both"):
            halves[1].pop()
        if fault in ("duplicate", "both"):
            halves[1].append(found[0])
        if fault == "foreign":
            halves[1].append((1 + max(ids), []))
        return halves

    monkeypatch.setattr(gathering, "gather_finished", gather)
    cfg, detector = make_cfg(), cast(Any, FindsColours())
    if fault != "none":
        with pytest.raises(RuntimeError, match="tested"):
            engine.detect(cfg, detector, data, torch.device("cpu"))
    else:
        found = engine.detect(cfg, detector, data, torch.device("cpu"))
        assert list(dict.fromkeys(one["image_id"] for one in found)) == ids


# ---- benchmark ----------------------------------------------------------------------------------------------------


def test_the_benchmark_compares_equal_numbers_and_says_so(capsys):
    script = runpy.run_path(str(BENCHMARK))
    script["main"](["--images", "40", "--objects", "300", "--detections", "2500", "--repeats", "1"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["identical"]
    assert {"pycocotools"} <= result["ratios"].keys() <= {"pycocotools", "faster-coco-eval", "hotcoco"}
    assert all(ratio > 0 for ratio in result["ratios"].values())
    assert 0.1 < result["details"]["metrics"]["AP"] < 0.9
    assert all(result["details"]["counts"][key] > 0 for key in ("small", "medium", "large", "crowd"))
    assert script["largest_difference"]({"a": 1.0, "b": float("nan")}, [1.5, float("nan")]) == 0.5
    assert script["largest_difference"]({"a": float("nan")}, [0.0]) == float("inf")
