"""AP and AR per class, precision-recall curves, and the influence of images, against fresh evaluations."""

import dataclasses

import numpy as np
import pytest
from helpers import plain_bootstrap, plain_diagnosis
from helpers.coco_scenes import scene

from backbones.core.errors import InputError
from backbones.core.matches import load_matches
from comparison.bootstrap import resample_images
from comparison.diagnosis.curves import precision_curves
from comparison.diagnosis.influence import influence, influence_on_row, joint_influence
from comparison.diagnosis.per_class import per_class
from detection.evaluation.coco import evaluate_coco


def evaluated(folder, truth, detections, threshold=0.0):
    path = folder / "matches.npz"
    numbers = evaluate_coco(truth, detections, score_threshold=threshold, matches_path=path)
    return load_matches(path), numbers


def weights_of(images, seed=0):
    """Ones, resamples, a single image, none, and eighths, whose sums are exact."""
    rng = np.random.default_rng(seed)
    some = [np.ones((1, images)), resample_images(images, resamples=70, seed=seed), np.eye(images)[:1]]
    return np.concatenate([*some, np.zeros((1, images)), rng.integers(12, size=(3, images)) / 8])


# ---- per class ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "options"),
    [(0.0, {}), (0.3, {"levels": 5}), (0.0, {"classes": 12, "most_objects": 2}), (0.0, {"grid": 32, "crowd": 0.5})],
)
def test_classes_have_the_numbers_of_the_evaluation_and_of_the_plain_bootstrap(tmp_path, threshold, options):
    matches, numbers = evaluated(tmp_path, *scene(5, **options), threshold)
    weights = weights_of(12)
    found = per_class(matches, weights)
    for key, name in (("per_class", "AP"), ("per_class_AR", "AR100")):
        np.testing.assert_allclose(found[name][0], list(numbers[key].values()), rtol=0, atol=1e-12)
    for k in range(len(matches.category_ids)):
        alone = dataclasses.replace(
            matches, object_counts=matches.object_counts & (matches.object_category == k)[:, None]
        )
        expected = plain_bootstrap.average_precision(alone, weights)
        np.testing.assert_allclose(found["AP"][:, k], expected.mean(1), rtol=0, atol=1e-12)
        np.testing.assert_allclose(found["AP50"][:, k], expected[:, 0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found["AP75"][:, k], expected[:, 5], rtol=0, atol=1e-12)
        recall = plain_bootstrap.average_recall(alone, weights).mean(1)
        np.testing.assert_allclose(found["AR100"][:, k], recall, rtol=0, atol=1e-12)


def test_one_class_by_hand(tmp_path):
    """Two images, one object each; the second is found below a false positive in the first."""
    box, far = [10.0, 10.0, 50.0, 50.0], [300.0, 300.0, 50.0, 50.0]
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "without objects"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 2500.0, "iscrowd": 0} for i in (1, 2)
        ],
    }
    detections = [
        {"image_id": i, "category_id": c, "bbox": b, "score": s}
        for i, c, b, s in ((1, 1, far, 0.9), (2, 1, box, 0.8), (2, 2, box, 0.7))
    ]
    matches, _ = evaluated(tmp_path, truth, detections)
    found = per_class(matches, np.array([[1, 1], [0, 1], [2, 0], [1, 3]]))
    expected = [51 / 101 / 2, 1, 0, 76 / 101 * 3 / 4]
    np.testing.assert_allclose(found["AP"][:, 0], expected, atol=1e-12)
    np.testing.assert_allclose(found["AR100"][:, 0], [1 / 2, 1, 0, 3 / 4], atol=1e-12)
    assert all(np.isnan(values[:, 1]).all() for values in found.values())


# ---- curves -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"classes": 8}, {"crowd": 0.6}, {"most_objects": 1}])
def test_curves_are_those_of_a_slow_implementation(tmp_path, options):
    truth, detections = scene(9, images=8, **options)
    matches, numbers = evaluated(tmp_path, truth, detections)
    weights = np.concatenate([np.ones((1, 8)), resample_images(8, resamples=3, seed=1)])
    curves = precision_curves(matches, weights)
    assert curves.keys() == {0.5, 0.75}
    for iou, found in curves.items():
        assert found[0].mean() == pytest.approx(numbers["metrics"][f"AP{round(100 * iou)}"], abs=1e-12)
        for r, weight in enumerate(weights):
            repeated = plain_diagnosis.repeat(truth, detections, weight)
            classes = plain_diagnosis.class_points(*repeated, iou).values()
            expected = np.mean(list(classes), axis=0) if classes else np.full(101, np.nan)
            np.testing.assert_allclose(found[r], expected, rtol=0, atol=1e-12)


def test_the_mean_of_a_curve_is_ap_at_every_threshold(tmp_path):
    matches, _ = evaluated(tmp_path, *scene(3, images=30, classes=6, levels=7))
    weights = weights_of(30)
    expected = plain_bootstrap.average_precision(matches, weights)
    curves = precision_curves(matches, weights, tuple(matches.iou_thresholds))
    for t, curve in enumerate(curves.values()):
        np.testing.assert_allclose(curve.mean(1), expected[:, t], rtol=0, atol=1e-12)
        known = curve[~np.isnan(curve[:, 0])]
        assert (np.diff(known, axis=1) <= 1e-12).all()
    with pytest.raises(InputError, match=r"matches\.npz: no IoU threshold 0\.52; choices: 0\.5, 0\.55"):
        precision_curves(matches, ious=(0.52,))


