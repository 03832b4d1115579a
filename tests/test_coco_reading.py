"""The evaluator's reading of COCO's two files: flags, ids and numbers by what they are, as training reads them."""

import json
import math

import numpy as np
import pytest
from helpers.coco_breakage import REFUSED, everywhere
from helpers.coco_scenes import scene
from helpers.detection_files import make_tree
from helpers.mutations import damaged_bytes, damaged_tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbones.core.errors import InputError
from detection.evaluation import reading
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.reading import GroundTruth, read_detections


def found_again(tree):
    """Detections of every object but crowds, by the sound file."""
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in tree["annotations"]
    ]


@pytest.mark.parametrize("value", ["0", "false", 0.0, False])
def test_the_evaluator_reads_flags_as_training_does(value):
    tree = make_tree()
    everywhere("annotations", iscrowd=value)(tree)
    assert not GroundTruth(tree).objects.crowd.any()
    assert evaluate_coco(tree, found_again(make_tree()), score_threshold=0)["counts"]["objects"] == 6


@pytest.mark.parametrize("case", [c for c in REFUSED if not c.startswith(("05a", "05d", "22f", "25", "two"))])
def test_the_evaluator_refuses_what_training_refuses(case):
    change, _, says = REFUSED[case]
    tree = make_tree()
    change(tree)
    with pytest.raises(InputError) as error:
        GroundTruth(tree)
    assert says in str(error.value)


@pytest.mark.parametrize("kept", ["images", ""])
def test_a_truth_without_categories_is_refused(tmp_path, kept):
    tree = {"images": [], "categories": [], "annotations": []} | ({kept: make_tree()[kept]} if kept else {})
    (tmp_path / "ann.json").write_text(json.dumps(tree))
    with pytest.raises(InputError, match=r"ann\.json: the list of categories is empty; list the classes"):
        GroundTruth(tmp_path / "ann.json")
    with pytest.raises(InputError, match=r"^ground truth: the list of categories is empty"):
        evaluate_coco(tree, [], score_threshold=0)


def test_a_truth_without_images_or_objects_has_no_number():
    tree = {"images": [], "categories": make_tree()["categories"], "annotations": []}
    assert math.isnan(evaluate_coco(tree, [], score_threshold=0)["metrics"]["AP"])


def test_detections_may_hold_numbers_of_numpy():
    tree = make_tree()
    plain = found_again(tree)
    of_numpy = [
        {
            "image_id": np.int64(d["image_id"]),
            "category_id": np.int32(d["category_id"]),
            "bbox": np.array(d["bbox"], np.float32),
            "score": np.float32(0.5),
        }
        for d in plain
    ]
    truth = GroundTruth(tree)
    one, other = read_detections(plain, truth), read_detections(of_numpy, truth)
    for field in ("image", "category", "xywh"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    np.testing.assert_array_equal(other.score, 0.5)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"image_id": "1"}, "detection 1: image_id must be an integer, is the text '1'"),
        ({"image_id": 1.0}, "detection 1: image_id must be an integer, is 1.0"),
        ({"category_id": True}, "detection 1: category_id must be an integer, is true"),
        ({"category_id": 2**64}, "detection 1: category_id must be an integer of at most 64 bits"),
        ({"score": "0.5"}, "detection 1: 'score' must be a finite number, is the text '0.5'"),
        ({"score": True}, "detection 1: 'score' must be a finite number, is true"),
        ({"bbox": ["1", 2, 3, 4]}, "detection 1: 'bbox' must be 4 finite numbers, is the list ['1', 2, 3, 4]"),
        ({"bbox": [1, 2, 3, math.inf]}, "detection 1: 'bbox' must be 4 finite numbers, is the list [1, 2, 3, inf]"),
    ],
)
def test_a_wrong_detection_is_named_by_index_key_and_value(fields, says):
    tree = make_tree()
    detections = found_again(tree)
    detections[1].update(fields)
    with pytest.raises(InputError) as error:
        read_detections(detections, GroundTruth(tree))
    assert says in str(error.value)


# ---- the fast reading of valid files against the one that reads value by value ------------------------------------

