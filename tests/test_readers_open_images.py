"""Open Images: the construction steps on files in the original columns, and on the shared real boxes."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from backbones.config import get_defaults
from backbones.core.config import load_config
from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from backbones.data.open_images import CHOICE, choose_classes
from backbones.data.open_images_csv import leaf_labels, read_boxes, read_class_names
from backbones.data.samples import Samples, load_samples
from backbones.pretraining.building import read_split

COLUMNS = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
NAMES = {"/m/a": "Apple", "/m/c": "Coat", "/m/j": "Jacket", "/m/h": "Human hand", "/m/f": "Fruit", "/m/z": "Zebra"}
TREE = {
    "LabelName": "/m/root",
    "Subcategory": [
        {"LabelName": "/m/f", "Subcategory": [{"LabelName": "/m/a"}]},
        {"LabelName": "/m/c"},
        {"LabelName": "/m/j"},
        {"LabelName": "/m/z", "Part": [{"LabelName": "/m/h"}]},
    ],
}
# ImageID, label, x0, x1, y0, y1, group, depiction, inside
BOXES = [
    ("02", "/m/a", 0.1, 0.5, 0.2, 0.6, 0, 0, 0),
    ("01", "/m/c", 0.0, 0.5, 0.0, 1.0, 0, 0, 0),
    ("01", "/m/j", 0.25, 1.0, 0.5, 1.0, 0, 0, 0),
    ("01", "/m/f", 0.0, 1.0, 0.0, 1.0, 0, 0, 0),
    ("01", "/m/h", 0.0, 0.2, 0.0, 0.2, 0, 0, 0),
    ("01", "/m/a", 0.5, 0.75, 0.0, 0.5, 1, 0, 0),
    ("01", "/m/a", 0.6, 0.9, 0.1, 0.4, 0, 1, 0),
    ("03", "/m/z", 0.0, 1.0, 0.0, 1.0, 0, 0, 1),
    ("03", "/m/z", 0.5, 0.5, 0.0, 1.0, 0, 0, 0),
    ("03", "/m/z", 0.0, 0.25, 0.0, 0.5, -1, -1, -1),
    ("04", "/m/z", 0.0, 1.0, 0.0, 1.0, 0, 0, 0),
]


def write(root: Path, *, header: bool = True, columns: str = COLUMNS) -> Path:
    (root / "train").mkdir(parents=True)
    lines = (["LabelName,DisplayName"] if header else []) + [f"{label},{name}" for label, name in NAMES.items()]
    (root / "class-descriptions-boxable.csv").write_text("\n".join(lines) + "\n")
    (root / "bbox_labels_600_hierarchy.json").write_text(json.dumps(TREE))
    names = columns.split(",")
    with open(root / "train-annotations-bbox.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", restval="0")
        writer.writeheader()
        for image, label, x0, x1, y0, y1, group, depiction, inside in BOXES:
            row = {"ImageID": image, "LabelName": label, "XMin": x0, "XMax": x1, "YMin": y0, "YMax": y1}
            writer.writerow(row | {"IsGroupOf": group, "IsDepiction": depiction, "IsInside": inside})
    rng = np.random.default_rng(0)
    for name, size in (("01", (30, 40)), ("02", (20, 50)), ("03", (30, 40))):
        Image.fromarray(rng.integers(130, 256, (*size, 3), np.uint8)).save(root / f"train/{name}.jpg", quality=95)
    return root


def load(root: Path, split: str = "train") -> tuple[Samples, dict[str, int]]:
    warnings = WarningCounter()
    options = {"drop_without_box": False, "need_boxes": True}
    samples = load_samples("open_images", root, split, warnings=warnings, **options)
    return samples, {entry["what"]: entry["count"] for entry in warnings.as_list()}


def test_the_construction_steps(tmp_path):
    samples, counts = load(write(tmp_path / "oi"))
    assert samples.classes == ["Apple", "Coat", "Zebra"]  # no inner node, no body part, the jacket is a coat
    assert samples.relative == ["train/01.jpg", "train/01.jpg", "train/02.jpg", "train/03.jpg"]
    np.testing.assert_array_equal(samples.labels, [1, 1, 0, 2])
    expected = [[0, 0, 20, 30], [10, 15, 40, 30], [5, 4, 25, 12], [0, 0, 10, 15]]
    np.testing.assert_allclose(samples.boxes, expected, rtol=1e-6)
    assert {k: v for k, v in counts.items() if "yaml" not in k} == {
        "annotated images that are not there": 1,
        "boxes left out, IsGroupOf": 1,
        "boxes left out, IsDepiction": 1,
        "boxes left out, IsInside": 1,
        "boxes of zero area dropped": 1,
    }


def test_other_objects_are_painted_and_left_out_boxes_are_not(tmp_path):
    samples, _ = load(write(tmp_path / "oi"))
    whole = np.asarray(Image.open(tmp_path / "oi/train/01.jpg"))
    painted = (samples.load_image(0) == (124, 116, 104)).all(axis=2)
    expected = np.zeros((30, 40), bool)
    expected[15:30, 20:40] = True  # the jacket, outside of the coat
    np.testing.assert_array_equal(painted, expected)
    np.testing.assert_array_equal(samples.load_image(0)[~expected], whole[~expected])
    assert not (samples.load_image(3) == (124, 116, 104)).all(axis=2).any()


@pytest.mark.parametrize("header", [True, False])
def test_the_class_file_may_lack_its_header(tmp_path, header):
    assert read_class_names(write(tmp_path / "oi", header=header) / "class-descriptions-boxable.csv") == NAMES


def test_columns_may_come_in_any_order_and_only_ours_must_be_there(tmp_path):
    one, _ = load(write(tmp_path / "one"))
    other, _ = load(write(tmp_path / "two", columns=",".join(reversed(COLUMNS.split(",")))))
    assert other.fingerprint == one.fingerprint
    reduced, counts = load(write(tmp_path / "three", columns="ImageID,LabelName,XMin,XMax,YMin,YMax"))
    assert counts["columns that the boxes lack, so that none is left out for them"] == 3
    assert len(reduced) == len(one) + 3
    write(tmp_path / "four", columns="ImageID,LabelName,XMin,YMin,YMax")
    with pytest.raises(InputError, match=r"train-annotations-bbox\.csv lacks the column XMax"):
        load(tmp_path / "four")


def test_a_fingerprint_follows_the_boxes_and_not_the_place(tmp_path):
    before = load(write(tmp_path / "oi"))[0].fingerprint
    shutil.copytree(tmp_path / "oi", tmp_path / "else")
    assert load(tmp_path / "else")[0].fingerprint == before
    path = tmp_path / "else/train-annotations-bbox.csv"
    path.write_text(path.read_text().replace("0.6", "0.7", 1))
    assert load(tmp_path / "else")[0].fingerprint != before


def test_what_is_missing_or_broken_is_named(tmp_path):
    root = write(tmp_path / "oi")
    with pytest.raises(InputError, match=r"expects .*test-annotations-bbox\.csv \(found none\)"):
        load(root, "test")
    path = root / "train-annotations-bbox.csv"
    path.write_text(path.read_text().replace("0.75", "wide"))
    with pytest.raises(InputError, match=r"line 7: cannot read .*wide"):
        load(root)
    (root / "bbox_labels_600_hierarchy.json").write_text("[]")
    with pytest.raises(InputError, match="is not a valid hierarchy"):
        load(root)
    (root / "class-descriptions-boxable.csv").write_text("/m/a\n")
    with pytest.raises(InputError, match="lacks the column of names"):
        load(root)
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    write(tmp_path / "none")
    shutil.rmtree(tmp_path / "none/train")
    with pytest.raises(InputError, match=r"no folder .*train"):
        load(tmp_path / "none")


def test_the_version_must_be_mask_and_the_cap_and_the_colour_are_the_configs(tmp_path):
    root = write(tmp_path / "oi")
    common = ["DATA.NAME", "open_images", "DATA.ROOT", str(root)]
    with pytest.raises(InputError, match=r"several classes.*DATA\.VERSION and DATA\.EVAL_VERSION mask"):
        read_split(load_config(get_defaults(), None, common), "train", WarningCounter())
    overrides = [*common, "DATA.VERSION", "mask", "DATA.CLASS_CAP", "1", "DATA.MEAN", "[0.5, 0.0, 1.0]"]
    cfg = load_config(get_defaults(), None, overrides)
    samples = read_split(cfg, "train", WarningCounter(), training=True)
    assert np.bincount(samples.labels).tolist() == [1, 1, 1]
    coat = int(np.flatnonzero(samples.labels == 1)[0])
    assert (samples.load_image(coat) == (128, 0, 255)).all(axis=2).any()  # its capped neighbour is still painted
    assert read_split(cfg, "train", WarningCounter()).fingerprint == samples.fingerprint


# The shared real files


def test_our_choice_of_classes_is_within_15_of_the_papers(shared_data):
    folder, warnings = shared_data / "openimages", WarningCounter()
    names, leaves = (
        read_class_names(folder / "class-descriptions-boxable.csv"),
        leaf_labels(folder / "bbox_labels_600_hierarchy.json"),
    )
    assert len(names) == 601
    chosen = choose_classes(names, leaves, warnings)
    assert warnings.as_list() == []  # every listed name is a leaf
    assert abs(len(chosen.names) - 480) <= 15
    assert chosen.number.max() + 1 == len(chosen.names)
    choice = yaml.safe_load(CHOICE.read_text())
    listed = Counter(name for group in choice["removed"] + choice["merged"] for name in group["classes"])
    assert max(listed.values()) == 1


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_real_boxes_are_counted_like_an_independent_reader(shared_data, split):
    path = shared_data / f"openimages/openimage-sub-{split}-annotations-bbox.csv"
    leaves = sorted(leaf_labels(shared_data / "openimages/bbox_labels_600_hierarchy.json"))
    rows = read_boxes(path, leaves)
    with open(path) as file:
        plain = list(csv.DictReader(file))
    assert len(rows.labels) == len(plain)
    assert (rows.labels >= 0).sum() == sum(row["LabelName"] in leaves for row in plain)
    assert len(rows.images) == len({row["ImageID"] for row in plain})
    np.testing.assert_array_equal(rows.boxes[:, 2], [float(row["XMax"]) for row in plain])
    k = len(plain) // 2
    assert rows.images[rows.image[k]] == Path(plain[k]["ImageID"]).stem


def test_the_original_columns_are_read(shared_data):
    rows = read_boxes(shared_data / "openimages/original_format_head/oidv6-train-annotations-bbox.csv", ["/m/01g317"])
    assert rows.images == ["000002b66c9c498e"]
    np.testing.assert_allclose(rows.boxes[0], [0.0125, 0.148438, 0.195312, 0.5875])
    assert set(rows.flags) == {"IsGroupOf", "IsDepiction", "IsInside"}


def test_a_real_image_under_the_id_of_real_boxes(shared_data, tmp_path):
    source = shared_data / "openimages"
    for name in ("class-descriptions-boxable.csv", "bbox_labels_600_hierarchy.json"):
        shutil.copy(source / name, tmp_path / name)
    boxes = tmp_path / "x-validation-annotations-bbox.csv"
    shutil.copy(source / "openimage-sub-validation-annotations-bbox.csv", boxes)
    name = Path(read_boxes(boxes, []).images[0]).name
    (tmp_path / "validation").mkdir()
    shutil.copy(source / "sample_images/07988525d97edf50.jpg", tmp_path / f"validation/{name}.jpg")
    samples, counts = load(tmp_path, "validation")
    assert counts["annotated images that are not there"] > 100
    assert samples.load_image(0).shape == (samples.sizes[0, 1], samples.sizes[0, 0], 3)
    assert (samples.boxes[:, 2:] <= samples.sizes).all()
