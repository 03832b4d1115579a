"""Conversion of backbones: every tensor is accounted for, and what cannot work is refused with the reason."""

import copy
import re
from collections import OrderedDict

import pytest
import torch
import torchvision
from helpers.seeded import group_norm, make_backbone
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from backbones.core.config import CfgNode
from backbones.core.errors import InputError
from backbones.models.weights import NEW_NORMS, has_new_norms
from detection.exchange import loading as weights
from detection.exchange import proof as proof_of
from detection.exchange.export import export_detectron2, export_state_dict
from detection.exchange.importing import describe, import_backbone
from detection.exchange.resnets import BLOCKS, expected_shapes

TENSORS = {18: 100, 34: 180, 50: 265, 101: 520, 152: 775}  # conv weights + 4 of each BN, counted by others


def make_cfg(depth=18, norm="FrozenBN", name="build_resnet_fpn_backbone", **changes):
    cfg = CfgNode(
        {
            "MODEL": {
                "BACKBONE": {"NAME": name, "FREEZE_AT": 0},
                "RESNETS": {"DEPTH": depth, "NORM": norm, "STRIDE_IN_1X1": False},
                "PIXEL_MEAN": [123.675, 116.280, 103.530],
                "PIXEL_STD": [58.395, 57.120, 57.375],
            },
            "INPUT": {"FORMAT": "RGB"},
        }
    )
    cfg.merge_from_list([item for pair in changes.items() for item in pair])
    return cfg


@pytest.mark.parametrize("depth", BLOCKS)
def test_the_table_of_shapes_is_torchvisions_network(depth):
    with torch.device("meta"):
        state = getattr(torchvision.models, f"resnet{depth}")().state_dict()
    wanted, dropped = weights.split_dropped(state)
    assert {name: tuple(t.shape) for name, t in wanted.items()} == expected_shapes(depth, "BN")
    assert len(wanted) == TENSORS[depth]
    assert len(dropped) == 2 + TENSORS[depth] // 5  # fc, and a counter for each BN


@pytest.mark.parametrize("depth", BLOCKS)
def test_renaming_is_one_to_one_and_moves_every_tensor_to_its_stage(depth):
    state = {name: torch.full((1,), float(i)) for i, name in enumerate(expected_shapes(depth, "BN"))}
    converted = weights.to_detectron2(state)
    assert len(converted) == TENSORS[depth] == len(state)
    assert sorted(t.item() for t in converted.values()) == sorted(t.item() for t in state.values())
    pattern = (
        r"(stem\.conv1|res[2-5]\.\d+\.(conv[1-3]|shortcut))(\.norm\.(weight|bias|running_mean|running_var)|\.weight)"
    )
    assert all(re.fullmatch(pattern, name) for name in converted)


def test_names_of_detectron2():
    for name, wanted in {
        "conv1.weight": "stem.conv1.weight",
        "bn1.running_var": "stem.conv1.norm.running_var",
        "layer1.0.conv1.weight": "res2.0.conv1.weight",
        "layer3.22.bn3.bias": "res4.22.conv3.norm.bias",
        "layer4.0.downsample.0.weight": "res5.0.shortcut.weight",
        "layer4.0.downsample.1.running_mean": "res5.0.shortcut.norm.running_mean",
    }.items():
        assert weights.detectron2_name(name) == wanted


def test_the_exported_file_says_what_it_is_and_holds_the_same_values(tmp_path):
    backbone = make_backbone()
    path = export_detectron2(backbone, tmp_path / "r18.pth")
    content = torch.load(path, weights_only=True)  # tensors and plain types only
    assert content["__author__"] == "smooth2det"
    assert content["matching_heuristics"] is True
    assert content["input_spec"] == backbone.spec
    assert content["hash"] == backbone.hash
    assert torch.equal(content["model"]["res5.1.conv2.norm.running_var"], backbone.state["layer4.1.bn2.running_var"])
    assert not any(name.startswith(("fc.", "backbone.")) for name in content["model"])
    with pytest.raises(InputError, match=r"\.pth"):
        export_detectron2(backbone, tmp_path / "r18.pkl")


