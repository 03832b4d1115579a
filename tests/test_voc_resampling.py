"""VOC's mAP on resampled images, against `evaluate_voc` on data sets where images are really repeated."""

import numpy as np
import pytest
from helpers.coco_scenes import repeated, scene
from helpers.result_folders import add, backbone, compare_runs

from backbones.core.errors import InputError
from backbones.core.matches import MATCHES_FILE, READ, VOC_MATCHES_FILE, load_matches
from comparison.bootstrap import resample_rows
from comparison.resampling import draws
from comparison.resampling.draws import draw_voc, resample_images
from comparison.resampling.voc import RECALL_POINTS, voc_summary
from detection.evaluation import voc
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.voc import evaluate_voc

NAMES = {"VOC_mAP50", "VOC_mAP50_11", "VOC_mAP75", "VOC_mAP75_11", "VOC_mAP", "VOC_mAP_11"}
OPTIONS = [
    {},
    {"crowd": 0.5},
    {"crowd": 0.0, "most_objects": 2},
    {"grid": 32},
    {"most_objects": 1, "classes": 9},  # classes without objects, which come and go
    {"images": 3, "most_detections": 200, "most_objects": 40, "classes": 1},
    {"images": 80, "classes": 4},
    {"most_detections": 0},
]


def problem(seed, **options):
    """A scene whose scores tie between images, not within one: there, repeated images alternate."""
    truth, found = scene(seed, **options)
    rng = np.random.default_rng(seed)
    levels = {image["id"]: iter(rng.permutation(400)) for image in truth["images"]}
    return truth, [each | {"score": int(next(levels[each["image_id"]])) / 400} for each in found]


def matches_of(folder, truth, detections, threshold=0.0):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / VOC_MATCHES_FILE
    found = evaluate_voc(truth, detections, score_threshold=threshold, matches_path=path)
    return load_matches(path), found["metrics"]


