"""Parameter counts of the papers' networks, from closed forms written here or from the numbers others publish."""

import pytest
import torch
import torchvision

from backbones.models import build_model


def count(arch, num_classes):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(arch, num_classes).parameters())


def conv(into, out, kernel, groups=1):
    return into * out * kernel**2 // groups


def norm(channels):
    return 2 * channels  # scale and shift


def linear(into, out):
    return into * out + out


def basic(depth, classes):
    """He et al. 2016, Sec. 4.2: 3 stages of 2n layers, shortcuts without parameters."""
    n, total, into = (depth - 2) // 6, conv(3, 16, 3) + norm(16), 16
    for width in (16, 32, 64):
        total += conv(into, width, 3) + (2 * n - 1) * conv(width, width, 3) + 2 * n * norm(width)
        into = width
    return total + linear(64, classes)


def bottleneck(depth, classes, *, entry=(16, 3), outs=(64, 128, 256), inner=(16, 32, 64), groups=1):
    """3 stages of bottlenecks (1x1, 3x3, 1x1), the first one's shortcut a 1x1 convolution."""
    n, (into, kernel) = (depth - 2) // 9, entry
    total = conv(3, into, kernel) + norm(into)
    for width, out in zip(inner, outs, strict=True):
        total += conv(into, out, 1) + norm(out)
        total += conv(into, width, 1) + (n - 1) * conv(out, width, 1)
        total += n * (conv(width, width, 3, groups) + conv(width, out, 1) + 2 * norm(width) + norm(out))
        into = out
    return total + linear(into, classes)


def wide(depth, factor, classes):
    """Zagoruyko & Komodakis 2016, Table 1: n = (depth - 4) / 6 pre-activation blocks a stage."""
    n, total, into = (depth - 4) // 6, conv(3, 16, 3), 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        total += norm(into) + conv(into, width, 3) + conv(into, width, 1)
        total += (2 * n - 1) * (norm(width) + conv(width, width, 3))
        into = width
    return total + norm(into) + linear(into, classes)


def densenet_bc(depth, growth, classes):
    """Huang et al. 2017, Sec. 3: 2k first channels, bottlenecks of 4k, transitions that halve."""
    n, channels = (depth - 4) // 6, 2 * growth
    total = conv(3, channels, 3)
    for block in range(3):
        for _ in range(n):
            total += norm(channels) + conv(channels, 4 * growth, 1) + norm(4 * growth) + conv(4 * growth, growth, 3)
            channels += growth
        if block < 2:
            total += norm(channels) + conv(channels, channels // 2, 1)
            channels //= 2
    return total + norm(channels) + linear(channels, classes)


CLOSED = {
    "resnet110_basic": lambda k: basic(110, k),
    "resnet110_sd": lambda k: basic(110, k),
    "resnet152_sd": lambda k: basic(152, k),
    "resnet29_cifar": lambda k: bottleneck(29, k),
    "resnet56_cifar": lambda k: bottleneck(56, k),
    "resnet74_cifar": lambda k: bottleneck(74, k),
    "resnet110_cifar": lambda k: bottleneck(110, k),
    "wrn34_10": lambda k: wide(34, 10, k),
    "densenet_bc40": lambda k: densenet_bc(40, 12, k),
    # Xie et al. 2017, Sec. 5.3, with 3x3 convolutions of 128, 256, 512 channels in 2 or 32 groups.
    "resnext29_2x64d": lambda k: bottleneck(
        29, k, entry=(64, 1), outs=(256, 512, 1024), inner=(128, 256, 512), groups=2
    ),
    "resnext29_32x4d": lambda k: bottleneck(
        29, k, entry=(64, 1), outs=(256, 512, 1024), inner=(128, 256, 512), groups=32
    ),
    "lenet": lambda k: linear(75, 6) + linear(150, 16) + linear(400, 120) + linear(120, 84) + linear(84, k),
    "alexnet": lambda k: (
        sum(conv(i, o, 3) + o for i, o in ((3, 64), (64, 192), (192, 384), (384, 256), (256, 256)))
        + linear(1024, 4096)
        + linear(4096, 4096)
        + linear(4096, k)
    ),
}


@pytest.mark.parametrize("arch", CLOSED)
@pytest.mark.parametrize("classes", [10, 100])
def test_the_closed_form(arch, classes):
    assert count(arch, classes) == CLOSED[arch](classes)


PUBLISHED = [
    # (network, classes, published, digit to which it is published)
    ("resnet110_basic", 10, 1.7e6, 1e5),  # He et al. 2016, Table 6
    ("resnext29_2x64d", 100, 9_221_028, 1),  # OLS's released log, cifar/resnext29-2x64d.log
    ("resnet18_cifar", 100, 11.2e6, 1e5),  # this and the next five: weiaicunzai/pytorch-cifar100, README
    ("resnet34_cifar", 100, 21.3e6, 1e5),
    ("resnet50_cifar", 100, 23.7e6, 1e5),
    ("resnet101_cifar", 100, 42.7e6, 1e5),
    ("resnet152_cifar", 100, 58.3e6, 1e5),
    ("inceptionv4_cifar", 100, 41.3e6, 1e5),
    ("inceptionv4", 1000, 42.68e6, 1e4),  # timm, results/results-imagenet.csv
]


@pytest.mark.parametrize(("arch", "classes", "published", "digit"), PUBLISHED)
def test_the_published_number(arch, classes, published, digit):
    assert round(count(arch, classes) / digit) == round(published / digit)


@pytest.mark.parametrize(
    ("arch", "weights"),
    [
        ("mobilenetv2", torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1),
        ("efficientnet_b7", torchvision.models.EfficientNet_B7_Weights.IMAGENET1K_V1),
    ],
)
def test_the_number_in_torchvisions_catalogue(arch, weights):
    assert count(arch, 1000) == weights.meta["num_params"]
    published = {"mobilenetv2": 3_504_872, "efficientnet_b7": 66_347_960}  # its documentation
    assert weights.meta["num_params"] == published[arch]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
@pytest.mark.parametrize("classes", [10, 100])
def test_a_cifar_stem_differs_in_one_convolution(depth, classes):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(f"resnet{depth}", num_classes=classes)
    expected = sum(parameter.numel() for parameter in theirs.parameters()) - conv(3, 64, 7) + conv(3, 64, 3)
    assert count(f"resnet{depth}_cifar", classes) == expected


def test_inception_for_small_images_has_the_tensors_of_inception():
    with torch.device("meta"):
        large, small = (build_model(arch, 10).state_dict() for arch in ("inceptionv4", "inceptionv4_cifar"))
    assert {name: tensor.shape for name, tensor in large.items()} == {n: t.shape for n, t in small.items()}


def test_resnet34_is_that_of_the_released_log():
    """OLS's cifar/imagenetresnet34.log says 23,351,760: its class builds the heads of BYOT even where none is used."""
    heads = 0
    for channels, side in ((64, 8), (128, 4), (256, 2)):  # side of the map where a head begins; they end at 512 x 1
        heads += conv(channels, 512, 1) + norm(512)
        for convolution in (linear(channels, 128), linear(128 * side**2, 128), linear(128, 512)):  # with biases
            heads += convolution
        heads += 2 * norm(128) + norm(512) + linear(512, 100)
    assert count("resnet34_cifar", 100) + heads == 23_351_760
