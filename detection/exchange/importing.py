"""Import a foreign checkpoint of a torchvision-style ResNet as a backbone file.

The user declares the source of the file (detection/exchange/sources.py) and the input of its network.  Everything that
a state dict shows is checked: depth, norm, stem, names and shapes.  It does not show strides and channel order.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones import __version__
from backbones.core.config import config_hash
from backbones.core.errors import InputError, suggestion
from backbones.models.weights import NEW_NORMS, BackboneFile, has_new_norms, state_hash
from detection.exchange.compatibility import check_state
from detection.exchange.export import ATTRIBUTE
from detection.exchange.reading import read_checkpoint
from detection.exchange.resnets import ARCHITECTURES
from detection.exchange.selecting import ImportReport, select_state
from detection.exchange.sources import find_source
from detection.exchange.tensor_types import to_float32

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB, range 0..1
CLASSIFIER = ("fc.weight", "fc.bias")
UNKNOWN = "unknown"


def declare_spec(
    arch: str,
    *,
    norm: str = "BN",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pixel_range: float = 1.0,
    channel_order: str = "RGB",
    stride_in_1x1: bool = False,
    image_size: int = 224,
) -> dict[str, Any]:
    """Build the input spec that the user declares; the classes are read from the file (`import_backbone`).

    Args:
        mean, std: per channel, in `channel_order`, in units of `pixel_range` (the value of a white pixel: 1 or 255);
            None: ImageNet's.
    """
    mean, std = (
        _default(given, known, channel_order, pixel_range)
        for given, known in ((mean, IMAGENET_MEAN), (std, IMAGENET_STD))
    )
    if arch not in ARCHITECTURES:
        raise InputError(f"--arch {arch}: no detector uses it{suggestion(arch, ARCHITECTURES)}")
    said = f"--mean {mean} --std {std}"
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, [*mean, *std])) or min(std) <= 0:
        raise InputError(f"{said}: give three numbers each, the deviations positive")
    if max(*mean, *std) > pixel_range or (pixel_range == 255 and max(*mean, *std) <= 1):
        raise InputError(f"{said} do not fit pixels in 0..{pixel_range:g}; see --pixel-range")
    if image_size < 1:
        raise InputError(f"--image-size {image_size}: give the side of its training images in pixels")
    return {
        "arch": arch,
        "depth": ARCHITECTURES[arch],
        "norm": norm,
        "stem": "imagenet",
        "stride_in_1x1": stride_in_1x1,
        "channel_order": channel_order,
        "pixel_range": float(pixel_range),
        "mean": mean,
        "std": std,
        "image_size": int(image_size),
    }


def import_backbone(
    path: str | Path,
    source: str,
    spec: Mapping[str, Any],
    *,
    label: str,
    method: str = "imported",
    seed: int = 0,
    classifier: bool = True,
    classes: Sequence[str] | None = None,
) -> tuple[BackboneFile, ImportReport]:
    """Load the backbone in a foreign checkpoint; every tensor is accounted for.

    Args:
        source: a key of SOURCES.
        spec: from `declare_spec`.
        label, method, seed: identify the row of its results.
        classifier: False drops `fc.*`.
        classes: names of the outputs, in order; None: their indices.

    Returns:
        the backbone (num_classes 0 without a classifier), and the report.

    Raises:
        InputError: source, prefix, network or input differ from the declared one; the message says which.
    """
    content = read_checkpoint(path, array_pickles=find_source(source).arrays)
    _refuse_contradiction(getattr(content, ATTRIBUTE, content), spec, path)
    state, report = select_state(content, source, path)
    if not classifier:
        report.dropped += [name for name in state if name.startswith("fc.")]
        state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    report.converted = to_float32(state, path)
    check_state(state, spec)
    outputs = _count_outputs(state, path)
    report.kept = sorted(state)
    report.added = _add_counters(state)
    names = [str(number) for number in range(outputs)] if classes is None else list(classes)
    if len(names) != outputs:
        raise InputError(f"{path} has a classifier of {outputs} outputs, but --classes names {len(names)}")
    full = {**spec, "num_classes": outputs, "classes": names}
    provenance = {
        **{"label": label, "method": method, "seed": seed, "version": __version__},
        # The training config is unknown; this hash is of the import settings.
        **{"config_hash": config_hash({"source": source, **full}), "data_fingerprint": UNKNOWN, "source": source},
        **({"converted": sorted(report.converted)} if report.converted else {}),
        **{"file": Path(path).name, "file_sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()},
    }
    return BackboneFile(state, full, provenance, state_hash(state)), report


def describe(backbone: BackboneFile, report: ImportReport) -> str:
    """Describe the result of an import in one line, and in another one what is suspicious."""
    outputs = backbone.spec["num_classes"]
    counters = f", {len(report.added)} counters of BN steps added" if report.added else ""
    counters += "".join(f", {count} converted from {kind} to float32" for kind, count in report.converted.items())
    kind = f"a classifier of {outputs} classes" if outputs else "no classifier: only for detectors and MODEL.WEIGHTS"
    said = f"{len(report.kept)} tensors kept, {len(report.dropped)} dropped on purpose{counters}; {kind}"
    return f"{said}\nwarning: {NEW_NORMS}" if has_new_norms(backbone.state) else said


def load_classes(path: str | Path) -> list[str]:
    """Load the names of a classifier's outputs, one per line, in order.

    Raises:
        InputError: a file that is not text, an empty line before the last name, a duplicate name.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # a byte order mark is not part of the first name
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; --classes is a text file with one name per line") from None
    names = [line.strip() for line in text.rstrip().split("\n")]
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if not name or name in seen:
            wrong = f"'{name}' is duplicated" if name else "is empty"
            raise InputError(f"{path}, line {number}: {wrong}; --classes has one distinct name per line")
        seen.add(name)
    return names