# ---- the numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 0.3])
@pytest.mark.parametrize("options", [*OPTIONS, {"levels": 4}])
def test_unit_weights_give_the_evaluators_numbers(tmp_path, options, threshold):
    matches, metrics = matches_of(tmp_path, *scene(3, **options), threshold)
    numbers = voc_summary(matches)
    assert numbers.keys() == metrics.keys() == NAMES
    for name, value in metrics.items():
        assert numbers[name] == pytest.approx([value], abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("threshold", [0.0, 0.3])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_evaluator_agrees_on_the_repeated_images(tmp_path, options, threshold):
    truth, detections = problem(17, **options)
    matches, _ = matches_of(tmp_path, truth, detections, threshold)
    weights = resample_images(len(truth["images"]), resamples=20, seed=3)
    numbers = voc_summary(matches, weights)
    for r, weight in enumerate(weights):
        expected = evaluate_voc(*repeated(truth, detections, weight), score_threshold=threshold)["metrics"]
        for name, value in expected.items():
            assert numbers[name][r] == pytest.approx(value, abs=1e-9, nan_ok=True), (r, name)


def test_recalls_are_compared_as_the_evaluator_compares_them():
    """6 of 10 objects do not reach the seventh point, which is above 0.6."""
    np.testing.assert_array_equal(RECALL_POINTS, voc.RECALL_POINTS)
    assert RECALL_POINTS[6] > 0.6


def test_closed_form(tmp_path):
    """Image 1 with a hit, image 2 with a false positive of a higher score and a hit of a lower one; a miss in 3."""
    box = [10.0, 10.0, 30.0, 30.0]
    objects = [{"id": n, "image_id": n, "category_id": 1, "bbox": box, "area": 900.0, "iscrowd": 0} for n in (1, 2, 3)]
    truth = {
        "images": [{"id": n, "width": 640, "height": 640} for n in (1, 2, 3)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": objects,
    }
    found = [(1, box, 0.8), (2, [300.0, 300.0, 9.0, 9.0], 0.9), (2, box, 0.7)]
    detections = [{"image_id": i, "category_id": 1, "bbox": b, "score": s} for i, b, s in found]
    matches, _ = matches_of(tmp_path, truth, detections)
    numbers = voc_summary(matches, np.array([[1, 1, 1], [2, 1, 1], [1, 2, 0], [0, 0, 3], [0, 0, 0]]))
    # Envelope: the better of the precision at the first hit and that at the last one.
    np.testing.assert_allclose(numbers["VOC_mAP50"], [2 / 3 * 2 / 3, 3 / 4 * 3 / 4, 3 / 5, 0, np.nan], rtol=1e-14)
    # Points: 0 to 0.6 of 2/3, 0 to 0.7 of 3/4, all.
    eleven = [7 / 11 * 2 / 3, 8 / 11 * 3 / 4, 3 / 5, 0, np.nan]
    np.testing.assert_allclose(numbers["VOC_mAP50_11"], eleven, rtol=1e-14)


def test_rounded_scores_are_resampled_as_rounded(tmp_path):
    truth, detections = scene(5, images=20)
    detections = [each | {"score": each["score"] / 30} for each in detections]  # many ties once rounded
    path = tmp_path / VOC_MATCHES_FILE
    found = evaluate_voc(truth, detections, rounding="detectron2", matches_path=path)["metrics"]
    for name, value in voc_summary(load_matches(path)).items():
        assert value == pytest.approx([found[name]], abs=1e-12)
    assert found != evaluate_voc(truth, detections)["metrics"]


# ---- the file -----------------------------------------------------------------------------------------------------


def test_the_file_has_the_layout_of_matches(tmp_path):
    truth, detections = scene(6, crowd=0.4)
    matches, _ = matches_of(tmp_path, truth, detections, 0.1)
    with np.load(tmp_path / VOC_MATCHES_FILE) as file:
        assert {*READ, "format_version", "category_names"} == set(file.files)
        image, category, score, rank = (file[name] for name in ("image", "category", "score", "rank"))
    np.testing.assert_array_equal(np.lexsort((rank, -score, image, category)), np.arange(len(score)))
    same = (np.diff(category) == 0) & (np.diff(image) == 0)
    np.testing.assert_array_equal(rank, np.append(0, np.where(same, rank[:-1] + 1, 0)))
    assert matches.area_names == ("all",)
    assert matches.outcome.shape[1:] == (1, 10)
    assert matches.object_counts.sum() == sum(not one["iscrowd"] for one in truth["annotations"])
    assert matches.score_threshold == 0.1


def test_draws_are_kept_beside_the_file(tmp_path, monkeypatch):
    computed = []
    monkeypatch.setattr(draws, "voc_summary", lambda *args: computed.append(1) or voc_summary(*args))
    matches, _ = matches_of(tmp_path / "a", *problem(7))
    evaluate_coco(*problem(7), score_threshold=0.0, matches_path=tmp_path / "a" / MATCHES_FILE)
    [first] = resample_rows([matches], resamples=20, draw_row=draw_voc)
    [coco] = resample_rows([load_matches(tmp_path / "a" / MATCHES_FILE)], resamples=20)
    [again] = resample_rows([load_matches(tmp_path / "a" / VOC_MATCHES_FILE)], resamples=20, draw_row=draw_voc)
    assert len(computed) == 1
    assert first.draws.keys() == again.draws.keys() == NAMES
    assert not NAMES & coco.draws.keys()
    for name in NAMES:
        np.testing.assert_array_equal(first.draws[name], again.draws[name])
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["draws.npz", "draws_voc.npz", MATCHES_FILE, VOC_MATCHES_FILE]


# ---- the comparison -----------------------------------------------------------------------------------------------

TRUTH, DETECTIONS = problem(21, images=30)


def add_detector(root, label, seed, keep, *, truth=TRUTH, listed=True):
    """Add results of a detector on a VOC test set that finds a share `keep` of what the best detector finds."""
    kept = [each for n, each in enumerate(DETECTIONS) if (7 * n + 3 * seed) % 10 < 10 * keep]
    who = backbone(label, seed=seed)
    folder = add(root, "detection", who, {}, protocol="voc@1")
    coco = evaluate_coco(truth, kept, score_threshold=0.0, matches_path=folder / MATCHES_FILE)["metrics"]
    _, metrics = matches_of(folder, truth, kept)
    files = {"matches": MATCHES_FILE} | ({"matches_voc": VOC_MATCHES_FILE} if listed else {})
    return add(root, "detection", who, coco | metrics, protocol="voc@1", files=files)


def test_voc_numbers_have_intervals_and_differences_over_images(tmp_path):
    for seed in range(3):
        for label, keep in (("CE", 0.6), ("ALS", 0.9)):
            add_detector(tmp_path / "runs", label, seed, keep)
    data = compare_runs(tmp_path / "runs", tmp_path / "out", "--primary", "VOC_mAP50")
    for row in data["rows"]:
        for name in NAMES:
            interval = row["intervals"][name]
            assert interval["value"] == pytest.approx(row["metrics"][name], abs=1e-9)
            assert interval["low"] < interval["value"] < interval["high"]
    als = next(method for method in data["methods"] if method["label"] == "ALS")
    for name in NAMES | {"AP"}:
        assert (als["differences"][name]["over_seeds"], als["differences"][name]["over_images"]) == (True, True)
    row = next(row for row in data["rows"] if row["label"] == "ALS")
    assert row["difference_to_baseline"]["VOC_mAP50"]["low"] < row["difference_to_baseline"]["VOC_mAP50"]["high"]
    assert als["verdict"]["metric"] == "VOC_mAP50"


def test_results_without_the_file_have_numbers_alone(tmp_path):
    add_detector(tmp_path / "runs", "CE", 0, 0.6)
    add_detector(tmp_path / "runs", "ALS", 0, 0.9, listed=False)
    rows = {row["label"]: row for row in compare_runs(tmp_path / "runs", tmp_path / "out")["rows"]}
    assert not NAMES & rows["ALS"]["intervals"].keys()
    assert rows["ALS"]["difference_to_baseline"]["VOC_mAP50"]["low"] is None
    assert rows["ALS"]["difference_to_baseline"]["AP"]["low"] is not None


def test_other_ground_truth_and_broken_files_are_refused(tmp_path):
    add_detector(tmp_path / "runs", "CE", 0, 0.6)
    folder = add_detector(tmp_path / "runs", "ALS", 0, 0.9)
    fewer = TRUTH | {"annotations": TRUTH["annotations"][1:]}
    matches_of(folder, fewer, DETECTIONS)
    with pytest.raises(InputError, match=rf"{VOC_MATCHES_FILE}.* differ in their ground truth"):
        compare_runs(tmp_path / "runs", tmp_path / "out")
    data = (folder / VOC_MATCHES_FILE).read_bytes()
    (folder / VOC_MATCHES_FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=rf"cannot read .*{VOC_MATCHES_FILE} as matches"):
        compare_runs(tmp_path / "runs", tmp_path / "out")
