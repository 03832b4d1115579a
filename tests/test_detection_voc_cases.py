"""VOC folders as tools write them: read as they say, or refused in one line, by the checker and by training alike."""

import re

import numpy as np
import pytest
from helpers.detection_files import BOXES, HEIGHT, WIDTH, annotation, bndbox, check, judge, objects, rows, write_voc
from helpers.detection_files import train as train_on

from backbones.core.config import load_config
from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from detection.config import get_defaults
from detection.evaluation.voc_results import load_comp4
from detection.training.run import load_all


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The data of the folder that every case breaks."""
    data, counted, message = train_on(write_voc(tmp_path_factory.mktemp("sound")))
    assert (counted, message) == ({}, "")
    assert rows(data)[0] == [box for pair in BOXES for box in pair]
    assert [c["name"] for c in data.categories] == ["blue", "red"]
    return data


def replacing(old, new, n=None):
    """A change of the XML of image n (None: of all)."""
    return lambda number, text: text.replace(old, new) if n in (None, number) else text


# ---- encodings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["GB2312", "Big5", "Shift_JIS", "utf8", "windows-1252", "UTF-16"])
def test_xml_in_any_encoding(tmp_path, sound, encoding):
    path = "C:\\fotos\\José" if encoding == "windows-1252" else "D:\\中"

    def change(n, text):
        declared = f'<?xml version="1.0" encoding="{encoding}"?>\n'
        return (declared + text.replace("<size>", f"<path>{path}</path><size>")).encode(encoding)

    errors, counted, data, _ = judge(write_voc(tmp_path, change))
    assert (errors, counted) == ({}, {})
    assert rows(data) == rows(sound)


@pytest.mark.parametrize("encoding", ["klingon", "ascii"])
def test_an_encoding_that_is_unknown_or_wrong_is_named(tmp_path, encoding):
    def change(n, text):
        return f'<?xml version="1.0" encoding="{encoding}"?><!--é-->{text}'.encode()

    errors, _, data, message = judge(write_voc(tmp_path, change))
    assert (next(iter(errors)), data) == ("broken XML files", None)
    assert re.search(rf"Annotations/a\.xml .*encoding '{encoding}'", message)


# ---- flags and elements -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "difficult"),
    [("True", True), ("1.0", True), (" 1\n", True), ("true", True), ("False", False), ("0.0", False)],
)
def test_difficult_in_any_spelling(tmp_path, text, difficult):
    errors, counted, data, _ = judge(
        write_voc(tmp_path, lambda n, _: annotation(objects(n, difficult=text if n else 0)))
    )
    assert (errors, counted) == ({}, {})
    assert rows(data)[2] == [False, False, *[difficult] * 4]


@pytest.mark.parametrize("text", ["Unspecified", "2", "", "yes"])
def test_difficult_that_says_neither_is_refused(tmp_path, text):
    errors, _, data, message = judge(write_voc(tmp_path, lambda n, _: annotation(objects(n, difficult=text))))
    assert (list(errors), data) == (["flags that are neither 0 nor 1"], None)
    assert f"a.xml: object 'red': difficult must be 0 or 1, is the text '{text}'" in message


def test_all_boxes_of_one_object_are_boxes_of_its_name(tmp_path):
    second = bndbox(1, 2, 3, 4) + bndbox(5, 6, 9, 9)
    errors, _, data, _ = judge(write_voc(tmp_path, replacing("</bndbox>", f"</bndbox>{second}", n=1)))
    assert errors == {}
    assert data.records[1].labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert data.records[1].bbox[1:3].tolist() == [[0, 1, 3, 3], [4, 5, 5, 4]]


@pytest.mark.parametrize("element", ["name", "difficult", "size", "xmin", "width", "filename"])
def test_an_element_that_is_repeated_is_refused_by_name(tmp_path, element):
    def change(n, text):
        return re.sub(rf"(<{element}>.*?</{element}>)", r"\1\1", text, count=1) if n == 1 else text

    errors, _, data, message = judge(write_voc(tmp_path, change))
    assert (list(errors), data) == (["repeated elements in XML"], None)
    assert f"b.xml has 2 elements <{element}>" in message


@pytest.mark.parametrize("new", ["<name></name>", "<name/>", "<name> \n</name>", ""])
@pytest.mark.parametrize("lines", [None, "a\nc"])  # in the split; in the folder alone, whose names are the classes
def test_a_name_that_is_empty_is_an_error(tmp_path, new, lines):
    errors, _, data, message = judge(write_voc(tmp_path, replacing("<name>red</name>", new, n=1), lines=lines))
    assert (list(errors), data) == (["objects without a name"], None)
    assert "Annotations/b.xml" in message


def test_names_that_differ_by_case_alone_are_counted(tmp_path):
    name = write_voc(tmp_path, replacing(">red<", ">Red<", n=1))
    errors, counted, data, _ = judge(name)
    assert errors == {}
    assert [c["name"] for c in data.categories] == ["Red", "blue", "red"]
    assert counted == {"groups of category names that differ only by case or white space": 1}


@pytest.mark.parametrize(
    ("width", "reads"),
    [("96.0", True), ("0", True), ("", True), ("96.5", False), ("9_6", False), ("\uff19\uff16", False), ("nan", False)],
)
def test_sizes_are_whole_numbers(tmp_path, sound, width, reads):
    errors, counted, data, message = judge(write_voc(tmp_path, replacing(f"h>{WIDTH}<", f"h>{width}<", n=1)))
    if reads:
        assert rows(data) == rows(sound)
        assert counted == ({} if width == "96.0" else {"XML whose size is 0": 1})
    else:
        assert list(errors) == ["XML whose size is not a pair of integers"]
        assert f"b.xml: width the text '{width}'" in message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2.95e1", 29.5),
        (" 29 ", 29),
        ("+29", 29),
        ("29,0", None),
        ("2_9", None),
        ("", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_corners_are_numbers(tmp_path, text, value):
    errors, _, data, message = judge(write_voc(tmp_path, replacing("<xmin>29<", f"<xmin>{text}<", n=0)))
    if value is None:
        assert data is None
        assert "a.xml: red [" in message
    else:
        assert errors == {}
        assert data.records[0].bbox[0, 0] == value - 1


# ---- boxes --------------------------------------------------------------------------------------------------------


def test_point_boxes_are_one_pixel_wide_and_counted(tmp_path):
    body = f"<object><name>red</name><difficult>0</difficult>{bndbox(5, 6, 5, 9)}</object>"
    name = write_voc(tmp_path, lambda n, text: annotation(body + objects(n)) if n == 0 else text)
    errors, counted, data, _ = judge(name)
    assert errors == {}
    assert data.records[0].bbox[0].tolist() == [4, 5, 1, 4]
    assert counted == {"point boxes (xmin = xmax or ymin = ymax)": 1}
    assert "point boxes (xmin = xmax or ymin = ymax)" in check(name)[1]


def test_corners_in_0_to_1_are_an_error(tmp_path):
    def change(n, _):
        return annotation("".join(
            f"<object><name>red</name><difficult>0</difficult>"
            f"{bndbox(x / WIDTH, y / HEIGHT, (x + w) / WIDTH, (y + h) / HEIGHT)}</object>"
            for x, y, w, h in BOXES[n]
        ))  # fmt: skip

    errors, _, data, message = judge(write_voc(tmp_path, change))
    assert data is None
    assert "boxes below one pixel, as with coordinates in 0..1" in errors
    assert "6 x boxes below one pixel" in message


def test_the_first_pixel_is_a_box(tmp_path):
    body = f"<object><name>red</name><difficult>0</difficult>{bndbox(1, 1, 1, 1)}</object>"
    errors, _, data, _ = judge(write_voc(tmp_path, lambda n, text: annotation(body) if n == 0 else text))
    assert errors == {}
    assert data.records[0].bbox.tolist() == [[0, 0, 1, 1]]


def at_borders(*corners):
    """Four such boxes in each of the three images, so that the check of most boxes applies."""
    body = f"<object><name>red</name><difficult>0</difficult>{bndbox(*corners)}</object>" * 4
    return lambda n, text: annotation(body, "abc"[n] + ".jpg")


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        ((0, 9, 40, 49), [0, 8, 40, 41]),  # as converters write that count from 0: xmin = x
        ((9, 0, 49, 40), [8, 0, 41, 40]),
        ((57, 9, WIDTH + 1, 49), [56, 8, WIDTH - 56, 41]),  # and such as add a pixel twice
    ],
)
def test_boxes_shifted_by_one_pixel_are_clipped_and_counted(tmp_path, corners, box):
    errors, counted, data, _ = judge(write_voc(tmp_path, at_borders(*corners)))
    assert list(errors) == ["boxes that extend beyond the image"]
    assert counted["box clipped to the image"] == 12
    assert rows(data)[0] == [box] * 12


@pytest.mark.parametrize("corners", [(-1, 9, 40, 49), (57, 9, WIDTH + 2, 49), (57, 30, 77, HEIGHT + 2)])
def test_boxes_shifted_by_two_pixels_are_of_other_images(tmp_path, corners):
    _, _, data, message = judge(write_voc(tmp_path, at_borders(*corners)))
    assert data is None
    assert "12 x most boxes are not within their image" in message


def test_corners_in_the_wrong_order_are_dropped_and_counted_by_both(tmp_path):
    errors, counted, _, _ = judge(write_voc(tmp_path, replacing("<xmax>46<", "<xmax>20<", n=0)))
    assert list(errors) == ["boxes of negative width or height"]
    assert counted == {"box of zero area dropped": 1}


# ---- mutations ----------------------------------------------------------------------------------------------------

ODD = [
    "",
    " ",
    "0",
    "-1",
    "1e3",
    "nan",
    "inf",
    "1e400",
    "x",
    "1,5",
    "0.5",
    "True",
    "<a/>",
    "&#0;",
    "&unknown;",
    "\uff19",
]


@pytest.mark.parametrize("element", ["name", "difficult", "xmin", "ymax", "width", "height", "filename"])
def test_checker_and_training_agree_on_every_odd_text(tmp_path, element):
    for value in ODD:
        judge(write_voc(tmp_path, lambda n, t, v=value: re.sub(rf"(<{element}>)[^<]*", rf"\g<1>{v}", t, count=1)))
    for pattern in (rf"<{element}>[^<]*</{element}>", rf"</{element}>", "<object>.*</object>", "<size>.*</size>"):
        judge(write_voc(tmp_path, lambda n, text, p=pattern: re.sub(p, "", text, count=1)))


@pytest.mark.parametrize(
    "lines", ["", "\n\n", "a", "a\0", "a b", "../a", "/", ".", "a/", "\u2028a", "a" * 5000, "é\nb"]
)
def test_checker_and_training_agree_on_odd_splits(tmp_path, lines):
    judge(write_voc(tmp_path, lines=lines))


# ---- sentences and results ----------------------------------------------------------------------------------------


def test_a_wrong_number_of_classes_is_told_truly(tmp_path):
    """A split file lists no classes: the annotations name them."""
    name = write_voc(tmp_path)
    keys = ["DATASETS.TRAIN", f"['{name}']", "DATASETS.TEST", f"['{name}']"]
    key = "MODEL.ROI_HEADS.NUM_CLASSES"
    says = f"{key} is 80, but the annotations in {tmp_path / 'Annotations'} name 2 classes; set it to 2"
    with pytest.raises(InputError, match=re.escape(says)):
        load_all(load_config(get_defaults(), None, keys), key, WarningCounter())


def test_competition_files_with_spaces_byte_order_mark_and_windows_lines(tmp_path):
    truth = {"images": [{"id": 4, "file_name": "photo 1.jpg"}], "categories": [{"id": 2, "name": "traffic light"}]}
    path = tmp_path / "comp4_det_test_traffic light.txt"
    path.write_bytes("\ufeffphoto 1 0.5 1 1 10 20\r\n\r\nphoto 1 .25 3 4 4 4\r\n".encode())
    assert [(d["bbox"], d["score"]) for d in load_comp4(tmp_path, "test", truth)] == [
        ([0, 0, 10, 20], 0.5), ([2, 3, 2, 1], 0.25),
    ]  # fmt: skip
    for line in ("photo 1 NaN 1 1 2 2", "photo 1 0_5 1 1 2 2", "photo 1 inf 1 1 2 2", "photo 0.5 1 1 2 2"):
        path.write_text(line)
        with pytest.raises(InputError, match="line 1: "):
            load_comp4(tmp_path, "test", truth)
    twins = {**truth, "images": [*truth["images"], {"id": 5, "file_name": "x/photo 1.png"}]}
    with pytest.raises(InputError, match="image ids 4 and 5 have the same name 'photo 1'"):
        load_comp4(tmp_path, "test", twins)


# ---- the folders that went wrong ----------------------------------------------------------------------------------

READ_CASES = {
    "00-goodvoc": ({}, (14, 6), 0),
    "02-gb2312": ({}, (14, 6), 0),
    "02c-cp1252": ({}, (14, 6), 0),
    "06d-difficult-true": ({}, (14, 6), 0.5),
    "07-macos": ({"files of macOS (._*, .DS_Store)": 11}, (14, 6), 0),
    "08a-spaces": ({}, (14, 6), 0),
    "09b-JPG": ({}, (14, 6), 0),
    "32-ybat": ({}, (14, 6), 0),
}


@pytest.mark.parametrize("case", READ_CASES)
def test_shared_cases_that_are_read(shared_cases, case):
    expected, counts, difficult = READ_CASES[case]
    for split, count in zip(("train", "test"), counts, strict=True):
        errors, counted, data, _ = judge(f"voc:{shared_cases / case}:{split}")
        assert (errors, counted) == ({}, expected)
        assert data.counts()["annotations"] == count
        assert data.counts()["crowd"] == difficult * count


def test_the_shared_case_of_an_empty_name(shared_cases):
    errors, _, data, message = judge(f"voc:{shared_cases / '30a-emptyname'}:train")
    assert (list(errors), data) == (["objects without a name"], None)
    assert re.search(r"Annotations/\d+\.xml", message)


def test_boxes_of_the_gb2312_case_are_those_of_its_sound_twin(shared_cases):
    one, two = (judge(f"voc:{shared_cases / case}:train")[2] for case in ("00-goodvoc", "02-gb2312"))
    np.testing.assert_array_equal(rows(one)[0], rows(two)[0])
