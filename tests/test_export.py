"""Exported files: they load elsewhere as the printed lines say, and a file that is not whole is refused."""

import re

import pytest
import torch
import torchvision
from helpers.seeded import make_backbone

from backbones.core.errors import InputError
from backbones.models.weights import load_backbone, save_backbone_state
from detection.exchange.export import TARGETS, export_backbone, export_state_dict, usage, verify_export
from detection.exchange.loading import split_dropped
from detection.exchange.resnets import BLOCKS

TENSORS = {18: 100, 34: 180, 50: 265, 101: 520, 152: 775}


def write(folder, backbone):
    save_backbone_state(folder / "backbone.pth", backbone.state, backbone.spec, backbone.provenance)
    return load_backbone(folder)


@pytest.mark.parametrize(
    "depth", [depth if depth <= 50 else pytest.param(depth, marks=pytest.mark.exhaustive) for depth in BLOCKS]
)
@pytest.mark.parametrize("target", TARGETS)
def test_the_account_of_every_depth(depth, target, tmp_path):
    """Values of one number each: the account is of names and equality, whatever the shapes."""
    backbone = make_backbone(depth) if depth == 18 else small_backbone(depth)
    account = export_backbone(backbone, tmp_path / "x.pth", target)
    assert account["tensors"] == TENSORS[depth]
    left = account["dropped"] if target == "detectron2" else account["besides"]
    assert sorted(left) == sorted(split_dropped(backbone.state)[1])
    assert account["tensors"] + len(left) == len(backbone.state)


def small_backbone(depth):
    """All tensors of a deep network, each of one number."""
    with torch.device("meta"):
        state = getattr(torchvision.models, f"resnet{depth}")(num_classes=7).state_dict()
    backbone = make_backbone(18, spec={"arch": f"resnet{depth}", "depth": depth})
    backbone.state = {k: torch.full((), n, dtype=v.dtype).expand(v.shape) for n, (k, v) in enumerate(state.items())}
    return backbone


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_the_printed_python_loads_the_network(norm, tmp_path):
    backbone = write(tmp_path, make_backbone(18, norm))
    export_backbone(backbone, tmp_path / "x.pth", "torchvision")
    found = {}
    exec(usage(backbone.spec, tmp_path / "x.pth", "torchvision"), found)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found["net"].eval()(images), backbone.build()(images).logits, rtol=0, atol=0)
    assert found["state"].smooth2det == {
        "input_spec": backbone.spec, "provenance": backbone.provenance, "hash": backbone.hash
    }  # fmt: skip


def test_the_printed_python_without_a_classifier(tmp_path):
    backbone = make_backbone(18, spec={"num_classes": 0, "classes": []})
    backbone.state = {name: tensor for name, tensor in backbone.state.items() if not name.startswith("fc.")}
    export_backbone(backbone, tmp_path / "x.pth", "torchvision")
    found = {}
    exec(usage(backbone.spec, tmp_path / "x.pth", "torchvision"), found)
    assert found["net"](torch.randn(2, 3, 32, 32)).shape == (2, 512)


def test_what_detectron2_must_be_told():
    grey = {"pixel_range": 255.0, "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "channel_order": "BGR"}
    lines = usage(make_backbone(spec={"depth": 50, **grey}).spec, "x.pth", "detectron2")
    for line in ("VERSION: 2", 'FORMAT: "BGR"', "PIXEL_MEAN: [103.53, 116.28, 123.675]", "PIXEL_STD: [1.0, 1.0, 1.0]",
                 "STRIDE_IN_1X1: False", "RES2_OUT_CHANNELS: 256", "DEPTH: 50"):  # fmt: skip
        assert line in lines
    lines = usage(make_backbone(18, "GN").spec, "x.pth", "detectron2")
    for line in ("PIXEL_MEAN: [123.675, 116.28, 103.53]", "PIXEL_STD: [58.395, 57.12, 57.375]", 'FORMAT: "RGB"',
                 "RES2_OUT_CHANNELS: 64", 'NORM: "GN"'):  # fmt: skip
        assert line in lines


def spoil(path, target, change):
    content = torch.load(path, weights_only=True)
    change(content, content["model"] if target == "detectron2" else content)
    torch.save(content, path)


SPOILT = {
    "a tensor is missing": (lambda content, state: state.pop(min(state)), "1 tensors are not"),
    "a tensor is over": (lambda content, state: state.update(extra=torch.ones(1)), r"1 tensors are not.*extra"),
    "a value differs": (lambda content, state: state[max(state)].add_(1e-3), "1 tensors are not"),
    "a type differs": (lambda content, state: state.update({min(state): state[min(state)].double()}), "1 tensors are"),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_export_is_noticed(case, target, tmp_path):
    backbone = make_backbone()
    export_backbone(backbone, tmp_path / "x.pth", target)
    change, reason = SPOILT[case]
    spoil(tmp_path / "x.pth", target, change)
    with pytest.raises(InputError, match=reason):
        verify_export(backbone, tmp_path / "x.pth", target)


def test_an_export_that_says_something_else_is_noticed(tmp_path):
    backbone = make_backbone()
    for target in TARGETS:
        export_backbone(backbone, tmp_path / "x.pth", target)
        backbone.spec["channel_order"] = "BGR" if backbone.spec["channel_order"] == "RGB" else "RGB"
        with pytest.raises(InputError, match="its description is not"):
            verify_export(backbone, tmp_path / "x.pth", target)


def test_what_cannot_be_exported(tmp_path):
    with pytest.raises(InputError, match=r"strides in its 1x1.*--to detectron2"):
        export_state_dict(small_backbone_with_strides(), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"suffix \.pth"):
        export_backbone(make_backbone(), tmp_path / "x.pkl", "torchvision")
    with pytest.raises(InputError, match=r"--to caffe: unknown format"):
        export_backbone(make_backbone(), tmp_path / "x.pth", "caffe")
    assert not list(tmp_path.iterdir())


def small_backbone_with_strides():
    backbone = small_backbone(50)
    backbone.spec["stride_in_1x1"] = True
    return backbone


def test_the_tool(tmp_path, load_tool, capsys):
    main = load_tool("export_backbone").main
    backbone = write(tmp_path, make_backbone())
    for target in TARGETS:
        arguments = ["--backbone", str(tmp_path), "--to", target, "--output", str(tmp_path / f"{target}.pth")]
        assert main(arguments) == 0
        said = capsys.readouterr().out
        assert "100 tensors of a ResNet-18, read back, bit-equal" in said
        assert re.search(r"22 (besides|left out).*fc\.weight, fc\.bias, 20 num_batches_tracked", said)
        assert usage(backbone.spec, tmp_path / f"{target}.pth", target) in said
        with pytest.raises(InputError, match="exists"):
            main(arguments)
