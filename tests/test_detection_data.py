"""Readers of COCO and VOC: what they make of boxes, what they count, and what they refuse by file, key and id."""

import copy
import json
import re

import numpy as np
import pytest
from PIL import Image

from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from detection.data.catalog import load_data
from detection.data.coco.reader import load_coco
from detection.data.loader import trainable
from detection.evaluation.coco import evaluate_coco

TREE = {
    "images": [
        {"id": 5, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 3, "file_name": "b.png", "width": 20, "height": 50},
    ],
    "annotations": [
        {"id": 11, "image_id": 5, "category_id": 9, "bbox": [0, 0, 40, 30], "area": 700, "iscrowd": 0},
        {"id": 12, "image_id": 5, "category_id": 2, "bbox": [4.5, 2, 10, 20.25], "iscrowd": 0},
        {"id": 13, "image_id": 3, "category_id": 9, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 1},
    ],
    "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 30, "name": "never seen"}],
}


def read_coco(folder, change=None):
    """Write the images and TREE after `change(tree)`, and load it; (data, warnings)."""
    tree = copy.deepcopy(TREE)
    Image.new("RGB", (40, 30)).save(folder / "a.jpg")
    Image.new("RGB", (20, 50)).save(folder / "b.png")
    if change:
        change(tree)
    (folder / "truth.json").write_text(json.dumps(tree))
    warnings = WarningCounter()
    return load_coco(folder / "truth.json", folder, "hand-written", warnings), warnings.as_list()


def setting(where, position, **fields):
    """A change of the tree: fields of one entry."""
    return lambda tree: tree[where][position].update(fields)


def test_coco_is_read_sorted_and_numbered(tmp_path):
    data, warnings = read_coco(tmp_path)
    assert [(w["what"].split(":")[0], w["count"]) for w in warnings] == [("annotations without area", 1)]
    assert [record.image_id for record in data.records] == [3, 5]
    assert data.categories == [{"id": 2, "name": "cat"}, {"id": 9, "name": "dog"}, {"id": 30, "name": "never seen"}]
    second = data.records[1]
    assert second.labels.tolist() == [1, 0]  # dog, cat: positions among the sorted ids
    assert second.boxes.tolist() == [[0, 0, 40, 30], [4.5, 2, 14.5, 22.25]]
    assert second.area.tolist() == [700, 202.5]  # the file's own, and the box's where the file has none
    assert data.counts() == {
        "images": 2, "annotations": 3, "crowd": 1, "categories": 3, "categories_annotated": 2,
    }  # fmt: skip


def test_crowds_are_evaluated_but_not_learned(tmp_path):
    data, _ = read_coco(tmp_path)
    assert [entry["iscrowd"] for entry in data.to_coco()["annotations"]] == [1, 0, 0]
    assert [record.image_id for record in trainable(data, filter_empty=True)] == [5]
    kept = trainable(data, filter_empty=False)
    assert [(record.image_id, len(record.labels)) for record in kept] == [(3, 0), (5, 2)]
    with pytest.raises(InputError, match=r"truth\.json: no image has a box to train on"):
        trainable(read_coco(tmp_path, lambda tree: tree["annotations"].__delitem__(slice(2)))[0], True)


