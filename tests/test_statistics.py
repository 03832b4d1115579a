"""The bootstrap: weighted AP against real duplicates, and intervals that do what they promise."""

import copy

import numpy as np
import pytest
from helpers.coco_scenes import pycocotools_numbers, scene

from backbones.core.errors import InputError
from backbones.core.matches import build_matches, load_matches
from comparison.bootstrap import (
    AP_NAMES,
    AR_NAMES,
    average_precision,
    interval,
    paired_bootstrap,
    resample_images,
    resample_rows,
    summary,
)
from detection.evaluation.coco import evaluate_coco

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


def matches_of(tmp_path, truth, detections, threshold=0.0, name="matches.npz"):
    result = evaluate_coco(truth, detections, score_threshold=threshold, matches_path=tmp_path / name)
    return load_matches(tmp_path / name), result["metrics"]


def synthetic(rng, images, quality, difficulty, classes=3):
    """Matches of an invented detector: `difficulty` (objects,) is shared by the rows, `quality` is the row's."""
    image, category, hard = difficulty
    overlap = 1 / (1 + np.exp(-(quality - hard + 0.7 * rng.normal(size=len(hard)))))
    hit_score = 1 / (1 + np.exp(-(6 * (overlap - 0.6) + rng.normal(size=len(hard)))))
    extra_image = np.repeat(np.arange(images), rng.poisson(3, images))
    outcome = np.concatenate([overlap[:, None] >= IOU_THRESHOLDS, np.zeros((len(extra_image), 10), dtype=bool)])
    return build_matches(
        {
            "image": np.concatenate([image, extra_image]),
            "category": np.concatenate([category, rng.integers(classes, size=len(extra_image))]),
            "score": np.concatenate([hit_score, rng.beta(1, 4, len(extra_image))]),
            "rank": np.zeros(len(outcome), dtype=int),
            "outcome": outcome.astype(np.int8)[:, None, :],
            "object_image": image,
            "object_category": category,
            "object_counts": np.ones((len(image), 1), dtype=bool),
            "image_ids": np.arange(images),
            "category_ids": np.arange(classes),
            "area_names": np.array(["all"]),
            "iou_thresholds": IOU_THRESHOLDS,
            "score_threshold": np.array(0.0),
        }
    )


def difficulty(rng, images, classes=3):
    image = np.repeat(np.arange(images), rng.integers(1, 6, images))
    hard = 0.6 * rng.normal(size=images)[image] + 0.6 * rng.normal(size=len(image))
    return image, rng.integers(classes, size=len(image)), hard


# ---- weighted AP --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 0.3])
@pytest.mark.parametrize("options", [{}, {"levels": 6}, {"crowd": 0.5}, {"most_objects": 1, "classes": 6}])
def test_unit_weights_give_the_evaluators_numbers(tmp_path, options, threshold):
    matches, metrics = matches_of(tmp_path, *scene(1, **options), threshold)
    numbers = summary(matches)
    assert set(numbers) == {*AP_NAMES, *AR_NAMES}
    for name, value in metrics.items():
        assert numbers[name] == pytest.approx([value], abs=1e-9, nan_ok=True), name


def test_weights_are_repetitions_of_images(tmp_path):
    """AP of weighted images is pycocotools' AP of the data set with every image that often."""
    truth, detections = scene(8, images=9)
    matches, _ = matches_of(tmp_path, truth, detections)
    weights = np.array([2, 0, 1, 3, 0, 1, 2, 1, 1])
    repeated = {"images": [], "categories": truth["categories"], "annotations": []}
    repeated_detections = []
    for image, weight in zip(truth["images"], weights, strict=True):
        for _ in range(weight):
            new = len(repeated["images"]) + 1
            repeated["images"].append({**image, "id": new})
            for annotation in (a for a in truth["annotations"] if a["image_id"] == image["id"]):
                number = len(repeated["annotations"]) + 1
                repeated["annotations"].append(copy.deepcopy(annotation) | {"id": number, "image_id": new})
            repeated_detections += [d | {"image_id": new} for d in detections if d["image_id"] == image["id"]]
    expected = pycocotools_numbers(repeated, repeated_detections)
    numbers = summary(matches, np.stack([weights, np.ones(9), 2 * weights]))
    for name, value in expected.items():
        assert numbers[name][[0, 2]] == pytest.approx([value, value], abs=1e-9, nan_ok=True), name


def test_resamples_draw_as_many_images_as_there_are():
    weights = resample_images(40, resamples=3000, seed=3)
    np.testing.assert_array_equal(weights.sum(1), 40)
    assert weights.mean(0) == pytest.approx(np.ones(40), abs=0.12)
    np.testing.assert_array_equal(weights, resample_images(40, resamples=3000, seed=3))


# ---- intervals ----------------------------------------------------------------------------------------------------


