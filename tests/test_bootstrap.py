"""The bootstrap's compiled code against slow references, and the file that keeps what it computed."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import plain_bootstrap
from helpers.coco_scenes import pycocotools_numbers, repeated, scene

from backbones.core.matches import MATCHES_FILE, build_matches, load_matches
from comparison.bootstrap import AP_NAMES, AR_NAMES, resample_images, resample_rows, summary
from comparison.resampling import draws
from comparison.resampling.draws import DRAWS_FILE
from detection.evaluation.coco import evaluate_coco

ROOT = Path(__file__).resolve().parent.parent
NAMES = {*AP_NAMES, *AR_NAMES}


def evaluated(folder, truth, detections, threshold=0.0):
    folder.mkdir(exist_ok=True)
    evaluate_coco(truth, detections, score_threshold=threshold, matches_path=folder / MATCHES_FILE)
    return load_matches(folder / MATCHES_FILE)


def invented(seed, *, images=20, classes=6, detections=400, objects=90, hits=0.3, levels=0):
    """Matches that no evaluation needs to have written: any outcome at any area range and IoU threshold."""
    rng = np.random.default_rng(seed)
    image, category = rng.integers(images, size=detections), rng.integers(classes, size=detections)
    outcome = rng.choice([1, 0, -1], size=(detections, 4, 10), p=[hits, 0.9 - hits, 0.1])
    usual = rng.random(detections) < 0.5  # the same outcome at every IoU threshold, as most detections have
    outcome[usual] = outcome[usual][:, :, :1]
    score = rng.random(detections) if not levels else rng.integers(levels, size=detections) / levels
    owner = rng.integers(classes - 1, size=objects)  # the last class has detections, but no object
    counts = (rng.random((objects, 4)) < 0.6) & (owner > 0)[:, None]  # none of class 0
    counts[0] = True  # but this one, of whichever class
    return build_matches(
        {
            "image": image,
            "category": category,
            "score": score,
            "rank": rng.integers(150, size=detections),
            "outcome": outcome.astype(np.int8),
            "object_image": rng.integers(images, size=objects),
            "object_category": owner,
            "object_counts": (rng.random((objects, 4)) < 0.6) & (owner > 0)[:, None]
            | (np.arange(objects) == 0)[:, None],
            "image_ids": rng.permutation(images) * 3,
            "category_ids": np.arange(classes),
            "area_names": np.array(["all", "small", "medium", "large"]),
            "iou_thresholds": np.linspace(0.5, 0.95, 10),
            "score_threshold": np.array(0.2 if seed % 2 else 0.0),
        }
    )


def assert_plain(matches, weights):
    found, expected = summary(matches, weights), plain_bootstrap.summary(matches, weights)
    assert found.keys() == expected.keys() == NAMES
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-12, err_msg=name)


# ---- the numbers --------------------------------------------------------------------------------------------------


def test_the_resamples_are_those_of_the_first_release():
    for images, resamples, seed in ((1, 3, 0), (40, 50, 0), (333, 20, 7)):
        expected = plain_bootstrap.resample_images(images, resamples=resamples, seed=seed)
        np.testing.assert_array_equal(resample_images(images, resamples=resamples, seed=seed), expected)


@pytest.mark.parametrize("threshold", [0.0, 0.3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"levels": 4},
        {"crowd": 0.6},
        {"grid": 32, "levels": 9},
        {"most_objects": 1, "classes": 9},
        {"images": 3, "most_detections": 400, "most_objects": 60, "classes": 1},
        {"images": 150, "classes": 20},
    ],
)
def test_the_plain_bootstrap_agrees(tmp_path, options, threshold):
    matches = evaluated(tmp_path, *scene(11, **options), threshold)
    assert_plain(matches, resample_images(len(matches.image_ids), resamples=60, seed=5))


@pytest.mark.parametrize("seed", range(12))
def test_the_plain_bootstrap_agrees_on_any_outcomes(seed):
    rng = np.random.default_rng(seed)
    options = {"hits": (0.0, 0.01, 0.3, 0.8)[seed % 4], "levels": (0, 5)[seed // 2 % 2], "images": 5 + seed}
    matches = invented(seed, **options)
    images = len(matches.image_ids)
    some = [resample_images(images, resamples=20, seed=seed), np.ones((1, images)), np.zeros((1, images))]
    some += [np.eye(images), rng.integers(12, size=(3, images)) / 8]  # eighths, whose sums are exact
    with np.errstate(all="raise"):
        assert_plain(matches, np.concatenate(some))


def test_a_data_set_without_objects_or_detections_has_the_numbers_of_the_plain_bootstrap():
    for options in ({"detections": 0}, {"objects": 1}, {"objects": 1, "detections": 0}):
        matches = invented(0, **options)
        assert_plain(matches, resample_images(len(matches.image_ids), resamples=9, seed=0))
    bare = dataclasses.replace(matches, object_counts=np.zeros_like(matches.object_counts))
    for values in summary(bare, np.ones((2, 20))).values():
        assert np.isnan(values).all()


def crowded_problem():
    """500 images: crowds, tied scores, images with over 100 detections of a class, classes with no or one object.

    Scores tie between images, not within one: there, repeated images alternate where a weight counts at once.
    """
    truth, found = scene(21, images=500, classes=4, most_objects=3, most_detections=5, crowd=0.2)
    truth["categories"] += [{"id": 90, "name": "without objects"}, {"id": 91, "name": "in one image"}]
    images = [image["id"] for image in truth["images"]]
    rng, box = np.random.default_rng(0), [10.0, 10.0, 50.0, 40.0]
    for image in images[::50]:
        boxes = [[*rng.uniform(0, 200, 2).tolist(), 60.0, 60.0] for _ in range(130)]
        found += [{"image_id": image, "category_id": 2, "bbox": one} for one in boxes]
        found.append({"image_id": image, "category_id": 90, "bbox": box})
    one = {"image_id": images[3], "category_id": 91, "bbox": box}
    truth["annotations"].append({**one, "id": 10**6, "area": 2000.0, "iscrowd": 0})
    found += [one, {**one, "image_id": images[4]}]
    levels = {image: iter(rng.permutation(150)) for image in images}
    return truth, [each | {"score": int(next(levels[each["image_id"]])) / 150} for each in found]


def test_pycocotools_agrees_on_the_repeated_images(tmp_path):
    truth, detections = crowded_problem()
    matches = evaluated(tmp_path, truth, detections)
    assert matches.rank.max() == 99
    row = resample_rows([matches], resamples=20, seed=3)[0]
    weights = resample_images(500, resamples=20, seed=3)
    assert 0 < (weights[:, 3] == 0).sum() < 20  # the class of one image comes and goes
    for r in range(20):
        for name, value in pycocotools_numbers(*repeated(truth, detections, weights[r])).items():
            assert row.draws[name][r] == pytest.approx(value, abs=1e-9, nan_ok=True), (r, name)


def test_code_is_compiled_where_nothing_can_be_kept(monkeypatch):
    """numba refuses to keep code if it may write neither beside the file nor to the user's folder."""
    from numba.core import caching

    from comparison.resampling import kernel

    matches, weights = invented(6), resample_images(20, resamples=3, seed=0)
    expected = summary(matches, weights)
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    monkeypatch.setattr(kernel, "sum_precisions", kernel.compiled(kernel.sum_precisions.py_func))
    for name, values in summary(matches, weights).items():
        np.testing.assert_array_equal(expected[name], values)


