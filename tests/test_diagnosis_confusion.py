"""The confusion matrix, against a slow implementation and by hand."""

import numpy as np
import pytest
from helpers import plain_diagnosis
from helpers.tide_problem import tide_problem

from backbones.core.errors import InputError
from backbones.core.matches import ADDED, load_matches
from comparison.bootstrap import resample_images
from comparison.diagnosis.confusion import confusion, confusion_shares, frequent_confusions
from detection.evaluation.coco import evaluate_coco

IDS = [2, 5, 8]


def evaluated(folder, truth, detections):
    path = folder / "matches.npz"
    evaluate_coco(truth, detections, score_threshold=0.0, matches_path=path)
    return load_matches(path)


def slow_confusion(truth, detections, threshold):
    """Count pair by pair; rows are objects, columns detections, the last of both the background."""
    table = np.zeros((len(truth["categories"]) + 1,) * 2)
    ids = sorted(one["id"] for one in truth["categories"])
    for image in truth["images"]:
        objects = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        free = [one for one in objects if not one["iscrowd"]]
        here = [one for one in detections if one["image_id"] == image["id"] and one["score"] > threshold]
        for one in sorted(here, key=lambda one: -one["score"]):
            overlaps = [plain_diagnosis.iou(one["bbox"], other["bbox"]) for other in free]
            column = ids.index(one["category_id"])
            if max(overlaps, default=0) >= 0.5:
                table[ids.index(free.pop(int(np.argmax(overlaps)))["category_id"]), column] += 1
            elif not any(
                other["iscrowd"]
                and other["category_id"] == one["category_id"]
                and plain_diagnosis.iou(one["bbox"], other["bbox"], True) >= 0.5
                for other in objects
            ):
                table[-1, column] += 1
        for other in free:
            table[ids.index(other["category_id"]), -1] += 1
    return table


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.9])
@pytest.mark.parametrize(
    "options", [{}, {"crowd": 0.6}, {"classes": 7, "wrong": 0.8}, {"most_objects": 25, "span": 60}]
)
def test_a_slow_implementation_agrees_on_repeated_images(tmp_path, options, threshold):
    truth, detections = tide_problem(4, images=8, **options)
    weights = np.concatenate([np.ones((1, 8)), resample_images(8, resamples=3, seed=2)])
    found = confusion(evaluated(tmp_path, truth, detections), weights, threshold)
    assert (found.score_threshold, found.iou) == (threshold, 0.5)
    for r, weight in enumerate(weights):
        repeated = plain_diagnosis.repeat(truth, detections, weight)
        np.testing.assert_array_equal(found.table(r), slow_confusion(*repeated, threshold))


def test_sums_are_the_numbers_of_objects_and_detections(tmp_path):
    truth, detections = tide_problem(6, crowd=0.0)
    matches = evaluated(tmp_path, truth, detections)
    found = confusion(matches)
    objects = [sum(one["category_id"] == k for one in truth["annotations"]) for k in IDS]
    kept = [sum(one["category_id"] == k and one["score"] > 0.25 for one in detections) for k in IDS]
    np.testing.assert_array_equal(found.table().sum(1)[:3], objects)
    np.testing.assert_array_equal(found.table().sum(0)[:3], kept)
    assert found.table()[3, 3] == 0
    shares = found.shares()[0]
    assert [shares[found.row == k].sum() for k in range(4)] == pytest.approx([1, 1, 1, 1])
    without = confusion(matches, np.zeros((1, 40)))
    assert not without.counts.any()
    assert np.isnan(without.shares()).all()


def test_some_cells_alone_have_the_shares_of_the_whole_matrix(tmp_path):
    truth, detections = tide_problem(4, images=60, classes=7, wrong=0.8, crowd=0.3)
    runs = []
    for step in (1, 2):
        (tmp_path / str(step)).mkdir()
        runs.append(evaluated(tmp_path / str(step), truth, detections[::step]))
    weights = np.concatenate([np.ones((1, 60)), resample_images(60, resamples=20, seed=2), np.eye(60)])
    table = np.sum([confusion(run).table()[:7, :7] for run in runs], axis=0)
    np.fill_diagonal(table, 0)
    cells = frequent_confusions(runs, 6)
    counts = [table[cell] for cell in cells]
    assert counts == np.sort(table.ravel())[::-1][:6].tolist()
    assert counts[0] > counts[-1] > 0
    [empty] = np.argwhere(table + np.eye(7) == 0)[:1].tolist()
    for run in runs:
        whole = confusion(run, weights)
        known = dict(zip(zip(whole.row.tolist(), whole.column.tolist(), strict=True), whole.shares().T, strict=True))
        found = confusion_shares(run, [tuple(empty), *cells], weights)
        for cell, share in zip(cells, found[:, 1:].T, strict=True):
            np.testing.assert_allclose(share, known[cell], atol=1e-12)
        assert np.isnan(found).any()
        assert np.nanmax(found[:, 0]) == 0


def test_the_better_score_takes_the_object_and_the_next_one_another(tmp_path):
    """The second detection is nearest to the object that is taken: what is near does not say its match."""
    near, far = [100.0, 100.0, 40.0, 40.0], [100.0, 112.0, 40.0, 40.0]
    objects = [(1, near), (2, far)]
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": c, "bbox": b, "area": 1600.0, "iscrowd": 0}
            for n, (c, b) in enumerate(objects, 1)
        ],
    }
    detections = [
        {"image_id": 1, "category_id": c, "bbox": near, "score": s} for c, s in ((2, 0.9), (1, 0.8), (1, 0.7), (2, 0.2))
    ]
    matches = evaluated(tmp_path, truth, detections)
    # Class a is predicted as b, b as a; the third finds nothing, the fourth is below the threshold.
    np.testing.assert_array_equal(confusion(matches).table(), [[0, 1, 0], [1, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(confusion(matches, None, 0.85).table(), [[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(confusion(matches, None, 0.95).table(), [[0, 0, 1], [0, 0, 1], [0, 0, 0]])


def test_a_file_of_an_earlier_version_is_refused(tmp_path):
    evaluated(tmp_path, *tide_problem(1, images=4))
    with np.load(tmp_path / "matches.npz") as file:
        arrays = {name: file[name] for name in file.files if name not in ADDED}
    np.savez(tmp_path / "earlier.npz", **arrays)
    with pytest.raises(InputError, match=r"earlier\.npz: no any_partner, .*evaluate again"):
        confusion(load_matches(tmp_path / "earlier.npz"))
