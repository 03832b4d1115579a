"""The index of annotations: the fast readers against the strict ones, resuming, staleness, and what is counted."""

import io
import json
import random
import re
import runpy
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.core.errors import InputError
from backbones.core.image_header import jpeg_header
from backbones.core.images import read_header
from backbones.core.warning_counter import WarningCounter
from backbones.data import annotation_index
from backbones.data.annotation_index import build_index, fresh_index, index_path, load_index
from backbones.data.ilsvrc_xml import parse_any, parse_usual, read_ilsvrc_xml
from backbones.data.samples import Samples, load_samples

BENCHMARK = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks/annotation_index.py"))


def load(root: Path, split: str = "train") -> tuple[Samples, list[dict]]:
    warnings = WarningCounter()
    options = {"drop_without_box": False, "need_boxes": False}
    return load_samples("imagenet_xml", root, split, warnings=warnings, **options), warnings.as_list()


def save_xml(path: Path, objects: list[tuple], size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>"
    for name, corners in objects:
        inner = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
        text += f"<object><name>{name}</name><bndbox>{inner}</bndbox></object>"
    path.write_text(text + "</annotation>")


def save_image(path: Path, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path, "JPEG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes with everything that is counted; a class name that sorts before its own prefix's paths."""
    root = tmp_path / "set"
    for name in ("a", "a-b", "c"):
        for i in range(4):
            save_image(root / f"train/{name}/{name}_{i}.JPEG", "L" if (name, i) == ("c", 1) else "RGB")
        folder = root / "annotations/train" / name
        save_xml(folder / f"{name}_0.xml", [(name, (1, 2, 10, 12)), ("other", (0, 0, 5, 5)), (name, (5, 5, 60, 20))])
        save_xml(folder / f"{name}_1.xml", [(name, (0, 0, 39, 29))], size=(80, 60))
    save_xml(root / "annotations/train/a/a_2.xml", [("c", (1, 1, 5, 5))])
    save_xml(root / "annotations/train/c/c_2.xml", [("c", (50, 1, 60, 5)), ("c", (9, 9, 3, 3))])
    save_xml(root / "annotations/train/c/gone.xml", [("c", (1, 1, 5, 5))])
    return root


# XML


def mutate(text: str, rng: random.Random) -> str:
    """Another spelling of the file, or a damaged one."""
    changes = [
        lambda t: t.replace("\t", ""),
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.replace("<annotation>", "<?xml version='1.0'?>\n<annotation>"),
        lambda t: t.replace("<annotation>", "<annotation><!-- by hand -->"),
        lambda t: t.replace("n00000000</name>", " n00000000 </name>"),
        lambda t: t.replace("n00000000</name>", "\n\t n00000000\n</name>"),
        lambda t: t.replace("n00000000</name>", "n00000000</name><name>n1</name>", 1),
        lambda t: t.replace("</bndbox>", "</bndbox><bndbox><xmin>1</xmin></bndbox>", 1),
        lambda t: re.sub(r"(<bndbox>.*?</bndbox>)", r"\1\n\1", t, count=1, flags=re.DOTALL),
        lambda t: t.replace("<xmax>", "<xmax>7</xmax><xmax>", 1),
        lambda t: t.replace("<size>", "<size><width>9</width></size><size>", 1),
        lambda t: t.replace("<ymax>", "<ymax>nan", 1),
        lambda t: re.sub(r"<ymax>\d+", "<ymax>inf", t, count=1),
        lambda t: re.sub(r"<width>\d+", r"\g<0>.0", t),
        lambda t: re.sub(r"<xmin>\d+", "<xmin>1_0", t, count=1),
        lambda t: "<?xml version='1.0' encoding='gb2312'?>" + t,
        lambda t: "\ufeff" + t,
        lambda t: t.replace("n00000000</name>", "n0000000&#48;</name>"),
        lambda t: t.replace("n00000000</name>", "n00000001</name>", 1),
        lambda t: t.replace("<pose>Unspecified</pose>", ""),
        lambda t: t.replace("<pose>Unspecified</pose>", "<pose>é</pose>"),
        lambda t: t.replace("<pose>", "<pose/><pose>", 1),
        lambda t: t.replace("<xmin>", "<xmin>-", 1),
        lambda t: t.replace("</xmax>", ".75</xmax>"),
        lambda t: t.replace("</xmax>", "e1</xmax>", 1),
        lambda t: t.replace("<ymin>", "<ymin> ", 1),
        lambda t: t.replace("<bndbox>", "<bndbox><extra/>", 1),
        lambda t: t.replace("</object>", "<part><name>n00000000</name></part></object>", 1),
        lambda t: t.replace("</object>", "<object><name>n00000000</name></object></object>", 1),
        lambda t: t.replace("<size>", "<size2>").replace("</size>", "</size2>"),
        lambda t: t.replace("<width>", "<width>x", 1),
        lambda t: t.replace("<depth>3</depth>", ""),
        lambda t: t.replace("</annotation>", "<size><width>1</width></size></annotation>"),
        lambda t: t.replace("<segmented>0</segmented>", "<segmented>0</segmented><object/>"),
        lambda t: t[: rng.randrange(len(t))],
        lambda t: t + rng.choice([" \n", "x", "<annotation/>", "\x0b"]),
        lambda t: "".join(t[i] for i in range(len(t)) if i != rng.randrange(len(t))),
        lambda t: t.replace(rng.choice("<>/0123"), rng.choice("<>/ 9&]"), 1),
    ]
    for _ in range(rng.randrange(3)):
        text = rng.choice(changes)(text)
    return text


def outcome(parse, data: bytes):
    try:
        return parse(data, "n00000000")
    except ValueError as error:
        return type(error)


def test_the_fast_reader_equals_the_strict_one_on_every_file():
    rng, draws, usual, refused = random.Random(0), np.random.default_rng(0), 0, 0
    for k in range(3000):
        text = BENCHMARK["annotation"](draws, "n00000000", f"n_{k}", (500, 375))
        data = mutate(text, rng).encode()
        fast, strict = outcome(parse_usual, data), outcome(parse_any, data)
        assert fast is None or fast == strict, data
        usual, refused = usual + (fast is not None), refused + isinstance(strict, type)
    assert usual > 1000  # the fast path is taken
    assert refused > 100  # and the damaged files are damaged


def test_every_real_annotation_takes_the_fast_path(shared_data):
    paths = sorted((shared_data / "ilsvrc-meta/xml_samples").rglob("*.xml"))
    assert len(paths) == 4
    for path in paths:
        data = path.read_bytes()
        name = ElementTree.fromstring(data).findtext("object/name")
        assert parse_usual(data, name) == parse_any(data, name)
        assert read_ilsvrc_xml(path, name)[0]


def test_a_long_annotation_is_read_to_its_end(tmp_path):
    save_xml(tmp_path / "x.xml", [("a", (i, 0, i + 1, 5)) for i in range(2000)])
    assert (tmp_path / "x.xml").stat().st_size > 2 * 65536
    boxes, size = read_ilsvrc_xml(tmp_path / "x.xml", "a")
    assert (len(boxes), boxes[-1], size) == (2000, (1999, 0, 2001, 6), (40, 30))


# Headers


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"exif": b"Exif\0\0" + bytes(9000)}]
)
def test_headers_are_those_of_pil(tmp_path, mode, options):
    path = tmp_path / "x.JPEG"
    Image.new(mode, (123, 45)).save(path, "JPEG", **options)
    with Image.open(path) as image:
        assert read_header(path) == (*image.size, image.mode, False) == (123, 45, mode, False)
    assert (jpeg_header(path.read_bytes()[:4096]) is None) == ("exif" in options)


