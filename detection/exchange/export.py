"""Export a backbone for other tools; the file is read back and compared with the backbone.

detectron2    {"model": tensors under detectron2's names, "input_spec", "provenance", "hash", ...}, for MODEL.WEIGHTS
torchvision   a plain state dict with torchvision's names, for `load_state_dict(torch.load(FILE))`; its attribute
              `smooth2det` is {"input_spec", "provenance", "hash"}

Both hold only tensors and plain types (`weights_only=True`).
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.core.checkpoint import load_checkpoint
from backbones.core.errors import InputError, suggestion
from backbones.core.files import save_atomic
from backbones.models.weights import BackboneFile
from detection.exchange.compatibility import check_state
from detection.exchange.loading import split_dropped, to_detectron2
from detection.exchange.resnets import expected_shapes

ATTRIBUTE = "smooth2det"  # attribute of the plain state dict


def export_backbone(backbone: BackboneFile, path: str | Path, target: str) -> dict[str, Any]:
    """Write `backbone` for `target` (a key of TARGETS), and return the report of `verify_export`."""
    if target not in TARGETS:
        raise InputError(f"--to {target}: unknown format{suggestion(target, TARGETS)}")
    TARGETS[target](backbone, path)
    return verify_export(backbone, path, target)


def export_detectron2(backbone: BackboneFile, path: str | Path) -> Path:
    """Write a backbone as a checkpoint that detectron2's own tools load (`MODEL.WEIGHTS`).

    `__author__` must not be "Caffe2" (detectron2 would rename the tensors). The input spec is stored
    in the file, because it differs from detectron2's defaults (BGR, std 1, stride in the 1x1).
    """
    check_state(backbone.state, backbone.spec)
    heuristics = {"__author__": "smooth2det", "matching_heuristics": True}
    return _save(path, {"model": to_detectron2(backbone.state), **heuristics, **_description(backbone)})


def export_state_dict(backbone: BackboneFile, path: str | Path) -> Path:
    """Write a backbone as the plain state dict of `torchvision.models.resnet<depth>(num_classes=...)`.

    The description is an attribute of the OrderedDict, like torch's own `_metadata`: readers of
    plain tensors are not affected.
    """
    check_state(backbone.state, backbone.spec)
    if backbone.spec["stride_in_1x1"] and backbone.spec["depth"] >= 50:
        raise InputError(
            f"backbone {backbone.hash} strides in its 1x1 convolutions, torchvision's ResNet in its 3x3: it would "
            "compute different features; export it --to detectron2"
        )
    state = OrderedDict((name, tensor.detach().cpu().clone()) for name, tensor in backbone.state.items())
    setattr(state, ATTRIBUTE, _description(backbone))
    return _save(path, state)


TARGETS: dict[str, Callable[[BackboneFile, str | Path], Path]] = {
    "detectron2": export_detectron2,
    "torchvision": export_state_dict,
}


def verify_export(backbone: BackboneFile, path: str | Path, target: str) -> dict[str, Any]:
    """Read an exported file and compare it with its backbone; raise `InputError` unless all of it is equal bit for bit.

    Returns:
        {"tensors": number of the ResNet's (100, 180, 265, 520, 775 for depths 18, 34, 50, 101, 152 with BN), "dropped":
        names dropped on purpose, "besides": names of further tensors}
    """
    written: Any = load_checkpoint(path)
    found = written["model"] if target == "detectron2" else written
    described = written if target == "detectron2" else getattr(written, ATTRIBUTE, {})
    _, left_out = split_dropped(backbone.state)
    wanted = to_detectron2(backbone.state) if target == "detectron2" else backbone.state
    if broken := [name for name in {*wanted, *found} if not _equal(wanted.get(name), found.get(name))]:
        raise InputError(f"{path}: {len(broken)} tensors are not the backbone's ({min(broken)}, ...); export it again")
    if any(described.get(key) != value for key, value in _description(backbone).items()):
        raise InputError(f"{path}: its description is not that of backbone {backbone.hash}; export it again")
    besides = left_out if target == "torchvision" else []
    tensors, known = len(found) - len(besides), len(expected_shapes(backbone.spec["depth"], backbone.spec["norm"]))
    if tensors != known:
        raise InputError(f"{path} holds {tensors} tensors, a ResNet-{backbone.spec['depth']} has {known}")
    return {"tensors": tensors, "dropped": left_out if target == "detectron2" else [], "besides": besides}


# --------------------------------------------------------------------------- how others load the file


def usage(spec: Mapping, path: str | Path, target: str) -> str:
    """Return the lines that load the exported file: a detectron2 config (yaml), or Python for torchvision."""
    return detectron2_lines(spec, path) if target == "detectron2" else torchvision_lines(spec, path)


def detectron2_lines(spec: Mapping, path: str | Path) -> str:
    """Return yaml to add to a detectron2 config, whose defaults are for MSRA's weights."""
    scale = 255.0 / spec["pixel_range"]
    mean, std = ([round(value * scale, 4) for value in spec[key]] for key in ("mean", "std"))
    basic = spec["depth"] < 50
    norm = '\n    NORM: "GN"' if spec["norm"] == "GN" else ""
    return f"""VERSION: 2
INPUT:
  FORMAT: "{spec["channel_order"]}"
MODEL:
  WEIGHTS: "{Path(path).absolute()}"
  PIXEL_MEAN: {mean}
  PIXEL_STD: {std}
  RESNETS:
    DEPTH: {spec["depth"]}
    STRIDE_IN_1X1: {spec["stride_in_1x1"]}
    RES2_OUT_CHANNELS: {64 if basic else 256}{norm}"""


def torchvision_lines(spec: Mapping, path: str | Path) -> str:
    """Return Python that builds torchvision's network and loads the file into it, strictly."""
    arguments = [f"num_classes={spec['num_classes']}"] if spec["num_classes"] else []
    if spec["norm"] == "GN":
        arguments.append("norm_layer=lambda channels: torch.nn.GroupNorm(32, channels)")
    without = "" if spec["num_classes"] else "net.fc = torch.nn.Identity()  # the file has no classifier\n"
    return f"""import torch, torchvision
state = torch.load("{Path(path).absolute()}", weights_only=True)
net = torchvision.models.resnet{spec["depth"]}({", ".join(arguments)})
{without}net.load_state_dict(state)
print(state.{ATTRIBUTE}["input_spec"])  # pixels: {spec["channel_order"]}, 0..{spec["pixel_range"]:g}, mean, std"""


# -------------------------------------------------------------------------------------- helpers


def _description(backbone: BackboneFile) -> dict[str, Any]:
    return {"input_spec": dict(backbone.spec), "provenance": dict(backbone.provenance), "hash": backbone.hash}


def _save(path: str | Path, content: Any) -> Path:
    path = Path(path)
    if path.suffix != ".pth":
        raise InputError(f"{path}: an export is a torch file; give it the suffix .pth")
    save_atomic(path, lambda temporary: torch.save(content, temporary), content)
    return path


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b)