def test_importing_the_comparison_imports_no_compiler():
    program = (
        "import sys, comparison.summary, comparison.page.page, comparison.bootstrap\n"
        "print(*sorted({'numba', 'llvmlite', 'scipy', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


# ---- the file -----------------------------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch):
    """The files whose numbers were computed, in order."""
    files = []

    def count(matches, weights):
        files.append(Path(matches.where).parent.name)
        return summary(matches, weights)

    monkeypatch.setattr(draws, "summary", count)
    return files


def numbers(row):
    """All numbers of a row, those on the original images first."""
    return {name: np.append(row.value[name], row.draws[name]) for name in row.value}


def assert_same(a, b):
    assert a.keys() == b.keys() == NAMES
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_a_row_is_computed_once(tmp_path, computed):
    truth, found = scene(31)
    first = evaluated(tmp_path / "a", truth, found)
    before = numbers(resample_rows([first], resamples=25)[0])
    assert computed == ["a"]
    second = evaluated(tmp_path / "b", truth, found[::2])
    alone = numbers(resample_rows([second], resamples=25)[0])
    assert computed == ["a", "b"]
    rows = resample_rows([load_matches(tmp_path / n / MATCHES_FILE) for n in "ba"], resamples=25)
    assert computed == ["a", "b"]
    assert_same(numbers(rows[0]), alone)
    assert_same(numbers(rows[1]), before)
    weights = plain_bootstrap.resample_images(12, resamples=25, seed=0)
    expected = plain_bootstrap.summary(first, np.concatenate([np.ones((1, 12)), weights]))
    for name, values in numbers(rows[1]).items():
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-12)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted([MATCHES_FILE, DRAWS_FILE])


