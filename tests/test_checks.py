"""Ranges and choices: both ends belong to a range, NaN and infinity to none, and every place says it in one wording."""

import math
import re

import pytest

from backbones.config import get_defaults as classifier_defaults
from backbones.config import validate as validate_classifier
from backbones.core.checks import (
    ABOVE_0,
    BELOW_1,
    NO_LIMIT,
    check_choice,
    check_choices,
    check_numbers,
    check_range,
    check_ranges,
)
from backbones.core.errors import InputError
from detection.config import get_defaults as detector_defaults
from detection.engines.yolo import config as yolo
from detection.training.run import check_config as validate_detector

TINY = 5e-324  # the smallest positive number


def refusal(check, *args, **options):
    with pytest.raises(InputError) as refused:
        check(*args, **options)
    return str(refused.value)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "words"),
    [
        ((0, 1), (0, 0.5, 1, 1.0, -0.0), (-TINY, math.nextafter(1, 2), -1, 2), "between 0 and 1"),
        ((-1, 2**31), (-1, 2**31), (-2, 2**31 + 1), "between -1 and 2147483648"),
        ((0.25, 1e9), (0.25, 1e9), (0.2, 2e9), "between 0.25 and 1e+09"),
        ((1,), (1, 10**30), (0, 0.999), "at least 1"),
        ((1, NO_LIMIT), (1, 1e308), (0,), "at least 1"),
        ((ABOVE_0,), (TINY, 1e-13, 1), (0, 0.0, -0.0, -1), "above 0"),
        ((ABOVE_0, 1), (TINY, 1), (0, 1.5), "above 0 and at most 1"),
        ((ABOVE_0, BELOW_1), (TINY, 1 - 1e-16), (0, 1), "above 0 and below 1"),
        ((0, 0), (0,), (1, -1), "0"),
    ],
)
def test_both_ends_of_a_range_belong_to_it_and_nothing_beyond(bounds, inside, outside, words):
    for value in inside:
        assert check_range("KEY", value, *bounds) is value
    for value in outside:
        assert refusal(check_range, "KEY", value, *bounds) == f"KEY is {value}; it must be {words}"


@pytest.mark.parametrize("bounds", [(0, 1), (1,), (ABOVE_0,), (ABOVE_0, BELOW_1), (-math.inf, 0)])
def test_nan_and_infinity_are_in_no_range(bounds):
    for value in (math.nan, math.inf, -math.inf):
        assert refusal(check_range, "KEY", value, *bounds).startswith(f"KEY is {value}; it must be ")
        refusal(check_numbers, "KEY", [0.5, value], *bounds)


def test_infinity_is_told_from_a_number_that_is_large_enough():
    assert refusal(check_range, "KEY", math.inf, 1) == "KEY is inf; it must be finite and at least 1"


def test_each_number_of_a_list_is_checked_and_so_is_their_count():
    check_numbers("SIZES", (32, 64), 32)
    for wrong in ([], [31, 64], [64, 31]):
        said = refusal(check_numbers, "SIZES", wrong, 32)
        assert said == f"SIZES is {wrong}; it must be one or more numbers, each at least 32"
    colours = ("red", "green", "blue")
    check_numbers("MEAN", [0, 0.5, 1], 0, 1, names=colours)
    for wrong in ([], [0.5], [0.5] * 4, [0.5, 0.5, 1.5]):
        said = refusal(check_numbers, "MEAN", wrong, 0, 1, names=colours)
        assert said == f"MEAN is {wrong}; it must be 3 numbers (red, green, blue), each between 0 and 1"


def test_a_table_of_ranges_takes_numbers_and_lists():
    ranges = {"A": (0, 1), "B": (1, NO_LIMIT)}
    check_ranges({"A": 1, "B": [1, 2], "C": math.nan}, ranges)
    assert refusal(check_ranges, {"A": [0.5, 2], "B": 1}, ranges).startswith("A is [0.5, 2]; it must be one or more")
    assert refusal(check_ranges, {"A": 0, "B": 0}, ranges) == "B is 0; it must be at least 1"


