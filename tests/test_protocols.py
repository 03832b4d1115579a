"""Named protocols: names and hashes are identities, docs/protocols.md tells what the files hold, all can be built."""

import re

import pytest
import torch
from helpers.config_files import DETECTION, ROOT, is_mere_base
from helpers.detectron2_tiny import load_detectron2

from backbones.config import get_defaults as pretraining_defaults
from backbones.core.config import flatten, load_config
from backbones.core.roles import PROTOCOL, Role
from backbones.core.warning_counter import WarningCounter
from detection.config import ROLES, get_defaults, protocol_hash, validate
from detection.config_pairs import ERRORS, WARNINGS, warn_pairs
from detection.engines import build_engine
from detection.engines.detectron2 import engine
from detection.engines.detectron2.config import fill_config
from detection.engines.detectron2.training import set_learning_rate
from detection.engines.torchvision.building import build_detector

DOCS = ROOT / "docs" / "protocols.md"
NAMED = [path for path in DETECTION if not is_mere_base(path)]
SAME_AS_QUICK = "parity_scenes"  # the keys of `quick` that both engines support: all but the cache of images


def load(path):
    return load_config(get_defaults(), path)


# ------------------------------------------------------------------------------------------- identity


def test_every_file_is_a_protocol_of_its_own():
    protocols = {path.stem: load(path) for path in NAMED}
    assert protocol_hash(protocols.pop(SAME_AS_QUICK)) == protocol_hash(protocols["quick"])
    assert all(cfg.PROTOCOL for cfg in protocols.values())
    assert len({cfg.PROTOCOL for cfg in protocols.values()}) == len(protocols)
    assert len({protocol_hash(cfg) for cfg in protocols.values()}) == len(protocols)


def test_what_is_not_in_the_protocol_cannot_change_a_number():
    """Which keys the hash covers follows from their roles: tests/test_roles.py."""
    outside = ROLES.keys(*(role for role in Role if role not in PROTOCOL))
    assert {"SEED", "DATALOADER.NUM_WORKERS", "TEST.EXPECTED_RESULTS"} <= set(outside)
    assert not {"ENGINE", "SOLVER.BASE_LR", "MODEL.PIXEL_STD"} & set(outside)
    assert {"DATASETS.TRAIN", "DATASETS.TEST"} <= set(outside)  # they enter the hash as fingerprints


# ------------------------------------------------------------------------- what the published protocols say

SCHEDULES = {"1x": ((60000, 80000), 90000), "2x": ((120000, 160000), 180000), "3x": ((210000, 250000), 270000)}


@pytest.mark.parametrize("length", SCHEDULES)
@pytest.mark.parametrize("detector", ["r50_c4", "r50_fpn", "r101_fpn"])
def test_frozenbn_and_syncbn_differ_in_what_trains_alone(detector, length):
    folder = ROOT / "configs" / "detection"
    frozen, sync = (load(folder / f"{kind}_{detector}_{length}.yaml") for kind in ("frozenbn", "syncbn"))
    for cfg in (frozen, sync):
        assert (tuple(cfg.SOLVER.STEPS), cfg.SOLVER.MAX_ITER) == SCHEDULES[length]
        assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_ITERS) == (16, 0.02, 1000)
        assert int(re.findall(r"\d+", detector)[0]) == cfg.MODEL.RESNETS.DEPTH
        assert ("fpn" in cfg.MODEL.BACKBONE.NAME) == detector.endswith("fpn")
    first, second = dict(flatten(frozen)), dict(flatten(sync))
    changed = {key for key in first if first[key] != second[key]} - {"PROTOCOL"}
    part = "MODEL.FPN.NORM" if detector.endswith("fpn") else "MODEL.ROI_HEADS.NAME"
    assert changed == {"MODEL.RESNETS.NORM", "MODEL.BACKBONE.FREEZE_AT", "TEST.PRECISE_BN.ENABLED", part}


