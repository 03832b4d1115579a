"""Readers of data sets: the numbers of the real data, the checks, and what a fingerprint depends on."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from backbones.data.geometry import objectness
from backbones.data.imagenet_xml import read_ilsvrc_xml
from backbones.data.samples import Samples, load_samples

Box = tuple[int, int, int, int]


def save_image(path: Path, width: int = 40, height: int = 30, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path, "JPEG")


def save_xml(path: Path, objects: list[tuple[str, Box]], size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    text.write(f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>")
    for name, (x0, y0, x1, y1) in objects:
        corners = f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        text.write(f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>")
    path.write_text(text.getvalue() + "</annotation>")


def add_xml_sample(root: Path, name: str, stem: str, objects: list[tuple[str, Box]] | None, **image) -> None:
    save_image(root / "train" / name / f"{stem}.JPEG", **image)
    if objects is not None:
        save_xml(root / "annotations/train" / name / f"{stem}.xml", objects)


@pytest.fixture
def xml_root(tmp_path: Path) -> Path:
    """Two classes, an image for every case that a reader must handle."""
    root = tmp_path / "set"
    add_xml_sample(root, "dog", "b", [("dog", (0, 0, 39, 29))])
    add_xml_sample(root, "dog", "a", [("dog", (10, 5, 19, 14)), ("cat", (0, 0, 5, 5)), ("dog", (30, 20, 60, 25))])
    add_xml_sample(root, "cat", "grey", [("cat", (3, 4, 3, 8))], mode="L")
    add_xml_sample(root, "cat", "cmyk", [("cat", (1, 1, 8, 8)), ("cat", (20, 9, 10, 12))], mode="CMYK")
    return root


def load(root: Path, split: str = "train", name: str = "imagenet_xml", **options) -> tuple[Samples, dict[str, int]]:
    warnings = WarningCounter()
    options = {"drop_without_box": False, "need_boxes": False, **options}
    samples = load_samples(name, root, split, warnings=warnings, **options)
    return samples, {entry["what"]: entry["count"] for entry in warnings.as_list()}


def test_xml_boxes_are_inclusive_clipped_and_of_the_own_class(xml_root):
    samples, counts = load(xml_root, need_boxes=True)
    assert samples.classes == ["cat", "dog"]
    assert samples.relative == ["train/cat/cmyk.JPEG", "train/cat/grey.JPEG", "train/dog/a.JPEG", "train/dog/b.JPEG"]
    np.testing.assert_array_equal(samples.labels, [0, 0, 1, 1])
    np.testing.assert_array_equal(samples.boxes_of(0), [[1, 1, 9, 9]])
    np.testing.assert_array_equal(samples.boxes_of(1), [[3, 4, 4, 9]])  # one pixel wide, not empty
    np.testing.assert_array_equal(samples.boxes_of(2), [[10, 5, 20, 15], [30, 20, 40, 26]])
    assert objectness(samples.boxes_of(3), (0, 0, 40, 30)) == 1
    assert counts == {
        "boxes clipped to the image": 1,
        "boxes of zero area dropped": 1,
        "grey or CMYK images converted": 2,
    }


def test_fingerprint_follows_the_content_not_the_place(xml_root, tmp_path):
    before = load(xml_root)[0].fingerprint
    shutil.copytree(xml_root, tmp_path / "elsewhere")
    assert load(tmp_path / "elsewhere")[0].fingerprint == before
    save_xml(xml_root / "annotations/train/dog/b.xml", [("dog", (0, 0, 38, 29))])
    changed = load(xml_root)[0].fingerprint
    assert changed != before
    for file in ("train/dog/{}.JPEG", "annotations/train/dog/{}.xml"):
        (xml_root / file.format("b")).rename(xml_root / file.format("c"))
    assert load(xml_root)[0].fingerprint not in (before, changed)


def test_images_without_a_usable_box_are_an_error_or_dropped(xml_root):
    add_xml_sample(xml_root, "cat", "no_file", None)
    add_xml_sample(xml_root, "cat", "other_class", [("dog", (1, 1, 5, 5))])
    add_xml_sample(xml_root, "cat", "outside", [("cat", (50, 50, 60, 60))])
    assert len(load(xml_root)[0]) == 7  # without objectness they are welcome
    with pytest.raises(InputError, match=r"3 of 7 images.*no_file\.JPEG.*VERSION box"):
        load(xml_root, need_boxes=True)
    samples, counts = load(xml_root, need_boxes=True, drop_without_box=True)
    assert len(samples) == 4
    assert counts["images dropped"] == 3
    kept = load(xml_root)[0].fingerprint
    assert samples.fingerprint != kept


def test_dropping_keeps_boxes_with_their_images(xml_root):
    full = load(xml_root)[0]
    part = full.subset(np.array([1, 3]))
    assert part.relative == [full.relative[1], full.relative[3]]
    for new, old in ((0, 1), (1, 3)):
        np.testing.assert_array_equal(part.boxes_of(new), full.boxes_of(old))


def test_classes_file_sets_the_order_of_the_labels(xml_root):
    (xml_root / "classes.txt").write_text("dog\nowl\ncat\n")
    samples, _ = load(xml_root)
    assert samples.classes == ["dog", "owl", "cat"]
    np.testing.assert_array_equal(samples.labels, [2, 2, 0, 0])
    (xml_root / "classes.txt").write_text("dog\n")
    with pytest.raises(InputError, match="cat is not one of the 1 classes"):
        load(xml_root)


def test_a_split_that_lacks_a_class_keeps_the_labels_of_train(xml_root):
    save_image(xml_root / "val/dog/x.JPEG")
    samples, _ = load(xml_root, "val")
    assert samples.classes == ["cat", "dog"]
    np.testing.assert_array_equal(samples.labels, [1])


def test_display_names_come_from_words(xml_root):
    (xml_root / "words.txt").write_text("dog\tdomestic dog, Canis familiaris\n")
    assert load(xml_root)[0].display_names == ["cat", "domestic dog"]


def test_a_size_that_differs_from_the_image_is_counted_and_the_images_holds(xml_root):
    save_xml(xml_root / "annotations/train/dog/b.xml", [("dog", (0, 0, 99, 99))], size=(100, 100))
    samples, counts = load(xml_root)
    np.testing.assert_array_equal(samples.boxes_of(3), [[0, 0, 40, 30]])
    assert counts["image sizes differ from the XML's; the image's taken"] == 1


def test_what_is_missing_or_broken_is_named(xml_root, tmp_path):
    with pytest.raises(InputError, match=r"no split 'test'.*splits found: train"):
        load(xml_root, "test")
    for root in (tmp_path / "nowhere", ""):
        with pytest.raises(InputError, match=r"DATA\.ROOT"):
            load(root)
    with pytest.raises(InputError, match=r"unknown data set 'imagenet-xml'; did you mean 'imagenet_xml'"):
        load(xml_root, name="imagenet-xml")
    (tmp_path / "empty/train/dog").mkdir(parents=True)
    with pytest.raises(InputError, match="no image"):
        load(tmp_path / "empty")
    (xml_root / "annotations/train/dog/b.xml").write_text("<annotation><object>")
    with pytest.raises(InputError, match=r"annotation .*b\.xml"):
        load(xml_root)
    (xml_root / "annotations/train/dog/b.xml").unlink()
    (xml_root / "train/dog/b.JPEG").write_bytes(b"no jpeg")
    with pytest.raises(InputError, match=r"b\.JPEG \(not an image\)"):
        load(xml_root)


def test_real_ilsvrc_xml(shared_data):
    path = next((shared_data / "ilsvrc-meta/xml_samples").rglob("n02437312_10028.xml"))
    assert read_ilsvrc_xml(path, "n02437312") == ([(213, 127, 317, 330)], (500, 375))
    assert read_ilsvrc_xml(path, "n01440764")[0] == []


@pytest.mark.parametrize(("split", "images"), [("train", 7000), ("val", 700)])
def test_tiny_imagenet_has_the_numbers_of_its_readme(shared_data, split, images):
    root = shared_data / "tiny-imagenet/tiny-imagenet-200"
    samples, counts = load(root, split, "tiny_imagenet", need_boxes=True)
    assert (len(samples), len(samples.boxes), len(samples.classes)) == (images, images, 20)
    assert samples.display_names[0] == "goldfish"
    assert counts["boxes one pixel wide or high kept"] == {"train": 13, "val": 4}[split]
    assert "boxes clipped to the image" not in counts
    assert (samples.box_counts() == 1).all()


def test_tiny_imagenet_in_total(shared_data):
    root = shared_data / "tiny-imagenet/tiny-imagenet-200"
    parts = [load(root, split, "tiny_imagenet") for split in ("train", "val")]
    boxes = np.concatenate([samples.boxes for samples, _ in parts])
    assert (boxes == [0, 0, 64, 64]).all(axis=1).sum() == 373
    assert ((boxes[:, 2:] - boxes[:, :2] - 1).prod(axis=1) < 32**2).sum() == 1571
    assert sum(counts.get("grey or CMYK images converted", 0) for _, counts in parts) == 83


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    for name in ("n1", "n2"):
        save_image(root / f"train/{name}/images/{name}_0.JPEG", 64, 64)
        (root / f"train/{name}/{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t10\t63\t58\n")
    save_image(root / "val/images/val_0.JPEG", 64, 64)
    (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn2\t5\t5\t5\t9\n")
    return root


def test_tiny_imagenet_layout(tiny_root):
    samples, _ = load(tiny_root, "train", "tiny_imagenet")
    np.testing.assert_array_equal(samples.boxes, [[0, 10, 64, 59]] * 2)
    samples, counts = load(tiny_root, "val", "tiny_imagenet")
    np.testing.assert_array_equal(samples.labels, [1])
    np.testing.assert_array_equal(samples.boxes, [[5, 5, 6, 10]])
    assert counts == {"boxes one pixel wide or high kept": 1, "classes without image": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.JPEG\tn9\t5\t5\t5\t9", "line 1: class 'n9' has no folder"),
        ("val_0.JPEG\tn2\t5\t5\t5", "line 1: cannot read"),
        ("val_0.JPEG\tn2\t5\tx\t5\t9", "line 1: cannot read"),
        ("val_1.JPEG\tn2\t5\t5\t5\t9", r"val_1\.JPEG is annotated but absent"),
        ("", r"val_0\.JPEG has no line"),
        ("val_0.JPEG\tn2\t5\t5\t5\t9\nval_0.JPEG\tn1\t5\t5\t5\t9", "line 2: a second line"),
    ],
)
def test_tiny_imagenet_errors_name_the_line_or_the_image(tiny_root, line, message):
    (tiny_root / "val/val_annotations.txt").write_text(line + "\n" if line else "")
    with pytest.raises(InputError, match=message):
        load(tiny_root, "val", "tiny_imagenet")
