"""The backbone file: weights of a classifier, specification of its input, and provenance.

Pretraining writes it for all later stages.  A backbone is identified by the hash of its weights: copying or renaming
the file keeps the identity, changing one weight changes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones.core.checkpoint import load_checkpoint, load_state, refuse_not_finite, save_checkpoint
from backbones.core.errors import InputError
from backbones.core.files import fingerprint
from backbones.core.imports import import_of_run
from backbones.core.results import BackboneIdentity
from backbones.models.base import build_model

FILE_NAME = "backbone.pth"
FORMAT = "smooth2det backbone 1"
LAST_LAYER = "fc."  # prefix of the last layer of every network
SPEC_KEYS = (
    "arch",  # name in MODELS
    "depth",  # number of convolutions and linear layers, without those of shortcuts: 18 for resnet18
    "num_classes",  # outputs of the classifier
    "norm",  # "BN" or "GN"
    "stem",  # "imagenet": 7x7 of stride 2 and max pooling; "cifar": stride 1, no pooling; or the arch with its own
    "stride_in_1x1",  # where bottlenecks stride; False: in the 3x3 convolution
    "channel_order",  # "RGB" or "BGR"
    "pixel_range",  # value of a white pixel before `mean` is subtracted: 1.0 or 255.0
    "mean",  # per channel, in units of pixel_range
    "std",
    "image_size",  # side of the training images in pixels
    "classes",  # names, in the order of the outputs
)
_LISTS = ("mean", "std", "classes")
_SPEC_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("arch", "norm", "stem", "channel_order", "classes"), (str,)),
    **dict.fromkeys(("depth", "num_classes", "image_size"), (int,)),
    **dict.fromkeys(("pixel_range", "mean", "std"), (float, int)),
    "stride_in_1x1": (bool,),
}
# Properties of the networks here and their input; an imported backbone can differ, which only detectors support.
OWN_FORM = {"stride_in_1x1": False, "channel_order": "RGB", "pixel_range": 1.0}
NEW_NORMS = (
    "backbone whose batch norms all have mean 0 and variance 1, as if never trained; frozen, they do not normalise"
)
PROVENANCE_KEYS = ("label", "method", "seed", "config_hash", "data_fingerprint", "version")


@dataclass
class BackboneFile:
    """A backbone: state dict, input specification (SPEC_KEYS), provenance (PROVENANCE_KEYS), hash (12 hex digits).

    path: the file that it was loaded from; "" if it was not loaded from a file.
    """

    state: dict[str, Tensor]
    spec: dict
    provenance: dict
    hash: str
    path: str = ""

    @property
    def name(self) -> str:
        """Name for messages: "backbone 0123456789ab (runs/ce/backbone.pth)"."""
        return f"backbone {self.hash} ({self.path or self.provenance['label']})"

    def build(self) -> nn.Module:
        """Return the classifier with these weights, in evaluation mode; raise `InputError` if that is not possible."""
        if not self.spec["num_classes"]:
            raise InputError(
                f"backbone {self.hash} ({self.provenance['label']}) has no classifier, so it cannot classify; "
                "use it in a detector or as MODEL.WEIGHTS"
            )
        refuse_other_form(self)
        model = build_model(self.spec["arch"], self.spec["num_classes"], self.spec["norm"])
        load_state(model, self.state, where=self.name)
        model.origin = self.name  # type: ignore[assignment]  # for messages about its predictions
        return model.eval()


def backbone_spec(
    model: nn.Module, *, mean: Sequence[float], std: Sequence[float], image_size: int, classes: Sequence[str]
) -> dict:
    """Return the specification of `model`, trained on RGB images in [0, 1] normalised with `mean` and `std`."""
    return {
        "arch": model.arch,
        "depth": model.depth,
        "num_classes": model.num_classes,
        "norm": model.norm,
        "stem": model.stem,
        "stride_in_1x1": model.stride_in_1x1,
        "channel_order": "RGB",
        "pixel_range": 1.0,
        "mean": [float(value) for value in mean],
        "std": [float(value) for value in std],
        "image_size": int(image_size),
        "classes": [str(name) for name in classes],
    }


def state_hash(state: Mapping[str, Tensor]) -> str:
    """Return a hash (12 hex digits) of the tensors' names, types, shapes and bytes, independent of their order."""
    parts = []
    for name in sorted(state):
        tensor = state[name].detach().cpu().clone(memory_format=torch.contiguous_format)
        parts.append(f"{name} {tensor.dtype} {tuple(tensor.shape)}")
        parts.append(tensor.reshape(-1).view(torch.uint8).numpy())
    return fingerprint(*parts)


def save_backbone(path: str | Path, model: nn.Module, spec: dict, provenance: dict) -> str:
    """Write the backbone file of `model` atomically, and return its hash."""
    return save_backbone_state(path, model.state_dict(), spec, provenance)


