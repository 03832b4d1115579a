"""Results that list their own images and categories are evaluated by name, whatever their ids."""

import copy
import json

import pytest
from helpers.result_folders import DETECTIONS, TRUTH, load_tool

from backbones.core.errors import InputError
from detection.evaluation import evaluate
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.reading import GroundTruth, read_detections

TRUTH = {
    **TRUTH,
    "images": [{**one, "file_name": f"val/im{one['id']}.jpg"} for one in TRUTH["images"]],
    "categories": [{**one, "name": f"class {one['id']}"} for one in TRUTH["categories"]],
}


def numbers(truth, detections):
    return evaluate_coco(truth, detections, score_threshold=0.0)["metrics"]


EXPECTED = numbers(TRUTH, DETECTIONS)


def renumbered(image=lambda key: key, category=lambda key: key, folder="/data/photos"):
    """The detections in a tree of their own ids, as tools/predict.py writes it."""
    return {
        "images": [{"id": image(one["id"]), "file_name": f"{folder}/im{one['id']}.jpg"} for one in TRUTH["images"]],
        "categories": [{"id": category(one["id"]), "name": one["name"]} for one in TRUTH["categories"]],
        "annotations": [
            {**one, "image_id": image(one["image_id"]), "category_id": category(one["category_id"])}
            for one in DETECTIONS
        ],
    }


def swapped(part):
    """A permutation of the ids of the truth: another image or class for each."""
    ids = sorted(one["id"] for one in TRUTH[part])
    return dict(zip(ids, ids[1:] + ids[:1], strict=True)).get


OTHERS = {
    "none": {},
    "images": {"image": swapped("images")},
    "categories": {"category": swapped("categories")},
    "both": {"image": swapped("images"), "category": swapped("categories")},
    "elsewhere": {"image": lambda key: key + 10**6, "category": lambda key: key + 50},
}


