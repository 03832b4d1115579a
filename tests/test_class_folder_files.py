"""Class folders as people have them: other suffixes and files, XML by other tools, text with a byte order mark.

One reading is under the training, the index and the checker: every case asks all of them.
"""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from backbones.config import get_defaults
from backbones.core.errors import InputError
from backbones.core.findings import ERROR, WARNING
from backbones.core.images import ORIENTATION
from backbones.core.warning_counter import WarningCounter
from backbones.core.xml_files import load_xml
from backbones.data.annotation_index import build_index
from backbones.data.checks import check_config_samples, check_samples
from backbones.data.class_folders import read_class
from backbones.data.reading import COUNTED_BY_IMAGES, IMAGE_SUFFIXES
from backbones.data.samples import load_samples

OTHERS, HIDDEN = "other files and folders left out", "hidden files left out"
NO_OBJECT = "annotations without an object of the image's class"
TURNED, FRAMES = "images that EXIF asks to turn (TIFF alone is turned)", "images of several frames, the first read"
FORMATS = {"jpg": "JPEG", "jpe": "JPEG", "tif": "TIFF", "pgm": "PPM"}


def save_image(path, size=(40, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower().lstrip(".")
    mode = "L" if suffix == "pgm" else "RGB"
    Image.new(mode, size, "gray").save(path, FORMATS.get(suffix, suffix or "PNG"), **options)


def thing(name, *boxes, name_tags=1):
    corners = "".join(
        "<bndbox>" + "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox>" for box in boxes
    )  # fmt: skip
    return f"<object>{f'<name>{name}</name>' * name_tags}{corners}</object>"


SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"


def save_xml(root, stem, *things, name="n01", size=SIZE, encoding="utf-8", declared=None):
    path = root / "annotations/train" / name / f"{stem}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    declaration = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    path.write_bytes(f"{declaration}<annotation>{size}{''.join(things)}</annotation>".encode(encoding))
    return path


@pytest.fixture
def root(tmp_path):
    """Two classes of two images, one of them with a box in each."""
    for name in ("n01", "n02"):
        for k in (0, 1):
            save_image(tmp_path / f"set/train/{name}/{name}_{k}.jpg")
        save_xml(tmp_path / "set", f"{name}_0", thing(name, (1, 2, 10, 12)), name=name)
    return tmp_path / "set"


def load(root, split="train", name="imagenet_xml"):
    warnings = WarningCounter()
    samples = load_samples(name, root, split, drop_without_box=False, need_boxes=False, warnings=warnings)
    return samples, {entry["what"]: entry["count"] for entry in warnings.as_list()}


def read_in_all_ways(root, split="train"):
    """Samples and counted warnings of a training, which are those of the index and of the checker."""
    samples, counts = load(root, split)
    report = check_samples("imagenet_xml", root, split, workers=1)
    assert not report.findings.of(ERROR)
    checked = {kind.what: count for kind, count in report.findings.of(WARNING).items()}
    assert {what: n for what, n in counts.items() if what not in COUNTED_BY_IMAGES}.items() <= checked.items()
    assert checked.get("images that EXIF turns", 0) == counts.get(TURNED, 0)
    assert checked.get("images of several frames", 0) == counts.get(FRAMES, 0)
    assert report.summary["samples"] == len(samples)
    build_index(root, split, workers=1, overwrite=True)
    indexed, again = load(root, split)
    assert (indexed.fingerprint, again) == (samples.fingerprint, counts)
    return samples, counts


def refused_in_all_ways(root, message):
    """The line of a training, which is that of the index and of the checker."""
    with pytest.raises(InputError, match=message) as refused:
        load(root)
    report = check_samples("imagenet_xml", root, "train", workers=1)
    assert [kind.what for kind in report.findings.of(ERROR)] == ["refusal by the reader"]
    assert report.findings.as_list()[0]["examples"] == [str(refused.value)]


# --------------------------------------------------------------------------------- files


def test_the_checker_counts_what_the_cap_leaves(root):
    """n01 has 4 samples, n02 has 2; of them 3 + 2 are trained on.  Validation is not capped."""
    for k in (2, 3):
        save_image(root / f"train/n01/n01_{k}.jpg")
    shutil.copytree(root / "train", root / "val")
    cfg = get_defaults()
    cfg.DATA.NAME, cfg.DATA.ROOT, cfg.DATA.CLASS_CAP = "imagenet_xml", str(root), 3
    trained, *others = check_config_samples(cfg, None, workers=1)
    assert "DATA.CLASS_CAP 3: at most 5 of them are trained on" in trained.lines
    assert others
    assert not any("CLASS_CAP" in line for report in others for line in report.lines)


def test_every_suffix_of_torchvisions_image_folder_is_read(root):
    assert set(IMAGE_SUFFIXES) == set(IMG_EXTENSIONS)
    for suffix in IMG_EXTENSIONS:
        save_image(root / f"train/n02/of_{suffix[1:]}{suffix.upper()}")
    samples, counts = read_in_all_ways(root)
    assert len(samples) == 4 + len(IMG_EXTENSIONS)
    assert counts == {"grey or CMYK images converted": 1}  # of .pgm
    assert all(samples.load_image(k).shape == (30, 40, 3) for k in range(len(samples)))


def test_what_is_left_out_is_counted(root):
    before = load(root)[0].fingerprint
    folder = root / "train/n01"
    for name in ("x.jpe", "noSuffix", "notes.txt", "Thumbs.db"):
        (folder / name).write_text("x")
    save_image(folder / "more/inner.jpg")
    for name in (".DS_Store", "._n01_0.jpg"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    for name in ("._n01_0.xml", ".hidden"):
        (root / "annotations/train/n01" / name).write_bytes(b"\0\5\x16\7")
    (root / "annotations/train/n01/labels.json").write_text("{}")
    save_image(root / "train/lost.png")
    (root / "train/readme.txt").touch()
    (root / "train/.ipynb_checkpoints").mkdir()
    (root / "annotations/train/n99").mkdir()
    samples, counts = read_in_all_ways(root)
    assert samples.fingerprint == before
    assert counts == {
        OTHERS: 7,
        HIDDEN: 5,
        "images beside the class folders left out": 1,
        "folders of annotations without a class folder": 1,
    }


def test_macos_files_alone_make_no_data_set(tmp_path):
    (tmp_path / "train/n01").mkdir(parents=True)
    (tmp_path / "train/n01/._a.jpg").write_bytes(b"\0\5\x16\7")
    refused_in_all_ways(tmp_path, r"no image \(.*\.webp\)")


def test_an_index_made_before_a_file_was_left_out_is_stale(root):
    build_index(root, "train", workers=1, overwrite=False)
    (root / "train/n01/x.heic").touch()
    assert load(root)[1] == {OTHERS: 1}


def test_images_that_share_one_annotation_are_counted(root):
    save_image(root / "train/n01/n01_0.webp")
    samples, counts = read_in_all_ways(root)
    assert len(samples.boxes) == 3
    assert counts == {"images that differ by suffix alone and share one annotation": 2}


def test_the_suffix_of_an_annotation_may_be_in_capitals(root):
    path = root / "annotations/train/n01/n01_0.xml"
    path.rename(path.with_suffix(".XML"))
    assert len(read_in_all_ways(root)[0].boxes) == 2
    shutil.copy(path.with_suffix(".XML"), path)
    refused_in_all_ways(root, r"n01_0\.XML and n01_0\.xml|n01_0\.xml and n01_0\.XML")


def test_a_flat_folder_counts_the_annotations_of_no_image(root):
    folder = root / "annotations/train"
    for name in ("n01", "n02"):
        (folder / name / f"{name}_0.xml").rename(folder / f"{name}_0.xml")
        (folder / name).rmdir()
    (folder / "gone.xml").write_text("<annotation/>")
    (folder / "._n01_0.xml").write_bytes(b"\0")
    samples, counts = read_in_all_ways(root)
    assert len(samples.boxes) == 2
    assert counts == {"annotations without an image": 1, HIDDEN: 1}


@pytest.mark.parametrize("name", ["new\nline.jpg", "latin-\udce9.jpg"])
def test_a_name_that_no_list_can_hold_is_refused(root, name):
    save_image(root / "train/n01/ok.jpg")
    (root / "train/n01/ok.jpg").rename(root / "train/n01" / name)
    refused_in_all_ways(root, "n01 holds the name '(new|latin)-?.*rename it")


def test_a_folder_with_the_name_of_an_image_is_refused(root):
    (root / "train/n01/x.jpg").mkdir()
    refused_in_all_ways(root, r"n01/x\.jpg \(Is a directory")


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_case_of_many_suffixes(shared_cases, tmp_path, split):
    shutil.copytree(shared_cases / "13-webp", tmp_path / "x")
    samples, counts = read_in_all_ways(tmp_path / "x", split)
    assert (np.bincount(samples.labels).tolist(), counts) == ([12, 12], {})


# --------------------------------------------------------------------------------- images


def test_turned_images_and_frames_are_counted(root):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    save_image(root / "train/n01/n01_0.jpg", exif=exif)
    save_image(root / "train/n01/t.png", exif=exif)
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "blue")]
    frames[0].save(root / "train/n02/f.webp", save_all=True, append_images=frames[1:])
    samples, counts = read_in_all_ways(root)
    assert counts == {TURNED: 2, FRAMES: 1}
    assert samples.sizes is not None
    assert (samples.sizes == [40, 30]).all()


def test_an_image_without_range_is_refused_before_the_training(root):
    Image.new("F", (40, 30)).save(root / "train/n01/f.tif")
    refused_in_all_ways(root, r"f\.tif .*mode F does not state which value is white")


def test_a_16_bit_image_is_scaled_in_training(root):
    deep = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 54
    Image.fromarray(deep).save(root / "train/n01/deep.png")
    samples, _ = read_in_all_ways(root)
    image = samples.load_image(samples.relative.index("train/n01/deep.png"))
    np.testing.assert_array_equal(image[..., 1], np.round(deep * (255 / 65535)))


# --------------------------------------------------------------------------------- XML

SPELLED = {
    "name on its own line": [thing("\n\t\tn01\n\t", (1, 2, 10, 12))],
    "name with spaces": [thing(" n01 ", (1, 2, 10, 12))],
    "corners with white space": [thing("n01", ("\n 1 \n", " 2", "10.0 ", "\t12"))],
    "several boxes": [thing("n01", (1, 2, 10, 12), (3, 3, 5, 5), (0, 0, 39, 29))],
    "another object": [thing("n02", (0, 0, 3, 3)), thing("n01", (1, 2, 10, 12))],
}


@pytest.mark.parametrize("case", SPELLED)
def test_every_spelling_of_a_box_is_read(root, case):
    save_xml(root, "n01_0", *SPELLED[case])
    samples, counts = read_in_all_ways(root)
    count = 3 if case == "several boxes" else 1
    assert (samples.box_counts().tolist(), counts) == ([count, 0, 1, 0], {})
    np.testing.assert_array_equal(samples.boxes[0], [1, 2, 11, 13])


@pytest.mark.parametrize("encoding", ["GB2312", "utf8", "windows-1252", "UTF-16", "utf-8-sig", "Shift_JIS"])
def test_every_encoding_is_read(root, encoding):
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    extra = "<note>é</note>" if encoding == "windows-1252" else "<note>あ</note>"
    save_xml(root, "n01_0", thing("n01", (1, 2, 10, 12)), extra, encoding=encoding, declared=declared)
    assert read_in_all_ways(root)[0].box_counts().tolist() == [1, 0, 1, 0]


BROKEN = {
    "two names": ([thing("n01", (1, 2, 10, 12), name_tags=2)], "has 2 elements <name> in one <object>"),
    "two sizes": ([thing("n01", (1, 2, 10, 12)), SIZE], "has 2 elements <size> in one <annotation>"),
    "two corners": ([thing("n01", (1, 2, "10</xmax><xmax>11", 12))], "has 2 elements <xmax> in one <bndbox>"),
    "empty name": ([thing("n01", (1, 2, 9, 9)), thing(" ", (1, 2, 3, 4))], "has an object without a name"),
    "no name": ([thing("n01", (1, 2, 9, 9)), thing("", (1, 2, 3, 4), name_tags=0)], "has an object without a name"),
    "nan": ([thing("n01", (1, 2, "nan", 12))], "has 'nan' as <xmax> in <bndbox>, where a number"),
    "inf": ([thing("n01", (1, "-inf", 9, 12))], "has '-inf' as <ymin> in <bndbox>, where a number"),
    "1e999": ([thing("n01", (1, 2, "1e999", 12))], "has '1e999' as <xmax>"),
    "underscore": ([thing("n01", (1, 2, "1_0", 12))], "has '1_0' as <xmax>"),
    "no number": ([thing("n01", (1, 2, "", 12))], "has nothing as <xmax> in <bndbox>"),
    "no box": ([thing("n01")], "has an object without bndbox"),
    "cut": (["<object>"], "is broken XML"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_contradiction_is_refused_by_name(root, case):
    things, message = BROKEN[case]
    save_xml(root, "n01_1", *things)
    refused_in_all_ways(root, rf"the annotation .*n01_1\.xml {message}.*; correct or remove it")


@pytest.mark.parametrize(("side", "message"), [("40.5", "the width 40.5"), ("x", "'x' as <width>"), ("", "nothing as")])
def test_a_size_is_two_whole_numbers(root, side, message):
    size = SIZE.replace("40", side)
    save_xml(root, "n01_0", thing("n01", (1, 2, 10, 12)), size=size)
    refused_in_all_ways(root, rf"n01_0\.xml has {message}")
    save_xml(root, "n01_0", thing("n01", (1, 2, 10, 12)), size=SIZE.replace("40", "40.0"))
    assert read_in_all_ways(root)[1] == {}


def test_an_unknown_encoding_is_named(root):
    save_xml(root, "n01_0", thing("n01", (1, 2, 10, 12)), declared="klingon")
    refused_in_all_ways(root, r"n01_0\.xml declares the unknown encoding 'klingon'")


@pytest.mark.parametrize("things", [[], [thing("N01", (1, 2, 10, 12))], ["<note/>"]])
def test_an_annotation_in_which_nothing_matches_is_counted(root, things):
    save_xml(root, "n01_0", *things)
    samples, counts = read_in_all_ways(root)
    assert samples.box_counts().tolist() == [0, 0, 1, 0]
    assert counts == {NO_OBJECT: 1}


def test_a_corner_beyond_float32_is_clipped_and_swapped_corners_are_counted(root, recwarn):
    save_xml(root, "n01_0", thing("n01", (1, 2, "1e300", 12), (9, 9, 3, 3)))
    samples, counts = read_in_all_ways(root)
    np.testing.assert_array_equal(samples.boxes_of(0), [[1, 2, 40, 13]])
    assert counts == {"boxes clipped to the image": 1, "boxes of zero area dropped": 1}
    assert not recwarn.list


def test_the_padded_case(shared_cases, tmp_path):
    shutil.copytree(shared_cases / "23a-padded", tmp_path / "x")
    samples, counts = read_in_all_ways(tmp_path / "x")
    assert (samples.box_counts() == 1).all()
    assert counts == {}


@pytest.mark.parametrize(("case", "boxes"), [("02-gb2312", 20), ("02c-cp1252", 20), ("32-ybat", 20)])
def test_annotations_of_the_detection_cases_are_read_as_classes(shared_cases, tmp_path, case, boxes):
    """Their images as one class a name, to which all annotations belong."""
    folder = shared_cases / case
    names = {text.strip() for path in (folder / "Annotations").glob("*.xml")
             for text in names_of(path)}  # fmt: skip
    for name in names:
        shutil.copytree(folder / "JPEGImages", tmp_path / name / "train" / name)
        shutil.copytree(folder / "Annotations", tmp_path / name / "annotations/train" / name)
    found = sum(len(read_class(tmp_path / name, "train", name).boxes) for name in names)
    assert found == boxes


def names_of(path: Path) -> list[str]:
    return [item.findtext("name", "") for item in load_xml(path).iter("object")]


# --------------------------------------------------------------------------------- text, names


def test_lists_of_classes_may_begin_with_a_byte_order_mark(root):
    (root / "classes.txt").write_bytes("\ufeffn02\r\nn01\r\n".encode())
    (root / "words.txt").write_bytes("\ufeffn02\tcafé, bar\nn01\t\n".encode())
    samples, counts = read_in_all_ways(root)
    assert (samples.classes, samples.display_names, counts) == (["n02", "n01"], ["café", "n01"], {})
    assert samples.labels.tolist() == [1, 1, 0, 0]
    for name in ("classes.txt", "words.txt"):
        (root / name).write_bytes(b"caf\xe9\tx\n")
        refused_in_all_ways(root, rf"{name} is not a text file in UTF-8")
        (root / name).unlink()


def test_a_class_without_a_folder_is_counted_and_a_folder_without_a_class_refused(root):
    (root / "classes.txt").write_text("n01\nowl\nn02\n")
    assert read_in_all_ways(root)[1] == {"classes without image": 1}
    (root / "classes.txt").write_text("n01\nowl\n")
    refused_in_all_ways(root, "n02 is not one of the 2 classes")
    (root / "classes.txt").write_text("n01\nn02\nn01\n")
    refused_in_all_ways(root, r"classes\.txt names the class 'n01' twice")


@pytest.mark.parametrize("folder_form", ["NFC", "NFD"])
@pytest.mark.parametrize("listed_form", ["NFC", "NFD"])
def test_accents_match_however_they_are_composed(tmp_path, folder_form, listed_form):
    def own(text):
        return unicodedata.normalize(folder_form, text)

    def other(text):
        return unicodedata.normalize(listed_form, text)

    save_image(tmp_path / "train" / own("café") / own("é.jpg"))
    (tmp_path / "classes.txt").write_text(other("bar\ncafé\n"), encoding="utf-8")
    save_xml(tmp_path, other("é"), thing(other("café"), (1, 2, 10, 12)), name=other("café"))
    samples, counts = read_in_all_ways(tmp_path)
    assert samples.labels.tolist() == [1]
    assert len(samples.boxes) == 1
    assert counts == {"classes without image": 1}


def test_folders_that_differ_by_composition_alone_are_refused(tmp_path):
    for form in ("NFC", "NFD"):
        save_image(tmp_path / "train" / unicodedata.normalize(form, "café") / "a.jpg")
    refused_in_all_ways(tmp_path, "names the class 'caf.*' twice")
