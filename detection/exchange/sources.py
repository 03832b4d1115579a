"""Checkpoint formats of programs that train torchvision-style ResNets; the user declares the source of an import.

Nothing is guessed: names that the declared source does not explain, or a missing prefix, are refused with a message
that shows what the file has; a tensor that is not read would stay random in a detector that trains nevertheless.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from backbones.core.errors import InputError, suggestion
from detection.exchange.names import torchvision_name

COMPILED = "_orig_mod."  # prefix that torch.compile adds to the names of the wrapped module


@dataclass(frozen=True)
class Source:
    """The checkpoint format of a program.

    key: key of the state dict in the file; None: the file is the state dict.
    prefix: prefix of every tensor of the network, which is stripped.  also: alternative prefixes.
    others: patterns of tensors without the prefix, dropped on purpose: teachers, queues, predictors.
    heads: patterns of tensors, after stripping the prefix, dropped on purpose: projections, not classifiers.
    compiled: whether `_orig_mod.` can occur before or after any part of the prefix.
    rename: maps the program's tensor names to torchvision's.
    arrays: whether the file can be a pickle of NumPy arrays.
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
        """All possible prefixes, the usual one first."""
        plain = (self.prefix, *self.also)
        return plain + tuple(one for prefix in plain for one in _compiled(prefix)) if self.compiled else plain


def _compiled(prefix: str) -> list[str]:
    """Return the prefix with `_orig_mod.` inserted: `module.` gives `_orig_mod.module.`, `module._orig_mod.`."""
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
    """Return the entry of SOURCES; the `InputError` for an unknown one suggests the closest match."""
    if name not in SOURCES:
        raise InputError(f"--source {name}: unknown source{suggestion(name, SOURCES)}")
    return SOURCES[name]