def test_the_truth_found_again_scores_one(tmp_path):
    truth = read_coco(tmp_path)[0].to_coco()
    found = [
        {key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for entry in truth["annotations"]
        if not entry["iscrowd"]
    ]
    measured = evaluate_coco(truth, found, score_threshold=0.05)
    assert measured["metrics"]["AP"] == pytest.approx(1)
    assert measured["metrics"]["AR100"] == 1
    assert measured["counts"]["images"] == 2


def test_boxes_are_clipped_dropped_and_counted(tmp_path):
    def change(tree):
        tree["annotations"][0]["bbox"] = [-5, 10, 50, 100]
        tree["annotations"][1]["bbox"] = [3, 3, 0, 7]
        tree["annotations"] += [
            {"id": 14, "image_id": 3, "category_id": 2, "bbox": [20, 0, 5, 5]},  # begins where the image ends
            {"id": 15, "image_id": 3, "category_id": 2, "bbox": [10, 40, 10.0004, 10]},  # a rounding error
        ]

    data, warnings = read_coco(tmp_path, change)
    assert [w for w in warnings if w["what"].startswith("box")] == [
        {"what": "box clipped to the image", "count": 1, "examples": ["a.jpg (image id 5)"]},
        {"what": "box of zero area dropped", "count": 2, "examples": ["b.png (image id 3)", "a.jpg (image id 5)"]},
    ]
    assert data.records[1].boxes.tolist() == [[0, 10, 40, 30]]
    np.testing.assert_allclose(data.records[0].boxes, [[1, 1, 6, 6], [10, 40, 20, 50]], atol=1e-3)
    assert data.records[0].labels.tolist() == [1, 0]


def test_grey_images_are_counted(tmp_path):
    path = tmp_path / "grey.jpg"
    Image.new("L", (40, 30)).save(path)
    _, warnings = read_coco(tmp_path, setting("images", 0, file_name="grey.jpg"))
    grey = {"what": "grey images: they are converted to RGB", "count": 1, "examples": [f"{path} (image id 5)"]}
    assert grey in warnings


def test_the_fingerprint_names_the_content(tmp_path):
    def of(folder, change=None):
        folder.mkdir()
        return read_coco(folder, change)[0].fingerprint

    first = of(tmp_path / "0")
    assert of(tmp_path / "1") == first  # moved
    changes = (
        setting("annotations", 0, bbox=[0, 0, 39, 30]),
        setting("annotations", 0, area=701),
        setting("annotations", 2, iscrowd=0),
        setting("categories", 0, name="wolf"),
    )
    others = [of(tmp_path / str(n), change) for n, change in enumerate(changes, start=2)]
    assert len({first, *others}) == len(changes) + 1


REFUSED = {
    "duplicate image id": (setting("images", 1, id=5), "images: duplicate id 5"),
    "duplicate annotation id": (setting("annotations", 1, id=11), "annotations: duplicate id 11"),
    "duplicate category id": (setting("categories", 1, id=9), "categories: duplicate id 9"),
    "duplicate category name": (setting("categories", 1, name="dog"), "categories: the name 'dog' is duplicated"),
    "id without a number": (setting("images", 1, id="b"), "images[1]: id must be an integer, is the text 'b'"),
    "unknown category": (setting("annotations", 1, category_id=4), "annotations: id 12: category_id 4 is not listed"),
    "unknown image": (setting("annotations", 2, image_id=8), "annotations: id 13: image_id 8 is not listed"),
    "no category": (
        lambda tree: tree["annotations"][0].pop("category_id"),
        "id 11: category_id must be an integer, is missing",
    ),
    "three numbers": (
        setting("annotations", 0, bbox=[1, 2, 3]),
        "not 4 numbers: annotation id 11 (image id 5, bbox [1, 2, 3])",
    ),
    "no number": (
        setting("annotations", 0, bbox=[1, 2, 3, float("nan")]),
        "boxes that are not finite: annotation id 11",
    ),
    "words": (setting("annotations", 0, bbox=["a", 2, 3, 4]), "boxes that are not 4 numbers: annotation id 11"),
    "no bbox": (lambda tree: tree["annotations"][2].pop("bbox"), "annotation id 13 (image id 3, bbox missing)"),
    "no file name": (lambda tree: tree["images"][0].pop("file_name"), "images: id 5 has no 'file_name'"),
    "no width": (lambda tree: tree["images"][1].pop("width"), "images: id 3 has no 'width'"),
    "other size": (setting("images", 0, width=41), "{folder}/a.jpg (image id 5): stated 41x30, is 40x30"),
    "no annotations": (lambda tree: tree.pop("annotations"), "no list 'annotations'"),
    "no images": (lambda tree: tree.update(images=[], annotations=[]), "empty list of images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_json_is_refused_by_file_key_and_id(tmp_path, case):
    change, message = REFUSED[case]
    with pytest.raises(InputError, match=re.escape(message.format(folder=tmp_path))) as error:
        read_coco(tmp_path, change)
    assert str(tmp_path / "truth.json") in str(error.value)


def test_missing_and_foreign_images_are_named(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"1 x missing images: {tmp_path / 'absent.jpg'} (image id 3)")):
        read_coco(tmp_path, setting("images", 1, file_name="absent.jpg"))
    (tmp_path / "text.png").write_text("no pixels")
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'text.png'} (image id 3): not an image")):
        read_coco(tmp_path, setting("images", 1, file_name="text.png"))
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(InputError, match=r"cut\.json as JSON"):
        load_coco(tmp_path / "cut.json", tmp_path, "cut", WarningCounter())
    with pytest.raises(InputError, match=r"no image folder .*absent.*DATASETS\.ROOT"):
        load_coco(tmp_path / "truth.json", tmp_path / "absent", "no folder", WarningCounter())


def read_joined(folder, other=None):
    """TREE and, as a second set, TREE after the change `other`, joined."""
    folder.mkdir()
    for part, change in (("one", None), ("two", other)):
        (folder / part).mkdir()
        read_coco(folder / part, change)
    return load_data([f"coco:{folder / p / 'truth.json'}:{folder / p}" for p in ("one", "two")], "", WarningCounter())


def test_joined_sets_number_their_images_anew(tmp_path):
    data = read_joined(tmp_path / "same")
    assert [record.image_id for record in data.records] == [1, 2, 3, 4]
    assert data.counts()["annotations"] == 6
    assert {entry["image_id"] for entry in data.to_coco()["annotations"]} == {1, 2, 3, 4}
    with pytest.raises(InputError, match=r"categories of truth \(3: cat, dog, never seen .*\(3: cat, wolf.* differ"):
        read_joined(tmp_path / "differ", setting("categories", 0, name="wolf"))


def test_the_catalog_names_what_it_does_not_find(tmp_path, monkeypatch):
    warnings = WarningCounter()
    with pytest.raises(InputError, match=r"DATASETS: unknown data set 'scenes_trian'; did you mean 'scenes_train'"):
        load_data(["scenes_trian"], str(tmp_path), warnings)
    with pytest.raises(InputError, match=r"DATASETS\.ROOT: no folder .*absent \(needed by 'coco128'\)"):
        load_data(["coco128"], str(tmp_path / "absent"), warnings)
    with pytest.raises(InputError, match=r"no such file: .*instances_train2017\.json"):
        load_data(["coco128"], str(tmp_path), warnings)
    monkeypatch.delenv("SMOOTH2DET_DATA", raising=False)
    with pytest.raises(InputError, match=r"SMOOTH2DET_DATA .*is not set"):
        load_data(["coco128"], "$SMOOTH2DET_DATA", warnings)
    for name in ("coco:only.json", "voc:folder", "lvis:a:b"):
        with pytest.raises(InputError, match=f"cannot read '{name}'; write coco:"):
            load_data([name], "unused", warnings)
    with pytest.raises(InputError, match=r"bccd_test: no split file .*bccd/BCCD/ImageSets/Main/test\.txt"):
        load_data(["bccd_test"], str(tmp_path), warnings)


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (["coco128"], {"images": 90, "annotations": 706, "crowd": 8, "categories": 80, "categories_annotated": 65}),
        (["bccd_trainval"], {"images": 196, "categories": 3}),
        (["bccd_test"], {"images": 59, "categories": 3}),
        (["bccd_trainval", "bccd_test"], {"images": 255, "annotations": 3351, "crowd": 0, "categories_annotated": 3}),
    ],
)
def test_counts_of_the_real_sets(shared_data, names, counts):
    data = load_data(names, str(shared_data), WarningCounter())
    assert counts.items() <= data.counts().items()
