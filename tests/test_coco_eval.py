"""The evaluator against pycocotools, an independent implementation of the same definition."""

import json
import math
from collections import Counter

import numba
import numpy as np
import pytest
from helpers.coco_scenes import NAMES, pycocotools_numbers, scene

from backbones.core.errors import InputError
from detection.evaluation import kernels
from detection.evaluation.coco import evaluate_coco

PAIRS = {
    "official_val2014_100": (
        "annotations/instances_val2014_100.json",
        "results/instances_val2014_fakebbox100_results.json",
        "official_bbox",
    ),
    "sampled_bbox_area": ("sampled_gts_bbox_area.json", "sampled_bbox_results.json", "ours"),
}


def assert_same(ours, theirs):
    assert list(ours) == list(NAMES)
    for name in NAMES:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-9, nan_ok=True), name


# ---- agreement ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_published_pairs(shared_data, name):
    folder = shared_data / "coco-eval-parity" / name
    truth, detections, key = PAIRS[name]
    ours = evaluate_coco(folder / truth, folder / detections, score_threshold=0.0)
    results = json.loads((folder / detections).read_text())
    results = results if isinstance(results, list) else results["annotations"]
    assert_same(ours["metrics"], pycocotools_numbers(json.loads((folder / truth).read_text()), results))

    expected = json.loads((folder / "expected_metrics.json").read_text())[key]
    published = dict(zip(NAMES, [expected[k] for k in expected if k != "per_category_AP"], strict=True))
    assert_same(ours["metrics"], published)
    for category, value in expected["per_category_AP"].items():
        assert ours["per_class"][category] == pytest.approx(math.nan if value is None else value, abs=1e-9, nan_ok=True)


def test_the_three_published_decimals(shared_data):
    """cocoapi's own results/val2014_fake_eval_res.txt, bbox."""
    folder = shared_data / "coco-eval-parity" / "official_val2014_100"
    lines = (folder / "results" / "val2014_fake_eval_res.txt").read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if "bbox" in line)
    stated = [float(line.rsplit("=", 1)[1]) for line in lines[at:] if line.strip().startswith("Average")][:12]
    truth, detections, _ = PAIRS["official_val2014_100"]
    ours = evaluate_coco(folder / truth, folder / detections, score_threshold=0.0)["metrics"]
    assert [round(value, 3) for value in ours.values()] == stated


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"levels": 5},
        {"crowd": 0.6},
        {"most_objects": 25, "most_detections": 60, "classes": 1, "images": 4},
        {"most_detections": 300, "classes": 1, "images": 3, "levels": 20},  # beyond 100 detections of an image
        {"grid": 32, "classes": 1, "most_objects": 20, "crowd": 0.3},  # equal IoUs, areas on the limits
        {"grid": 8, "classes": 1, "span": 40, "most_objects": 20, "levels": 9},
        {"most_objects": 1, "classes": 6},  # classes and sizes without objects
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_random_scenes(options, seed):
    truth, detections = scene(seed, **options)
    ours = evaluate_coco(truth, detections, score_threshold=0.0)
    assert_same(ours["metrics"], pycocotools_numbers(truth, detections))


def random_problem(seed):
    """A small problem in which anything can happen: crowds, ties, many detections, classes without objects."""
    rng = np.random.default_rng([seed, 2026])
    many = rng.random() < 0.1
    return scene(
        seed,
        images=int(rng.integers(1, 4 if many else 9)),
        classes=int(rng.integers(1, 3 if many else 6)),
        most_objects=int(rng.choice([1, 4, 12, 25])),
        most_detections=300 if many else int(rng.choice([3, 30, 80])),
        crowd=float(rng.choice([0, 0.1, 0.4])),
        levels=int(rng.choice([0, 3, 20])),
        grid=int(rng.choice([0, 0, 8, 32])),
        span=int(rng.choice([40, 120, 300])),
    )


def compare_random_problems(seeds):
    seen = Counter()
    for seed in seeds:
        truth, detections = random_problem(seed)
        ours = evaluate_coco(truth, detections, score_threshold=0.0)["metrics"]
        if detections:  # of which pycocotools needs one
            assert_same(ours, pycocotools_numbers(truth, detections))
        cells = Counter((d["image_id"], d["category_id"]) for d in detections)
        seen["crowds"] += any(a["iscrowd"] for a in truth["annotations"])
        seen["ties"] += len({d["score"] for d in detections}) < len(detections)
        seen["beyond 100"] += max(cells.values(), default=0) > 100
    assert min(seen[what] for what in ("crowds", "ties", "beyond 100")) >= 0.03 * len(seeds), seen


def test_a_hundred_random_problems():
    compare_random_problems(range(100))


@pytest.mark.exhaustive
def test_a_thousand_random_problems():
    compare_random_problems(range(1000, 2000))


