"""Numbers of classifiers are compared only if they were measured on the same images."""

import json

import pytest
from helpers.result_folders import add, backbone, compare_runs

from comparison.families import find_families
from comparison.histories import build_histories
from comparison.rows import collect_rows
from comparison.summary import build_comparison

TOP1 = {("CE", "pretraining"): 0.50, ("LS", "pretraining"): 0.52, ("CE", "backbone"): 0.90, ("LS", "backbone"): 0.91}


def split(name, fingerprint, images=1000, data_set="imagenet_xml"):
    entry = {"name": data_set, "images": images, "fingerprint": fingerprint}
    return {name: {key: value for key, value in entry.items() if value is not None}}


def pretrained(root, label, seed, validated):
    data = {**split("train", f"train-{seed}"), **validated}
    metrics = {"top1": TOP1[label, "pretraining"] + seed / 100, "nll": 1.0}
    return add(root, "pretraining", backbone(label, seed=seed), metrics, protocol=f"{label}@1", data=data)


def evaluated(root, label, seed, measured):
    add(root, "backbone", backbone(label, seed=seed), {"top1": TOP1[label, "backbone"] + seed / 100}, data=measured)


def top1(root):
    """Return top-1 by label and seed, and the notes on the images."""
    found = build_comparison(collect_rows([root]), resamples=2)
    notes = [note for note in found["notes"] if "data sets" in note]
    return {(row["label"], row["seed"]): row["metrics"]["top1"] for row in found["rows"]}, notes


def holdout(seed, **other):
    """The held-out images of a seed."""
    return split("holdout", f"holdout-{seed}", 400, **other)


def test_an_evaluated_row_is_not_compared_with_one_that_was_only_validated(tmp_path):
    for seed in range(3):
        for label in ("CE", "LS"):
            pretrained(tmp_path / "runs", label, seed, holdout(seed))
        evaluated(tmp_path / "runs", "CE", seed, split("val", "val"))
    found, notes = top1(tmp_path / "runs")
    assert found == {("CE", s): pytest.approx(0.9 + s / 100) for s in range(3)} | {("LS", s): None for s in range(3)}
    assert notes == [
        "Pretrainings and measures are of several data sets (imagenet_xml holdout, imagenet_xml val): "
        "numbers of pretrainings are left out."
    ]
    comparison = compare_runs(tmp_path / "runs", tmp_path / "out", "--primary", "top1")
    assert not any(method["verdict"] for method in comparison["methods"])


def test_seeds_on_other_images_are_not_averaged(tmp_path):
    for seed in range(2):
        pretrained(tmp_path, "CE", seed, holdout(seed))
    evaluated(tmp_path, "CE", 0, split("val", "val"))
    assert top1(tmp_path)[0] == {("CE", 0): 0.9, ("CE", 1): None}
    [method] = build_comparison(collect_rows([tmp_path]), resamples=2)["methods"]
    assert (method["metrics"]["top1"]["mean"], method["metrics"]["top1"]["count"]) == (0.9, 1)


@pytest.mark.parametrize("measured", [split("val", "val"), split("holdout", "before the draw", 400)])
def test_measures_on_the_images_of_the_validation_stay_beside_it(tmp_path, measured):
    """A measure states the fingerprint of the data before the draw of the held-out images."""
    validated = measured if "val" in measured else holdout(0)
    pretrained(tmp_path, "CE", 0, validated)
    pretrained(tmp_path, "LS", 0, validated)
    evaluated(tmp_path, "CE", 0, measured)
    assert top1(tmp_path) == ({("CE", 0): 0.9, ("LS", 0): 0.52}, [])