def test_an_incomplete_jpeg_header_is_left_to_pil(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    for cut in range(0, 600, 7):
        found = jpeg_header(whole[:cut])
        assert found in (None, (50, 40, "RGB", False))
        if found is None:
            continue
        (tmp_path / "cut.JPEG").write_bytes(whole[:cut])
        assert read_header(tmp_path / "cut.JPEG") == found
    Image.new("RGB", (9, 7)).save(tmp_path / "png.JPEG", "PNG")
    assert read_header(tmp_path / "png.JPEG") == (9, 7, "RGB", False)
    (tmp_path / "no.JPEG").write_bytes(b"text")
    with pytest.raises(InputError, match=r"no\.JPEG \(not an image\)"):
        read_header(tmp_path / "no.JPEG")
    with pytest.raises(InputError, match=r"gone\.JPEG"):
        read_header(tmp_path / "gone.JPEG")


# The index


def test_samples_of_the_index_are_those_of_the_files(root, monkeypatch):
    plain, counted = load(root)
    build_index(root, "train", workers=1, overwrite=False)
    monkeypatch.setattr("backbones.data.imagenet_xml.read_class", None)  # no file is read again
    indexed, counted_again = load(root)
    assert indexed.fingerprint == plain.fingerprint
    assert indexed.relative == plain.relative == sorted(plain.relative)
    np.testing.assert_array_equal(indexed.boxes, plain.boxes)
    np.testing.assert_array_equal(indexed.offsets, plain.offsets)
    assert counted_again == counted
    assert {entry["what"]: entry["count"] for entry in counted} == {
        "annotations without an object of the image's class": 1,
        "annotations without an image": 1,
        "boxes clipped to the image": 4,
        "boxes of zero area dropped": 2,
        "grey or CMYK images converted": 1,
        "image sizes differ from the XML's; the image's taken": 3,
    }


def test_the_tables_say_what_was_dropped_and_why(root, load_tool, capsys):
    load_tool("prepare_data").main(["imagenet-boxes", "--root", str(root), "--workers", "1"])
    said = capsys.readouterr().out
    assert "12 images of 3 classes, 6 of them with 9 usable boxes; 2 to 2 per class" in said
    tables = {name: (root / f"annotations/index_train_{name}.csv").read_text() for name in ("classes", "dropped")}
    assert tables["classes"].splitlines() == [
        "class,images,images_with_boxes,boxes",
        "a,4,2,3",
        "a-b,4,2,3",
        "c,4,2,3",
    ]
    assert tables["dropped"].splitlines()[1:] == [
        "a/a_2.JPEG,no object of the image's class",
        "c/c_2.JPEG,every box empty or outside of the image",
        "c/gone.xml,no image of that name",
    ]


def test_a_killed_pass_resumes_where_it_was(root, monkeypatch):
    read, seen = annotation_index.read_class, []

    def dying(root, split, name):
        seen.append(name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return read(root, split, name)

    monkeypatch.setattr(annotation_index, "read_class", dying)
    with pytest.raises(KeyboardInterrupt):
        build_index(root, "train", workers=1, overwrite=False)
    assert not index_path(root, "train").exists()
    build_index(root, "train", workers=1, overwrite=False)
    assert seen == ["a", "a-b", "a-b", "c"]
    assert not (root / "annotations/.index_train").exists()
    build_index(root, "train", workers=1, overwrite=False)
    assert len(seen) == 4  # nothing had changed
    build_index(root, "train", workers=1, overwrite=True)
    assert len(seen) == 7


def test_processes_give_the_same_index(root):
    one = build_index(root, "train", workers=1, overwrite=False)
    stored = load_index(index_path(root, "train"))
    two = build_index(root, "train", workers=2, overwrite=True)
    for a, b, c in zip(one, stored, two, strict=True):
        assert (a.name, a.files, a.orphans, a.stamp) == (b.name, b.files, b.orphans, b.stamp)
        assert (a.name, a.files, a.orphans, a.stamp) == (c.name, c.files, c.orphans, c.stamp)
        for key in annotation_index.ARRAYS:
            np.testing.assert_array_equal(getattr(a, key), getattr(b, key))
            np.testing.assert_array_equal(getattr(a, key), getattr(c, key))


@pytest.mark.parametrize("change", ["image", "annotation", "class"])
def test_a_stale_index_is_said_and_not_used(root, change, caplog):
    build_index(root, "train", workers=1, overwrite=False)
    before = load(root)[0]
    if change == "image":
        save_image(root / "train/c/new.JPEG")
    elif change == "annotation":
        (root / "annotations/train/c/c_0.xml").unlink()
    else:
        save_image(root / "train/d/new.JPEG")
    with caplog.at_level("WARNING", logger="smooth2det"):
        after = load(root)[0]
    assert "is stale (1 classes changed, such as " + ("d" if change == "class" else "c") in caplog.text
    assert "prepare_data.py imagenet-boxes" in caplog.text
    assert after.fingerprint != before.fingerprint
    build_index(root, "train", workers=1, overwrite=False)  # reads the changed class alone
    assert load(root)[0].fingerprint == after.fingerprint


def test_an_index_goes_with_a_copy_of_the_data(root, tmp_path):
    build_index(root, "train", workers=1, overwrite=False)
    before = load(root)[0].fingerprint
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)  # other times
    assert fresh_index(tmp_path / "copy", "train", ["a", "a-b", "c"]) is not None
    assert load(tmp_path / "copy")[0].fingerprint == before
    assert not any(str(root) in str(value) for value in np.load(index_path(root, "train")).values())


def test_flat_annotations_of_val_are_found(root):
    save_image(root / "val/a/v_1.JPEG")
    save_image(root / "val/c/v_2.JPEG")
    save_xml(root / "annotations/val/v_1.xml", [("a", (1, 1, 5, 5))])
    save_xml(root / "annotations/val/v_2.xml", [("c", (2, 2, 7, 7))])
    samples, counted = load(root, "val")
    np.testing.assert_array_equal(samples.boxes, [[1, 1, 6, 6], [2, 2, 8, 8]])
    assert [entry["what"] for entry in counted] == ["classes without image"]  # a-b
    build_index(root, "val", workers=1, overwrite=False)
    assert load(root, "val")[0].fingerprint == samples.fingerprint


def test_what_an_index_cannot_read_is_named(root, tmp_path):
    with pytest.raises(InputError, match=r"no folder .*/test"):
        build_index(root, "test", workers=1, overwrite=False)
    (tmp_path / "empty/train").mkdir(parents=True)
    with pytest.raises(InputError, match="no class folder"):
        build_index(tmp_path / "empty", "train", workers=1, overwrite=False)
    (root / "annotations/train/c/c_0.xml").write_text("<annotation>")
    with pytest.raises(InputError, match=r"c_0\.xml"):
        build_index(root, "train", workers=1, overwrite=False)
    index_path(root, "train").write_bytes(b"PK no index")
    with pytest.raises(InputError, match=r"index_train\.npz.*--overwrite"):
        load(root)


def test_an_unknown_class_is_named_with_and_without_index(root):
    (root / "classes.txt").write_text("a\na-b\nc\n")
    save_image(root / "train/n99999999/x.JPEG")
    for _ in range(2):
        with pytest.raises(InputError, match=r"n99999999 is not one of the 3 classes"):
            load(root)
        build_index(root, "train", workers=1, overwrite=False)


def test_the_benchmark_measures_both_ways(tmp_path, capsys):
    BENCHMARK["main"](["--files", "60", "--folder", str(tmp_path)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["details"]["files"] == 60
    assert result["ratios"]["index_over_elementtree"] > 0
    assert list(tmp_path.iterdir()) == []
