"""Load a pretrained ResNet as the backbone of a detector; no tensor is lost silently.

A backbone that was not loaded still trains, and its AP looks plausible; hence every tensor is accounted
for, by name, shape and value, or an error is raised.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from backbones.core.errors import InputError
from backbones.models.weights import BackboneFile
from detection.exchange.compatibility import check_spec, check_state
from detection.exchange.names import detectron2_name

__all__ = [
    "DROPPED",
    "NEW_IN_BODY",
    "NEW_IN_DETECTRON2",
    "LoadReport",
    "check_spec",
    "check_state",
    "detectron2_name",
    "export_torchvision",
    "split_dropped",
    "to_detectron2",
    "verify_account",
]

# Tensors of a backbone file that no detector uses: the classifier, and BN's step counter, which has
# no effect on the forward pass (momentum is constant here).
DROPPED = ("fc.*", "*.num_batches_tracked")

# Tensors of a detector that no backbone file has.
NEW_IN_BODY = ("fc.*", "*.num_batches_tracked")
NEW_IN_DETECTRON2 = (
    "backbone.fpn_*",
    "proposal_generator.*",
    "roi_heads.box_head.*",
    "roi_heads.box_predictor.*",
    "roi_heads.res5.norm.*",  # the norm that MoCo adds after C4's res5
    "*.num_batches_tracked",
)


@dataclass
class LoadReport:
    """Report of one load: sorted names of all tensors."""

    loaded: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)  # in the file, intentionally not in the detector
    new: list[str] = field(default_factory=list)  # in the detector, intentionally not in the file
    proof: dict[str, Any] = field(default_factory=dict)  # result of `detection.exchange.proof`

    def counts(self) -> dict[str, int]:
        """Return how many tensors were loaded, dropped and new."""
        return {"loaded": len(self.loaded), "dropped": len(self.dropped), "new": len(self.new)}


# ---------------------------------------------------------------------------------- torchvision


def export_torchvision(backbone: BackboneFile, body: nn.Module) -> LoadReport:
    """Load a backbone into a body with torchvision's names (conv1, bn1, layer1..4), strictly.

    Args:
        body: a torchvision ResNet, or its stages alone; its norm can be BN, frozen BN, SyncBN or GN.
    """
    check_state(backbone.state, backbone.spec)
    target = body.state_dict()
    wanted, dropped = split_dropped(backbone.state)
    _refuse("the detector's body has no place for", [k for k in wanted if k not in target])
    new = [k for k in target if k not in wanted]
    _refuse("the backbone file lacks", [k for k in new if not _matches(k, NEW_IN_BODY)])
    _refuse_shapes({k: (v.shape, target[k].shape) for k, v in wanted.items()})
    body.load_state_dict(wanted, strict=False)
    _refuse_values(wanted, body.state_dict(), {k: k for k in wanted})
    return LoadReport(sorted(wanted), sorted(dropped), sorted(new))


# ----------------------------------------------------------------------------------- detectron2


def to_detectron2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a backbone under detectron2's names, without those in DROPPED."""
    wanted, _ = split_dropped(state)
    return {detectron2_name(name): tensor.detach().cpu().clone() for name, tensor in wanted.items()}


def verify_account(exported: Mapping[str, Tensor], model: nn.Module) -> LoadReport:
    """Check that every exported tensor is in the detectron2 model, and report all other tensors.

    detectron2 matches names by longest suffix and only logs those it could not match, so this compares
    values: each exported tensor must be found, bit for bit, under exactly one name of the model.

    Args:
        exported: tensors under detectron2's backbone names (`to_detectron2`).
        model: a detectron2 GeneralizedRCNN (FPN or C4) after loading.
    """
    target = model.state_dict()
    places = {name: [k for k in target if k == name or k.endswith("." + name)] for name in exported}
    # `conv1.weight` is also a suffix of `stem.conv1.weight`.  Our names start with stem or res2..res5,
    # so a second match means two copies of a stage, which no detector here has.
    _refuse("the detectron2 model has no place for", [k for k, found in places.items() if not found])
    _refuse("the detectron2 model has two places for", [k for k, found in places.items() if len(found) > 1])
    where = {name: found[0] for name, found in places.items()}
    _refuse_shapes({k: (v.shape, target[where[k]].shape) for k, v in exported.items()})
    _refuse_values(exported, target, where)
    new = set(target) - set(where.values())
    _refuse("nothing was loaded into", [k for k in new if not _matches(k, NEW_IN_DETECTRON2)])
    return LoadReport(loaded=sorted(where.values()), new=sorted(new))


# -------------------------------------------------------------------------------------- helpers


def split_dropped(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return (tensors that a detector uses, names of the dropped ones)."""
    wanted = {name: tensor for name, tensor in state.items() if not _matches(name, DROPPED)}
    return wanted, [name for name in state if name not in wanted]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _refuse(what: str, names: list[str]) -> None:
    if names:
        raise InputError(
            f"{what} {len(names)} tensors: {', '.join(sorted(names)[:3])}{' ...' if len(names) > 3 else ''}"
        )


def _refuse_shapes(shapes: Mapping[str, tuple[torch.Size, torch.Size]]) -> None:
    for name, (found, wanted) in shapes.items():
        if found != wanted:
            raise InputError(f"{name} has the shape {tuple(found)} in the backbone, {tuple(wanted)} in the detector")


def _refuse_values(exported: Mapping[str, Tensor], target: Mapping[str, Tensor], where: Mapping[str, str]) -> None:
    wrong = [name for name, tensor in exported.items() if not torch.equal(tensor.cpu(), target[where[name]].cpu())]
    _refuse("after loading, the detector holds other values in", wrong)
