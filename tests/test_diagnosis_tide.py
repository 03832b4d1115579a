"""What each kind of error costs, against tidecv, a slow implementation and cases computed by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import plain_diagnosis
from helpers.coco_scenes import pycocotools_numbers, scene
from helpers.tide_problem import tide_problem, with_a_class_of_detections_only

from backbones.core.errors import InputError
from backbones.core.matches import READ, load_matches
from comparison.bootstrap import average_precision, resample_images
from comparison.diagnosis import tide as tide_module
from comparison.diagnosis.tide import ERRORS, count_errors, tide
from detection.evaluation.coco import evaluate_coco

REFERENCE = json.loads((Path(__file__).parent / "files" / "tide" / "reference.json").read_text())
SIZES = ("small", "medium", "large")


def evaluated(folder, truth, detections, threshold=0.0):
    path = folder / "matches.npz"
    evaluate_coco(truth, detections, score_threshold=threshold, matches_path=path)
    return load_matches(path)


def only(result):
    """The numbers of the first resample."""
    return {area: {name: float(values[0]) for name, values in own.items()} for area, own in result.items()}


# ---- tidecv -------------------------------------------------------------------------------------------------------


ROUNDED = "1"  # the seed where a recall is on one of the 101 points, which tidecv rounds otherwise


def assert_tidecv(found, expected):
    for area, own in expected.items():
        for error, gain in own.items():
            if error == "Dupe" and area != "all":
                continue  # ours is by the size of the object, tidecv's by that of the detection
            ours = found[area][error] if error in ("AP50", "FP", "FN") else max(found[area][error], 0)
            assert ours == pytest.approx(gain, abs=1e-6), (area, error)


@pytest.mark.parametrize("seed", sorted(REFERENCE["right"].keys() - {ROUNDED}))
def test_tidecv_agrees(tmp_path, seed):
    assert_tidecv(only(tide(evaluated(tmp_path, *tide_problem(int(seed))))), REFERENCE["right"][seed])


def test_tidecv_rounds_recalls_otherwise(tmp_path):
    """It compares recalls with 7 / 100, COCO and we with 7 * 0.01, which is larger."""
    expected, (truth, detections) = REFERENCE["right"][ROUNDED], tide_problem(int(ROUNDED))
    assert_tidecv(plain_diagnosis.tide(truth, detections, np.arange(101) / 100), expected)
    ours, cocos = only(tide(evaluated(tmp_path, truth, detections))), pycocotools_numbers(truth, detections)
    assert ours["all"]["AP50"] == pytest.approx(cocos["AP50"], abs=1e-9)
    assert abs(cocos["AP50"] - expected["all"]["AP50"]) > 1e-5


def test_every_error_of_every_size_occurs_in_what_tidecv_was_compared_on():
    for area in ("all", *SIZES):
        for error in set(REFERENCE["right"]["0"][area]) - {"AP50"}:
            assert max(own[area][error] for own in REFERENCE["right"].values()) > 1e-4, (area, error)


def test_tidecv_counts_a_class_without_objects_until_its_last_detection_is_removed(tmp_path):
    """Its fault: a fourth class, of AP 0, lowers AP, and leaves the mean once background errors are removed."""
    plain = REFERENCE["right"]["0"]["all"]
    fault = REFERENCE["class_of_detections_only"]["all"]
    assert fault["AP50"] == pytest.approx(plain["AP50"] * 3 / 4, abs=1e-9)
    assert fault["Bkg"] == pytest.approx(plain["AP50"] + plain["Bkg"] - plain["AP50"] * 3 / 4, abs=1e-9)
    ours = only(tide(evaluated(tmp_path, *with_a_class_of_detections_only(*tide_problem(0)))))["all"]
    for error, gain in plain.items():
        assert ours[error] == pytest.approx(gain, abs=1e-6)


def test_tidecv_cannot_read_boxes_without_segmentation():
    """Its fault; the json of boxes that its reader refuses is the one that it agrees on when read otherwise."""
    assert REFERENCE["boxes_without_segmentation"] == "KeyError('segmentation')"


# ---- a slow implementation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (0, {}),
        (1, {"crowd": 0.5}),
        (2, {"classes": 6}),
        (3, {"classes": 1}),
        (4, {"most_objects": 1}),
        (5, {"wrong": 0.9}),
    ],
)
def test_a_slow_implementation_agrees_on_repeated_images(tmp_path, seed, options):
    truth, detections = tide_problem(seed, images=8, **options)
    matches = evaluated(tmp_path, truth, detections)
    weights = np.concatenate([np.ones((1, 8)), resample_images(8, resamples=3, seed=seed)])
    found = tide(matches, weights)
    for r, weight in enumerate(weights):
        expected = plain_diagnosis.tide(*plain_diagnosis.repeat(truth, detections, weight))
        for area, own in expected.items():
            for error, gain in own.items():
                assert found[area][error][r] == pytest.approx(gain, abs=1e-9), (r, area, error)


def test_detections_below_the_score_threshold_do_not_exist(tmp_path):
    truth, detections = tide_problem(7, images=10)
    (tmp_path / "a").mkdir()
    low = tide(evaluated(tmp_path, truth, detections, 0.4))
    cut = tide(evaluated(tmp_path / "a", truth, [one for one in detections if one["score"] > 0.4]))
    assert low == cut
    assert low != tide(evaluated(tmp_path, truth, detections))


@pytest.mark.parametrize("numbers", [tide_module._NUMBERS, 5 * 33 * 7])
def test_the_value_is_ap50_and_many_resamples_equal_single_ones(tmp_path, monkeypatch, numbers):
    """The second computes 7 resamples at a time."""
    monkeypatch.setattr(tide_module, "_NUMBERS", numbers)
    matches = evaluated(tmp_path, *scene(11, images=30, classes=5))
    weights = resample_images(30, resamples=70, seed=1)
    found = tide(matches, weights)
    np.testing.assert_allclose(found["all"]["AP50"], average_precision(matches, weights)[:, 0], rtol=0, atol=1e-12)
    for r in (0, 33, 69):
        alone = tide(matches, weights[r])
        for area, own in alone.items():
            for error, gain in own.items():
                assert found[area][error][r] == gain[0], (area, error)


# ---- by hand ------------------------------------------------------------------------------------------------------

BOX = [100.0, 100.0, 40.0, 40.0]


def problem(objects, detections):
    """One image per entry: objects and detections are lists of (image, category, box[, score])."""
    images = sorted({one[0] for one in [*objects, *detections]})
    return {
        "images": [{"id": image, "width": 640, "height": 640} for image in images],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": n + 1, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for n, (i, c, b) in enumerate(objects)
        ],
    }, [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in detections]


@pytest.mark.parametrize(
    ("box", "category", "kind"),
    [
        ([100.0, 100.0, 40.0, 15.0], 1, "Loc"),
        ([100.0, 100.0, 40.0, 4.0], 1, "Loc"),  # IoU 0.1 exactly
        ([100.0, 100.0, 40.0, 40.0], 2, "Cls"),
        ([100.0, 100.0, 40.0, 20.0], 2, "Cls"),  # IoU 0.5 exactly
        ([100.0, 100.0, 40.0, 15.0], 2, "Both"),
        ([100.0, 100.0, 40.0, 4.0], 2, "Bkg"),  # IoU 0.1 exactly
        ([300.0, 300.0, 40.0, 40.0], 1, "Bkg"),
    ],
)
def test_one_wrong_detection_above_a_right_one(tmp_path, box, category, kind):
    """Image 1: object missed by the wrong detection. Image 2: found. Class b has one object, found."""
    objects = [(1, 1, BOX), (2, 1, BOX), (2, 2, [300.0, 300.0, 80.0, 80.0])]
    detections = [(1, category, box, 0.9), (2, 1, BOX, 0.8), (2, 2, [300.0, 300.0, 80.0, 80.0], 0.7)]
    matches = evaluated(tmp_path, *problem(objects, detections))
    counts = only(count_errors(matches))["all"]
    found = only(tide(matches))["all"]
    fixed = kind in ("Loc", "Cls")
    assert counts == {name: float(name in (kind, "FP", "FN") or (name == "Miss" and not fixed)) for name in ERRORS}
    half, whole = 51 / 101, 1.0  # recalls up to 0.5 of class a; all
    a = half / 2 if category == 1 else half
    b = whole if category == 1 else 1 / 2
    assert found["AP50"] == pytest.approx((a + b) / 2)
    if fixed:
        assert found[kind] == pytest.approx(1 - (a + b) / 2)
    else:
        assert found[kind] == pytest.approx((half + whole) / 2 - (a + b) / 2)
    assert found["FP"] == pytest.approx((half + whole) / 2 - (a + b) / 2)
    without = 1 / 2 if category == 1 else 1.0
    assert found["FN"] == pytest.approx((without + b) / 2 - (a + b) / 2)
    assert found["Miss"] == pytest.approx(0 if fixed else found["FN"])


def test_a_duplicate_has_the_size_of_the_object_and_a_background_error_its_own(tmp_path):
    objects = [(1, 1, [100.0, 100.0, 33.0, 33.0]), (2, 1, BOX)]
    detections = [
        *((1, 1, [100.0, 100.0, 33.0, 33.0], 0.9), (1, 1, [100.0, 100.0, 33.0, 30.0], 0.8)),
        *((1, 1, [400.0, 400.0, 10.0, 10.0], 0.7), (2, 1, BOX, 0.6)),
    ]
    matches = evaluated(tmp_path, *problem(objects, detections))
    counts = only(count_errors(matches))
    assert counts["medium"] == {**dict.fromkeys(ERRORS, 0.0), "Dupe": 1.0, "FP": 1.0}
    assert counts["small"] == {**dict.fromkeys(ERRORS, 0.0), "Bkg": 1.0, "FP": 1.0}
    gain = only(tide(matches))
    assert gain["all"]["AP50"] == pytest.approx((51 + 50 / 2) / 101)
    for size, error in (("medium", "Dupe"), ("small", "Bkg")):
        assert gain[size][error] == gain["all"][error] == gain[size]["FP"]
        assert gain[size][error] == pytest.approx(50 * (2 / 3 - 1 / 2) / 101)
    assert gain["all"]["FP"] == pytest.approx(50 / 2 / 101)


def test_a_second_detection_of_an_object_at_iou_of_a_half_exactly_is_badly_located(tmp_path):
    """As in tidecv; it is removed once Loc is corrected."""
    found = [(1, 1, BOX, 0.9), (1, 1, [100.0, 100.0, 40.0, 20.0], 0.8)]
    counts = only(count_errors(evaluated(tmp_path, *problem([(1, 1, BOX)], found))))["all"]
    assert counts == {**dict.fromkeys(ERRORS, 0.0), "Loc": 1.0, "FP": 1.0}


def test_of_two_detections_near_an_object_the_higher_score_finds_it(tmp_path):
    """The other error then corrects nothing, and its detection only vanishes."""
    loc, cls = [100.0, 100.0, 40.0, 15.0], [100.0, 100.0, 40.0, 40.0]
    for scores, kind in (((0.9, 0.8), "Loc"), ((0.8, 0.9), "Cls")):
        truth, found = problem([(1, 1, BOX)], [(1, 1, loc, scores[0]), (1, 2, cls, scores[1])])
        gain = only(tide(evaluated(tmp_path, truth, found)))["all"]
        assert gain["AP50"] == 0
        assert {name: gain[name] > 0 for name in ("Loc", "Cls")} == {name: name == kind for name in ("Loc", "Cls")}
        assert gain["Miss"] == 0


def test_a_data_set_without_objects_or_detections(tmp_path):
    truth, detections = tide_problem(1, images=4)
    bare = tide(evaluated(tmp_path, truth | {"annotations": []}, detections))
    assert all(np.isnan(values).all() for own in bare.values() for values in own.values())
    none = only(tide(evaluated(tmp_path, truth, [])))["all"]
    assert none == dict.fromkeys([*ERRORS, "AP50"], 0.0)


def test_a_file_that_does_not_say_what_detections_are_near_is_refused(tmp_path):
    evaluated(tmp_path, *tide_problem(1, images=4))
    with np.load(tmp_path / "matches.npz") as file:
        arrays = {name: file[name] for name in ("format_version", *READ)}
    np.savez(tmp_path / "first.npz", **arrays)
    with pytest.raises(InputError, match=r"first\.npz: no partner, .*evaluate again"):
        tide(load_matches(tmp_path / "first.npz"))
