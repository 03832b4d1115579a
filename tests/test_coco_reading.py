"""The evaluator's reading of COCO's two files: flags, ids and numbers by what they are, as training reads them."""

import math

import numpy as np
import pytest
from helpers.coco_breakage import REFUSED, everywhere
from helpers.detection_files import make_tree

from backbones.core.errors import InputError
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
