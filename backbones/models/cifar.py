"""Other networks for images of 32 pixels, all from ILS's tables: WRN-34-10, DenseNet-BC-40, LeNet and AlexNet.

Letters: B images, C channels, H x W pixels, K classes.
"""

from torch import Tensor, nn
from torchvision.models import DenseNet

from backbones.models.base import MODELS, StagedNetwork, build_norm, initialize_convolutions, refuse_group_norm


class WideBlock(nn.Module):
    """Pre-activation block (Zagoruyko & Komodakis 2016, Fig. 1): norm, relu, 3x3, norm, relu, 3x3.

    If the shape changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, into: int, channels: int, stride: int, norm: str) -> None:
        super().__init__()
        build = build_norm(norm)
        self.bn1 = build(into)
        self.conv1 = nn.Conv2d(into, channels, 3, stride, padding=1, bias=False)
        self.bn2 = build(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        same = into == channels and stride == 1
        self.downsample = None if same else nn.Conv2d(into, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, into, H, W) to (B, channels, H / stride, W / stride)."""
        active = self.bn1(x).relu_()
        shortcut = x if self.downsample is None else self.downsample(active)
        return shortcut + self.conv2(self.bn2(self.conv1(active)).relu_())


@MODELS.register()
def wrn34_10(num_classes: int, norm: str) -> StagedNetwork:
    """WRN-34-10 (arXiv:1605.07146), ILS "ResNet32W": 5 blocks per stage of 160, 320, 640 channels; no dropout.

    46,160,474 parameters at 10 classes.  `depth` is 32, as in ILS: the 34 in the name counts 3 shortcuts, but not `fc`.
    NOTE: in the ILS code, every convolution has a bias, and shortcuts take the input before its activation.
    """
    stages, into = [], 16
    for channels, stride in ((160, 1), (320, 2), (640, 2)):
        layers = [WideBlock(into, channels, stride, norm)]
        layers += [WideBlock(channels, channels, 1, norm) for _ in range(4)]
        stages.append((nn.Sequential(*layers), channels))
        into = channels
    stages[-1][0].extend([build_norm(norm)(into), nn.ReLU(inplace=True)])
    entry, fc = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.Linear(into, num_classes)
    network = StagedNetwork("wrn34_10", norm=norm, stem="cifar", entry=entry, stages=stages, fc=fc)
    initialize_convolutions(network)
    return network


@MODELS.register()
def densenet_bc40(num_classes: int, norm: str) -> StagedNetwork:
    """DenseNet-BC of 40 layers, growth 12 (Huang et al. 2017, arXiv:1608.06993, Sec. 3), ILS "DenseNet40".

    176,122 parameters at 10 classes: three blocks of 6 bottlenecks, transitions that halve the channels; torchvision's
    layers after a 3x3 stem of 24 channels.  "res2" and "res3" are the features before the transitions.
    """
    refuse_group_norm("densenet_bc40", norm, "torchvision builds it with batch normalisation only")
    blocks: tuple = (6, 6, 6)
    net = DenseNet(growth_rate=12, block_config=blocks, num_init_features=24, num_classes=num_classes)
    parts = dict(net.features.named_children())
    stages = [
        (nn.Sequential(parts["denseblock1"]), 96),
        (nn.Sequential(parts["transition1"], parts["denseblock2"]), 120),
        (nn.Sequential(parts["transition2"], parts["denseblock3"], parts["norm5"], nn.ReLU(inplace=True)), 132),
    ]
    entry = nn.Conv2d(3, 24, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(entry.weight)  # like torchvision's other convolutions
    return StagedNetwork("densenet_bc40", norm=norm, stem="cifar", entry=entry, stages=stages, fc=net.classifier)


@MODELS.register()
def lenet(num_classes: int, norm: str) -> StagedNetwork:
    """LeNet-5 with ReLU and max pooling for RGB images of 32 pixels, as in ILS: 62,006 parameters at 10 classes."""
    refuse_group_norm("lenet", norm, "it has no normalisation")
    stages = [(_pooled(nn.Conv2d(3, 6, 5)), 6), (_pooled(nn.Conv2d(6, 16, 5)), 16)]
    neck = nn.Sequential(
        nn.Flatten(), nn.Linear(16 * 5 * 5, 120), nn.ReLU(inplace=True), nn.Linear(120, 84), nn.ReLU(inplace=True)
    )
    fc = nn.Linear(84, num_classes)
    return _unpooled("lenet", norm, stages, neck, fc, sizes=(32, 35))


@MODELS.register()
def alexnet(num_classes: int, norm: str) -> StagedNetwork:
    """AlexNet (Krizhevsky et al. 2012) for 32 pixels, the student of ILS Table IV.

    torchvision's five convolutions with 3x3 kernels and a first stride of 2; three linear layers with dropout.
    NOTE: ILS does not state its CIFAR variant, and its code has a network of 3 convolutions instead.
    """
    refuse_group_norm("alexnet", norm, "it has no normalisation")
    middle = [nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)]
    middle += [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)]
    stages = [
        (_pooled(nn.Conv2d(3, 64, 3, stride=2, padding=1)), 64),
        (_pooled(nn.Conv2d(64, 192, 3, padding=1)), 192),
        (nn.Sequential(*middle, *_pooled(nn.Conv2d(256, 256, 3, padding=1))), 256),
    ]
    neck = nn.Sequential(
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(256 * 2 * 2, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
    )
    return _unpooled("alexnet", norm, stages, neck, nn.Linear(4096, num_classes), sizes=(31, 46))


def _pooled(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.ReLU(inplace=True), nn.MaxPool2d(2))


def _unpooled(
    arch: str, norm: str, stages: list, neck: nn.Module, fc: nn.Linear, sizes: tuple[int, int]
) -> StagedNetwork:
    """Build a network whose linear layers take all positions of the last feature map, so that image size is fixed."""
    parts = {"entry": nn.Identity(), "stages": stages, "neck": neck, "fc": fc}
    return StagedNetwork(arch, norm=norm, stem=arch, pooled=False, sizes=sizes, **parts)
