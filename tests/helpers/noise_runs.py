"""Noise images with a brighter rectangle, and folders of pretraining runs with random networks."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from backbones.config import get_defaults
from backbones.core.config import load_config
from backbones.core.files import save_text
from backbones.core.warning_counter import WarningCounter
from backbones.data.samples import Samples, load_samples
from backbones.measuring.predictions import Inputs
from backbones.models import Outputs, backbone_spec, build_model, save_backbone

CLASSES = [f"class{k}" for k in range(6)]
PER_CLASS, SIDE = 4, 32
MEAN, STD = [0.4, 0.4, 0.6], [0.2, 0.25, 0.3]
XML = """<annotation><size><width>{side}</width><height>{side}</height></size><object><name>{name}</name><bndbox>
<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object></annotation>"""


def write_split(root: Path, split: str, *, boxes: bool, whole: bool = False) -> None:
    """Write noise images with a brighter rectangle, annotated with its box (or the whole image)."""
    rng = np.random.default_rng(len(split))
    for name in CLASSES:
        for number in range(PER_CLASS):
            image = rng.integers(0, 120, size=(SIDE, SIDE, 3), dtype=np.uint8)
            x0, y0 = rng.integers(2, 10, size=2)
            x1, y1 = rng.integers(15, 30, size=2)
            image[y0 : y1 + 1, x0 : x1 + 1] += 100
            path = root / split / name / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
            corners = (0, 0, SIDE - 1, SIDE - 1) if whole else (x0, y0, x1, y1)
            if boxes:
                text = XML.format(side=SIDE, name=name, **dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True)))
                save_text(root / "annotations" / split / name / f"{number}.xml", text)


def read(root: Path, split: str) -> Samples:
    return load_samples(
        "imagenet_xml", root, split, drop_without_box=False, need_boxes=False, warnings=WarningCounter()
    )


def inputs(**changes) -> Inputs:
    settings = {"resize": 0, "crop": SIDE, "mean": MEAN, "std": STD, "batch_size": 5, "num_workers": 0}
    return Inputs(**settings | {"precision": "float64", "device": torch.device("cpu")} | changes)


class ChannelMeans(nn.Module):
    """Classifier whose logits are the channel means, plus noise in training mode."""

    def forward(self, images: torch.Tensor) -> Outputs:
        means = images.mean(dim=(2, 3)) + (torch.randn(3) if self.training else 0)
        return Outputs(torch.cat([means, -means], dim=1), {})


def write_run(folder: Path, root: Path, seed: int, **spec) -> Path:
    """Write the folder of a pretraining run with a random network."""
    torch.manual_seed(seed)
    model = build_model("resnet18", len(CLASSES))
    provenance = dict.fromkeys(("config_hash", "data_fingerprint", "version"), "0")
    described = backbone_spec(model, mean=MEAN, std=STD, image_size=SIDE, classes=CLASSES) | spec
    folder.mkdir(parents=True)
    save_backbone(
        folder / "backbone.pth", model, described, provenance | {"label": f"net{seed}", "method": "CE", "seed": seed}
    )
    keys = {"ROOT": root, "IMAGE_SIZE": SIDE, "EVAL_RESIZE": 0, "EVAL_CROP": SIDE, "MEAN": MEAN, "STD": STD}
    overrides = [str(text) for key, value in keys.items() for text in (f"DATA.{key}", value)]
    save_text(folder / "config.yaml", load_config(get_defaults(), None, overrides).dump())
    return folder
