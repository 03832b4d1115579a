"""The mathematics of the small networks: shortcuts of type A, stochastic depth, strides, pre-activation."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from backbones.core.errors import InputError
from backbones.models import build_model, resnet_cifar
from backbones.models.cifar import WideBlock
from backbones.models.resnet_cifar import BasicBlockA, shortcut_a, stochastic_depth


@pytest.mark.parametrize(("stride", "into", "channels"), [(1, 5, 5), (2, 4, 8), (2, 3, 7)])
def test_shortcut_a_is_a_projection_that_adds_nothing(stride, into, channels):
    """A 1x1 convolution whose matrix is the identity over zeros."""
    x = torch.randn(2, into, 6, 8)
    matrix = torch.eye(channels, into)[:, :, None, None]
    torch.testing.assert_close(shortcut_a(x, stride, channels), F.conv2d(x, matrix, stride=stride))


def draws(monkeypatch, values):
    """Let the draws of stochastic depth be `values`, in order."""
    values = iter(values)
    monkeypatch.setattr(resnet_cifar.torch, "rand", lambda *_, **__: torch.tensor(next(values)))


def test_evaluation_is_the_mean_over_all_subnetworks(monkeypatch):
    """A chain of linear residual blocks, summed over its 2^L subnetworks with their probabilities: exact."""
    torch.manual_seed(0)
    rates = [0.1, 0.25, 0.5, 0.9]
    matrices = 0.5 * torch.randn(len(rates), 3, 3, dtype=torch.float64)
    x = torch.randn(3, dtype=torch.float64)

    def chain(training):
        y = x
        for matrix, rate in zip(matrices, rates, strict=True):
            y = y + stochastic_depth(matrix @ y, rate, training)
        return y

    mean = torch.zeros_like(x)
    for alive in itertools.product([False, True], repeat=len(rates)):
        with monkeypatch.context() as patch:
            draws(patch, [0.999 if lives else 0.0 for lives in alive])
            chance = torch.tensor([1 - r if lives else r for lives, r in zip(alive, rates, strict=True)])
            mean += chance.double().prod() * chain(training=True)
    torch.testing.assert_close(mean, chain(training=False), rtol=1e-6, atol=1e-6)


def test_a_branch_dies_as_often_as_its_rate_and_a_seed_repeats_it():
    one, count, rate = torch.ones(1), 4000, 0.3

    def survivals():
        torch.manual_seed(5)
        return torch.cat([stochastic_depth(one, rate, training=True) for _ in range(count)])

    first = survivals()
    assert set(first.tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    deviation = (rate * (1 - rate) / count) ** 0.5
    assert abs((first == 0).double().mean() - rate) < 4 * deviation
    assert torch.equal(survivals(), first)


def test_neutral_ends():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    x = torch.randn(3, generator=torch.Generator().manual_seed(0))
    assert stochastic_depth(x, 0.0, training=True) is x
    assert stochastic_depth(x, 0.5, training=False) is x
    assert torch.equal(torch.get_rng_state(), state)  # nothing drawn


@pytest.mark.parametrize(("arch", "blocks"), [("resnet110_sd", 54), ("resnet152_sd", 75), ("resnet110_basic", 54)])
def test_death_rates_grow_linearly_to_one_half(arch, blocks):
    with torch.device("meta"):
        model = build_model(arch, 10)
    rates = [module.death_rate for module in model.modules() if isinstance(module, BasicBlockA)]
    final = 0.0 if arch == "resnet110_basic" else 0.5
    assert rates == pytest.approx([final * (number + 1) / blocks for number in range(blocks)])


def test_a_dead_branch_keeps_its_gradients_and_passes_the_shortcut(monkeypatch):
    torch.manual_seed(0)
    block = BasicBlockA(4, 8, 2, "BN", death_rate=0.5).train()
    x = torch.randn(3, 4, 6, 6)
    draws(monkeypatch, [0.0])
    y = block(x)
    torch.testing.assert_close(y, shortcut_a(x, 2, 8).relu())
    y.sum().backward()
    for parameter in block.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_stochastic_depth_without_deaths_is_the_plain_network():
    torch.manual_seed(0)
    plain, stochastic = build_model("resnet110_basic", 4).eval(), build_model("resnet110_sd", 4).eval()
    stochastic.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(plain(images).logits, stochastic(images).logits)


@pytest.mark.parametrize("into", [4, 6])
def test_a_wide_block_written_out(into):
    torch.manual_seed(0)
    block = WideBlock(into, 6, 2 if into == 4 else 1, "GN")
    x = torch.randn(2, into, 8, 8)
    active = F.relu(F.group_norm(x, block.bn1.num_groups))
    residual = F.conv2d(active, block.conv1.weight, stride=2 if into == 4 else 1, padding=1)
    residual = F.conv2d(F.relu(F.group_norm(residual, block.bn2.num_groups)), block.conv2.weight, padding=1)
    shortcut = F.conv2d(active, block.downsample.weight, stride=2) if into == 4 else x
    torch.testing.assert_close(block(x), shortcut + residual, rtol=1e-4, atol=1e-5)


STRIDES = {
    "resnet18_cifar": [1, 2, 4, 8],
    "resnet50_cifar": [1, 2, 4, 8],
    "resnet56_cifar": [1, 2, 4],
    "resnet110_sd": [1, 2, 4],
    "wrn34_10": [1, 2, 4],
    "densenet_bc40": [1, 2, 4],
    "resnext29_32x4d": [1, 2, 4],
    "mobilenetv2": [4, 8, 16, 32],
    "efficientnet_b7": [4, 8, 16, 32],
}


@pytest.mark.parametrize("arch", STRIDES)
def test_strides_of_the_features(arch):
    with torch.device("meta"):
        features = build_model(arch, 10)(torch.empty(2, 3, 64, 96)).features
    assert [tuple(f.shape[2:]) for f in features.values()] == [(64 // s, 96 // s) for s in STRIDES[arch]]


@pytest.mark.parametrize(
    ("arch", "image", "sides"),
    [
        ("inceptionv4", 299, [71, 35, 17, 8]),  # Szegedy et al. 2017, Figs. 3 and 9
        ("inceptionv4_cifar", 32, [30, 30, 14, 6]),
        ("lenet", 32, [14, 5]),  # LeCun et al. 1998, Fig. 2: S2 and S4
        ("alexnet", 32, [8, 4, 2]),
    ],
)
def test_sides_of_unpadded_networks(arch, image, sides):
    with torch.device("meta"):
        features = build_model(arch, 10)(torch.empty(2, 3, image, image)).features
    assert [f.shape[2] for f in features.values()] == sides


@pytest.mark.parametrize(
    ("arch", "least", "most"),
    [("lenet", 32, 35), ("alexnet", 31, 46), ("inceptionv4", 75, None), ("inceptionv4_cifar", 17, None)],
)
def test_refuses_images_of_a_size_it_cannot_take(arch, least, most):
    with torch.device("meta"):
        model = build_model(arch, 10)
        for side in {least, most or least}:
            assert model(torch.empty(2, 3, side, side)).logits.shape == (2, 10)
        for side in {least - 1, (most or least) + 1} - {least + 1 if most is None else 0}:
            with pytest.raises(InputError, match=rf"DATA\.IMAGE_SIZE.*{arch} takes images of .*{least}.*not {side} x"):
                model(torch.empty(2, 3, side, side))


@pytest.mark.parametrize("arch", ["lenet", "alexnet", "densenet_bc40", "efficientnet_b7"])
def test_refuses_group_norm_by_name(arch):
    with pytest.raises(
        InputError, match=rf"MODEL\.NORM GN is not possible for MODEL\.ARCH {arch}: .*set MODEL\.NORM BN"
    ):
        build_model(arch, 10, "GN")


@pytest.mark.parametrize(
    "arch", ["wrn34_10", "resnet29_cifar", "resnet110_sd", "resnext29_2x64d", "mobilenetv2", "inceptionv4"]
)
def test_group_norm_reaches_every_layer(arch):
    with torch.device("meta"):
        names = build_model(arch, 10, "GN").state_dict()
    assert not any("running" in name for name in names)
