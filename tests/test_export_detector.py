"""Weights of a trained detector in the formats of torchvision and detectron2: both compute what the run's does."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from helpers.detectron2_tiny import load_detectron2, settings_of
from helpers.tiny_runs import tiny_run
from helpers.torchvision_tiny import make_cfg

from backbones.core.checkpoint import load_checkpoint
from backbones.core.errors import InputError
from detection.engines import engine_defaults
from detection.engines.torchvision.building import build_detector
from detection.exchange.detector_weights import convert_detector, export_detector, usage

IMAGES = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def detector_of(*overrides):
    """Return a config and a detector of the torchvision engine whose every tensor is random, in evaluation mode."""
    cfg = make_cfg("MODEL.RESNETS.NORM", "BN", *overrides)
    torch.manual_seed(1)
    detector, _ = build_detector(cfg.MODEL, cfg.TEST.DETECTIONS_PER_IMAGE, None)
    with torch.no_grad():
        for name, tensor in detector.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name or tensor.ndim < 2 else tensor)
        for layer in (detector.heads.box_predictor.bbox_pred, detector.heads.box_predictor.cls_score):
            layer.weight.normal_()
    return cfg, detector.eval()


@torch.no_grad()
def computed(detector):
    """Return everything that the engine's network computes from IMAGES: maps, and outputs for a pooled region."""
    maps = detector.pyramid(OrderedDict(detector.body.stages(IMAGES)))
    pooled = torch.randn(5, 16, 7, 7, generator=torch.Generator().manual_seed(1))
    scores, boxes = detector.heads.box_predictor(detector.heads.box_head(pooled))
    logits, deltas = detector.proposals.head(list(maps.values()))
    return SimpleNamespace(maps=list(maps.values()), pooled=pooled, scores=scores, boxes=boxes, rpn=[*logits, *deltas])