def test_als_is_the_schedule_of_its_code():
    """10 of its epochs, each two passes over 117,266 images with boxes, decaying at the start of epochs 5 and 10."""
    cfg = load(ROOT / "configs/detection/als_r50_c4.yaml")
    epoch = cfg.SOLVER.MAX_ITER // 10
    assert epoch == 2 * 117266 // 16
    assert list(cfg.SOLVER.STEPS) == [4 * epoch, 9 * epoch]
    assert [[16 * scale for scale in (4, 8, 16, 32)]] == cfg.MODEL.ANCHOR_GENERATOR.SIZES
    assert pytest.approx(3**-2) == cfg.MODEL.RPN.SMOOTH_L1_BETA
    assert (cfg.SOLVER.WEIGHT_DECAY_BIAS, cfg.SOLVER.WARMUP_ITERS, cfg.TEST.AP_SCORE_THRESH) == (0, 0, 0)


def test_defaults_and_bases_are_detectron2s_own():
    """What the bases repeat of detectron2's Base-RCNN-*.yaml, read from its own configs."""
    pytest.importorskip("detectron2")
    from detectron2.config import get_cfg

    theirs = dict(flatten(get_cfg()))
    ours = dict(flatten(load(ROOT / "configs/detection/frozenbn_r50_c4_1x.yaml")))
    # Ours for torchvision's weights; of 90,000 iterations (the generic default is 40,000); detected once, at score 0.
    meant = {
        "SEED", "INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1",
        "DATASETS.TRAIN", "DATASETS.TEST", "SOLVER.BASE_LR", "SOLVER.STEPS", "SOLVER.MAX_ITER", "INPUT.MIN_SIZE_TRAIN",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "SOLVER.WEIGHT_DECAY_BIAS", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        "MODEL.RPN.POST_NMS_TOPK_TEST", "INPUT.RANDOM_FLIP", "MODEL.ROI_BOX_HEAD.NUM_FC", "MODEL.ROI_BOX_HEAD.FC_DIM",
    }  # fmt: skip
    different = {
        key
        for key in ours.keys() & theirs.keys()
        if (list(ours[key]) if isinstance(ours[key], tuple) else ours[key])
        != (list(theirs[key]) if isinstance(theirs[key], tuple) else theirs[key])
    }
    assert different <= meant


INSTANT = [path for path in NAMED if path.stem.startswith("instant")]


@pytest.mark.parametrize("path", INSTANT, ids=lambda path: path.stem)
def test_an_instant_config_expects_its_loss_within_5_percent_and_its_detections(path):
    cfg = load(path)
    assert (cfg.SOLVER.MAX_ITER, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (40, ("coco128",), ("coco128",))
    (loss, value, most), (count, detections, none) = cfg.TEST.EXPECTED_RESULTS
    assert (loss, count, none) == ("loss", "detections", 0)
    assert most == pytest.approx(0.05 * value, rel=0.01)
    assert detections == 90 * cfg.TEST.DETECTIONS_PER_IMAGE


def test_an_instant_detector_takes_the_pixels_of_the_backbone_it_starts_from():
    for path in INSTANT:
        [arch] = set(re.findall(r"configs/pretrain/(instant_r\d+)\.yaml", path.read_text()))
        made = load_config(pretraining_defaults(), ROOT / "configs" / "pretrain" / f"{arch}.yaml")
        model = load(path).MODEL
        assert f"resnet{model.RESNETS.DEPTH}" == made.MODEL.ARCH
        assert [255 * value for value in made.DATA.MEAN] == pytest.approx(list(model.PIXEL_MEAN), abs=0.05)
        assert [255 * value for value in made.DATA.STD] == pytest.approx(list(model.PIXEL_STD), abs=0.05)


# --------------------------------------------------------------------------------- loaded, linted, built


def of_engine(name):
    return [path for path in NAMED if name == load(path).ENGINE]


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.stem)
def test_a_protocol_passes_every_check_that_needs_no_data(path):
    cfg = load(path)
    validate(cfg)
    build_engine(cfg.ENGINE).check_config(cfg)
    warnings = WarningCounter()
    warn_pairs(cfg, 1, warnings)
    meant = {
        "instant_r50_fpn_syncbn": ["batch norm over fewer than 8 images"],
        "bccd": ["batch norm over fewer than 8 images"],
        "coco128": ["batch norm over fewer than 8 images"],
    }.get(path.stem, [])
    assert [entry["what"].split(":")[0] for entry in warnings.as_list()] == meant


