"""What every network promises, on the networks of configs/pretrain/network: one file each."""

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from backbones.config import get_defaults
from backbones.core.config import load_config
from backbones.core.errors import InputError
from backbones.measuring.cam import ClassMaps
from backbones.models import MODELS, BackboneFile, backbone_spec, build_model, load_backbone, save_backbone
from detection.config import get_defaults as detection_defaults
from detection.exchange.compatibility import check_spec, check_state

FOLDER = Path(__file__).resolve().parent.parent / "configs" / "pretrain" / "network"
ARCHS = MODELS.names()
UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
PROVENANCE = dict.fromkeys(("label", "method", "seed", "config_hash", "data_fingerprint", "version"), 0)
CLASSES = 5


def smallest(arch):
    """Side of an image, in pixels, with which a test is quick."""
    sides = {"inceptionv4": 75, "inceptionv4_cifar": 17, "lenet": 32, "alexnet": 32}
    imagenet = arch in ("mobilenetv2", "efficientnet_b7") or re.fullmatch(r"resnet\d+", arch)
    return sides.get(arch, 32 if imagenet else 8)


def test_the_list_shows_every_network_with_its_meaning(load_tool, capsys):
    """Two columns; no line is wrapped, so that grep finds whole entries."""
    assert load_tool("pretrain").main(["--list-networks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if line.split()[0] in ARCHS]  # other tests register networks of their own
    assert [line.split()[0] for line in lines] == ARCHS
    width = max(map(len, ARCHS))
    assert {line[width : width + 2] for line in lines} == {"  "}
    for line in lines:
        assert line[width + 2 :].endswith(".")
        assert len(line) <= 140
    assert "resnet50           ResNet-50: 25,557,032 parameters at 1,000 classes." in lines


@pytest.fixture(scope="module", params=ARCHS)
def network(request):
    torch.manual_seed(0)
    return build_model(request.param, CLASSES)


@pytest.fixture(scope="module")
def images(network):
    side = smallest(network.arch)
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


# ---- the config of each --------------------------------------------------------------------------


def test_every_network_has_its_config():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(ARCHS)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_config_fits_its_network_and_says_its_cost(arch):
    """The training step of each is `test_one_training_step_lowers_the_loss`, on smaller images."""
    path = FOLDER / f"{arch}.yaml"
    cfg = load_config(get_defaults(), path)
    assert arch == cfg.MODEL.ARCH
    assert cfg.DATA.IMAGE_SIZE == cfg.DATA.EVAL_CROP
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        images = torch.empty(2, 3, cfg.DATA.IMAGE_SIZE, cfg.DATA.IMAGE_SIZE)
        assert build_model(arch, 100, cfg.MODEL.NORM)(images).logits.shape == (2, 100)
    multiply_adds = counter.get_total_flops() / 2 / 2  # FLOPs of two images
    text = path.read_text()
    cost = re.search(r"Cost: (\S+) (\w) multiply-adds forward for an image of (\d+) px", text)
    assert float(cost[1]) * UNITS[cost[2]] == pytest.approx(multiply_adds, rel=0.01)
    assert int(cost[3]) == cfg.DATA.IMAGE_SIZE
    if total := re.search(r"(\d+) epochs of ([\d,]+) images take (\S+) (\w),", text):
        assert int(total[1]) == cfg.SOLVER.MAX_EPOCH
        images = int(total[2].replace(",", "")) * int(total[1])
        assert float(total[3]) * UNITS[total[4]] == pytest.approx(3 * multiply_adds * images, rel=0.02)


# ---- the interface -------------------------------------------------------------------------------


def test_features_channels_and_classifier_belong_together(network, images):
    with torch.no_grad():
        outputs = network.eval()(images)
        stages = network.stages(images)
    assert outputs.logits.shape == (2, CLASSES)
    assert {name: f.shape[1] for name, f in outputs.features.items()} == network.feature_channels()
    assert list(outputs.features) == list(network.feature_channels())
    assert len(network.stage_modules()) == len(stages) > 1
    for name, feature in stages.items():
        assert torch.equal(feature, outputs.features[name])
    last = list(stages.values())[-1]
    assert last.min() >= (0 if network.arch != "efficientnet_b7" else -0.3)  # behind a ReLU; a SiLU there
    if network.pooled:
        torch.testing.assert_close(F.linear(last.mean(dim=(2, 3)), network.fc.weight, network.fc.bias), outputs.logits)
    assert (network.fc.out_features, network.num_classes) == (CLASSES, CLASSES)
    assert network.stride_in_1x1 is False


def test_stage_modules_give_the_features(network, images):
    """Class activation maps hook the modules."""
    seen = []
    hooks = [m.register_forward_hook(lambda _m, _i, out: seen.append(out)) for m in network.stage_modules()]
    with torch.no_grad():
        features = network.eval().stages(images)
    for hook in hooks:
        hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(seen, features.values(), strict=True))


def test_formats_and_precisions_agree(network, images):
    network.eval()
    with torch.no_grad():
        plain = network(images).logits
        scale = plain.abs().max().item()
        nhwc = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last)).logits
        double = network.double()(images.double()).logits
        network.float().to(memory_format=torch.contiguous_format)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(images).logits
    torch.testing.assert_close(nhwc, plain, rtol=1e-3, atol=1e-3 * scale)
    torch.testing.assert_close(double.float(), plain, rtol=1e-3, atol=1e-3 * scale)
    assert double.dtype == torch.float64
    assert (half.float() - plain).abs().max() < 0.3 * scale  # 8 bits over a hundred layers


