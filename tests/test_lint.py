"""Every rule of detection/config_pairs.py: what it finds, and the nearest config that it leaves alone."""

import re

import pytest
from helpers.killing import ROOT

from backbones.core.config import load_config
from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from detection.config import get_defaults, validate
from detection.config_pairs import ERRORS, WARNINGS, warn_pairs

FPN, C4 = "frozenbn_r50_fpn_1x", "frozenbn_r50_c4_1x"
BN = ["MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0]
SYNC = ["MODEL.RESNETS.NORM", "SyncBN", "MODEL.BACKBONE.FREEZE_AT", 0]
EXTRA = ["MODEL.ROI_HEADS.NAME", "Res5ROIHeadsExtraNorm"]
PRECISE = ["TEST.PRECISE_BN.ENABLED", True]
RATE, BATCH, STEPS = "SOLVER.BASE_LR", "SOLVER.IMS_PER_BATCH", "SOLVER.STEPS"
BGR = ["INPUT.FORMAT", "BGR"]
MEAN, STD = "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"
MSRA = "[103.530, 116.280, 123.675]"


def load(name, *overrides):
    return load_config(get_defaults(), ROOT / "configs" / "detection" / f"{name}.yaml", [str(v) for v in overrides])


def warned(cfg, processes=1):
    counter = WarningCounter()
    warn_pairs(cfg, processes, counter)
    return {entry["what"]: entry["examples"] for entry in counter.as_list()}


# (start of the message, file, what is wrong, what is not)
REFUSED = [
    ("MODEL.RESNETS.NORM SyncBN with MODEL.FPN.NORM ''", FPN, SYNC, [*SYNC, "MODEL.FPN.NORM", "SyncBN"]),
    ("MODEL.RESNETS.NORM SyncBN with MODEL.FPN.NORM ''", FPN, SYNC, BN),
    ("MODEL.ROI_HEADS.NAME Res5ROIHeadsExtraNorm with MODEL.RESNETS.NORM FrozenBN", C4, EXTRA, [*EXTRA, *SYNC]),
    (
        "TEST.PRECISE_BN.ENABLED True with MODEL.RESNETS.NORM 'FrozenBN', MODEL.FPN.NORM ''", FPN, PRECISE,
        [*PRECISE, *BN],
    ),
    (
        "TEST.PRECISE_BN.ENABLED True with MODEL.RESNETS.NORM 'FrozenBN'", C4, PRECISE,
        [*PRECISE, "MODEL.RESNETS.NORM", "BN"],
    ),
    (
        "TEST.PRECISE_BN.ENABLED True with MODEL.RESNETS.NORM 'GN', MODEL.FPN.NORM 'GN'", FPN,
        [*PRECISE, "MODEL.RESNETS.NORM", "GN", "MODEL.FPN.NORM", "GN"], [*PRECISE, "MODEL.FPN.NORM", "BN"],
    ),
    (
        "TEST.PRECISE_BN.ENABLED True with MODEL.RESNETS.NORM 'BN', MODEL.FPN.NORM '', MODEL.BACKBONE.FREEZE_AT 5", FPN,
        [*PRECISE, *BN, "MODEL.BACKBONE.FREEZE_AT", 5],
        [*PRECISE, *BN, "MODEL.BACKBONE.FREEZE_AT", 4],
    ),
    (
        "TEST.PRECISE_BN.ENABLED True with MODEL.RESNETS.NORM 'BN', MODEL.BACKBONE.FREEZE_AT 5", C4,
        [*PRECISE, "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 5],
        [*PRECISE, *EXTRA, "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 5],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("message", "name", "wrong", "right"), REFUSED)
def test_rejected_settings_are_refused(message, name, wrong, right):
    validate(load(name, *right))
    with pytest.raises(InputError, match=re.escape(message)):
        validate(load(name, *wrong))


def test_every_refusal_has_its_two_sides_here():
    assert len(ERRORS) == len({message.split(" with ")[0] for message, *_ in REFUSED})


# (start of the warning, file, processes, what is odd, what is not)
WARNED = [
    ("trained batch norm, but frozen stages", C4, 1, SYNC[:2], SYNC),
    ("trained batch norm, but frozen stages", FPN, 1, BN[:2], ["MODEL.RESNETS.NORM", "GN"]),
    ("a frozen backbone whose res5", C4, 1, ["MODEL.BACKBONE.FREEZE_AT", 4], ["MODEL.BACKBONE.FREEZE_AT", 5]),
    ("a frozen backbone whose res5", FPN, 1, ["MODEL.BACKBONE.FREEZE_AT", 4], ["MODEL.BACKBONE.FREEZE_AT", 5]),
    ("C4 with trained batch norm", C4, 1, SYNC, [*SYNC, *EXTRA]),
    ("batch norm over fewer than 8", FPN, 4, BN, ["MODEL.FPN.NORM", "SyncBN", *SYNC]),
    ("batch norm over fewer than 8", FPN, 1, [*BN, BATCH, 7, RATE, 0.00875], [*BN, BATCH, 8, RATE, 0.01]),
    ("batch norm over fewer than 8", FPN, 4, ["MODEL.FPN.NORM", "BN"], ["MODEL.FPN.NORM", "GN"]),
    ("batch norm over fewer than 8", C4, 1, ["MODEL.RESNETS.NORM", "BN", BATCH, 2], [BATCH, 2]),
    ("a last step so close", FPN, 1, [STEPS, "[60000, 89101]"], [STEPS, "[60000, 89100]"]),
    ("a step within the warm-up", FPN, 1, [STEPS, "[999, 80000]"], [STEPS, "[1000, 80000]"]),
    ("a learning rate more than", FPN, 1, [BATCH, 64], [BATCH, 64, RATE, 0.08]),
    ("a learning rate more than", FPN, 1, [RATE, 0.0099], [RATE, 0.01]),
    ("a learning rate more than", FPN, 1, [RATE, 0.041], [RATE, 0.04]),
    ("a learning rate more than", FPN, 1, [RATE, 1e-4], [RATE, 1e-4, "SOLVER.OPTIMIZER", "ADAMW"]),
    ("a mean in the opposite", FPN, 1, BGR, [*BGR, MEAN, MSRA]),
    ("a mean in the opposite", FPN, 1, [MEAN, MSRA], []),
    ("a mean and deviation", FPN, 1, [STD, "[1.0, 1.0, 1.0]"], [*BGR, MEAN, MSRA, STD, "[1.0, 1.0, 1.0]"]),
    ("a mean and deviation", FPN, 1, [STD, "[0.229, 0.224, 0.225]"], [STD, "[58.4, 57.1, 57.4]"]),
    ("a mean and deviation", FPN, 1, [MEAN, "[0.485, 0.456, 0.406]"], [MEAN, "[59.4, 58.1, 56.9]"]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "name", "processes", "odd", "fine"), WARNED)
def test_what_may_be_a_slip_is_counted_with_its_values(what, name, processes, odd, fine):
    assert not [found for found in warned(load(name, *fine), processes) if found.startswith(what)]
    [found] = [found for found in warned(load(name, *odd), processes).items() if found[0].startswith(what)]
    assert any(key in found[1][0] for key in odd[::2])


def test_every_warning_has_its_two_sides_here():
    assert all(any(what.startswith(start) for start, *_ in WARNED) for what in WARNINGS)


def test_a_rule_of_fpn_leaves_c4_alone():
    """MODEL.FPN.* of a C4 detector is idle."""
    validate(load(C4, *SYNC, *EXTRA))
    assert not warned(load(C4, *SYNC, *EXTRA), processes=8)


def test_als_is_exactly_on_the_edge_of_the_rate():
    assert not warned(load("als_r50_c4"), processes=8)
