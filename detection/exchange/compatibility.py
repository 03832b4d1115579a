"""Check that the tensors of a backbone file fit the architecture it names, and its input that of the detector.

A wrong channel order has silently cost others 0.15 mAP; hence every property is checked.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from backbones.core.config import CfgNode
from backbones.core.errors import InputError
from backbones.models.weights import BackboneFile
from detection.exchange.resnets import BLOCKS, expected_shapes

BATCH_NORMS = ("BN", "SyncBN", "FrozenBN")  # same tensors, used in three ways
PIXEL_TOLERANCE = 0.05  # grey levels on 0..255: allows rounding, but not the mean of another data set


def check_state(state: Mapping[str, Tensor], spec: Mapping) -> None:
    """Refuse a backbone whose tensors are not exactly those of the network its spec names.

    The checks are ordered to report the cause, not its symptom: a prefix, another stem or another depth
    would all appear as hundreds of missing tensors.
    """
    depth, norm = spec["depth"], spec["norm"]
    if depth not in BLOCKS:
        raise InputError(f"a ResNet of depth {depth} has no detector here; choices: {', '.join(map(str, BLOCKS))}")
    if norm not in (*BATCH_NORMS, "GN"):
        raise InputError(f"the backbone's norm '{norm}' has no detector here; choices: BN, GN")
    _check_prefix(state)
    _check_stem(state, spec)
    _check_order(state)
    found = infer_blocks(state)
    if found != _layout(depth):
        raise InputError(f"the backbone file states depth {depth}, but its tensors are those of {_describe(found)}")
    wanted = expected_shapes(depth, norm)
    used = {name for name in state if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")}
    _refuse("lacks", sorted(set(wanted) - used), depth, norm)
    _refuse("has, in addition to those of a ResNet,", sorted(used - set(wanted)), depth, norm)
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape:
            raise InputError(
                f"the backbone's {name} has the shape {tuple(state[name].shape)}, a ResNet-{depth} has {shape}: "
                "wide, grouped and deep-stem networks have no detector here"
            )
        if state[name].dtype != torch.float32:
            raise InputError(f"the backbone's {name} is {state[name].dtype}; save its weights as torch.float32")
        if not torch.isfinite(state[name]).all():
            raise InputError(
                f"the backbone's {name} holds values that are not finite: the training diverged, or the file is damaged"
            )


def check_spec(backbone: BackboneFile | None, cfg: CfgNode) -> None:
    """Refuse a detection config whose pixels or network differ from those the backbone was trained with.

    Args:
        backbone: None for random initialisation.
        cfg: the detection config (`detection/config.py`).
    """
    model = cfg.MODEL
    if model.RESNETS.DEPTH < 50 and "fpn" not in model.BACKBONE.NAME:
        raise InputError(
            f"MODEL.RESNETS.DEPTH {model.RESNETS.DEPTH} cannot be a C4 detector: detectron2's C4 head uses "
            "bottleneck blocks, so its res5 would stay random; use MODEL.BACKBONE.NAME build_resnet_fpn_backbone"
        )
    if backbone is None:
        if model.RESNETS.NORM == "FrozenBN":
            raise InputError("MODEL.RESNETS.NORM FrozenBN on random weights never normalises; use BN, SyncBN or GN")
        if model.BACKBONE.FREEZE_AT > 0:
            raise InputError(
                f"MODEL.BACKBONE.FREEZE_AT {model.BACKBONE.FREEZE_AT} on random weights freezes random stages; set 0"
            )
        return
    spec = backbone.spec
    if spec["stem"] != "imagenet":
        raise InputError(_stem_reason(spec["stem"]))
    _compare("MODEL.RESNETS.DEPTH", model.RESNETS.DEPTH, spec["depth"])
    _compare("INPUT.FORMAT", cfg.INPUT.FORMAT, spec["channel_order"])
    if model.RESNETS.DEPTH >= 50:  # a basic block has no 1x1 convolution to put a stride in
        _compare("MODEL.RESNETS.STRIDE_IN_1X1", model.RESNETS.STRIDE_IN_1X1, spec["stride_in_1x1"])
    if (model.RESNETS.NORM == "GN") != (spec["norm"] == "GN"):
        raise InputError(
            f"MODEL.RESNETS.NORM is {model.RESNETS.NORM}, the backbone was trained with {spec['norm']}: "
            f"set it to {'GN' if spec['norm'] == 'GN' else ', '.join(BATCH_NORMS)}"
        )
    for key, values, known in (
        ("MODEL.PIXEL_MEAN", model.PIXEL_MEAN, spec["mean"]),
        ("MODEL.PIXEL_STD", model.PIXEL_STD, spec["std"]),
    ):
        scaled = [value * 255.0 / spec["pixel_range"] for value in known]
        if len(values) != 3 or any(abs(a - b) > PIXEL_TOLERANCE for a, b in zip(values, scaled, strict=True)):
            raise InputError(
                f"{key} is {list(values)}, the backbone was trained with {[round(v, 3) for v in scaled]} "
                f"({spec['channel_order']}); set it to these values"
            )


def infer_blocks(state: Mapping[str, Tensor]) -> tuple[tuple[int, ...], bool]:
    """Return (blocks per stage, whether they are bottlenecks), inferred from the tensor names."""
    seen: dict[int, set[int]] = {stage: set() for stage in range(1, 5)}
    for name in state:
        if match := re.match(r"layer([1-4])\.(\d+)\.", name):
            seen[int(match[1])].add(int(match[2]))
    return tuple(len(blocks) for blocks in seen.values()), "layer1.0.conv3.weight" in state


def _layout(depth: int) -> tuple[tuple[int, ...], bool]:
    return BLOCKS[depth], depth >= 50


def _describe(found: tuple[tuple[int, ...], bool]) -> str:
    depths = [depth for depth in BLOCKS if _layout(depth) == found]
    kind = "bottleneck" if found[1] else "basic"
    return f"depth {depths[0]}" if depths else f"a network with {found[0]} {kind} blocks, not a known ResNet"


def _check_prefix(state: Mapping[str, Tensor]) -> None:
    """Refuse the prefix of a wrapper, if no tensor of the first block is without one."""
    if any(name.startswith("layer1.0.") for name in state):
        return
    for name in state:
        if match := re.match(r"(.+?\.)layer1\.0\.", name):
            raise InputError(
                f"the backbone's tensors carry the prefix '{match[1]}' ('{name}'), so none would load; "
                "export the network without its wrapper"
            )


def _check_stem(state: Mapping[str, Tensor], spec: Mapping) -> None:
    if spec["stem"] != "imagenet":
        raise InputError(_stem_reason(spec["stem"]))
    if any(re.match(r"(stem|conv1|conv)\.\d", name) for name in state):
        raise InputError(_stem_reason("deep"))
    conv1 = state.get("conv1.weight")
    if conv1 is not None and conv1.shape[-1:] == (3,):
        raise InputError(_stem_reason("cifar"))


def _check_order(state: Mapping[str, Tensor]) -> None:
    """Refuse pre-activation networks, which normalise the input of a convolution (a ResNet: its output)."""
    for name, tensor in state.items():
        if tensor.ndim == 4 and (match := re.fullmatch(r"(layer\d\.\d+)\.conv(\d)\.weight", name)):
            norm, (out, into) = state.get(f"{match[1]}.bn{match[2]}.weight"), tensor.shape[:2]
            if norm is not None and norm.numel() == into != out:
                raise InputError(
                    f"the backbone normalises before its convolutions ({match[1]}.bn{match[2]} has {into} channels): "
                    "pre-activation networks have no detector here"
                )


def _stem_reason(stem: str) -> str:
    kind = {"cifar": "CIFAR stem (a 3x3 convolution, no pooling)", "deep": "deep stem (several convolutions)"}.get(
        stem, f"stem '{stem}'"
    )
    return (
        f"the backbone has a {kind}; the detectors have the ImageNet stem (7x7, stride 2, pooling), so it cannot load"
    )


def _compare(key: str, value: object, known: object) -> None:
    if value != known:
        raise InputError(f"{key} is {value}, the backbone was trained with {known}; set {key} {known}")


def _refuse(what: str, names: list[str], depth: int, norm: str) -> None:
    if names:
        more = " ..." if len(names) > 3 else ""
        raise InputError(
            f"the backbone {what} {len(names)} tensors (ResNet-{depth}, {norm}): {', '.join(names[:3])}{more}"
        )