# ---- influence ----------------------------------------------------------------------------------------------------


def without(truth, detections, image):
    """The data set without an image."""
    return {
        **truth,
        "images": [one for one in truth["images"] if one["id"] != image],
        "annotations": [one for one in truth["annotations"] if one["image_id"] != image],
    }, [one for one in detections if one["image_id"] != image]


@pytest.mark.parametrize(
    ("seed", "options"), [(0, {}), (1, {"classes": 9, "most_objects": 2}), (2, {"crowd": 0.5, "images": 5})]
)
def test_influence_is_what_a_fresh_evaluation_without_the_image_says(tmp_path, seed, options):
    truth, first = scene(seed, **options)
    second = scene(seed + 50, **options)[1]
    rows = []
    for run in (first, second, first[::2], second[::2]):
        rows.append((run, *evaluated(tmp_path, truth, run)))
    for iou, name in ((None, "AP"), (0.5, "AP50"), (0.75, "AP75")):
        found = influence([rows[0][1], rows[1][1]], [rows[2][1], rows[3][1]], iou)
        assert len(found) == len(truth["images"])
        for i, image in enumerate(truth["images"]):
            change = [
                numbers["metrics"][name]
                - evaluate_coco(*without(truth, run, image["id"]), score_threshold=0.0)["metrics"][name]
                for run, _, numbers in rows
            ]
            expected = (change[0] + change[1] - change[2] - change[3]) / 2
            assert found[i] == pytest.approx(expected, abs=1e-9, nan_ok=True), (name, image)


@pytest.mark.parametrize(
    ("seed", "options"), [(0, {}), (1, {"classes": 9, "most_objects": 2}), (2, {"crowd": 0.5, "images": 5})]
)
def test_images_left_out_together_equal_a_fresh_evaluation(tmp_path, seed, options):
    truth, first = scene(seed, **options)
    runs = (first, scene(seed + 50, **options)[1], first[::2])
    rows = [evaluated(tmp_path, truth, run)[0] for run in runs]
    ids = [image["id"] for image in truth["images"]]
    sets = [list(range(len(ids) // 2)), [len(ids) - 1], [], list(range(len(ids)))]
    for iou, name in ((None, "AP"), (0.75, "AP75")):
        found = joint_influence(rows[:2], rows[2:], sets, iou)
        single = influence(rows[:2], rows[2:], iou)
        for chosen, value in zip(sets[:3], found, strict=False):
            kept = [(truth, run) for run in runs]
            for at in chosen:
                kept = [without(*one, ids[at]) for one in kept]
            was, now = (
                [evaluate_coco(*one, score_threshold=0.0)["metrics"][name] for one in of]
                for of in ([(truth, run) for run in runs], kept)
            )
            expected = ((was[0] + was[1]) / 2 - was[2]) - ((now[0] + now[1]) / 2 - now[2])
            assert value == pytest.approx(expected, abs=1e-9), (name, chosen)
        assert found[1] == pytest.approx(single[-1], abs=1e-12)
        assert found[2] == 0
        assert np.isnan(found[3])


def test_more_images_than_are_left_out_at_a_time(tmp_path, monkeypatch):
    from comparison.diagnosis import influence as module

    matches, _ = evaluated(tmp_path, *scene(8, images=30))
    whole = influence_on_row(matches)
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_array_equal(influence_on_row(matches), whole)
    assert len(np.unique(whole)) > 20


def test_influence_by_hand(tmp_path):
    """Only image 1 has what run a finds and run b does not; image 3 has neither object nor detection."""
    box = [10.0, 10.0, 50.0, 50.0]
    truth = {
        "images": [{"id": 1}, {"id": 2}, {"id": 3}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 2500.0, "iscrowd": 0} for i in (1, 2)
        ],
    }
    a = [{"image_id": i, "category_id": 1, "bbox": box, "score": 0.5} for i in (1, 2)]
    rows = [evaluated(tmp_path, truth, run)[0] for run in (a, a[1:])]
    gain = 1 - 51 / 101
    np.testing.assert_allclose(influence(rows[:1], rows[1:]), [gain, gain - 1, 0], atol=1e-12)
    np.testing.assert_array_equal(influence(rows[:1], rows[:1]), np.zeros(3))
    other, _ = evaluated(tmp_path, truth | {"images": truth["images"][:2]}, a)
    with pytest.raises(InputError, match="differ in their images"):
        influence(rows[:1], [other])


# ---- the compiled code --------------------------------------------------------------------------------------------


def test_code_is_compiled_where_nothing_can_be_kept(tmp_path, monkeypatch):
    """numba refuses to keep code if it may write neither beside the file nor to the user's folder."""
    from numba.core import caching

    from comparison.diagnosis import kernel

    matches, _ = evaluated(tmp_path, *scene(6))
    expected = per_class(matches)
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    monkeypatch.setattr(kernel, "sum_precisions", kernel._compile(kernel.sum_precisions.py_func))
    for name, values in per_class(matches).items():
        np.testing.assert_array_equal(expected[name], values)


def test_recall_points_are_those_of_coco():
    """The kernel computes them, as a table could not be read by several lanes at once."""
    np.testing.assert_array_equal(np.arange(101) * 0.01, np.linspace(0, 1, 101))
