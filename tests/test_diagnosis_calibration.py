"""Calibration of detections, against a slow implementation and by hand."""

import numpy as np
import pytest
from helpers import plain_diagnosis
from helpers.tide_problem import tide_problem, with_a_class_of_detections_only

from backbones.core.errors import InputError
from backbones.core.matches import ADDED, load_matches
from comparison.bootstrap import resample_images
from comparison.diagnosis.calibration import calibration
from detection.evaluation.coco import evaluate_coco


def evaluated(folder, truth, detections):
    path = folder / "matches.npz"
    evaluate_coco(truth, detections, score_threshold=0.0, matches_path=path)
    return load_matches(path)


def slow_error(rows, bins):
    """The sum over bins of share times gap, of rows (score, what the score should be)."""
    total = 0.0
    for j in range(bins):
        here = [row for row in rows if j / bins < row[0] <= (j + 1) / bins or (j == 0 and row[0] == 0)]
        if here:
            scores, targets = np.mean(here, axis=0)
            total += len(here) / len(rows) * abs(targets - scores)
    return total


def slow_calibration(truth, detections, threshold, bins, la_bins):
    """Return D-ECE and LaECE from boxes."""
    kept = [one for one in plain_diagnosis.match(truth, detections) if one["score"] > threshold and not one["ignored"]]
    if not kept:
        return np.nan, np.nan
    whole = [(one["score"], float(one["partner"] is not None)) for one in kept]
    classes = {one["category_id"] for one in kept}
    per_class = [
        slow_error([(one["score"], one["partner_iou"]) for one in kept if one["category_id"] == k], la_bins)
        for k in classes
    ]
    return slow_error(whole, bins), np.mean(per_class)


@pytest.mark.parametrize(("threshold", "bins", "la_bins"), [(0.3, 10, 25), (0.0, 1, 3), (0.95, 7, 2)])
@pytest.mark.parametrize("options", [{}, {"crowd": 0.6}, {"classes": 8, "wrong": 0.5}, {"most_objects": 0}])
def test_a_slow_implementation_agrees_on_repeated_images(tmp_path, options, threshold, bins, la_bins):
    truth, detections = with_a_class_of_detections_only(*tide_problem(5, images=6, **options))
    weights = np.concatenate([np.ones((1, 6)), resample_images(6, resamples=3, seed=3), np.zeros((1, 6))])
    settings = {"score_threshold": threshold, "bins": bins, "la_bins": la_bins}
    found = calibration(evaluated(tmp_path, truth, detections), weights, **settings)
    assert {name: getattr(found, name) for name in settings} == settings
    for r, weight in enumerate(weights):
        repeated = plain_diagnosis.repeat(truth, detections, weight)
        d_ece, la_ece = slow_calibration(*repeated, threshold, bins, la_bins)
        assert found.d_ece[r] == pytest.approx(d_ece, abs=1e-12, nan_ok=True)
        assert found.la_ece[r] == pytest.approx(la_ece, abs=1e-7, nan_ok=True)  # IoU is kept in 32 bits


BOX, HALF = [10.0, 10.0, 40.0, 40.0], [10.0, 10.0, 40.0, 30.0]


def test_by_hand(tmp_path):
    """Class a: 0.9 right (IoU 0.75), 0.9 wrong in an image without objects, 0.5 wrong. Class b: 0.4 right (IoU 1)."""
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": k, "name": name} for k, name in enumerate("abc", 1)],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": k, "bbox": BOX, "area": 1600.0, "iscrowd": 0} for k in (1, 2, 3)
        ],
    }
    rows = [
        (1, 1, HALF, 0.9),
        (2, 1, BOX, 0.9),
        (1, 1, [200.0, 200.0, 9.0, 9.0], 0.5),
        (1, 2, BOX, 0.4),
        (1, 3, BOX, 0.3),
    ]
    detections = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in rows]
    found = calibration(evaluated(tmp_path, truth, detections), np.array([[1, 1], [1, 0]]))
    assert (found.score_threshold, found.bins, found.la_bins, found.iou) == (0.3, 10, 25, 0.5)
    np.testing.assert_allclose(found.d_ece, [(0.8 + 0.5 + 0.6) / 4, (0.1 + 0.5 + 0.6) / 3])
    a = [(1.8 - 0.75 + 0.5) / 3, (0.9 - 0.75 + 0.5) / 2]
    np.testing.assert_allclose(found.class_la_ece, [[a[0], 0.6, np.nan], [a[1], 0.6, np.nan]])
    np.testing.assert_allclose(found.la_ece, [(a[0] + 0.6) / 2, (a[1] + 0.6) / 2])
    np.testing.assert_array_equal(found.count, [[0, 0, 0, 1, 1, 0, 0, 0, 2, 0], [0, 0, 0, 1, 1, 0, 0, 0, 1, 0]])
    np.testing.assert_array_equal(found.precision[0, [3, 4, 8]], [1, 0, 0.5])
    np.testing.assert_allclose(found.confidence[0, [3, 4, 8]], [0.4, 0.5, 0.9])
    assert np.isnan(found.precision[0, [0, 1, 2, 5, 6, 7, 9]]).all()


def test_perfect_scores_have_no_error(tmp_path):
    """Scores that equal the IoU of a match, and 0 without one: LaECE is 0; D-ECE is the lack of overlap."""
    truth, detections = tide_problem(3, crowd=0.0)
    matched = plain_diagnosis.match(truth, detections)
    keys = ("image_id", "category_id", "bbox")
    right = [{key: one[key] for key in keys} | {"score": one["partner_iou"]} for one in matched if one["partner"]]
    found = calibration(evaluated(tmp_path, truth, right), score_threshold=0.0)
    assert found.la_ece[0] == pytest.approx(0, abs=1e-7)
    assert found.d_ece[0] == pytest.approx(1 - np.mean([one["score"] for one in right]))


def test_a_file_of_an_earlier_version_is_refused(tmp_path):
    evaluated(tmp_path, *tide_problem(1, images=4))
    with np.load(tmp_path / "matches.npz") as file:
        arrays = {name: file[name] for name in file.files if name not in ADDED}
    np.savez(tmp_path / "earlier.npz", **arrays)
    with pytest.raises(InputError, match=r"earlier\.npz: no partner_iou, .*evaluate again"):
        calibration(load_matches(tmp_path / "earlier.npz"))


@pytest.mark.parametrize("options", [{}, {"crowd": 0.8}])
def test_the_iou_that_is_kept_is_that_of_the_boxes(tmp_path, options):
    """In matches with crowd regions, too, where it is the share of the detection that is inside."""
    truth, detections = tide_problem(2, **options)
    evaluated(tmp_path, truth, detections)
    with np.load(tmp_path / "matches.npz") as file:
        rows = list(zip(file["index"], file["partner"], file["partner_iou"], strict=True))
    crowds = 0
    for index, partner, kept in rows:
        found = truth["annotations"][partner]
        expected = plain_diagnosis.iou(detections[index]["bbox"], found["bbox"], found["iscrowd"]) * (partner >= 0)
        assert kept == pytest.approx(expected, abs=1e-6)
        crowds += found["iscrowd"] * (partner >= 0)
    assert crowds > 0
    assert len(rows) > crowds
