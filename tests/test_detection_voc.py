"""The reader of VOC folders: pixels counted from 1, `difficult` objects, and what it refuses by file."""

import re

import numpy as np
import pytest
from helpers.voc_files import CORNERS, HEIGHT, WIDTH, annotation, box, read_voc

from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from detection.data.catalog import VOC_SETS, load_data
from detection.data.loader import trainable
from detection.data.voc.reader import VOC_CLASSES, load_voc


def test_corners_count_from_one_and_include_the_last_pixel(tmp_path):
    boxes = box("dog", 1, 1, WIDTH, HEIGHT), box("cat", 3, 5, 3, 6), box("dog", 2.5, 1, 4, 2)
    data, warnings = read_voc(tmp_path, annotation(*boxes))
    assert [(w["what"].split(" (")[0], w["count"]) for w in warnings] == [("point boxes", 1)]
    record = data.records[0]
    # The whole image; one pixel wide and two high; a fraction, as some files have.
    assert record.boxes.tolist() == [[0, 0, WIDTH, HEIGHT], [2, 4, 3, 6], [1.5, 0, 4, 2]]
    assert record.area.tolist() == [WIDTH * HEIGHT, 2, 5]
    assert record.labels.tolist() == [1, 0, 1]
    assert record.image_id == 1
    assert data.categories == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def test_difficult_objects_are_evaluated_as_ignored_but_not_learned(tmp_path):
    boxes = box("dog", 1, 1, 9, 9, difficult=1), box("cat", 3, 5, 7, 6)
    data, _ = read_voc(tmp_path, annotation(*boxes))
    assert [(e["iscrowd"], e["ignore"]) for e in data.to_coco()["annotations"]] == [(1, 1), (0, 0)]
    assert [record.labels.tolist() for record in trainable(data, filter_empty=True)] == [[0]]


def test_boxes_are_clipped_dropped_and_counted(tmp_path):
    boxes = box("dog", 0, 0, WIDTH + 1, HEIGHT), box("cat", 8, 8, 7, 9), box("cat", WIDTH + 1, 1, WIDTH + 9, 9)
    data, warnings = read_voc(tmp_path, annotation(*boxes))
    assert data.records[0].boxes.tolist() == [[0, 0, WIDTH, HEIGHT]]
    assert data.records[0].area.tolist() == [WIDTH * HEIGHT]  # of the cut box
    assert {w["what"]: w["count"] for w in warnings} == {
        "box clipped to the image": 1,
        "box of zero area dropped": 2,
    }


def test_a_size_of_zero_is_the_images_own(tmp_path):
    size = "<size><width>0</width><height>0</height></size>"
    record = read_voc(tmp_path, annotation(box("cat", 1, 1, 2, 2), size=size))[0].records[0]
    assert (record.width, record.height) == (WIDTH, HEIGHT)


def test_difficult_that_is_missing_is_0_and_counted(tmp_path):
    silent = box("cat", 1, 1, 2, 2).replace("<difficult>0</difficult>", "")
    data, warnings = read_voc(tmp_path, annotation(silent, silent, box("dog", 1, 1, 9, 9, difficult=1)))
    assert data.records[0].iscrowd.tolist() == [False, False, True]
    assert [(w["what"], w["count"]) for w in warnings] == [
        ("objects without `difficult`: they count as not difficult", 2)
    ]


def test_classes_that_are_not_given_are_those_that_occur(tmp_path):
    text = annotation(box("zebra", 1, 1, 2, 2), box("ant", 1, 1, 2, 2))
    assert [c["name"] for c in read_voc(tmp_path, text, None)[0].categories] == ["ant", "zebra"]
    again = load_data([f"voc:{tmp_path}:train"], "unused", WarningCounter())  # the same by its explicit name
    assert again.counts()["categories"] == 2


GOOD = annotation(box("cat", 1, 1, 2, 2))
REFUSED = {
    "unknown class": (annotation(box("dgo", 1, 1, 2, 2)), "a\n", "a.xml: dgo [1.0, 1.0, 2.0, 2.0]; did you mean 'dog'"),
    "no class": (GOOD.replace("<name>cat</name>", ""), "a\n", "1 x objects without a name: {folder}/Annotations/a.xml"),
    "no bndbox": (annotation("<object><name>cat</name></object>"), "a\n", "boxes that are not 4 numbers: a.xml: cat ["),
    "three corners": (GOOD.replace("<xmax>2</xmax>", ""), "a\n", "boxes that are not 4 numbers: a.xml: cat ["),
    "a word": (annotation(box("cat", 1, "one", 2, 2)), "a\n", "boxes that are not 4 numbers: a.xml: cat ["),
    "no size": (
        annotation(box("cat", 1, 1, 2, 2), size=""),
        "a\n",
        "1 x XML without size: {folder}/Annotations/a.xml; add the width and height",
    ),
    "size in words": (
        GOOD.replace("<width>40", "<width>forty"),
        "a\n",
        "a.xml: width the text 'forty', height the text '30'",
    ),
    "other size": (GOOD.replace("<width>40", "<width>41"), "a\n", "a.jpg (image id 1): stated 41x30, is 40x30"),
    "cut xml": (GOOD[:-5], "a\n", "a.xml is broken XML"),
    "absent xml": (GOOD, "a\nb\n", "Annotations/b.xml (No such file"),
    "twice": (GOOD, "a\na\n", "names listed twice in the split: {folder}/ImageSets/Main/train.txt: 'a'"),
    "empty split": (GOOD, "\n", "train.txt: 1 x empty list of images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_folder_is_refused_by_file(tmp_path, case):
    text, stems, message = REFUSED[case]
    with pytest.raises(InputError, match=re.escape(message.format(folder=tmp_path))) as error:
        read_voc(tmp_path, text, stems=stems)
    assert str(tmp_path) in str(error.value)


def test_missing_images_and_splits_are_named(tmp_path):
    read_voc(tmp_path, GOOD)
    with pytest.raises(InputError, match=r"no split file .*Main/test\.txt; check DATASETS\.ROOT and the split"):
        load_voc(tmp_path, "test", "voc", WarningCounter())
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"missing images: .*JPEGImages/a\.jpg .*no such file"):
        load_voc(tmp_path, "train", "voc", WarningCounter())


def test_voc_has_its_twenty_classes():
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert len(VOC_CLASSES) == 20
    assert VOC_SETS["voc_2007_test"] == ("VOC2007", "test", VOC_CLASSES)


def test_real_voc_annotations(shared_data):
    """The corners of real annotations, against plain arithmetic on the file's text."""
    path = sorted((shared_data / "bccd" / "BCCD" / "Annotations").glob("*.xml"))[0]
    data = load_data(["bccd_trainval", "bccd_test"], str(shared_data), WarningCounter())
    record = next(r for r in data.records if path.stem in r.path)
    numbers = {key: [int(n) for n in re.findall(rf"<{key}>(\d+)</{key}>", path.read_text())] for key in CORNERS}
    expected = np.stack([np.array(numbers[key]) - (key.endswith("min")) for key in CORNERS], axis=1)
    np.testing.assert_array_equal(record.boxes, np.clip(expected, 0, [record.width, record.height] * 2))
