"""COCO json as tools write it: read as it says, or refused in one line, by the checker and by training alike."""

import json
import math
import unicodedata
from pathlib import Path

import pytest
from helpers.coco_breakage import AS_SOUND, REFUSED, SPELLED, setting
from helpers.detection_files import HEIGHT, WIDTH, check, judge, rows, save_image, train, write_coco
from PIL import Image

from backbones.core.config import load_config
from backbones.core.warning_counter import WarningCounter
from detection.config import get_defaults
from detection.data.catalog import load_data
from detection.data.checks import Options, check_config_data
from detection.data.records import shared_images
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.reading import GroundTruth
from detection.training.results import count_shared


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The data of the file that every case breaks."""
    data, counted, message = train(write_coco(tmp_path_factory.mktemp("sound")))
    assert (counted, message) == ({}, "")
    return data


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_value_is_refused_in_one_line_by_key_type_and_value(tmp_path, case):
    change, kind, says = REFUSED[case]
    errors, _, data, message = judge(write_coco(tmp_path, change))
    assert data is None
    assert any(kind in what for what in errors), errors
    assert says in message
    assert message.startswith(str(tmp_path / "ann.json"))


@pytest.mark.parametrize("case", AS_SOUND)
def test_what_says_the_same_is_read_the_same(tmp_path, sound, case):
    change, expected = AS_SOUND[case]
    errors, counted, data, _ = judge(write_coco(tmp_path, change))
    assert (errors, counted) == ({}, expected)
    assert rows(data) == rows(sound)
    assert data.fingerprint == sound.fingerprint


@pytest.mark.parametrize("value", ["1", 1.0, True, "true"])
def test_crowds_in_any_spelling(tmp_path, value):
    _, _, data, _ = judge(write_coco(tmp_path, setting("annotations", 1, iscrowd=value)))
    assert rows(data)[2] == [False, True, False, False, False, False]


def test_a_byte_order_mark_and_composed_letters(tmp_path, sound):
    save_image(tmp_path / "images" / unicodedata.normalize("NFD", "é.jpg"))
    name = write_coco(tmp_path, setting("images", 0, file_name="é.jpg"), encoding="utf-8-sig")
    _, counted, data, _ = judge(name)
    assert counted == {SPELLED: 1}
    assert rows(data) == rows(sound)


def test_a_repair_that_is_not_the_only_one_is_none(tmp_path):
    """One file may not stand for two images."""
    for first, second in (("cam1/p1.jpg", "cam2/p1.jpg"), ("p1.jpg", "cam1\\p1.jpg")):

        def change(tree, names=(first, second)):
            for entry, name in zip(tree["images"], names, strict=False):
                entry["file_name"] = name

        errors, _, data, message = judge(write_coco(tmp_path, change))
        assert data is None
        assert "missing images" in errors
        assert "several names refer to it" in message


def test_names_of_categories_that_are_missing_numbers_or_alike_are_counted(tmp_path):
    def change(tree):
        tree["categories"] = [{"id": 1}, {"id": 2, "name": 7}, {"id": 3, "name": "Dog"}, {"id": 4, "name": "dog "}]

    _, counted, data, _ = judge(write_coco(tmp_path, change))
    assert [c["name"] for c in data.categories] == ["1", "7", "Dog", "dog "]
    assert counted == {
        "categories without a name": 1,
        "category names that are numbers": 1,
        "groups of category names that differ only by case or white space": 1,
    }


def test_lists_that_are_absent_duplicated_or_results(tmp_path):
    name = write_coco(tmp_path)
    path = tmp_path / "ann.json"
    whole = path.read_text()
    for text, says in (
        ('{"images": [], ' + whole[1:], "the key 'images' is duplicated"),
        (whole.replace('"categories"', '"info"'), "no list 'categories'"),
        (json.dumps([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]), "results of a detector"),
        (whole.replace('"categories": [', '"categories": {"a": [').replace('"blue"}]', '"blue"}]}'), "no list 'categ"),
        ("", "as JSON"),
    ):
        path.write_text(text)
        errors, _, data, message = judge(name)
        assert data is None
        assert list(errors) == ["broken annotation file"]
        assert says in message


def test_a_word_that_only_looks_like_a_second_list(tmp_path, sound):
    name = write_coco(tmp_path, lambda tree: tree.update(info={"images": 3}))
    assert rows(judge(name)[2]) == rows(sound)


def test_boxes_of_other_images_are_refused_and_a_few_outside_are_not(tmp_path):
    def far(tree):
        tree["annotations"] = [dict(entry, id=n) for n, entry in enumerate(tree["annotations"] * 2)]
        for entry in tree["annotations"][:9]:
            entry["bbox"] = [60, 40, 50, 50]

    errors, _, data, _ = judge(write_coco(tmp_path, far))
    assert data is None
    assert "most boxes are not within their image" in errors
    errors, counted, data, _ = judge(write_coco(tmp_path, setting("annotations", 0, bbox=[60, 40, 50, 20])))
    assert list(errors) == ["boxes that extend beyond the image"]  # which training cuts, and says so
    assert counted == {"box clipped to the image": 1}
    assert rows(data)[0][0] == [60, 40, 36, 20]


def test_a_side_that_vanishes_in_float32_is_found_by_both(tmp_path):
    errors, counted, _, _ = judge(write_coco(tmp_path, setting("annotations", 0, bbox=[80, 40, 1e-9, 20], area=0)))
    assert "boxes of zero width or height" in errors
    assert counted["box of zero area dropped"] == 1


@pytest.mark.parametrize(("orientation", "stated"), [(3, (WIDTH, HEIGHT)), (6, (WIDTH, HEIGHT)), (6, (HEIGHT, WIDTH))])
def test_images_that_exif_turns(tmp_path, orientation, stated):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save_image(tmp_path / "images" / "p2.jpg", exif=exif)
    name = write_coco(tmp_path, setting("images", 1, width=stated[0], height=stated[1]))
    errors, counted, _, message = judge(name)
    if stated == (WIDTH, HEIGHT):
        assert [n for what, n in counted.items() if "EXIF" in what] == [1]
        assert any("EXIF" in what for what in check(name)[1])
    else:
        assert "images of another size than stated" in errors
        assert "stated 72x96, is 96x72, as EXIF rotates it" in message


def test_width_and_height_exchanged_is_named_so(tmp_path):
    message = judge(write_coco(tmp_path, setting("images", 1, width=HEIGHT, height=WIDTH)))[3]
    assert "stated 72x96, is 96x72: width and height are swapped" in message


ODD = [
    "1",
    1.0,
    2.5,
    True,
    None,
    [],
    {},
    -1,
    0,
    2**63,
    10**400,
    math.nan,
    -math.inf,
    "",
    "x",
    [1, 2, 3, 4],
    -0.0,
    1e300,
]


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("images", "id"), ("images", "file_name"), ("images", "width"), ("annotations", "id"),
        ("annotations", "image_id"), ("annotations", "category_id"), ("annotations", "bbox"),
        ("annotations", "area"), ("annotations", "iscrowd"), ("annotations", "ignore"),
        ("categories", "id"), ("categories", "name"), ("categories", "supercategory"),
    ],
)  # fmt: skip
def test_checker_and_training_agree_on_every_odd_value(tmp_path, part, key):
    for value in ODD:
        judge(write_coco(tmp_path, setting(part, 1, **{key: value})))
    judge(write_coco(tmp_path, lambda tree: tree[part][1].pop(key, None)))
    if key == "bbox":
        for place in range(4):
            for value in ODD:
                judge(write_coco(tmp_path, lambda tree, n=place, v=value: tree[part][1]["bbox"].__setitem__(n, v)))


# ---- images that both sets hold -----------------------------------------------------------------------------------


def test_links_to_training_images_are_shared_for_checker_and_training(tmp_path):
    first = write_coco(tmp_path / "train")
    (tmp_path / "test" / "images").mkdir(parents=True)
    for path in sorted((tmp_path / "train" / "images").iterdir())[:2]:
        (tmp_path / "test" / "images" / path.name).symlink_to(path)
    second = write_coco(tmp_path / "test")
    keys = ["DATASETS.TRAIN", f"['{first}']", "DATASETS.TEST", f"['{second}']", "MODEL.ROI_HEADS.NUM_CLASSES", "2"]
    reports = check_config_data(load_config(get_defaults(), None, keys), None, Options())
    assert reports[1].findings.count("test images that are also training images") == 2
    one, two = train(first)[0], train(second)[0]
    assert count_shared(one, two) == 2
    assert shared_images([], [r.path for r in two.records]) == []


# ---- the files that went wrong ------------------------------------------------------------------------------------

CASES = {
    "05a-str-size": "id 1: width must be a whole number, is the text '96'",
    "05d-int-file": "id 2: file_name must be a text, is 12",
    "05h-str-category": "id 1: category_id must be an integer, is the text '1'",
    "21-bigids": "images[0]: id must be an integer of at most 64 bits, is 9223372036854775809",
    "22f-normalised": "20 x boxes below one pixel",
}
READ_CASES = {
    "00-good": ({}, 20),
    "06a-iscrowd-0": ({}, 8),
    "10-labelstudio": ({SPELLED: 6}, 12),
    "14c-exif3-turned": ({"images that EXIF turns": 10}, 20),
    "20-ignore": ({"annotations with `ignore`": 4}, 8),
    "25-roboflow": ({"categories ignored": 1}, 8),
}


@pytest.mark.parametrize("case", CASES)
def test_shared_cases_that_are_refused(shared_cases, case):
    errors, _, data, message = judge(f"coco:{shared_cases / case / 'ann.json'}:{shared_cases / case / 'images'}")
    assert errors
    assert data is None
    assert CASES[case] in message


@pytest.mark.parametrize("case", READ_CASES)
def test_shared_cases_that_are_read(shared_cases, case):
    expected, count = READ_CASES[case]
    errors, counted, data, _ = judge(f"coco:{shared_cases / case / 'ann.json'}:{shared_cases / case / 'images'}")
    assert errors == {}
    assert counted == expected
    assert data.counts()["annotations"] == count
    assert data.counts()["crowd"] == 0
    assert GroundTruth(data.to_coco()).objects.crowd.sum() == 0
    if case == "06a-iscrowd-0":
        assert evaluate_coco(shared_cases / case / "ann.json", [], score_threshold=0)["counts"]["objects"] == 8


FINGERPRINTS = {
    "coco128": "fea097dff12d",
    "voc2012_100": "e574dbc1dc09",
    "bccd_trainval": "9c96c8c69f22",
    "bccd_test": "f3aacd9a1143",
}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_sound_sets_keep_their_fingerprint(shared_data, name):
    """As the reader that looked at one image after the other had them: results stay comparable."""
    warnings = WarningCounter()
    data = load_data([name], str(shared_data), warnings)
    assert data.fingerprint == FINGERPRINTS[name]
    assert warnings.as_list() == []
    assert all(Path(record.path).is_file() for record in data.records)