def save_backbone_state(path: str | Path, state: Mapping[str, Tensor], spec: dict, provenance: dict) -> str:
    """Write a backbone file atomically from a state dict, and return its hash.

    A state dict without the classifier is allowed, with num_classes 0.
    """
    _require(spec, SPEC_KEYS, "spec")
    _require(provenance, PROVENANCE_KEYS, "provenance")
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    digest = state_hash(state)
    save_checkpoint(path, format=FORMAT, state=state, spec=spec, provenance=provenance, hash=digest)
    return digest


def load_backbone(path: str | Path) -> BackboneFile:
    """Read a backbone file, or the one of a run folder; import what the run's config names in IMPORTS.

    Raises:
        InputError: the file is missing, not a backbone file, damaged, or holds values that are not finite.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise InputError(f"no backbone at {path}; give the folder of a finished pretraining run, or its {FILE_NAME}")
    content = load_checkpoint(path)
    if content.get("format") != FORMAT or not {"state", "hash"} <= content.keys() or not _is_state(content["state"]):
        raise InputError(f"{path} is not a backbone file; give the {FILE_NAME} that pretraining wrote")
    _require(content.get("spec"), SPEC_KEYS, f"{path}: spec")
    _require(content.get("provenance"), PROVENANCE_KEYS, f"{path}: provenance")
    _check_spec(content["spec"], path)
    if state_hash(content["state"]) != content["hash"]:
        raise InputError(f"{path} is damaged: its weights do not match its hash; copy it again or pretrain again")
    refuse_not_finite(content["state"], path)
    import_of_run(path.parent)  # the network can be one of the user's
    return BackboneFile(content["state"], content["spec"], content["provenance"], content["hash"], str(path))


def has_new_norms(state: Mapping[str, Tensor]) -> bool:
    """Return whether every batch norm has the statistics of a new network: mean 0 and variance 1."""
    means, variances = ([t for name, t in state.items() if name.endswith(f".running_{k}")] for k in ("mean", "var"))
    return bool(means) and not any(t.any() for t in means) and all((t == 1).all() for t in variances)


def start_from(model: nn.Module, file: BackboneFile) -> None:
    """Load the file's weights into `model`, except those of `fc`, which keep their random values for other classes.

    Raises:
        InputError: the file holds another network, or an imported one with another input or other strides.
    """
    refuse_other_form(file)
    if (file.spec["arch"], file.spec["norm"]) != (model.arch, model.norm):
        raise InputError(
            f"MODEL.WEIGHTS holds {file.spec['arch']} with {file.spec['norm']}, not {model.arch} with {model.norm}; "
            "name a run of the same MODEL.ARCH and MODEL.NORM"
        )
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(LAST_LAYER)}
    state = {name: tensor for name, tensor in file.state.items() if not name.startswith(LAST_LAYER)}
    load_state(model, state | own, where=file.name)


def refuse_other_form(file: BackboneFile) -> None:
    """Raise `InputError` for an (imported) backbone whose input or strides differ from those of the networks here."""
    for key, own in OWN_FORM.items():
        if file.spec[key] != own:
            raise InputError(
                f"backbone {file.hash} ({file.provenance['label']}) has {key} {file.spec[key]}, the classifiers here "
                f"{own}: its numbers would be wrong; only a detector config can state it (ENGINE detectron2)"
            )


def differing_classes(own: Sequence[str], other: Sequence[str]) -> str:
    """Describe for a message where two lists of class names differ; "" if they are equal, in the same order.

    own: classes of the backbone. other: classes of the data.
    """
    if list(own) == list(other):
        return ""
    place = next((n for n, pair in enumerate(zip(own, other, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        return f"there are {len(own)} and {len(other)} of them"
    kind = "the same names in another order" if sorted(own) == sorted(other) else "other names"
    return f"{kind}: output {place} of the backbone is '{own[place]}', class {place} of the data '{other[place]}'"


def identity(file: BackboneFile) -> BackboneIdentity:
    """Return the identity by which a backbone's results are joined over the stages."""
    provenance = file.provenance
    return BackboneIdentity(provenance["label"], provenance["method"], provenance["seed"], file.hash)


def _check_spec(spec: Mapping, path: Path) -> None:
    """Raise `InputError` for a value whose type differs from that written by `backbone_spec`."""
    for key, kinds in _SPEC_TYPES.items():
        values = spec[key] if key in _LISTS else [spec[key]]
        if (key in _LISTS and not isinstance(values, list | tuple)) or not all(type(v) in kinds for v in values):
            raise InputError(f"{path}: spec: {key} is {spec[key]!r}, not of type {kinds[0].__name__}; pretrain again")


def _is_state(state: object) -> bool:
    return isinstance(state, Mapping) and all(
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        for name, value in state.items()
    )


def _require(mapping: object, keys: Sequence[str], where: str) -> None:
    missing = [key for key in keys if not isinstance(mapping, Mapping) or key not in mapping]
    if missing:
        raise InputError(f"{where}: missing {', '.join(missing)}")
