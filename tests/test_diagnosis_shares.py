"""Recall against object share, against a slow implementation and by hand, and where areas of images come from."""

import numpy as np
import pytest
from helpers import plain_diagnosis
from helpers.tide_problem import tide_problem

from backbones.core.errors import InputError
from backbones.core.matches import load_matches
from comparison.bootstrap import resample_images
from comparison.diagnosis.shares import EDGES, recall_by_share
from detection.evaluation import reading
from detection.evaluation.coco import evaluate_coco


def evaluated(folder, truth, detections, threshold=0.0):
    path = folder / "matches.npz"
    evaluate_coco(truth, detections, score_threshold=threshold, matches_path=path)
    return load_matches(path)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("options", [{}, {"crowd": 0.6}])
def test_a_slow_implementation_agrees_on_repeated_images(tmp_path, options, threshold):
    truth, detections = tide_problem(2, images=8, **options)
    for n, image in enumerate(truth["images"]):
        image["width"], image["height"] = 200 + 60 * n, 150.5
    weights = np.concatenate([np.ones((1, 8)), resample_images(8, resamples=3, seed=2)])
    found = recall_by_share(evaluated(tmp_path, truth, detections, threshold), weights)
    for r, weight in enumerate(weights):
        whole, kept = plain_diagnosis.repeat(truth, detections, weight)
        matched = plain_diagnosis.match(whole, [one for one in kept if one["score"] > threshold])
        taken = {one["partner"] for one in matched}
        area = {image["id"]: image["width"] * image["height"] for image in whole["images"]}
        rows = [
            (one["area"] / area[one["image_id"]], one["id"] in taken)
            for one in whole["annotations"]
            if not one["iscrowd"]
        ]
        for b, (low, high) in enumerate(zip((0, *EDGES), (*EDGES, np.inf), strict=True)):
            here = [hit for share, hit in rows if low < share <= high]
            assert found.objects[r, b] == len(here)
            assert found.recall[r, b] == pytest.approx(np.mean(here) if here else np.nan, nan_ok=True)


def test_a_share_on_a_limit_is_below_it(tmp_path):
    box = [0.0, 0.0, 10.0, 10.0]
    truth = {
        "images": [{"id": 1, "width": 100, "height": 100}, {"id": 2, "width": 20, "height": 10}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 100.0, "iscrowd": 0} for i in (1, 2)
        ],
    }
    found = recall_by_share(
        evaluated(tmp_path, truth, [{"image_id": 2, "category_id": 1, "bbox": box, "score": 1.0}]), edges=(0.01, 0.1)
    )
    np.testing.assert_array_equal(found.objects, [[1, 0, 1]])
    np.testing.assert_array_equal(found.recall, [[0, np.nan, 1]])


@pytest.mark.parametrize(
    "size",
    [{}, {"width": 10}, {"width": 0, "height": 5}, {"width": "10", "height": 5}, {"width": 10**400, "height": 5}],
)
def test_ground_truth_without_sizes_of_all_images_is_evaluated_and_has_no_shares(tmp_path, size):
    truth, detections = tide_problem(1, images=4)
    truth["images"][2] = {"id": truth["images"][2]["id"], **size}
    matches = evaluated(tmp_path, truth, detections)
    with pytest.raises(InputError, match=r"matches\.npz: no image_area"):
        recall_by_share(matches)


def test_areas_of_images_are_those_of_their_ids_however_the_file_is_read(monkeypatch):
    truth, _ = tide_problem(1, images=4)
    for n, image in enumerate(truth["images"]):
        image["width"], image["height"] = np.int64(n + 1), 2.5
    truth["images"] = [truth["images"][n] for n in (2, 0, 3, 1)]
    fast = reading.GroundTruth(truth).image_area
    monkeypatch.setattr(reading, "read_valid_truth", lambda source: None)
    np.testing.assert_array_equal(reading.GroundTruth(truth).image_area, fast)
    np.testing.assert_array_equal(fast, [2.5, 5, 7.5, 10])