@pytest.mark.parametrize("case", OTHERS)
def test_ids_are_those_of_the_names(tmp_path, case):
    tree = renumbered(**OTHERS[case])
    before = copy.deepcopy(tree)
    assert numbers(TRUTH, tree) == pytest.approx(EXPECTED, nan_ok=True)
    assert tree == before
    for name, content in (("truth", TRUTH), ("found", tree)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    given = ["--truth", tmp_path / "truth.json", "--results", f"A={tmp_path / 'found.json'}", "--resamples", "30"]
    assert load_tool().main([*map(str, given), "--output-dir", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert row["metrics"]["AP"] == pytest.approx(EXPECTED["AP"])


def test_ids_beside_declared_names_are_those_of_the_names(tmp_path):
    tree = renumbered(image=swapped("images"))
    for one in tree["annotations"]:
        one["category_id"] = f"class {one['category_id']}"
    found = evaluate(TRUTH, tree, name="A", output_dir=tmp_path, category_by="name")
    assert found.metrics["AP"] == pytest.approx(EXPECTED["AP"])


def test_images_of_one_name_are_told_apart_by_their_folders():
    def moved(tree, root):
        images = [{**one, "file_name": f"{root}{one['id']}/im.jpg"} for one in tree["images"]]
        return {**tree, "images": images}

    truth, plain = moved(TRUTH, "val/"), renumbered(image=swapped("images"))
    plain["images"] = [{**one, "id": swapped("images")(one["id"])} for one in moved(TRUTH, "/data/val/")["images"]]
    assert numbers(truth, plain) == pytest.approx(EXPECTED, nan_ok=True)
    plain["images"] = [{**one, "file_name": "im.jpg"} for one in plain["images"]]
    assert numbers(truth, {**renumbered(), "images": []}) == pytest.approx(EXPECTED, nan_ok=True)
    tree = {**renumbered(image=lambda key: key + 10**6)}
    tree["images"] = [{**one, "file_name": "im.jpg"} for one in tree["images"]]
    with pytest.raises(InputError, match=r"image_id \d+ has a file_name that is not unique, 'im.jpg'"):
        numbers(truth, tree)


def boxes(*images):
    return [{"image_id": n, "category_id": 1, "bbox": [1, 1, 20, 20], "score": 0.9} for n in images]


def small(files, classes=("x",)):
    """A ground truth of these images and classes, numbered from 1, with a box in each image."""
    return {
        "images": [{"id": n, "file_name": file, "width": 60, "height": 50} for n, file in enumerate(files, 1)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, 1)],
        "annotations": [{**box, "id": box["image_id"], "area": 400} for box in boxes(*range(1, 1 + len(files)))],
    }


def images_of(truth, *detections, **lists):
    """The image ids that the truth gives to detections of the ids of these lists."""
    listed = {part: [{"id": n, field: name} for n, name in names] for part, (field, names) in lists.items()}
    truth = GroundTruth(truth)
    return truth.image_ids[read_detections({**listed, "annotations": boxes(*detections)}, truth).image].tolist()


def files(*names):
    return {"images": ("file_name", list(enumerate(names, 1)))}


def test_an_image_without_detections_does_not_hide_another_order():
    """Its name equals another one at every depth."""
    truth = small(["a/1.jpg", "b/1.jpg"])
    listed = files("/d/b/1.jpg", "/d/a/1.jpg", "/e/a/1.jpg")
    assert images_of(truth, 1, 2, **listed) == [2, 1]
    with pytest.raises(InputError, match=r"image_id 1 has a file_name that is not unique, '/d/b/1.jpg'"):
        images_of(truth, 1, 2, 3, **listed)
    only_a = small(["a/1.jpg"])
    for several in (listed, files("/d/b/1.jpg", "/d/a/1.jpg")):
        with pytest.raises(InputError, match=r"image_id 1 has a file_name that the ground truth lacks, '/d/b/1.jpg'"):
            images_of(only_a, 1, **several)


@pytest.mark.parametrize("own", [("/d/b/1.jpg", "/d/a/1.jpg"), ("1.jpg", "/d/1.jpg"), ("2/1.jpg", "1.jpg")])
def test_names_that_do_not_tell_the_images_of_the_truth_apart_are_refused(own):
    truth = small(["1.jpg", "1.jpg", "2.jpg"])
    said = (
        r"its 'images' do not tell whether they number as the ground truth \(id 1 is .*\), and image_id 1 has a "
        r"file_name that is not unique, .*; correct the names, or leave 'images' out"
    )
    with pytest.raises(InputError, match=said):
        images_of(truth, 1, **files(*own))
    assert images_of(truth, 1, 3) == [1, 3]
    assert images_of(truth, 3, **files(*own, "/d/2.jpg")) == [3]
    assert images_of(truth, 2, 3, **files("1.jpg", "1.jpg", "2.jpg")) == [2, 3]  # a copy of the truth's own list


def test_an_id_that_the_list_lacks_is_refused_where_another_name_is_not_unique():
    truth = small(["a.jpg", "a.jpg", "b.jpg"])
    listed = {"images": ("file_name", [(2, "a.jpg")])}
    said = r"do not tell whether they number as the ground truth \(id 2 is the text 'a.jpg'\), and image_id 1 has no"
    with pytest.raises(InputError, match=said):
        images_of(truth, 1, 2, **listed)


def test_class_names_that_are_not_unique_are_refused_unless_the_lists_are_equal():
    truth = small(["1.jpg"], ("x", "x", "y"))
    listed = ("name", [(1, "x"), (2, "x"), (3, "y")])
    assert images_of(truth, 1, categories=listed) == [1]
    with pytest.raises(InputError, match=r"category_id 1 has a name that is not unique, 'x'"):
        images_of(truth, 1, categories=("name", listed[1][:2]))


@pytest.mark.parametrize("named", [True, False])
def test_lists_that_state_no_names_leave_the_ids(named):
    tree = {**renumbered(), "images": [{"id": one["id"]} for one in TRUTH["images"]]}
    truth = TRUTH if named else {**TRUTH, "images": tree["images"]}
    found = tree if named else renumbered()
    assert numbers(truth, found) == pytest.approx(EXPECTED, nan_ok=True)


def rename(part, field, name):
    def change(tree):
        used = tree["annotations"][0][{"images": "image_id", "categories": "category_id"}[part]]
        for one in tree[part]:
            if one["id"] == used:
                one[field] = name

    return change


REFUSED = {
    "unknown": (rename("images", "file_name", "other.jpg"), "a file_name that the ground truth lacks, 'other.jpg'"),
    "class": (rename("categories", "name", "zebra"), "has a name that the ground truth lacks, 'zebra'"),
    "nameless": (rename("images", "file_name", None), "has no file_name there"),
    "no list": (lambda tree: tree.update(images=5), "'images' is 5, not a list; correct it, or leave it out"),
    "twice": (lambda tree: tree["images"].append({**tree["images"][0], "file_name": "b.jpg"}), "with two names"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_names_that_do_not_fit_are_one_line(tmp_path, case):
    change, said = REFUSED[case]
    tree = renumbered(**OTHERS["both"])
    change(tree)
    path = tmp_path / "found.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(InputError) as refused:
        evaluate(TRUTH, path, name="A", output_dir=tmp_path)
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
