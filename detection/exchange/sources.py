"""Who writes checkpoints of torchvision-style ResNets how: the declared source of an import decides what is read.

Nothing is guessed: names that the declared source does not explain, or a prefix that does not occur, are refused with
what does occur, because whatever is left over would be a random tensor in a detector that trains nevertheless.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from backbones.core.errors import InputError, suggestion
from detection.exchange.names import torchvision_name

COMPILED = "_orig_mod."  # what torch.compile puts before the names of the module that it wraps


@dataclass(frozen=True)
class Source:
    """How a program writes its checkpoints.

    key: under which the file holds the state dict; None: the file is the state dict.
    prefix: of every tensor of the network; it is stripped.  also: prefixes that it may have instead.
    others: patterns of tensors without the prefix, dropped on purpose: teachers, queues, predictors.
    heads: patterns of tensors, their prefix stripped, dropped on purpose: projections, which are no classifier.
    compiled: whether `_orig_mod.` may stand before any part of the prefix, or behind it.
    rename: the program's name of a tensor -> torchvision's.
    arrays: whether the file may be a pickle of NumPy arrays.
    """

    made_by: str
    key: str | None = None
    prefix: str = ""
    others: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    compiled: bool = True
    rename: Callable[[str], str] | None = None
    arrays: bool = False

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All that it may have; the first is the usual one."""
        plain = (self.prefix, *self.also)
        return plain + tuple(one for prefix in plain for one in _compiled(prefix)) if self.compiled else plain


def _compiled(prefix: str) -> list[str]:
    """`module.` -> `_orig_mod.module.`, `module._orig_mod.`"""
    parts = re.findall(r"[^.]*\.", prefix)
    return ["".join([*parts[:n], COMPILED, *parts[n:]]) for n in range(len(parts) + 1)]


SOURCES = {
    "torchvision": Source("torchvision, timm's releases: the plain state dict", compiled=False),
    "ddp": Source("a plain state dict saved from DataParallel or DDP", prefix="module."),
    "compile": Source(
        "a plain state dict saved from torch.compile, alone, over or under DDP",
        prefix=COMPILED,
        also=(f"{COMPILED}module.", f"module.{COMPILED}"),
        compiled=False,
    ),
    "torchvision-references": Source("torchvision's references/classification", key="model"),
    "torchvision-references-ema": Source(
        "torchvision's references/classification, the averaged weights", "model_ema", "module.", ("n_averaged",)
    ),
    "pytorch-examples": Source("pytorch/examples imagenet, and what grew from it", key="state_dict", prefix="module."),
    "model-state-dict": Source("PyTorch's tutorials, with or without DDP", key="model_state_dict", also=("module.",)),
    "lightning": Source(
        "Lightning, with the network as self.model", "state_dict", "model.", ("criterion.*", "loss.*", "loss_fn.*")
    ),
    "timm": Source("timm's train.py", key="state_dict"),
    "timm-ema": Source("timm's train.py, the averaged weights", key="state_dict_ema"),
    "moco": Source(
        "MoCo v1 and v2", "state_dict", "module.encoder_q.", ("module.encoder_k.*", "module.queue*"), ("fc.*",)
    ),
    "moco-v3": Source(
        "MoCo v3",
        "state_dict",
        "module.base_encoder.",
        ("module.momentum_encoder.*", "module.predictor.*"),
        ("fc.*",),
    ),
    "simsiam": Source("SimSiam", "state_dict", "module.encoder.", ("module.predictor.*",), ("fc.*",)),
    "swav": Source("SwAV", None, "module.", (), ("projection_head.*", "prototypes.*")),
    "dino": Source("DINO, the teacher", "teacher", "module.backbone.", ("module.head.*", "head.*"), (), ("backbone.",)),
    "dino-student": Source(
        "DINO, the student", "student", "module.backbone.", ("module.head.*", "head.*"), (), ("backbone.",)
    ),
    "mmpretrain": Source("OpenMMLab's mmpretrain", "state_dict", "backbone.", ("head.*",)),
    "detectron2": Source(
        "detectron2's convert-torchvision-to-d2.py (.pkl) and our own export",
        "model",
        rename=torchvision_name,
        arrays=True,
    ),
}


def find_source(name: str) -> Source:
    """The entry of SOURCES; `InputError` suggests the nearest."""
    if name not in SOURCES:
        raise InputError(f"--source {name}: no such source{suggestion(name, SOURCES)}")
    return SOURCES[name]