def test_an_unknown_choice_names_the_nearest_or_all():
    names = {"BN": 1, "GN": 2}
    assert check_choice("NORM", "GN", names) == "GN"
    assert refusal(check_choice, "NORM", "GNN", names) == "unknown NORM 'GNN'; did you mean 'GN'?"
    assert refusal(check_choice, "NORM", "xyz", iter(names)) == "unknown NORM 'xyz'; choices: BN, GN"
    assert refusal(check_choice, "NORM", "xyz", ("", "BN")) == "unknown NORM 'xyz'; choices: '', BN"
    assert refusal(check_choice, "DEPTH", 51, (18, 50, 101)) == "unknown DEPTH 51; choices: 18, 50, 101"
    assert refusal(check_choice, "key", "LABL", ["LABEL"], "ROWS[0]").startswith("ROWS[0]: unknown key 'LABL'; did")
    assert refusal(check_choice, "SELECT", ["nll"], names) == "unknown SELECT ['nll']; choices: BN, GN"  # no hash
    check_choices({"NORM": "BN", "DEPTH": 0}, {"NORM": ("BN",)})
    assert refusal(check_choices, {"NORM": "B"}, {"NORM": ("BN", "LN")}).startswith("unknown NORM 'B'")


CONFIGS = {
    "classifier": (classifier_defaults, validate_classifier, {"DATA.ROOT": "x"}),
    "detector": (detector_defaults, validate_detector, {"DATASETS.TRAIN": ("a",), "DATASETS.TEST": ("b",)}),
    "YOLO": (yolo.get_defaults, yolo.validate, {"DATASETS.TRAIN": ("a",), "DATASETS.TEST": ("b",)}),
}
COLOURS = "3 numbers (red, green, blue)"
WRONG = [
    ("classifier", "SOLVER.BASE_LR", 0.0, "it must be above 0"),
    ("classifier", "SOLVER.MOMENTUM", math.nan, "it must be between 0 and 1"),
    ("classifier", "SOLVER.WEIGHT_DECAY", math.inf, "it must be finite and at least 0"),
    ("classifier", "DATA.FLIP", math.nan, "it must be between 0 and 1"),
    (
        "classifier",
        "DATA.STD",
        [0.1, math.nan, 0.1],
        f"it must be {COLOURS}, each above 0 and at most 1",
    ),
    ("detector", "SOLVER.BASE_LR", 0.0, "it must be above 0"),
    ("detector", "SOLVER.MOMENTUM", math.nan, "it must be between 0 and 1"),
    ("detector", "SOLVER.WEIGHT_DECAY", math.inf, "it must be finite and at least 0"),
    ("detector", "INPUT.MIN_SIZE_TRAIN", [], "it must be one or more numbers, each at least 1"),
    ("YOLO", "SOLVER.BASE_LR", 0.0, "it must be above 0"),
    ("YOLO", "SOLVER.MOMENTUM", math.nan, "it must be between 0 and 1"),
    ("YOLO", "SOLVER.WEIGHT_DECAY", math.inf, "it must be finite and at least 0"),
    ("YOLO", "TEST.SIZES", [32, 0], "it must be one or more numbers, each at least 32"),
]


@pytest.mark.parametrize(("kind", "key", "value", "words"), WRONG)
def test_every_config_refuses_a_number_in_the_same_words(kind, key, value, words):
    assert refusal(CONFIGS[kind][1], changed(kind, key, value)) == f"{key} is {value}; {words}"


@pytest.mark.parametrize(
    ("kind", "key", "value", "near"),
    [
        ("classifier", "METHOD.NAME", "OSL", "OLS"),
        ("classifier", "METHOD.NAME", "NAME", "NLS"),
        ("classifier", "EVAL.REPORT", "bets", "best"),
        ("classifier", "DATA.AUGMENTATION", "padcrop", "pad_crop"),
        ("detector", "ENGINE", "torchvison", "torchvision"),
        ("detector", "SOLVER.OPTIMIZER", "sgd", "SGD"),
        ("YOLO", "CLASS_LABELS.NAME", "OSL", "OLS"),
        ("YOLO", "MODEL.NORM", "bn", "BN"),
    ],
)
def test_every_config_refuses_a_name_in_the_same_words(kind, key, value, near):
    said = refusal(CONFIGS[kind][1], changed(kind, key, value))
    assert re.fullmatch(rf"unknown {key} '{value}'; (did you mean '{near}'\?|choices: .*)", said), said


def changed(kind, key, value):
    cfg = CONFIGS[kind][0]()
    for name, new in {**CONFIGS[kind][2], key: value}.items():
        *blocks, leaf = name.split(".")
        block = cfg
        for part in blocks:
            block = block[part]
        block[leaf] = new
    return cfg