def assert_close(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def build_library(cfg, path):
    """Run the lines that the tool prints."""
    names: dict = {}
    exec(usage(cfg, path, "torchvision"), names)
    return names["detector"].eval()


@torch.no_grad()
def computed_by_library(model, pooled):
    maps = list(model.backbone(IMAGES).values())
    logits, deltas = model.rpn.head(maps)
    scores, boxes = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
    return SimpleNamespace(maps=maps, scores=scores, boxes=boxes, rpn=[*logits, *deltas])


@pytest.mark.parametrize("options", [(), ("MODEL.BACKBONE.FREEZE_AT", 2), ("MODEL.RESNETS.NORM", "GN")])
def test_torchvision_loads_its_export_by_the_printed_lines(tmp_path, options):
    """Frozen stages have another norm, without the counter that torchvision's has."""
    cfg, detector = detector_of(*options)
    path = tmp_path / "x.pth"
    assert export_detector(cfg, detector.state_dict(), path, "torchvision") == len(load_checkpoint(path))
    wanted = computed(detector)
    found = computed_by_library(build_library(cfg, path), wanted.pooled)
    for name in ("maps", "rpn"):
        assert_close(getattr(found, name), getattr(wanted, name))
    assert_close([found.scores, found.boxes], [wanted.scores, wanted.boxes])


TEST_SETTINGS = (
    *("MODEL.RPN.PRE_NMS_TOPK_TEST", 60, "MODEL.RPN.POST_NMS_TOPK_TEST", 30, "MODEL.RPN.NMS_THRESH", 0.6),
    *("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.3, "TEST.DETECTIONS_PER_IMAGE", 12),
)


@pytest.mark.parametrize("sampling", [0, 1, 3])
@pytest.mark.parametrize("settings", [(), TEST_SETTINGS])
def test_the_printed_detector_finds_what_the_run_finds(tmp_path, settings, sampling):
    """With POOLER_TYPE ROIAlign, the one that torchvision has, detections agree; none of its defaults is left."""
    how = ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign", "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", sampling)
    cfg, detector = detector_of(*settings, *how)
    export_detector(cfg, detector.state_dict(), tmp_path / "x.pth", "torchvision")
    library = build_library(cfg, tmp_path / "x.pth")
    pixels = torch.randint(0, 256, (1, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        (wanted,) = detector(pixels, [(64, 96)])
        (found,) = library([pixels[0] / 255])
    assert len(wanted["scores"]) == (12 if settings else 13)
    assert wanted["scores"].min() < 0.05  # torchvision's default threshold
    assert found["labels"].tolist() == wanted["labels"].tolist()
    torch.testing.assert_close(found["scores"], wanted["scores"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found["boxes"], wanted["boxes"], rtol=1e-3, atol=1e-2)
    stages = [
        (one.pre_nms_top_n(), one.post_nms_top_n(), one.nms_thresh, two.nms_thresh, two.detections_per_img)
        for one, two in ((library.rpn, library.roi_heads), (detector.proposals, detector.heads))
    ]
    assert stages[0] == stages[1]


@pytest.mark.parametrize("pooler", ["ROIAlign", "ROIAlignV2"])
def test_the_printed_lines_say_how_torchvision_differs(tmp_path, pooler):
    lines = usage(make_cfg("MODEL.ROI_BOX_HEAD.POOLER_TYPE", pooler), tmp_path / "x.pth", "torchvision")
    assert ("half a pixel" in lines) == (pooler == "ROIAlignV2")


@torch.no_grad()
def computed_by_detectron2(model, pooled):
    maps = list(model.backbone(IMAGES).values())
    logits, deltas = model.proposal_generator.rpn_head(maps)
    scores, boxes = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
    return SimpleNamespace(maps=maps, scores=scores, boxes=boxes, rpn=[*logits, *deltas])


@pytest.mark.detectron2
@pytest.mark.parametrize("norms", [("BN", ""), ("FrozenBN", ""), ("BN", "BN")])
def test_detectron2_computes_the_same_from_weights_of_torchvision(norms):
    d2 = load_detectron2()
    cfg, detector = detector_of("MODEL.RESNETS.NORM", norms[0], "MODEL.FPN.NORM", norms[1])
    model = d2.modeling.build_model(settings_of(d2, cfg)).eval()
    converted = convert_detector(cfg, detector.state_dict(), "detectron2")
    model.load_state_dict(converted, strict=True)
    wanted = computed(detector)
    found = computed_by_detectron2(model, wanted.pooled)
    for name in ("maps", "rpn"):
        assert_close(getattr(found, name), getattr(wanted, name))
    assert_close([found.scores, found.boxes], [wanted.scores[:, [1, 2, 0]], wanted.boxes[:, 4:]])  # background last


@pytest.mark.detectron2
def test_weights_of_detectron2_go_to_torchvision_and_come_back():
    d2 = load_detectron2()
    cfg = make_cfg("ENGINE", "detectron2", "MODEL.BACKBONE.FREEZE_AT", 2)
    torch.manual_seed(2)
    model = d2.modeling.build_model(settings_of(d2, cfg)).eval()
    own = model.state_dict()
    assert convert_detector(cfg, own, "detectron2").keys() == own.keys()
    library = convert_detector(cfg, own, "torchvision")
    ours = make_cfg("MODEL.BACKBONE.FREEZE_AT", 2)
    back = {
        name.replace("backbone.body.", "body.").replace("backbone.fpn.", "pyramid.").replace("rpn.", "proposals.", 1)
        if name.startswith(("backbone.", "rpn."))
        else name.replace("roi_heads.box_head.fc6", "heads.box_head.layers.0")
        .replace("roi_heads.box_head.fc7", "heads.box_head.layers.1")
        .replace("roi_heads.", "heads."): tensor
        for name, tensor in library.items()
    }
    again = convert_detector(ours, back, "detectron2")
    assert all(torch.equal(again[name], tensor) for name, tensor in own.items())


@pytest.mark.parametrize(
    ("options", "target", "message"),
    [
        (
            ["MODEL.ROI_BOX_HEAD.NUM_FC", 1],
            "torchvision",
            r"^MODEL.ROI_BOX_HEAD.NUM_FC 1: torchvision loads only 2",
        ),
        (["MODEL.FPN.NORM", "BN"], "torchvision", r"^MODEL.FPN.NORM 'BN': torchvision loads only ''"),
        (
            ["MODEL.ANCHOR_GENERATOR.SIZES", "[[8, 9], [16, 17], [32, 33], [48, 49], [64, 65]]"],
            "detectron2",
            "with several sizes per level, the two engines order anchors differently",
        ),
    ],
)
def test_what_the_target_lacks_is_refused_by_name(tmp_path, options, target, message):
    cfg = make_cfg(*options)
    with pytest.raises(InputError, match=message):
        export_detector(cfg, {}, tmp_path / "x.pth", target)
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_without_a_place_is_refused(tmp_path):
    cfg, detector = detector_of()
    with pytest.raises(InputError, match=r"the tensor extra.weight has no place in the other format"):
        convert_detector(cfg, {**detector.state_dict(), "extra.weight": torch.ones(1)}, "torchvision")


def test_yolo_is_refused():
    with pytest.raises(InputError, match=r"^ENGINE yolo: only weights of torchvision and detectron2 are exported"):
        convert_detector(engine_defaults("yolo"), {}, "torchvision")


def test_the_tool_exports_a_run(small_scenes, tmp_path, load_tool, capsys):
    main, argv = tiny_run("torchvision", small_scenes, tmp_path, load_tool)
    main(argv(tmp_path / "run", "SOLVER.MAX_ITER", 3))
    export, path = load_tool("export_detector").main, tmp_path / "x.pth"
    assert export(["--run", str(tmp_path / "run"), "--to", "torchvision", "--output", str(path)]) == 0
    said = capsys.readouterr().out
    saved = load_checkpoint(path)
    assert f"{path}: {len(saved)} tensors of ENGINE torchvision, read back, bit-equal" in said
    assert f'torch.load("{path}", weights_only=True)' in said
    model = load_checkpoint(tmp_path / "run" / "checkpoint.pth")["model"]
    assert torch.equal(saved["rpn.head.bbox_pred.weight"], model["proposals.head.bbox_pred.weight"])
    with pytest.raises(InputError, match="exists; choose another --output"):
        export(["--run", str(tmp_path / "run"), "--to", "torchvision", "--output", str(path)])
    with pytest.raises(InputError, match=r"unknown --to 'caffe'"):
        export(["--run", str(tmp_path / "run"), "--to", "caffe", "--output", str(tmp_path / "y.pth")])