SMALL = scene(2, images=3, classes=2, most_objects=2, most_detections=4)
TOKENS = [b"null", b'"', b"{", b"[]", b"NaN", b"-", b"e999", b"9" * 30, b"\xff", b"\xef\xbb\xbf", b",", b"0.5", b"\x00",
          b'"images": [], ', b'"id": 1, ', b'"\\ud800"', b"\xc3\xa9", b"true"]  # fmt: skip


def outcome(read):
    """The ids, names and columns that were read, exactly, or the error."""
    try:
        found = read()
    except InputError as error:
        return str(error)
    objects = found.objects if isinstance(found, GroundTruth) else found
    columns = [(a.dtype, a.shape, a.tobytes()) for a in vars(objects).values()]
    if isinstance(found, GroundTruth):
        columns += [found.image_ids.tolist(), found.category_ids.tolist(), found.category_names]
    return columns


def both_ways(read):
    """The outcome of `read` as it is and without the fast reading; whether the fast reading read everything."""
    taken = []

    def watched(original):
        def call(*args):
            found = original(*args)
            taken.append(found is not None)
            return found

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("read_valid_truth", "read_valid_detections"):
            patch.setattr(reading, name, watched(getattr(reading, name)))
        one = outcome(read)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("read_valid_truth", "read_valid_detections"):
            patch.setattr(reading, name, lambda *args: None)
        return one, outcome(read), all(taken)


@pytest.mark.parametrize("part", [0, 1])
def test_fast_and_slow_reading_agree_on_damaged_files(tmp_path, part):
    path, truth, seen = tmp_path / "one.json", GroundTruth(SMALL[0]), set()
    sound = json.dumps(SMALL[part]).encode()
    trees = damaged_tree(SMALL[part]).map(lambda tree: json.dumps(tree).encode())
    marked = st.just(b"\xef\xbb\xbf" + sound)

    @settings(max_examples=400, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(trees, trees, trees, damaged_bytes(sound, TOKENS), marked))
    def check(data):
        path.write_bytes(data)
        one, other, fast = both_ways(lambda: read_detections(path, truth) if part else GroundTruth(path))
        assert one == other
        seen.add((fast, isinstance(one, str)))

    check()
    # Some are read fast, some only value by value, some refused; never refused after a fast reading.
    assert seen == {(True, False), (False, False), (False, True)}


@pytest.mark.parametrize("wrap", [lambda found: found, lambda found: {"info": {}, "annotations": found}, tuple])
def test_sound_files_and_trees_are_read_fast(tmp_path, wrap):
    tree, found = scene(3)
    tree["annotations"][0]["segmentation"] = [[1, 2.5, 3, 4]]
    tree["annotations"][1]["ignore"] = 1
    del tree["annotations"][2]["iscrowd"]
    found[0]["bbox"] = [1, 2, 3, 2**60 + 1]  # integers
    found[1] |= {"score": 1, "é": "é"}
    truth = tmp_path / "truth.json"
    path = tmp_path / "found.json"
    truth.write_text(json.dumps(tree))
    path.write_text(json.dumps(wrap(found), ensure_ascii=False))
    for source in (tree, truth):
        one, other, fast = both_ways(lambda source=source: GroundTruth(source))
        assert one == other
        assert fast
    for source in (wrap(found), path):
        one, other, fast = both_ways(lambda source=source: read_detections(source, GroundTruth(tree)))
        assert one == other
        assert fast


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'{"images"', b'{"info": "\xff", "images"', "as JSON"),  # also in text that nothing reads
        (b'{"images"', b'{"images": [], "images"', "the key 'images' is duplicated"),
        (b'"area": ', b'"area": -', "areas that are not a number of at least 0"),
        (b'"bbox": [', b'"bbox": [1e999, ', "boxes that are not 4 numbers"),
        (b'"class 0"', b'" "', "category names that are not text"),
        (b'"class 0"', b'"\\ud800"', "category names that are not text"),
    ],
)
def test_a_wrong_ground_truth_file_is_refused_as_ever(tmp_path, old, new, says):
    path = tmp_path / "truth.json"
    sound = json.dumps(SMALL[0]).encode()
    assert old in sound
    path.write_bytes(sound.replace(old, new))
    one, other, _ = both_ways(lambda: GroundTruth(path))
    assert one == other
    assert says in one