def test_other_settings_matches_or_code_are_computed_again(tmp_path, computed, monkeypatch):
    truth, found = scene(32)
    expected = {}
    matches = evaluated(tmp_path / "a", truth, found)
    for resamples, seed in ((25, 0), (26, 0), (25, 1)):
        expected[resamples, seed] = numbers(resample_rows([matches], resamples=resamples, seed=seed)[0])
    assert len(computed) == 3
    assert len(expected[26, 0]["AP"]) == 27
    assert np.abs(expected[25, 0]["AP"] - expected[25, 1]["AP"]).max() > 0
    changed = evaluated(tmp_path / "a", truth, found[1:])  # beside the draws of the old one
    value = {name: value[0] for name, value in summary(changed).items()}
    assert resample_rows([changed], resamples=25, seed=1)[0].value == pytest.approx(value, abs=1e-12)
    assert value["AP"] != pytest.approx(expected[25, 1]["AP"][0], abs=1e-9)
    assert len(computed) == 4
    monkeypatch.setattr(draws, "VERSION", draws.VERSION + 1)
    resample_rows([changed], resamples=25, seed=1)
    assert len(computed) == 5


def test_another_generator_of_resamples_is_not_mixed_with_this_one(tmp_path, computed, monkeypatch):
    """Draws of two rows are paired only if both saw the same resamples."""
    matches = evaluated(tmp_path / "a", *scene(33))
    resample_rows([matches], resamples=25)
    monkeypatch.setattr(draws, "resample_images", lambda images, *, resamples, seed: np.ones((resamples, images)))
    resample_rows([matches], resamples=25)
    assert computed == ["a", "a"]


def test_order_of_images_in_the_file_keeps_the_draws(tmp_path, computed):
    matches = evaluated(tmp_path / "a", *scene(34))
    expected = numbers(resample_rows([matches], resamples=25)[0])
    with np.load(tmp_path / "a" / MATCHES_FILE) as file:
        arrays = dict(file)
    order = np.random.default_rng(0).permutation(len(arrays["image_ids"]))
    arrays |= {name: np.argsort(order)[arrays[name]] for name in ("image", "object_image")}
    np.savez(tmp_path / "a" / MATCHES_FILE, **arrays | {"image_ids": arrays["image_ids"][order]})
    moved = load_matches(tmp_path / "a" / MATCHES_FILE)
    assert_same(numbers(resample_rows([moved], resamples=25)[0]), expected)
    assert computed == ["a"]  # Matches are sorted by image id, so that nothing differs
    renamed = dataclasses.replace(moved, image_ids=moved.image_ids + 1)
    assert_same(numbers(resample_rows([renamed], resamples=25)[0]), expected)
    assert computed == ["a", "a"]


def test_a_damaged_file_is_computed_and_written_again(tmp_path, computed):
    matches = evaluated(tmp_path / "a", *scene(35))
    expected = numbers(resample_rows([matches], resamples=25)[0])
    file = tmp_path / "a" / DRAWS_FILE
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"no zip", *(whole[: int(len(whole) * share)] for share in (0.1, 0.5, 0.9, 0.999))]
    for at in rng.choice(len(whole), 150, replace=False):
        damaged.append(whole[:at] + bytes([whole[at] ^ (1 << rng.integers(8))]) + whole[at + 1 :])
    for data in damaged:
        file.write_bytes(data)
        assert_same(numbers(resample_rows([matches], resamples=25)[0]), expected)
    assert len(computed) > 100
    count = len(computed)
    assert_same(numbers(resample_rows([matches], resamples=25)[0]), expected)
    assert len(computed) == count  # the last one was written again


def test_a_file_with_other_numbers_under_the_right_key_is_computed_again(tmp_path, computed):
    matches = evaluated(tmp_path / "a", *scene(36))
    expected = numbers(resample_rows([matches], resamples=25)[0])
    file = tmp_path / "a" / DRAWS_FILE
    with np.load(file) as stored:
        arrays = dict(stored)
    wrong = [
        {"numbers": arrays["numbers"][:, :-1]},
        {"numbers": arrays["numbers"][:-1]},
        {"numbers": arrays["numbers"].astype(str)},
    ]
    for one in wrong:
        np.savez(file, **arrays | one)
        assert_same(numbers(resample_rows([matches], resamples=25)[0]), expected)
    assert len(computed) == 1 + len(wrong)


def test_a_file_that_cannot_be_written_is_done_without(tmp_path, computed):
    matches = evaluated(tmp_path / "a", *scene(37))
    (tmp_path / "a" / DRAWS_FILE / "in the way").mkdir(parents=True)
    one, other = (numbers(resample_rows([matches], resamples=25)[0]) for _ in range(2))
    assert_same(one, other)
    assert computed == ["a", "a"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted([MATCHES_FILE, DRAWS_FILE])


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_folder_is_left_alone(tmp_path, computed):
    matches = evaluated(tmp_path / "a", *scene(38))
    (tmp_path / "a").chmod(0o555)
    resample_rows([matches], resamples=25)
    assert [path.name for path in (tmp_path / "a").iterdir()] == [MATCHES_FILE]
    (tmp_path / "a").chmod(0o755)


def test_matches_without_a_file_write_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resample_rows([invented(1), dataclasses.replace(invented(1), where=MATCHES_FILE)], resamples=3)
    assert list(tmp_path.iterdir()) == []