def _default(given: Sequence[float] | None, known: Sequence[float], order: str, pixel_range: float) -> list[float]:
    """Return `given`, or the ImageNet statistic (RGB in 0..1) in the declared order and range."""
    if given is not None:
        return [float(value) for value in given]
    return [value * pixel_range for value in (known if order == "RGB" else known[::-1])]


def _refuse_contradiction(described: Any, spec: Mapping, path: str | Path) -> None:
    """Refuse a declaration that contradicts the description in our own export."""
    known = described.get("input_spec") if isinstance(described, Mapping) else None
    for key, value in spec.items():
        if isinstance(known, Mapping) and known.get(key) != value:
            raise InputError(f"{path} states {key} {known.get(key)}, not {value}; declare that value")


def _count_outputs(state: Mapping[str, Tensor], path: str | Path) -> int:
    """Return the number of outputs of the classifier `fc`; 0 without one."""
    names = sorted(name for name in state if name.startswith("fc."))
    if not names:
        return 0
    features = state["layer4.0.bn2.weight" if "layer4.0.bn3.weight" not in state else "layer4.0.bn3.weight"].numel()
    weight, bias = (state.get(name, torch.empty(0)) for name in CLASSIFIER)
    if set(names) != set(CLASSIFIER) or weight.shape[1:] != (features,) or bias.shape != weight.shape[:1]:
        raise InputError(
            f"{path}: {', '.join(names)} are not a linear classifier of {features} features, but perhaps a projection; "
            "add --no-classifier to drop them"
        )
    return len(weight)


def _add_counters(state: dict[str, Tensor]) -> list[str]:
    """Add the step counter that BN lacks in checkpoints from before 2018; it has no effect on the result of BN."""
    norms = [name.removesuffix("running_mean") for name in state if name.endswith(".running_mean")]
    added = [f"{norm}num_batches_tracked" for norm in norms if f"{norm}num_batches_tracked" not in state]
    state.update((name, torch.tensor(0)) for name in added)
    return sorted(added)