def test_splits_of_one_data_set_are_told_apart_and_the_draws_of_seeds_are_not(tmp_path):
    for seed in range(2):
        pretrained(tmp_path / "draws", "CE", seed, holdout(seed))
        pretrained(tmp_path / "draws", "LS", seed, holdout(seed))
        pretrained(tmp_path / "splits", "CE", seed, split("val", "val"))
        pretrained(tmp_path / "splits", "LS", seed, holdout(seed))
    found, notes = top1(tmp_path / "draws")
    assert (found["CE", 1], found["LS", 1], notes) == (0.51, 0.53, [])
    found, notes = top1(tmp_path / "splits")
    assert set(found.values()) == {None}
    assert notes == [
        "Pretrainings were validated on several data sets (imagenet_xml holdout, imagenet_xml val): "
        "their numbers are left out."
    ]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (split("holdout", "another", 400), "imagenet_xml holdout another, imagenet_xml holdout holdout-0"),
        (split("holdout", "another", 500), "imagenet_xml holdout another, imagenet_xml holdout holdout-0"),
        (split("holdout", None, 400, "own"), "imagenet_xml, own"),
    ],
)
def test_another_draw_of_the_same_seed_is_told_apart(tmp_path, other, said):
    pretrained(tmp_path, "CE", 0, holdout(0))
    pretrained(tmp_path, "LS", 0, other)
    found, notes = top1(tmp_path)
    assert set(found.values()) == {None}
    assert f"several data sets ({said}): their" in notes[0]


def test_another_number_of_held_out_images_is_told_apart_between_seeds(tmp_path):
    pretrained(tmp_path, "CE", 0, holdout(0))
    pretrained(tmp_path, "LS", 1, split("holdout", "holdout-1", 500))
    assert set(top1(tmp_path)[0].values()) == {None}


def test_images_without_a_box_leave_the_draws_of_seeds_comparable(tmp_path):
    """DATA.EVAL_VERSION box and mask change the number of images after the draw, by the seed."""
    for label, seed, left in (("CE", 0, 93), ("LS", 0, 93), ("CE", 1, 95)):
        folder = pretrained(tmp_path, label, seed, split("holdout", f"holdout-{seed}", left))
        state_held_out(folder, 100)
    assert top1(tmp_path)[0]["CE", 1] == 0.51
    state_held_out(folder, 200)
    assert set(top1(tmp_path)[0].values()) == {None}


def state_held_out(folder, number):
    """State in results.json how many images the pretraining held out."""
    path = folder / "results.json"
    results = json.loads(path.read_text())
    results["protocol"]["settings"] = {"DATA.HOLDOUT": number}
    path.write_text(json.dumps(results))


def test_without_fingerprints_the_name_of_the_data_set_decides(tmp_path):
    pretrained(tmp_path, "CE", 0, split("val", None))
    pretrained(tmp_path, "LS", 0, split("holdout", "holdout-0"))
    assert top1(tmp_path) == ({("CE", 0): 0.5, ("LS", 0): 0.52}, [])


def test_what_no_column_shows_is_not_compared(tmp_path):
    """Both have an evaluation, which replaces the numbers of the validation."""
    for label, validated in (("CE", split("val", "val")), ("LS", holdout(0))):
        pretrained(tmp_path, label, 0, validated)
        add(tmp_path, "backbone", backbone(label), {"top1": TOP1[label, "backbone"], "nll": 0.5}, data=split("v", "v"))
    assert top1(tmp_path) == ({("CE", 0): 0.9, ("LS", 0): 0.91}, [])


def test_training_curves_of_other_validation_images_are_apart(tmp_path):
    for label, validated in (("CE", split("val", "val")), ("LS", holdout(0)), ("LS", holdout(1))):
        seed = int(next(iter(validated.values()))["fingerprint"] == "holdout-1")
        folder = pretrained(tmp_path, label, seed, validated)
        (folder / "metrics.jsonl").write_text(json.dumps({"iteration": 0, "val_top1": 0.5}) + "\n")
        results = json.loads((folder / "results.json").read_text())
        (folder / "results.json").write_text(json.dumps({**results, "files": {"metrics": "metrics.jsonl"}}))
    found = build_histories(find_families(collect_rows([tmp_path])))
    assert {
        one["name"]: [(curve["label"], curve["runs"]) for curve in one["curves"][0]["methods"]] for one in found
    } == {"imagenet_xml val": [("CE", 1)], "imagenet_xml holdout": [("LS", 2)]}
