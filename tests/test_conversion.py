"""Acceptance of the conversion: every depth, FPN and C4, from our file and from a foreign one, into both detectors.

All norms are random in weight, bias and statistics.  The features are compared with torchvision's own network, built
here from the original tensors.  The account of names and shapes runs for every depth; the forward passes of three
depths are left to the exhaustive run.
"""

import json

import pytest
import torch
import torchvision
from helpers.detectron2_tiny import load_detectron2
from helpers.seeded import MEAN, STD, make_backbone
from torchvision.models._utils import IntermediateLayerGetter

from backbones.core.config import load_config
from backbones.models.weights import load_backbone, save_backbone_state
from detection.config import get_defaults
from detection.engines.detectron2 import engine
from detection.engines.torchvision.building import build_body, build_detector
from detection.exchange.export import export_backbone, usage
from detection.exchange.importing import declare_spec, import_backbone
from detection.exchange.loading import to_detectron2, verify_account
from detection.exchange.names import detectron2_name
from detection.exchange.resnets import expected_shapes

TENSORS = {18: 100, 34: 180, 50: 265, 101: 520, 152: 775}
FPN = [(depth, False) for depth in TENSORS]
C4 = [(depth, True) for depth in (50, 101, 152)]
ALLOWED_NEW = ("backbone.fpn_", "proposal_generator.", "roi_heads.box_head.", "roi_heads.box_predictor.")
FPN_YAML = """
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 32}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6]}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5]}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, FC_DIM: 32, POOLER_RESOLUTION: 7}
"""


def two_of_a_kind(cases):
    """ResNet-18 and ResNet-50 always, the others in the exhaustive run."""
    return [case if case[0] in (18, 50) else pytest.param(*case, marks=pytest.mark.exhaustive) for case in cases]


def from_our_file(depth, folder):
    made = make_backbone(depth)
    save_backbone_state(folder / "backbone.pth", made.state, made.spec, made.provenance)
    return load_backbone(folder)


def from_foreign_file(depth, folder):
    """A plain state dict, as torchvision's users publish it, imported to a backbone file."""
    torch.save(make_backbone(depth).state, folder / "published.pth")
    made, _ = import_backbone(folder / "published.pth", "torchvision", declare_spec(f"resnet{depth}"), label="foreign")
    save_backbone_state(folder / "backbone.pth", made.state, made.spec, made.provenance)
    return load_backbone(folder)


ORIGINS = {"ours": from_our_file, "foreign": from_foreign_file}


def original_features(depth, pixels):
    """res2..res5 of the network that the tensors were taken from, of uint8 RGB pixels."""
    net = getattr(torchvision.models, f"resnet{depth}")(num_classes=7).eval()
    net.load_state_dict(make_backbone(depth).state)
    stages = IntermediateLayerGetter(net, {f"layer{n}": f"res{n + 1}" for n in range(1, 5)})
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        return stages((pixels.float() / 255 - mean) / std)


def largest_difference(found, wanted):
    """Over the stages, relative to the stage's largest feature."""
    assert list(found) == list(wanted) == ["res2", "res3", "res4", "res5"]
    return max(float((found[stage] - wanted[stage]).abs().max() / wanted[stage].abs().max()) for stage in wanted)


