"""Names in VOC folders: lines of a split, images of any suffix, files of macOS, other spellings."""

import re
import unicodedata

import pytest
from helpers.coco_breakage import SPELLED
from helpers.detection_files import BOXES, judge, rows, save_image, train, write_voc

from backbones.core.errors import InputError
from backbones.core.findings import Findings
from detection.data.voc.split import read_split, read_stems


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The data of the folder that every case breaks."""
    data, counted, message = train(write_voc(tmp_path_factory.mktemp("sound")))
    assert (counted, message) == ({}, "")
    assert rows(data)[0] == [box for pair in BOXES for box in pair]
    assert [c["name"] for c in data.categories] == ["blue", "red"]
    return data


def replacing(old, new, n=None):
    """A change of the XML of image n (None: of all)."""
    return lambda number, text: text.replace(old, new) if n in (None, number) else text


@pytest.mark.parametrize(
    ("stems", "lines", "counted"),
    [
        (("photo 1", "photo 2", "photo"), "photo 1\nphoto 2\nphoto", {}),
        (("photo 1", "photo 2", "photo 1 -1"), "photo 1\r\nphoto 2\r\nphoto 1 -1\r\n", {}),
        (("a", "b", "c"), "\ufeffa\nb\nc\n", {}),
        (("a", "b", "c"), "a.jpg\nb.JPG\nc.xml", {}),
        (("a", "b", "c"), "JPEGImages/a.jpg\n./b.png\nD:\\x\\c.jpg", {}),
        (("a", "b", "c"), "a  1\nb 1\nc\t1\n\n", {}),
        (("a", "b", "c"), "a -1\nb  0\nc 1", {"lines of the split with flag -1 or 0": 2}),
        (("a 1", "b", "c 0"), "a 1 1\nb 1\nc 0  -1", {"lines of the split with flag -1 or 0": 1}),
        (("a", "b", "c"), "a some words\nb\nc", {"lines of the split with words after the name": 1}),
        (("sub/a", "sub/b", "c"), "sub/a\nsub/b 1\nc", {}),
    ],
)
def test_lines_of_a_split(tmp_path, sound, stems, lines, counted):
    for stem in stems:
        (tmp_path / "Annotations" / stem).parent.mkdir(parents=True, exist_ok=True)
    errors, found, data, _ = judge(write_voc(tmp_path, stems=stems, lines=lines))
    assert (errors, found) == ({}, counted)
    assert [record.path for record in data.records] == [str(tmp_path / "JPEGImages" / f"{s}.jpg") for s in stems]
    assert rows(data) == rows(sound)


@pytest.mark.parametrize("form", ["{folder}/JPEGImages/{stem}.jpg", "../JPEGImages/{stem}.jpg"])
def test_a_path_of_an_image_names_its_annotation(tmp_path, sound, form):
    """The path is an image without annotation of this name, the stem alone has both."""
    lines = "\n".join(form.format(folder=tmp_path, stem=stem) for stem in "abc")
    errors, found, data, _ = judge(write_voc(tmp_path, lines=lines))
    assert (errors, found) == ({}, {})
    assert rows(data) == rows(sound)


def test_a_name_with_both_files_is_read_before_one_with_an_annotation_only(tmp_path):
    findings = Findings()
    ranks = {"x/a": 1, "a.jpg": 2, "a": 3, "b": 1, "x/b": 2}
    assert read_stems(["x/a.jpg", "x/b.jpg"], tmp_path, lambda stem: ranks.get(stem, 0), findings) == ["a", "x/b"]


def test_a_line_without_files_and_a_line_again_are_errors(tmp_path):
    errors, _, data, message = judge(write_voc(tmp_path, lines="a\nb\nc\nphoto 7 -1"))
    assert data is None
    assert set(errors) == {"listed images without XML", "missing images"}
    assert "Annotations/photo 7.xml" in message
    assert "names listed twice in the split" in judge(write_voc(tmp_path, lines="a\nb\nc\na.jpg 1"))[0]
    split = tmp_path / "ImageSets" / "Main" / "train.txt"
    split.write_bytes("a\nb\n".encode("utf-16"))
    assert list(judge(f"voc:{tmp_path}:train")[0]) == ["broken split file"]
    with pytest.raises(InputError, match=r"cannot read the split file .* as text: .* UTF-8"):
        read_split(split)


def test_files_of_macos_are_left_out_and_counted(tmp_path, sound):
    name = write_voc(tmp_path, lines="a\n._a\nb\nc")
    for stem in "abc":
        (tmp_path / "Annotations" / f"._{stem}.xml").write_bytes(b"\0\5\x16\7\0")
    (tmp_path / "Annotations" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "JPEGImages" / "._a.jpg").write_bytes(b"\0\5\x16\7\0")
    errors, counted, data, _ = judge(name)
    assert (errors, counted) == ({}, {"files of macOS (._*, .DS_Store)": 6})
    assert data.fingerprint == sound.fingerprint


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png", ".webp", ".tif", ".BMP"])
def test_images_of_the_usual_suffixes(tmp_path, sound, suffix):
    errors, counted, data, _ = judge(write_voc(tmp_path, suffix=suffix))
    assert (errors, counted) == ({}, {})
    assert data.records[0].path == str(tmp_path / "JPEGImages" / f"a{suffix}")
    assert rows(data) == rows(sound)


def test_the_file_that_filename_states_and_what_was_tried(tmp_path, sound):
    save_image(tmp_path / "JPEGImages" / "IMG_1.PNG")
    name = write_voc(tmp_path, replacing("<filename>b.jpg<", "<filename>C:\\x\\IMG_1.PNG<", n=1))
    assert judge(name)[1] == {}  # a stale name: the file of the stem is taken
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    errors, counted, data, _ = judge(name)
    assert (errors, counted) == ({}, {"images found only by <filename>": 1})
    assert data.records[1].path.endswith("IMG_1.PNG")
    (tmp_path / "JPEGImages" / "IMG_1.PNG").unlink()
    errors, _, _, message = judge(name)
    assert list(errors) == ["missing images"]
    assert re.search(r"JPEGImages/b\.jpg .* tried \.jpeg, \.png.*<filename> 'C:\\x\\IMG_1\.PNG'", message)


def test_a_file_that_two_names_would_mean_is_not_taken(tmp_path):
    save_image(tmp_path / "JPEGImages" / "x.png")
    name = write_voc(tmp_path, lambda n, text: re.sub("<filename>.*</filename>", "<filename>x.png</filename>", text))
    for stem in "ab":
        (tmp_path / "JPEGImages" / f"{stem}.jpg").unlink()
    errors, _, _, message = judge(name)
    assert list(errors) == ["missing images"]
    assert "2 x missing images" in message
    assert "several names refer to it" in message


def test_several_files_of_a_name_are_counted_and_jpg_is_read(tmp_path, sound):
    save_image(tmp_path / "JPEGImages" / "a.png", (3, 3))
    _, counted, data, _ = judge(write_voc(tmp_path))
    assert counted == {"names with several image files": 1}
    assert data.fingerprint == sound.fingerprint
    for stem in "bc":
        (tmp_path / "JPEGImages" / f"{stem}.jpg").unlink()
        save_image(tmp_path / "JPEGImages" / f"{stem}.bmp")
        save_image(tmp_path / "JPEGImages" / f"{stem}.png")
    folder = tmp_path / "Annotations"
    (folder / "b.xml").write_text((folder / "b.xml").read_text().replace("b.jpg", "b.png"))
    data = judge(f"voc:{tmp_path}:train")[2]
    assert [record.path[-5:] for record in data.records] == ["a.jpg", "b.png", "c.bmp"]  # <filename>; the first


def test_names_in_another_unicode_form_or_case(tmp_path, sound):
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    name = write_voc(tmp_path, stems=(apart, "B", "c"), lines=f"{composed}\nb\nc")
    errors, counted, data, _ = judge(name)
    assert (errors, counted) == ({}, {SPELLED: 4})  # two annotations and two images
    assert rows(data) == rows(sound)
