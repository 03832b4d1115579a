"""Lists and tables of the classification data sets: byte order marks, encodings, numbers and flags that cannot be."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from backbones.core.errors import InputError
from backbones.core.findings import ERROR
from backbones.core.warning_counter import WarningCounter
from backbones.data.checks import check_samples
from backbones.data.cifar10h import load_cifar10h
from backbones.data.open_images_csv import leaf_labels, read_boxes, read_class_names
from backbones.data.samples import load_samples

BOM = "\ufeff"


def save_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(path, "JPEG")


def load(name, root, split):
    """Samples and counts; the checker refuses what the training refuses, with the same line."""
    warnings, refused = WarningCounter(), None
    report = check_samples(name, root, split, workers=1)
    errors = [entry["examples"] for entry in report.findings.as_list() if entry["severity"] == ERROR]
    try:
        samples = load_samples(name, root, split, drop_without_box=False, need_boxes=False, warnings=warnings)
    except InputError as error:
        refused = error
    assert errors == ([] if refused is None else [[str(refused)]])
    if refused is not None:
        raise refused
    return samples, {entry["what"]: entry["count"] for entry in warnings.as_list()}


# --------------------------------------------------------------------------------- Tiny-ImageNet


@pytest.fixture
def tiny(tmp_path):
    for k in range(2):
        save_image(tmp_path / f"train/n01/images/n01_{k}.JPEG")
    write(tmp_path / "train/n01/n01_boxes.txt", "n01_0.JPEG\t0\t0\t9\t9\nn01_1.JPEG\t1\t1\t9\t9\n")
    return tmp_path


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def test_box_files_of_tiny_imagenet_may_have_a_mark_and_blank_lines(tiny):
    write(tiny / "train/n01/n01_boxes.txt", f"{BOM}n01_0.JPEG\t0\t0\t9\t9\r\n\r\nn01_1.JPEG\t1\t1\t9\t9\r\n\r\n")
    np.testing.assert_array_equal(load("tiny_imagenet", tiny, "train")[0].boxes, [[0, 0, 10, 10], [1, 1, 10, 10]])


def test_other_files_of_tiny_imagenet_are_counted(tiny):
    for name in ("train/n01/images/._n01_0.JPEG", "train/n01/images/list.csv", "train/x.txt"):
        write(tiny / name, "x")
    assert load("tiny_imagenet", tiny, "train")[1] == {
        "hidden files left out": 1,
        "other files and folders left out": 2,
    }


@pytest.mark.parametrize("number", ["nan", "inf", "1e999"])
def test_a_box_of_tiny_imagenet_is_finite(tiny, number):
    write(tiny / "train/n01/n01_boxes.txt", f"n01_0.JPEG\t0\t0\t9\t9\nn01_1.JPEG\t1\t1\t{number}\t9\n")
    with pytest.raises(InputError, match=r"n01_boxes\.txt, line 2: cannot read"):
        load("tiny_imagenet", tiny, "train")


@pytest.mark.parametrize("name", ["train/n01/n01_boxes.txt", "words.txt"])
def test_a_table_of_tiny_imagenet_in_another_encoding_is_named(tiny, name):
    write(tiny / name, "n01_é.JPEG\t0\t0\t9\t9\n", "latin-1")
    with pytest.raises(InputError, match=rf"{name} is not a text file in UTF-8"):
        load("tiny_imagenet", tiny, "train")


# --------------------------------------------------------------------------------- ImageNetV2, CUB


def test_the_ids_of_imagenet_v2_may_begin_with_a_mark(tmp_path):
    save_image(tmp_path / "test/0/x.jpeg")
    save_image(tmp_path / "test/stray.jpeg")
    write(tmp_path / "classes.txt", f"{BOM}n02\nn01\n")
    samples, counts = load("imagenet_v2", tmp_path, "test")
    assert samples.classes == ["n01", "n02"]
    assert counts == {"classes without image": 1, "images beside the class folders left out": 1}


@pytest.fixture
def cub(tmp_path):
    for name in ("a", "b"):
        save_image(tmp_path / f"CUB_200_2011/images/001.Auk/{name}.jpg")
    tables = {"images": "1 001.Auk/a.jpg\n2 001.Auk/b.jpg\n", "image_class_labels": "1 1\n2 1\n",
              "train_test_split": "1 1\n2 0\n", "bounding_boxes": "1 2 3 10 12\n2 0 0 40 30\n",
              "classes": "1 001.Auk\n"}  # fmt: skip
    for name, text in tables.items():
        write(tmp_path / f"CUB_200_2011/{name}.txt", BOM + text)
    return tmp_path


def test_every_table_of_cub_may_begin_with_a_mark(cub):
    samples, counts = load("cub200", cub, "train")
    assert (samples.boxes.tolist(), counts) == ([[2, 3, 12, 15]], {})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("image_class_labels", "1 1\n2 1\n1 1\n", r"image_class_labels\.txt, line 3: a second line for 1"),
        ("train_test_split", "1 1\n2 true\n", r"gives 001\.Auk/b\.jpg the part true, not 0 or 1"),
        ("bounding_boxes", "1 nan 3 10 12\n2 0 0 40 30\n", r"a\.jpg has the box .*nan.*, which is not finite"),
        ("bounding_boxes", "1 2 3 1e300 12\n2 0 0 40 30\n", r"a\.jpg has the box .*, which is not finite"),
    ],
)
def test_what_cub_cannot_mean_is_refused(cub, name, text, message):
    write(cub / f"CUB_200_2011/{name}.txt", text)
    with pytest.raises(InputError, match=message):
        load("cub200", cub, "train")


# --------------------------------------------------------------------------------- Open Images, CIFAR-10H

HEADER = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf"


@pytest.mark.parametrize("mark", ["", BOM])
def test_csv_files_of_open_images_may_begin_with_a_mark(tmp_path, mark):
    write(tmp_path / "boxes.csv", f"{mark}{HEADER}\na,/m/1,0.1,0.2,0.3,0.4,1\na,/m/2,0.1,0.2,0.3,0.4,-1\n")
    write(tmp_path / "names.csv", f"{mark}/m/1,Cat\n/m/2,Café\n")
    rows = read_boxes(tmp_path / "boxes.csv", ["/m/1", "/m/2"])
    assert (rows.images, rows.labels.tolist(), rows.flags["IsGroupOf"].tolist()) == (["a"], [0, 1], [True, False])
    assert read_class_names(tmp_path / "names.csv") == {"/m/1": "Cat", "/m/2": "Café"}


@pytest.mark.parametrize("row", ["a,/m/1,nan,0.2,0.3,0.4,0", "a,/m/1,0.1,inf,0.3,0.4,0", "a,/m/1,0.1,0.2,0.3,0.4,2",
                                 "a,/m/1,0.1,0.2,0.3,0.4,True", "a,/m/1,0.1,0.2,0.3,0.4,nan"])  # fmt: skip
def test_numbers_and_flags_of_open_images_are_checked(tmp_path, row):
    write(tmp_path / "boxes.csv", f"{HEADER}\na,/m/1,0.1,0.2,0.3,0.4,0\n{row}\n")
    with pytest.raises(InputError, match=r"boxes\.csv, line 3: cannot read"):
        read_boxes(tmp_path / "boxes.csv", ["/m/1"])


def test_tables_of_open_images_that_are_none_are_named(tmp_path):
    write(tmp_path / "latin.csv", f"{HEADER}\né,/m/1,0.1,0.2,0.3,0.4,0\n", "latin-1")
    write(tmp_path / "long.csv", f'{HEADER}\n"{"x" * (csv.field_size_limit() + 1)}",/m/1\n')
    for name in ("latin", "long"):
        for read in (lambda path: read_boxes(path, ["/m/1"]), read_class_names):
            with pytest.raises(InputError, match=rf"{name}\.csv is not a csv file in UTF-8"):
                read(tmp_path / f"{name}.csv")
    write(tmp_path / "twice.csv", "/m/1,Cat\n/m/1,Dog\n")
    with pytest.raises(InputError, match="gives /m/1 the names 'Cat' and 'Dog'"):
        read_class_names(tmp_path / "twice.csv")


def test_the_hierarchy_may_begin_with_a_mark(tmp_path):
    tree = {"LabelName": "/m/0", "Subcategory": [{"LabelName": "/m/1"}]}
    write(tmp_path / "h.json", BOM + json.dumps(tree))
    assert leaf_labels(tmp_path / "h.json") == {"/m/1"}


@pytest.fixture
def open_images(tmp_path):
    write(tmp_path / "train-annotations-bbox.csv", f"{HEADER}\na,/m/1,-0.1,0.5,0.1,0.5,0\nb,/m/1,0.1,0.2,0.3,0.4,0\n")
    write(tmp_path / "class-descriptions-boxable.csv", "/m/1,Tortoise\n")
    tree = {"LabelName": "/m/0", "Subcategory": [{"LabelName": "/m/1"}]}
    write(tmp_path / "bbox_labels_600_hierarchy.json", json.dumps(tree))
    return tmp_path


def test_every_image_of_open_images_is_read_or_counted(open_images):
    for name in ("a.JPG", "a.webp", "b.jpeg", "unboxed.jpg", "._a.jpg"):
        save_image(open_images / "train" / name)
    (open_images / "train/list.txt").touch()
    samples, counts = load("open_images", open_images, "train")
    assert samples.relative == ["train/a.JPG", "train/b.jpeg"]
    np.testing.assert_allclose(samples.boxes, [[0, 3, 20, 15], [4, 9, 8, 12]], rtol=1e-6)
    assert {what: n for what, n in counts.items() if "open_images_classes" not in what and "lack" not in what} == {
        "boxes clipped to the image": 1,
        "hidden files left out": 1,
        "images left out beside another of the same ImageID": 1,
        "images without a box of a chosen class": 1,
        "other files and folders left out": 1,
    }


@pytest.mark.parametrize("content", ["empty", "archive", "inf", "nan"])
def test_human_labels_that_are_none_are_named(tmp_path, content):
    path = tmp_path / "cifar10h-probs.npy"
    table = np.full((3, 10), 0.1)
    if content in ("inf", "nan"):
        table[1, 2] = float(content)
    np.save(path, table)
    if content == "empty":
        path.write_bytes(b"")
    if content == "archive":
        with path.open("wb") as file:
            np.savez(file, table)
    with pytest.raises(InputError, match=r"cifar10h-probs\.npy"):
        load_cifar10h(tmp_path)