def random_pixels():
    return torch.randint(0, 256, (1, 3, 64, 96), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


# ------------------------------------------------------------------------------------ detectron2


@pytest.fixture(scope="module")
def d2():
    return load_detectron2()


def foreign_settings(d2, spec, path, c4):
    """detectron2's own config and the lines that our export prints; nothing of our engine."""
    lines = usage(spec, path, "detectron2")
    if not c4:  # its Base-RCNN-FPN.yaml in short
        lines = lines.replace("MODEL:", "MODEL:" + FPN_YAML.rstrip())
        lines = lines.replace("RESNETS:", "RESNETS:\n    OUT_FEATURES: [res2, res3, res4, res5]")
    (path.parent / "config.yaml").write_text(lines)
    cfg = d2.config.get_cfg()
    cfg.merge_from_file(str(path.parent / "config.yaml"), allow_unsafe=False)
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@pytest.mark.detectron2
@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize(("depth", "c4"), two_of_a_kind(FPN + C4))
def test_detectron2_itself_loads_the_exported_file(d2, depth, c4, origin, tmp_path, record_property):
    backbone = ORIGINS[origin](depth, tmp_path)
    path = tmp_path / "exported.pth"
    assert export_backbone(backbone, path, "detectron2")["tensors"] == TENSORS[depth]
    cfg = foreign_settings(d2, backbone.spec, path, c4)
    model = d2.modeling.build_model(cfg).eval()
    left = d2.checkpoint.DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    assert "__author__" in left
    report = verify_account(to_detectron2(backbone.state), model)
    assert len(report.loaded) == TENSORS[depth]
    assert all(name.startswith(ALLOWED_NEW) for name in report.new)
    assert sorted(report.loaded + report.new) == sorted(model.state_dict())
    pixels = random_pixels()
    with torch.no_grad():
        found = engine.stage_features(model, model.preprocess_image([{"image": pixels[0]}]).tensor)
    difference = largest_difference(found, original_features(depth, pixels))
    record_property("largest relative difference", difference)
    assert difference <= 1e-4


@pytest.mark.detectron2
@pytest.mark.parametrize(("depth", "c4"), FPN + C4)
def test_every_tensor_has_one_place_of_its_shape_in_detectron2(d2, depth, c4, tmp_path):
    cfg = foreign_settings(d2, make_backbone_spec(depth), tmp_path / "no.pth", c4)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        places = {name: tuple(tensor.shape) for name, tensor in d2.modeling.build_model(cfg).state_dict().items()}
    taken = set()
    for name, shape in expected_shapes(depth, "BN").items():
        own = f".{detectron2_name(name)}"
        found = [place for place in places if place.endswith(own)]
        assert [places[place] for place in found] == [shape], name
        taken.update(found)
    assert len(taken) == TENSORS[depth]
    assert all(name.startswith(ALLOWED_NEW) for name in places.keys() - taken)


def make_backbone_spec(depth):
    return {**declare_spec(f"resnet{depth}"), "num_classes": 0, "classes": []}


# ----------------------------------------------------------------------------------- torchvision


def make_cfg(depth, norm="FrozenBN"):
    own = ["MODEL.RESNETS.DEPTH", depth, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64 if depth < 50 else 256]
    small = ["MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.RESNETS.NORM", norm]
    return load_config(get_defaults(), None, [str(value) for value in own + small])


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize(("depth", "c4"), two_of_a_kind(FPN))
def test_the_torchvision_engine_holds_the_backbone(depth, c4, origin, tmp_path, record_property):
    backbone = ORIGINS[origin](depth, tmp_path)
    detector, report = build_detector(make_cfg(depth).MODEL, 20, backbone)
    assert len(report.loaded) == TENSORS[depth]
    assert sorted(report.loaded + report.new) == sorted(detector.state_dict())
    assert sorted([name.removeprefix("body.") for name in report.loaded] + report.dropped) == sorted(backbone.state)
    assert all(name.startswith(("pyramid.", "proposals.", "heads.")) for name in report.new)
    json.dumps(report.proof, allow_nan=False)  # goes into results.json
    assert max(report.proof["largest_difference"].values()) <= 1e-4
    pixels = random_pixels()
    with torch.no_grad():
        found = detector.eval().body.stages(detector.normalize(pixels, [(64, 96)]))
    difference = largest_difference(found, original_features(depth, pixels))
    record_property("largest relative difference", difference)
    assert difference <= 1e-4


@pytest.mark.parametrize("depth", TENSORS)
def test_every_tensor_has_one_place_of_its_shape_in_the_torchvision_engine(depth):
    with torch.device("meta"):
        body, report = build_body(make_cfg(depth, "BN").MODEL, None)
    places = {k: tuple(v.shape) for k, v in body.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert places == expected_shapes(depth, "BN")
    assert len(places) == TENSORS[depth]
    assert not report.loaded