def test_without_a_folder_for_machine_code_each_process_compiles(monkeypatch):
    def njit(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return original(**options)

    original = numba.njit
    monkeypatch.setattr(numba, "njit", njit)
    divide = kernels._compile(lambda x: x / 0.0)
    assert divide(1.0) == math.inf


def test_threshold_equals_evaluating_the_filtered_list():
    truth, detections = scene(11, most_detections=150, classes=1)
    kept = [d for d in detections if d["score"] > 0.4]
    ours = evaluate_coco(truth, detections, score_threshold=0.4)["metrics"]
    of_kept, of_all = pycocotools_numbers(truth, kept), pycocotools_numbers(truth, detections)
    assert_same(ours, {name: (of_kept if name.startswith("AP") else of_all)[name] for name in NAMES})
    assert of_kept["AR100"] < of_all["AR100"]


# ---- closed forms and edges ---------------------------------------------------------------------------------------


def test_one_hit_among_two_objects():
    """One perfect detection of two objects: precision 1 up to recall 0.5, that is 51 of 101 recall points."""
    truth, _ = scene(0)
    first, second = dict(truth["annotations"][0], iscrowd=0), dict(truth["annotations"][0], iscrowd=0, id=999)
    second["bbox"] = [900.0, 900.0, 20.0, 20.0]
    truth["annotations"] = [first, second]
    detections = [{key: first[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}]
    metrics = evaluate_coco(truth, detections, score_threshold=0.05)["metrics"]
    assert metrics["AP"] == pytest.approx(51 / 101)
    assert metrics["AR1"] == pytest.approx(0.5)


def test_ground_truth_as_detections_is_perfect_whatever_the_ids():
    truth, _ = scene(3, crowd=0.0)
    for number, annotation in enumerate(truth["annotations"]):
        annotation["id"] = number  # from 0: an id that pycocotools takes for "not matched"
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    detections = [dict(a, score=0.9) for a in truth["annotations"]]
    metrics = evaluate_coco(truth, detections, score_threshold=0.05)["metrics"]
    # At most one object of a class is found by AR1, and look-alike boxes may overlap: the others are exactly 1.
    assert all(metrics[name] == pytest.approx(1.0) for name in NAMES if name not in ("AR1", "AR10"))


def test_no_detections_at_all():
    truth, _ = scene(1)
    result = evaluate_coco(truth, [], score_threshold=0.05)
    assert result["metrics"]["AP"] == 0
    assert result["metrics"]["AR100"] == 0
    assert result["counts"]["detections"] == 0


def test_a_size_without_objects_is_nan_and_counts_are_those_of_the_file():
    truth, detections = scene(5)
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] < 96**2]
    result = evaluate_coco(truth, detections, score_threshold=0.0)
    assert math.isnan(result["metrics"]["APl"])
    assert math.isnan(result["metrics"]["ARl"])
    counts = result["counts"]
    assert counts["large"] == 0
    assert counts["small"] + counts["medium"] == counts["objects"] == len(truth["annotations"]) - counts["crowd"]


def test_nothing_is_printed(capsys):
    evaluate_coco(*scene(2), score_threshold=0.05)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "key", "value", "says"),
    [
        ("detections", "image_id", 12345, "image_id 12345"),
        ("detections", "category_id", 99, "category_id 99"),
        ("detections", "score", float("nan"), "'score'"),
        ("detections", "bbox", [1, 2, 3], "'bbox'"),
        ("detections", "image_id", [7], r"image_id must be an integer, is the list \[7\]"),
        ("annotations", "category_id", 99, "category_id 99"),
        ("annotations", "image_id", 12345, "image_id 12345"),
        ("annotations", "id", 2, "annotations: duplicate id 2"),
        ("annotations", "area", None, "area is null"),
        ("images", "id", 107, "images: duplicate id 107"),
        ("categories", "id", 5, "categories: duplicate id 5"),
    ],
)
def test_bad_input_is_named(part, key, value, says):
    truth, detections = scene(4)
    (detections if part == "detections" else truth[part])[0][key] = value
    with pytest.raises(InputError, match=says):
        evaluate_coco(truth, detections, score_threshold=0.05)


@pytest.mark.parametrize("part", ["detections", "images", "categories", "annotations"])
def test_an_entry_that_is_not_an_object_is_named(part):
    truth, detections = scene(4)
    (detections if part == "detections" else truth[part]).insert(1, 3)
    with pytest.raises(InputError, match=rf"{part}\[1\] is 3"):
        evaluate_coco(truth, detections, score_threshold=0.05)


def test_any_sequence_of_detections_will_do():
    truth, detections = scene(4)
    one, other = (evaluate_coco(truth, kind(detections), score_threshold=0.05)["metrics"] for kind in (list, tuple))
    assert one == pytest.approx(other, nan_ok=True)


def test_a_missing_list_is_named(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text('{"images": []}')
    with pytest.raises(InputError, match=r"truth.json.*categories"):
        evaluate_coco(path, [], score_threshold=0.05)