def test_identical_rows_differ_by_exactly_nothing(tmp_path):
    matches, _ = matches_of(tmp_path, *scene(3))
    for name in (*AP_NAMES, *AR_NAMES):
        assert paired_bootstrap(matches, matches, resamples=50, name=name) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_order_and_names_of_images_and_scale_of_scores_do_not_matter(tmp_path):
    truth, detections = scene(4)
    worse = [d for n, d in enumerate(detections) if n % 3]
    expected = paired_bootstrap(
        matches_of(tmp_path, truth, detections)[0], matches_of(tmp_path, truth, worse)[0], resamples=60
    )
    assert expected["low"] < expected["value"] < expected["high"]

    def changed(items):
        items = [d | {"image_id": d["image_id"] + 5000} for d in copy.deepcopy(items)]
        return [d | {"score": d["score"] ** 3 / 2} if "score" in d else d for d in items]

    moved = {"categories": truth["categories"], "annotations": changed(truth["annotations"])}
    moved["images"] = [image | {"id": image["id"] + 5000} for image in reversed(truth["images"])]
    found = paired_bootstrap(
        matches_of(tmp_path, moved, changed(detections))[0],
        matches_of(tmp_path, moved, changed(worse))[0],
        resamples=60,
    )
    assert found == pytest.approx(expected, abs=1e-12)


def test_file_order_of_images_does_not_matter(tmp_path):
    """A file whose image positions are shuffled is the same file."""
    truth, detections = scene(5)
    matches, _ = matches_of(tmp_path, truth, detections)
    with np.load(tmp_path / "matches.npz") as file:
        arrays = dict(file)
    order = np.random.default_rng(0).permutation(len(arrays["image_ids"]))
    position = np.argsort(order)
    arrays["image_ids"] = arrays["image_ids"][order]
    for name in ("image", "object_image"):
        arrays[name] = position[arrays[name]]
    weights = resample_images(12, resamples=5, seed=1)
    shuffled = summary(build_matches(arrays), weights)
    for name, value in summary(matches, weights).items():
        np.testing.assert_array_equal(shuffled[name], value)


def test_intervals_cover_the_truth():
    """Of 120 samples of 80 images, about 95 % of the paired intervals hold the difference in a large population."""
    rng = np.random.default_rng(0)
    shared = difficulty(rng, 20_000)
    truth = [average_precision(synthetic(rng, 20_000, q, shared)).mean() for q in (0.5, 0.2)]
    inside, samples = 0, 120
    for _ in range(samples):
        shared = difficulty(rng, 80)
        found = paired_bootstrap(*(synthetic(rng, 80, q, shared) for q in (0.5, 0.2)), resamples=150)
        inside += found["low"] <= truth[0] - truth[1] <= found["high"]
    assert 0.88 <= inside / samples <= 0.99


def test_pairing_narrows_the_interval():
    """What makes images hard cancels: the paired interval is narrower than that of two independent samples."""
    rng = np.random.default_rng(1)
    shared = difficulty(rng, 150)
    rows = resample_rows([synthetic(rng, 150, q, shared) for q in (0.5, 0.2)], resamples=300)
    paired = np.std(rows[0].draws["AP"] - rows[1].draws["AP"])
    assert paired < 0.85 * np.hypot(*(row.draws["AP"].std() for row in rows))


def test_interval_is_the_percentile_one_and_skips_missing_numbers():
    draws = np.append(np.arange(1001.0), np.nan)
    assert interval(1.0, draws, 0.9) == pytest.approx({"value": 1.0, "low": 50.0, "high": 950.0})
    centred = interval(1.0, draws, 0.9, centred=True)
    assert centred == pytest.approx({"value": 1.0, "low": -449.0, "high": 451.0})
    assert np.isnan(interval(1.0, np.array([np.nan]))["low"])


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_rows_on_different_images_or_ground_truth_are_refused(tmp_path):
    truth, detections = scene(6)
    whole, _ = matches_of(tmp_path, truth, detections)
    last = truth["images"][-1]["id"]
    fewer = truth | {"images": truth["images"][:-1]}
    fewer["annotations"] = [a for a in truth["annotations"] if a["image_id"] != last]
    part, _ = matches_of(tmp_path, fewer, [d for d in detections if d["image_id"] != last])
    with pytest.raises(InputError, match="differ in 1 images"):
        paired_bootstrap(whole, part, resamples=2)
    other, _ = matches_of(tmp_path, truth | {"annotations": truth["annotations"][1:]}, detections)
    with pytest.raises(InputError, match="ground truth"):
        paired_bootstrap(whole, other, resamples=2)
    strict, _ = matches_of(tmp_path, truth, detections, 0.5)
    with pytest.raises(InputError, match="score threshold"):
        paired_bootstrap(whole, strict, resamples=2)


def test_broken_files_are_named(tmp_path):
    matches_of(tmp_path, *scene(7))
    data = (tmp_path / "matches.npz").read_bytes()
    (tmp_path / "matches.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"matches\.npz"):
        load_matches(tmp_path / "matches.npz")
    with pytest.raises(InputError, match=r"no such file.*none\.npz"):
        load_matches(tmp_path / "none.npz")