@pytest.mark.parametrize(("norm", "layer"), [("BN", nn.BatchNorm2d), ("BN", FrozenBatchNorm2d), ("GN", group_norm)])
def test_torchvision_body_computes_the_backbones_features(norm, layer):
    backbone = make_backbone(18, norm, seed=3)
    body = torchvision.models.resnet18(norm_layer=layer).eval()
    report = weights.export_torchvision(backbone, body)
    assert len(report.loaded) == (60 if norm == "GN" else TENSORS[18])
    assert set(report.loaded) | set(report.dropped) == set(backbone.state)
    assert set(report.loaded) | set(report.new) == set(body.state_dict())
    original = torchvision.models.resnet18(
        num_classes=7, norm_layer=nn.BatchNorm2d if norm == "BN" else group_norm
    ).eval()
    original.load_state_dict(backbone.state)
    body.fc = original.fc  # the classifier is not part of a backbone; with it, the logits must agree
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(body(images), original(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        proof_of.build_reference(backbone)(images)["res5"].mean((2, 3)) @ original.fc.weight.T + original.fc.bias,
        original(images),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_body_that_lacks_a_stage_is_refused():
    body = torchvision.models.resnet18()
    del body.layer4
    with pytest.raises(InputError, match=r"no place for .*layer4"):
        weights.export_torchvision(make_backbone(), body)


# -------------------------------------------------------------------------------- refused backbones


def renamed(backbone, prefix):
    backbone.state = {prefix + name: tensor for name, tensor in backbone.state.items()}


def without(backbone, name):
    del backbone.state[name]


def replaced(backbone, name, tensor):
    backbone.state[name] = tensor


BROKEN = {
    "prefix": (lambda b: renamed(b, "module."), r"prefix 'module\.'"),
    "nested prefix": (lambda b: renamed(b, "module.encoder_q."), r"prefix 'module\.encoder_q\.'"),
    "missing tensor": (
        lambda b: without(b, "layer2.0.bn1.running_var"),
        r"lacks 1 tensors.*layer2\.0\.bn1\.running_var",
    ),
    "foreign tensor": (lambda b: replaced(b, "head.weight", torch.ones(1)), r"in addition.*head\.weight"),
    "CIFAR stem": (lambda b: replaced(b, "conv1.weight", torch.ones(64, 3, 3, 3)), "CIFAR stem"),
    "deep stem": (lambda b: replaced(b, "conv1.0.weight", torch.ones(32, 3, 3, 3)), "deep stem"),
    "wide": (lambda b: replaced(b, "layer3.0.conv1.weight", torch.ones(512, 128, 3, 3)), "wide"),
    "pre-activation": (lambda b: replaced(b, "layer2.0.bn1.weight", torch.ones(64)), "pre-activation"),
    "depth": (lambda b: b.spec.update(depth=34), "states depth 34.*those of depth 18"),
    "unknown depth": (lambda b: b.spec.update(depth=20), "depth 20"),
    "norm": (lambda b: b.spec.update(norm="GN"), r"in addition.*running"),
    "half": (lambda b: replaced(b, "bn1.bias", torch.ones(64).half()), "bn1.bias is torch.float16"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_backbone_is_refused_with_the_reason(case, tmp_path):
    backbone = make_backbone()
    spoil, reason = BROKEN[case]
    spoil(backbone)
    with pytest.raises(InputError, match=reason) as refused:
        export_detectron2(backbone, tmp_path / "x.pth")
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=reason):
        export_state_dict(backbone, tmp_path / "x.pth")
    with pytest.raises(InputError, match=reason):
        weights.export_torchvision(backbone, nn.Module())
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------- backbone against the config

MISMATCHES = {
    "BGR": ({}, {"INPUT.FORMAT": "BGR"}, "INPUT.FORMAT is BGR.*RGB"),
    "mean of BGR": ({}, {"MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675]}, "MODEL.PIXEL_MEAN"),
    "std of MSRA": ({}, {"MODEL.PIXEL_STD": [1.0, 1.0, 1.0]}, r"MODEL.PIXEL_STD.*58\.395"),
    "std of other data": ({"std": [0.2, 0.2, 0.2]}, {}, r"MODEL.PIXEL_STD.*51\.0"),
    "depth": ({}, {"MODEL.RESNETS.DEPTH": 34}, "MODEL.RESNETS.DEPTH is 34.*18"),
    "C4": ({}, {"MODEL.BACKBONE.NAME": "build_resnet_backbone"}, "C4.*bottleneck"),
    "CIFAR stem": ({"stem": "cifar"}, {}, "CIFAR stem"),
    "GN weights": ({"norm": "GN"}, {}, "FrozenBN.*trained with GN"),
    "GN detector": ({}, {"MODEL.RESNETS.NORM": "GN"}, "GN.*trained with BN"),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_config_that_does_not_suit_the_backbone_is_refused(case):
    spec, changes, reason = MISMATCHES[case]
    with pytest.raises(InputError, match=reason):
        weights.check_spec(make_backbone(spec=spec), make_cfg(**changes))


def test_the_proof_follows_the_stride_that_the_file_declares():
    """MSRA's networks have torchvision's tensors and stride elsewhere: no account of tensors can tell them apart."""
    made, moved = make_backbone(50), make_backbone(50, spec={"stride_in_1x1": True})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found, other = (proof_of.build_reference(backbone)(images) for backbone in (made, moved))
        x = found["res2"]  # stride 1, the same in both
        torch.testing.assert_close(other["res2"], x, rtol=0, atol=0)
        state = {k.removeprefix("layer2.0."): v for k, v in moved.state.items() if k.startswith("layer2.0.")}

        def norm(x, k):
            names = ("running_mean", "running_var", "weight", "bias")
            return torch.nn.functional.batch_norm(x, *(state[f"{k}.{name}"] for name in names))

        conv2d = torch.nn.functional.conv2d
        y = norm(conv2d(x, state["conv1.weight"], stride=2), "bn1").relu()
        y = norm(conv2d(y, state["conv2.weight"], padding=1), "bn2").relu()
        y = norm(conv2d(y, state["conv3.weight"]), "bn3")
        first = (y + norm(conv2d(x, state["downsample.0.weight"], stride=2), "downsample.1")).relu()
        body = torchvision.models.resnet50(num_classes=7).eval()
        body.load_state_dict(moved.state)
        torch.testing.assert_close(other["res3"], body.layer2[1:](first), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="features differ"):
        proof_of.prove_features(proof_of.build_reference(made), proof_of.build_reference(moved), images)


def test_a_stride_in_the_1x1_is_refused_where_there_is_one():
    weights.check_spec(make_backbone(18), make_cfg(18, **{"MODEL.RESNETS.STRIDE_IN_1X1": True}))
    backbone = make_backbone(spec={"depth": 50})  # only the spec is read
    with pytest.raises(InputError, match="STRIDE_IN_1X1 is True"):
        weights.check_spec(backbone, make_cfg(50, **{"MODEL.RESNETS.STRIDE_IN_1X1": True}))
    weights.check_spec(backbone, make_cfg(50))


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "FrozenBN"])
def test_a_suitable_config_passes(norm):
    weights.check_spec(make_backbone(), make_cfg(norm=norm))
    grey_levels = {"pixel_range": 255.0, "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
    weights.check_spec(make_backbone(spec=grey_levels), make_cfg())


def test_random_weights_are_not_frozen():
    weights.check_spec(None, make_cfg(norm="BN"))
    with pytest.raises(InputError, match="FrozenBN on random weights"):
        weights.check_spec(None, make_cfg())
    with pytest.raises(InputError, match="FREEZE_AT 2 on random weights"):
        weights.check_spec(None, make_cfg(norm="BN", **{"MODEL.BACKBONE.FREEZE_AT": 2}))
    with pytest.raises(InputError, match="C4"):
        weights.check_spec(None, make_cfg(34, "BN", "build_resnet_backbone"))


# --------------------------------------------------- the account and the proof, on a model made by hand


class Detector(nn.Module):
    """The names of a detectron2 FPN detector around a ResNet-18's tensors, without detectron2."""

    def __init__(self, extra=("backbone.fpn_lateral2.weight", "proposal_generator.rpn_head.conv.weight")):
        super().__init__()
        names = weights.to_detectron2(make_backbone(seed=1).state)
        self.tensors = OrderedDict((f"backbone.bottom_up.{k}", torch.zeros_like(v)) for k, v in names.items())
        self.tensors.update((k, torch.zeros(1)) for k in extra)

    def state_dict(self):
        return self.tensors


def loaded_detector(exported, **kwargs):
    model = Detector(**kwargs)
    model.tensors.update((f"backbone.bottom_up.{name}", tensor) for name, tensor in exported.items())
    return model


def test_the_account_is_complete():
    exported = weights.to_detectron2(make_backbone().state)
    report = weights.verify_account(exported, loaded_detector(exported))
    assert report.counts() == {"loaded": 100, "dropped": 0, "new": 2}


def test_the_account_sees_what_detectron2_only_logs():
    exported = weights.to_detectron2(make_backbone().state)
    with pytest.raises(InputError, match="other values in 100 tensors"):  # nothing was loaded
        weights.verify_account(exported, Detector())
    model = loaded_detector(exported)
    model.tensors["backbone.bottom_up.stem.conv1.norm.running_var"] = torch.ones(64)  # one BN was not
    with pytest.raises(InputError, match=r"other values in 1 tensors: stem\.conv1\.norm\.running_var"):
        weights.verify_account(exported, model)
    with pytest.raises(InputError, match=r"nothing was loaded into 1 tensors: roi_heads\.res4\.7\.conv1\.weight"):
        weights.verify_account(exported, loaded_detector(exported, extra=["roi_heads.res4.7.conv1.weight"]))
    model = loaded_detector(exported)
    model.tensors["backbone.bottom_up.res2.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    with pytest.raises(InputError, match=r"res2\.0\.conv1\.weight has the shape"):
        weights.verify_account(exported, model)
    with pytest.raises(InputError, match="no place for 1 tensors: res6"):
        weights.verify_account({**exported, "res6.weight": torch.ones(1)}, loaded_detector(exported))


def test_the_proof_tells_one_wrong_tensor():
    backbone = make_backbone(seed=5)
    reference, images = proof_of.build_reference(backbone), torch.randn(1, 3, 64, 64)
    proof = proof_of.prove_features(reference, proof_of.build_reference(backbone), images)
    assert max(proof["largest_difference"].values()) == 0
    other = copy.deepcopy(backbone)
    other.state["layer4.1.bn2.running_mean"] = other.state["layer4.1.bn2.running_mean"] + 0.05
    with pytest.raises(InputError, match="features differ"):
        proof_of.prove_features(reference, proof_of.build_reference(other), images)
    with pytest.raises(InputError, match="differ"):  # a dead network agrees with nothing
        proof_of.prove_features(*[lambda x: {s: torch.zeros(1) for s in proof_of.STAGES}] * 2, images)


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_batch_norms_that_were_never_trained_are_known(norm, tmp_path):
    """torchvision's network without `.train()`: mean 0 and variance 1 everywhere.  One trained value is enough."""
    backbone = make_backbone(norm=norm)
    as_declared = {key: value for key, value in backbone.spec.items() if key not in ("num_classes", "classes")}

    def warned(state):
        torch.save(state, tmp_path / "theirs.pth")
        imported, report = import_backbone(tmp_path / "theirs.pth", "torchvision", as_declared, label="x")
        assert has_new_norms(imported.state) == (f"\nwarning: {NEW_NORMS}" in describe(imported, report))
        return has_new_norms(imported.state)

    values = {"running_mean": torch.zeros_like, "running_var": torch.ones_like}
    new = {name: values.get(name.rpartition(".")[2], torch.clone)(tensor) for name, tensor in backbone.state.items()}
    assert not warned(backbone.state)
    assert warned(new) == (norm == "BN")
    if norm == "BN":
        new["layer4.0.bn1.running_mean"][3] = 0.01
        assert not warned(new)