def test_a_image_is_classified_alone_in_evaluation(network, images):
    with torch.no_grad():
        both = network.eval()(images).logits
        alone = torch.cat([network(image[None]).logits for image in images])
    torch.testing.assert_close(alone, both, rtol=1e-3, atol=1e-4 * both.abs().max().item())


@pytest.mark.parametrize("training", [True, False])
def test_every_parameter_has_a_gradient(network, images, training):
    """In training none may lack one, or distributed training would wait for it; none is dead by construction."""
    network.train(training).zero_grad()
    torch.manual_seed(0)
    (network(images).logits * torch.randn(2, CLASSES)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not training:  # where no branch is dropped
            assert parameter.grad.any(), name


def test_one_training_step_lowers_the_loss(network, images):
    """Along the gradient by what lowers the loss by 2 % where it is linear."""
    network.train().zero_grad()
    labels = torch.tensor([3, 1])
    # A batch normalisation of two numbers gives 1 and -1 whatever they are: a last stage of 1 x 1 would learn nothing.
    if list(network.stages(images).values())[-1].shape[2] == 1:
        side = {"inceptionv4": 107}.get(network.arch, 2 * images.shape[2])
        images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))

    def loss():
        torch.manual_seed(7)  # the same units dropped, the same branches dead
        return F.cross_entropy(network(images).logits, labels)

    before = loss()
    before.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    length = 0.02 * before.item() / sum(g.double().square().sum().item() for g in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter -= length * gradient
        assert loss() < before


def test_a_backbone_file_brings_it_back(network, images, tmp_path):
    spec = backbone_spec(network, mean=[0.5] * 3, std=[0.2] * 3, image_size=images.shape[2], classes="abcde")
    save_backbone(tmp_path / "backbone.pth", network, spec, PROVENANCE)
    again = load_backbone(tmp_path).build()
    (tmp_path / "backbone.pth").unlink()  # up to a quarter of a GB
    with torch.no_grad():
        assert torch.equal(again(images).logits, network.eval()(images).logits)
    kept = ("arch", "depth", "norm", "stem", "num_classes")
    assert [getattr(again, name) for name in kept] == [getattr(network, name) for name in kept]


# ---- other stages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["resnet29_cifar", "densenet_bc40", "mobilenetv2", "wrn34_10", "inceptionv4_cifar"])
def test_class_activation_maps_are_grad_cams(arch):
    torch.manual_seed(0)
    model, side = build_model(arch, CLASSES), max(smallest(arch), 16)
    images, labels = torch.randn(2, 3, side * (4 if arch == "mobilenetv2" else 1), side * 4), torch.tensor([4, 0])
    cam = ClassMaps(model, "CAM")(images, labels)[0]
    assert cam.max() == 1
    np.testing.assert_allclose(cam, ClassMaps(model, "GradCAM")(images, labels)[0], atol=1e-4)


@pytest.mark.parametrize("arch", ["lenet", "alexnet"])
def test_class_activation_maps_are_refused_behind_more_linear_layers(arch):
    with pytest.raises(InputError, match=rf"LOCALIZE\.METHOD CAM.*{arch} has more linear layers.*GradCAM"):
        ClassMaps(build_model(arch, CLASSES), "CAM")
    maps, logits = ClassMaps(build_model(arch, CLASSES), "GradCAM")(torch.randn(2, 3, 32, 32), torch.tensor([1, 2]))
    assert maps.shape == (2, 32, 32)
    assert logits.shape == (2, CLASSES)


@pytest.mark.parametrize("arch", [arch for arch in ARCHS if not re.fullmatch(r"resnet\d+", arch)])
def test_detection_refuses_all_but_imagenet_resnets(arch):
    with torch.device("meta"):
        model = build_model(arch, CLASSES)
    spec = backbone_spec(model, mean=[0.5] * 3, std=[0.2] * 3, image_size=32, classes="abcde")
    with pytest.raises(InputError, match=r"stem|no detector here"):
        check_state(model.state_dict(), spec)
    file = BackboneFile({}, spec, PROVENANCE, "0" * 12)
    with pytest.raises(InputError, match="the detectors have the ImageNet stem"):
        check_spec(file, detection_defaults())


@pytest.mark.parametrize("arch", ["mobilenetv2", "efficientnet_b7", "inceptionv4", "densenet_bc40"])
def test_logits_are_the_librarys(arch):
    """The parts put together compute what the library's own network does with the same tensors."""
    torch.manual_seed(0)
    ours = build_model(arch, CLASSES).eval()
    with torch.device("meta") if arch != "inceptionv4" else nullcontext():
        theirs = library_network(arch)
    names, tensors = list(theirs.state_dict()), list(ours.state_dict().values())
    theirs.load_state_dict(dict(zip(names, tensors, strict=True)), assign=True)
    images = torch.randn(2, 3, smallest(arch), smallest(arch))
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, theirs.eval()(images))


def library_network(arch):
    if arch == "inceptionv4":
        import timm

        return timm.create_model("inception_v4", pretrained=False, num_classes=CLASSES)
    if arch == "densenet_bc40":
        net = torchvision.models.DenseNet(12, (6, 6, 6), 24, num_classes=CLASSES)
        net.features.conv0 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
        for name in ("norm0", "relu0", "pool0"):
            setattr(net.features, name, nn.Identity())
        return net
    name = {"mobilenetv2": "mobilenet_v2"}.get(arch, arch)
    return torchvision.models.get_model(name, num_classes=CLASSES)