@pytest.mark.parametrize("path", of_engine("torchvision"), ids=lambda path: path.stem)
def test_a_protocol_is_built_by_torchvision_without_weights(path):
    cfg = load(path)
    with torch.device("meta"):
        model, report = build_detector(cfg.MODEL, cfg.TEST.DETECTIONS_PER_IMAGE, None)
    assert not report.loaded
    check_outputs(cfg, model)


@pytest.mark.detectron2
@pytest.mark.parametrize("path", of_engine("detectron2"), ids=lambda path: path.stem)
def test_a_protocol_is_built_by_detectron2_without_weights(path):
    cfg, d2 = load(path), load_detectron2()
    settings = fill_config(cfg, d2.config.get_cfg(), device="cpu", processes=1)
    settings.defrost()
    settings.MODEL.DEVICE = "meta"  # no memory, no initialisation
    with torch.device("meta"):
        model, _ = engine.build_detector(d2, settings, cfg, None)
    check_outputs(cfg, model)
    check_frozen(cfg, dict(model.named_parameters()))
    rates = set_rates(d2, settings, (0, cfg.SOLVER.MAX_ITER - 1))
    start = cfg.SOLVER.WARMUP_FACTOR if cfg.SOLVER.WARMUP_ITERS else 1
    assert rates == pytest.approx([cfg.SOLVER.BASE_LR * start, cfg.SOLVER.BASE_LR * 0.1 ** len(cfg.SOLVER.STEPS)])


def set_rates(d2, settings, iterations):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=settings.SOLVER.BASE_LR)
    schedule, rates = d2.solver.build_lr_scheduler(settings, optimizer), []
    for iteration in iterations:
        set_learning_rate(schedule, iteration)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def check_outputs(cfg, model):
    """One score for each class and the background, and the anchors of every cell."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1 in {shape[0] for name, shape in shapes.items() if "cls_score" in name}
    anchors = len(cfg.MODEL.ANCHOR_GENERATOR.SIZES[0]) * len(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS[0])
    logits = {shape[0] for name, shape in shapes.items() if re.search(r"objectness_logits|cls_logits", name)}
    assert logits == {anchors}


def check_frozen(cfg, parameters):
    """FREEZE_AT n freezes the stem and res2..res{n}, whole; C4's res5, in the head, too."""
    for number, stage in enumerate(("stem", "res2", "res3", "res4", "res5"), start=1):
        trains = {p.requires_grad for name, p in parameters.items() if f"{stage}." in name and ".norm." not in name}
        assert trains == {number > cfg.MODEL.BACKBONE.FREEZE_AT}, stage


# --------------------------------------------------------------------------------------------- the docs


def row_of(path):
    """What docs/protocols.md must say of a file."""
    cfg = load(path)
    model, solver = cfg.MODEL, cfg.SOLVER
    fpn = "fpn" in model.BACKBONE.NAME
    norm = model.RESNETS.NORM + (f", FPN {model.FPN.NORM}" if model.FPN.NORM else "")
    norm += ", after res5" if model.ROI_HEADS.NAME == "Res5ROIHeadsExtraNorm" else ""
    steps = ", ".join(f"{step:,}" for step in solver.STEPS) or "cosine"
    return [
        f"`{path.stem}`", cfg.PROTOCOL, cfg.ENGINE, f"R{model.RESNETS.DEPTH}-{'FPN' if fpn else 'C4'}", norm,
        str(model.BACKBONE.FREEZE_AT), f"{solver.IMS_PER_BATCH}", f"{solver.BASE_LR:g}", steps,
        f"{solver.MAX_ITER:,}", f"{cfg.TEST.AP_SCORE_THRESH:g}",
    ]  # fmt: skip


def test_the_table_of_the_docs_says_what_the_files_hold():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in DOCS.read_text().splitlines()]
    table = {row[0]: row for row in rows if row and re.fullmatch(r"`\w+`", row[0]) and len(row) > 5}
    wanted = {row[0]: row for row in map(row_of, NAMED)}
    assert table.keys() == wanted.keys()
    for name, row in wanted.items():
        assert table[name][: len(row)] == row


def test_the_docs_list_every_rule_of_the_lint():
    text = DOCS.read_text()
    for what in [*(what for what, _ in ERRORS), *WARNINGS]:
        assert what in text
