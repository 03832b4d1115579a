"""ENGINE detectron2: no key is ignored, and the backbone is proved to be in the detector."""

import copy
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.detectron2_tiny import load_data, load_detectron2, make_cfg, settings_of
from helpers.seeded import make_backbone
from torch import nn

from backbones.core.config import CfgNode, flatten, load_config
from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from detection.config import get_defaults, validate
from detection.engines import build_engine
from detection.engines.detectron2 import engine, training
from detection.engines.detectron2.config import OWN_KEYS, check_config, fill_config
from detection.training.resuming import build_detector_schedule

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs" / "detection"


@pytest.fixture(scope="module")
def d2():
    return load_detectron2()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(tmp_path_factory.mktemp("rectangles"))


# ---------------------------------------------------------------------------- without detectron2


def test_an_absent_detectron2_is_named_with_the_way_out(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(
        InputError, match=r"not installed.*--no-build-isolation.*facebookresearch.*ENGINE torchvision"
    ) as e:
        engine.import_detectron2()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("page", ["engines.md", "cluster.md"])
def test_every_place_has_the_one_recipe(page):
    """The error, the pages and setup.py: after torch, its preconditions, without build isolation, one commit."""
    assert all(line in engine._INSTALL for line in engine.RECIPE)
    text = (ROOT / "docs" / page).read_text()
    assert "\n" + "\n".join(engine.RECIPE) + "\n" in text
    for path in ("README.md", "CONTRIBUTING.md", "setup.py", f"docs/{page}"):
        commands = set(re.findall(r"pip install [^`\n]*(?:isolation|detectron2)[^`\n]*", (ROOT / path).read_text()))
        assert commands <= set(engine.RECIPE), path
    assert f"github.com/facebookresearch/detectron2@{engine.COMMIT}" in (ROOT / "setup.py").read_text()


REFUSED = {
    "R18-C4": (
        ["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.ROI_HEADS.NAME", "Res5ROIHeads"],
        "DEPTH.*bottleneck",
    ),
    "head": (["MODEL.ROI_HEADS.NAME", "Res5ROIHeads"], r"MODEL\.ROI_HEADS\.NAME.*StandardROIHeads"),
    "levels": (["MODEL.ANCHOR_GENERATOR.SIZES", "[[32], [64]]"], r"ANCHOR_GENERATOR\.SIZES.*p2\.\.p6"),
    "AMP on the CPU": (["SOLVER.AMP.ENABLED", "True"], r"SOLVER\.AMP\.ENABLED.*CUDA"),
    "SyncBN on the CPU": (["MODEL.FPN.NORM", "SyncBN"], r"MODEL\.FPN\.NORM: SyncBN"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_detectron2_cannot_honour_is_refused_by_name(case):
    overrides, reason = REFUSED[case]
    with pytest.raises(InputError, match=reason):
        fill_config(make_cfg(*overrides), CfgNode(stand_in()), device="cpu", processes=2)


def test_a_cache_that_detectron2_lacks_is_told_and_not_refused(capsys):
    cfg = make_cfg("INPUT.MIN_SIZE_TRAIN", "[64]", "DATALOADER.CACHE_IMAGES", "True")
    check_config(cfg)
    counted = WarningCounter()
    engine.ENGINE.warn(cfg, counted)
    assert "DATALOADER.CACHE_IMAGES has no effect: ENGINE detectron2" in capsys.readouterr().err
    assert "CACHE" not in str(counted.as_list())
    engine.ENGINE.warn(make_cfg(), WarningCounter())
    assert "CACHE" not in capsys.readouterr().err


def stand_in():
    """A tree with our keys, in place of detectron2's config."""
    return copy.deepcopy(dict(get_defaults()))


def test_every_instant_config_is_valid_and_says_how_to_run_it():
    paths = sorted(CONFIGS.glob("instant_*.yaml"))
    assert len(paths) >= 4
    for path in paths:
        cfg = load_config(get_defaults(), path)
        validate(cfg)
        check_config(cfg)
        assert cfg.ENGINE == "detectron2"
        header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
        assert f"--config-file configs/detection/{path.name}" in header
        assert "Cost:" in header


# ------------------------------------------------------------------------------- the key account


@pytest.mark.detectron2
def test_every_key_arrives_or_is_ours(d2):
    cfg = make_cfg("MODEL.RPN.NMS_THRESH", 0.61, "SOLVER.GAMMA", 0.3, "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", 0.5)
    settings = dict(flatten(settings_of(d2, cfg)))
    for key, value in flatten(cfg):
        if key not in OWN_KEYS and not key.startswith("SOLVER.CLIP_GRADIENTS") and key != "SOLVER.WEIGHT_DECAY_BIAS":
            assert np.array_equal(settings[key], value), key
    assert set(OWN_KEYS) <= set(dict(flatten(cfg)))
    assert settings["MODEL.ROI_HEADS.SCORE_THRESH_TEST"] == 0
    assert settings["MODEL.RPN.IN_FEATURES"] == ["p2", "p3", "p4", "p5", "p6"]
    assert settings["MODEL.MASK_ON"] is False


@pytest.mark.detectron2
def test_a_key_or_type_that_detectron2_lacks_raises(d2):
    cfg = make_cfg()
    cfg.MODEL.RPN.NEW_LOSS = "focal"
    with pytest.raises(InputError, match=r"MODEL\.RPN\.NEW_LOSS: ENGINE detectron2 does not have this key"):
        settings_of(d2, cfg)
    cfg = make_cfg()
    cfg.MODEL.RPN.NMS_THRESH = "high"
    with pytest.raises(InputError, match=r"MODEL\.RPN\.NMS_THRESH: 'high': detectron2 takes a float"):
        settings_of(d2, cfg)


@pytest.mark.detectron2
def test_syncbn_is_bn_in_one_process(d2):
    settings = settings_of(d2, make_cfg("MODEL.RESNETS.NORM", "SyncBN", "MODEL.FPN.NORM", "SyncBN"))
    assert settings.MODEL.RESNETS.NORM == "BN"


@pytest.mark.detectron2
@pytest.mark.parametrize(
    "schedule",
    [
        ["SOLVER.STEPS", "[15, 22]", "SOLVER.GAMMA", 0.2, "SOLVER.WARMUP_ITERS", 6],
        ["SOLVER.STEPS", "[]", "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.WARMUP_ITERS", 6],
        ["SOLVER.STEPS", "[10]", "SOLVER.WARMUP_ITERS", 0],
    ],
)
def test_both_engines_have_the_same_learning_rate(d2, schedule):
    cfg = make_cfg("SOLVER.MAX_ITER", 30, *schedule)
    settings = settings_of(d2, cfg)
    optimizer = training.build_solver(d2, settings, cfg, nn.Linear(2, 2))
    scheduler, wanted = d2.solver.build_lr_scheduler(settings, optimizer), build_detector_schedule(cfg.SOLVER)
    rates = []
    for iteration in [*range(30), 3]:  # out of order too: a pure function
        training.set_learning_rate(scheduler, iteration)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([wanted(iteration) for iteration in [*range(30), 3]], rel=1e-9)


@pytest.mark.detectron2
@pytest.mark.parametrize("kind", ["full_model", "norm"])
def test_gradients_are_clipped(d2, kind):
    clip = ["SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", kind]
    cfg = make_cfg(*clip, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.5, "SOLVER.BASE_LR", 1, "SOLVER.WEIGHT_DECAY", 0)
    settings = settings_of(d2, cfg)
    model = nn.Linear(3, 3)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = training.build_solver(d2, settings, cfg, model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 4.0)
    optimizer.step()
    moved = [(a - b).norm().item() for a, b in zip(before, model.parameters(), strict=True)]
    if kind == "norm":  # each parameter's own
        assert moved == pytest.approx([0.5, 0.5], rel=1e-4)
    else:
        assert np.linalg.norm(moved) == pytest.approx(0.5, rel=1e-4)
        assert moved[0] / moved[1] == pytest.approx(3**0.5, rel=1e-4)
    for parameter in model.parameters():
        parameter.grad.zero_()
    optimizer.step()  # nothing to clip is not an error


@pytest.mark.detectron2
@pytest.mark.parametrize("name", ["SGD", "ADAMW"])
@pytest.mark.parametrize("own", [-1.0, 0.0, 0.5])
def test_biases_have_their_own_weight_decay(d2, name, own):
    """As detectron2 means it: also those of norms; negative is none of their own."""
    cfg = make_cfg("SOLVER.OPTIMIZER", name, "SOLVER.WEIGHT_DECAY", 0.25, "SOLVER.WEIGHT_DECAY_NORM", 0.125,
                   "SOLVER.WEIGHT_DECAY_BIAS", own)  # fmt: skip
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = training.build_solver(d2, settings_of(d2, cfg), cfg, model)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    found = [decay[id(parameter)] for parameter in model.parameters()]
    assert found == [0.25, 0.25 if own < 0 else own, 0.125, 0.125 if own < 0 else own]


@pytest.mark.detectron2
def test_adamw_does_not_decay_norms(d2):
    cfg = make_cfg("SOLVER.OPTIMIZER", "ADAMW", "SOLVER.WEIGHT_DECAY", 0.1)
    settings = settings_of(d2, cfg)
    optimizer = training.build_solver(d2, settings, cfg, nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    assert isinstance(optimizer, torch.optim.AdamW)
    decays = {
        p.shape: group["weight_decay"] for group in optimizer.param_groups for p in group["params"] if p.dim() > 1
    }
    assert list(decays.values()) == [0.1]
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.1]


# --------------------------------------------------------------------------- the backbone's loading


def small_detector(depth, c4=False):
    cfg = make_cfg("MODEL.RESNETS.DEPTH", depth, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64 if depth < 50 else 256)
    if c4:
        cfg.MODEL.BACKBONE.NAME, cfg.MODEL.ROI_HEADS.NAME = "build_resnet_backbone", "Res5ROIHeads"
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32, 64]]
        cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 256, 1024
    return cfg


@pytest.mark.detectron2
@pytest.mark.parametrize(
    ("depth", "tensors", "c4"), [(18, 100, False), (50, 265, False), (101, 520, False), (50, 265, True)]
)
def test_the_backbone_is_in_the_detector_key_by_key_and_feature_by_feature(d2, depth, tensors, c4):
    cfg, backbone = small_detector(depth, c4), make_backbone(depth)
    model, report = engine.build_detector(d2, settings_of(d2, cfg), cfg, backbone)
    assert len(report.loaded) == tensors
    assert set(report.loaded) | set(report.new) == set(model.state_dict())
    assert len(report.dropped) + tensors == len(backbone.state)
    assert max(report.proof["largest_difference"].values()) <= 1e-4
    assert list(report.proof["largest_difference"]) == ["res2", "res3", "res4", "res5"]
    assert model.training


@pytest.mark.detectron2
@pytest.mark.parametrize("norm", ["FrozenBN", "GN"])
def test_other_norms_load_too(d2, norm):
    cfg = make_cfg("MODEL.RESNETS.NORM", norm)
    _, report = engine.build_detector(d2, settings_of(d2, cfg), cfg, make_backbone(18, "GN" if norm == "GN" else "BN"))
    assert len(report.loaded) == (60 if norm == "GN" else 100)


@pytest.mark.detectron2
def test_a_load_that_does_nothing_is_noticed(d2, monkeypatch):
    monkeypatch.setattr(d2.checkpoint.DetectionCheckpointer, "load", lambda self, path: {})
    cfg = make_cfg()
    with pytest.raises(InputError, match="other values in 100 tensors"):
        engine.build_detector(d2, settings_of(d2, cfg), cfg, make_backbone())


PLANTED = {
    "PIXEL_STD": lambda cfg: cfg.merge_from_list(["MODEL.PIXEL_STD", [1.0, 1.0, 1.0]]),
    "PIXEL_MEAN in the order of BGR": lambda cfg: cfg.merge_from_list(["MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675]]),
    "BGR": lambda cfg: cfg.merge_from_list(["INPUT.FORMAT", "BGR"]),
    "stride in the 1x1": lambda cfg: cfg.merge_from_list(["MODEL.RESNETS.STRIDE_IN_1X1", True]),
}


@pytest.mark.detectron2
@pytest.mark.parametrize("case", PLANTED)
def test_the_proof_notices_a_wrong_input_even_if_nobody_checked_it(d2, case):
    depth = 50 if case.startswith("stride") else 18  # a basic block has no 1x1
    cfg = small_detector(depth)
    PLANTED[case](cfg)
    with pytest.raises(InputError, match="features differ"):
        engine.build_detector(d2, settings_of(d2, cfg), cfg, make_backbone(depth))


def test_a_misfit_is_refused_before_any_work():
    for spec, reason in (({"stem": "cifar"}, "CIFAR stem"), ({"depth": 34}, "DEPTH is 18")):
        with pytest.raises(InputError, match=reason):
            build_engine("detectron2").check_backbone(make_cfg(), make_backbone(spec=spec))
