"""Checkpoints in the layouts of other programs, with the tensors of one seeded network, and their import."""

import pickle

import torch

from detection.exchange.importing import declare_spec, import_backbone
from helpers.seeded import make_backbone

STATE = make_backbone().state
FEATURES = {name: tensor for name, tensor in STATE.items() if not name.startswith("fc.")}


def prefixed(prefix, state=STATE):
    return {prefix + name: tensor for name, tensor in state.items()}


def projection(prefix):
    return {f"{prefix}fc.0.weight": torch.ones(512, 512), f"{prefix}fc.2.weight": torch.ones(128, 512)}


def detectron2s(state):
    """Rename as detectron2's tools/convert-torchvision-to-d2.py does; written as a pickle of arrays."""
    renamed = {}
    for old, tensor in state.items():
        name = old if "layer" in old else f"stem.{old}"
        for stage in (1, 2, 3, 4):
            name = name.replace(f"layer{stage}", f"res{stage + 1}")
        for number in (1, 2, 3):
            name = name.replace(f"bn{number}", f"conv{number}.norm")
        renamed[name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")] = tensor.numpy()
    return renamed


def write(content, folder):
    if "__author__" in content:
        (folder / "foreign.pth").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, folder / "foreign.pth")
    return folder / "foreign.pth"


def read(content, folder, source="torchvision", spec=None, arch="resnet18", **options):
    return import_backbone(write(content, folder), source, spec or declare_spec(arch), label="foreign", **options)
