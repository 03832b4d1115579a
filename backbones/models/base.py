"""Interface of networks: modules that map images to `Outputs`, found by name in `MODELS`.

A network has the attributes

    arch           its name in MODELS
    depth          number of convolutions and linear layers, without those of shortcuts: 18 for resnet18
    num_classes    outputs of `fc`
    norm           MODEL.NORM, "BN" or "GN"
    stem           "imagenet" (7x7 of stride 2, then pooling), "cifar" (stride 1, no pooling) or the network's own name
    stride_in_1x1  whether bottlenecks stride in their first 1x1 convolution; False without bottlenecks
    fc             the last layer, `nn.Linear`
    pooled         whether the input of `fc` is the global average of the last feature map, as assumed by class
                   activation maps

and the methods `stages(x)`, the features by name; `stage_modules()`, the modules that output them; and
`feature_channels()`, the channels of each, in order, from which auxiliary heads are built.  Features are called "res2",
"res3", ... in every network, as in detectron2; the last one is the input of `fc` (or of the layers before it).

Letters: B images, C channels, H x W pixels, K classes.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, flatten, nn
from torch.nn.functional import adaptive_avg_pool2d

from backbones.core.checks import check_choice
from backbones.core.errors import InputError
from backbones.core.registry import Registry

MODELS = Registry("model")  # name -> function(num_classes, norm) -> nn.Module


@dataclass
class Outputs:
    """Outputs of a network for B images of H x W pixels and K classes.

    logits: (B, K).
    features: the output of each stage; after an ImageNet stem, "res2" is (B, C, H/4, W/4), "res5" (B, C, H/32, W/32).
    """

    logits: Tensor
    features: dict[str, Tensor]


class StagedNetwork(nn.Module):
    """A network composed of parts: entry -> stages -> global average -> neck -> fc.

    Its state dict has the prefixes `entry.`, `body.res2.` ..., `neck.` and `fc.`.
    """

    stride_in_1x1 = False

    def __init__(
        self,
        arch: str,
        *,
        norm: str,
        stem: str,
        entry: nn.Module,
        stages: Sequence[tuple[nn.Module, int]],
        fc: nn.Linear,
        neck: nn.Module | None = None,
        pooled: bool = True,
        sizes: tuple[int, int] = (1, 2**31),
    ) -> None:
        """
        Args:
            entry: module before the first stage.
            stages: (module, channels of its output), in order.
            neck: module between pooling and `fc`; without pooling it maps (B, C, H, W) to (B, in_features of fc).
            sizes: smallest and largest image side, in pixels, that the network accepts.
        """
        super().__init__()
        self.entry = entry
        self.body = nn.ModuleDict({f"res{number}": module for number, (module, _) in enumerate(stages, start=2)})
        self.neck = nn.Identity() if neck is None else neck
        self.fc = fc
        self.arch, self.norm, self.stem, self.pooled = arch, norm, stem, pooled
        self.num_classes = fc.out_features
        self.depth = sum(p.ndim > 1 and "downsample" not in name for name, p in self.named_parameters())
        self.sizes = sizes
        self._channels = [channels for _, channels in stages]

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the features of images (B, 3, H, W) by name, in order; raise `InputError` for an unsupported size."""
        least, most = self.sizes
        if not least <= min(x.shape[2:]) <= max(x.shape[2:]) <= most:
            bounds = f"{least} to {most}" if most < 2**31 else f"at least {least}"
            raise InputError(
                f"DATA.IMAGE_SIZE, DATA.EVAL_CROP: {self.arch} takes images of {bounds} pixels per side, "
                f"not {x.shape[2]} x {x.shape[3]}; change the size, or MODEL.ARCH"
            )
        x = self.entry(x)
        features = {}
        for name, stage in self.body.items():
            features[name] = x = stage(x)
        return features

    def stage_modules(self) -> tuple:
        """Return the modules that compute the features, in order."""
        return tuple(self.body.values())

    def feature_channels(self) -> dict[str, int]:
        """Return the channels of each feature map, in order."""
        return dict(zip(self.body, self._channels, strict=True))

    def forward(self, x: Tensor) -> Outputs:
        """Return logits (B, K) and the stages' features of images (B, 3, H, W)."""
        features = self.stages(x)
        x = list(features.values())[-1]
        if self.pooled:
            x = flatten(adaptive_avg_pool2d(x, 1), 1)
        return Outputs(self.fc(self.neck(x)), features)


def build_model(arch: str, num_classes: int, norm: str = "BN") -> nn.Module:
    """Build the network registered as `arch`, randomly initialised, with a linear classifier of `num_classes` outputs.

    norm: "BN" (batch normalisation) or "GN" (group normalisation, which needs no batch statistics).
    """
    if num_classes < 2:
        raise InputError(f"MODEL: num_classes is {num_classes}; a classifier needs at least 2 classes")
    return MODELS.get(arch)(num_classes=num_classes, norm=norm)


def list_networks() -> str:
    """Return every registered network in one line: its name, and the first paragraph of its docstring."""
    width = max(map(len, MODELS.names()))
    said = {name: (inspect.getdoc(MODELS.get(name)) or "").partition("\n\n")[0] for name in MODELS.names()}
    return "\n".join(f"{name:<{width}}  {' '.join(text.split())}".rstrip() for name, text in said.items())


def build_norm(norm: str) -> Callable[[int], nn.Module]:
    """Return the constructor `channels -> normalisation layer` called `norm` in the config (MODEL.NORM)."""
    return NORMS[check_choice("MODEL.NORM", norm, NORMS)]


def refuse_group_norm(arch: str, norm: str, why: str) -> None:
    """Raise `InputError` unless MODEL.NORM has its default, for networks with a fixed normalisation or none."""
    build_norm(norm)
    if norm != "BN":
        raise InputError(f"MODEL.NORM {norm} is not possible for MODEL.ARCH {arch}: {why}; set MODEL.NORM BN")


def initialize_convolutions(module: nn.Module) -> None:
    """Draw normal weights of variance 2 / (k^2 C_out) (He et al. 2015, arXiv:1502.01852), as in every ResNet."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def _group_norm(channels: int) -> nn.GroupNorm:
    """Build a group norm of 32 groups (Wu & He 2018), or the largest smaller power of two that divides the channels."""
    groups = 32
    while channels % groups:
        groups //= 2
    return nn.GroupNorm(groups, channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {"BN": nn.BatchNorm2d, "GN": _group_norm}
