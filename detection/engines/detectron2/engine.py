"""Faster R-CNN by detectron2: its model, mapper, trainer and hooks, configured from our keys.

detectron2 is optional: only this module imports it, when a run needs it, and passes it to the others of
this folder.  Our own parts: the backbone is loaded with proof, the order of images resumes exactly,
every iteration is seeded, and checkpoints hold plain types.
"""

import logging
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from backbones.core.config import CfgNode
from backbones.core.distributed import world_size
from backbones.core.errors import InputError
from backbones.core.run_log import get_logger
from backbones.core.warning_counter import WarningCounter
from backbones.models.weights import BackboneFile
from detection.config_pairs import FPN_BACKBONE
from detection.engines.detectron2.config import check_config, fill_config
from detection.engines.detectron2.heads import freeze_res5, register_heads, res5_blocks, resnet_of
from detection.engines.detectron2.training import Detectron2Detector, prepare
from detection.engines.faster_rcnn import FasterRCNNEngine
from detection.exchange.export import export_detectron2
from detection.exchange.loading import LoadReport, split_dropped, to_detectron2, verify_account
from detection.exchange.proof import STAGES, prove_from_pixels

COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
# The recipe of its authors, after torch; the pages name the same two lines, setup.py the same commit.
RECIPE = (
    'pip install "setuptools<81" wheel ninja',
    f'pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2@{COMMIT}"',
)
_INSTALL = f"install it after torch with: {' && '.join(RECIPE)}, or set ENGINE torchvision"
# The first two repeat as warnings and tracebacks what our account and errors report in one line; the third
# warns about a call inside detectron2.
_SILENCED = ("fvcore.common.checkpoint", "detectron2.engine.train_loop", "torch.fx._symbolic_trace")


def import_detectron2() -> SimpleNamespace:
    """Import the subpackages of detectron2 that this engine uses; raise `InputError` with how to install it."""
    try:
        from detectron2 import checkpoint, config, data, engine, layers, modeling, solver, utils
        from detectron2.utils import events  # noqa: F401 (utils does not import it)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == "detectron2"
        reason = "detectron2 is not installed" if absent else f"detectron2 cannot be imported ({error})"
        raise InputError(f"ENGINE detectron2: {reason}; {_INSTALL}") from None
    for name in _SILENCED:
        logging.getLogger(name).disabled = True
    d2 = SimpleNamespace(
        checkpoint=checkpoint, config=config, data=data, engine=engine, layers=layers, modeling=modeling,
        solver=solver, utils=utils,
    )  # fmt: skip
    register_heads(d2)
    return d2


class Detectron2Engine(FasterRCNNEngine):
    """The detectron2 engine; only `require` and `build` need detectron2."""

    def check_keys(self, cfg: CfgNode) -> None:
        check_config(cfg)

    def warn(self, cfg: CfgNode, warnings: WarningCounter) -> None:
        super().warn(cfg, warnings)
        if cfg.DATALOADER.CACHE_IMAGES:  # changes no number: logged, not counted in the results
            get_logger().warning("DATALOADER.CACHE_IMAGES has no effect: ENGINE detectron2 reads every image again")

    def require(self) -> None:
        """Raise `InputError` if detectron2 is not installed, with how to install it."""
        import_detectron2()

    def build(self, cfg: CfgNode, backbone: BackboneFile | None, device: torch.device) -> Detectron2Detector:
        d2 = import_detectron2()
        d2_cfg = fill_config(cfg, d2.config.get_cfg(), device=str(device), processes=world_size())
        model, report = build_detector(d2, d2_cfg, cfg, backbone)
        return prepare(d2, d2_cfg, cfg, model, device, report)


ENGINE = Detectron2Engine()


def build_detector(
    d2: SimpleNamespace, d2_cfg: Any, cfg: CfgNode, backbone: BackboneFile | None
) -> tuple[nn.Module, LoadReport | None]:
    """Build detectron2's model on its device with the backbone; also return the account and proof of the loading.

    Args:
        d2_cfg: detectron2's frozen config (`fill_config`).
    """
    model = d2.modeling.build_model(d2_cfg)
    if cfg.MODEL.BACKBONE.NAME != FPN_BACKBONE and cfg.MODEL.BACKBONE.FREEZE_AT == 5:
        freeze_res5(model)
    if backbone is None:
        return model, None
    with tempfile.TemporaryDirectory() as folder:
        path = export_detectron2(backbone, Path(folder) / "backbone.pth")
        d2.checkpoint.DetectionCheckpointer(model).load(str(path))
    report = verify_account(to_detectron2(backbone.state), model)
    report.dropped = sorted(split_dropped(backbone.state)[1])
    report.proof = prove_loading(model, backbone, d2_cfg.INPUT.FORMAT)
    get_logger().info(
        "backbone %s: %d tensors loaded, %d of the detector new; features differ by at most %.1e",
        backbone.hash, len(report.loaded), len(report.new), max(report.proof["largest_difference"].values()),
    )  # fmt: skip
    return model, report


def prove_loading(model: Any, backbone: BackboneFile, channel_order: str) -> dict[str, Any]:
    """Compare the features of one raw image from detectron2's normalisation and backbone with torchvision's."""
    device, training = model.device, model.training
    model.cpu().eval()

    def seen_by_detector(pixels: Tensor) -> dict[str, Tensor]:
        return stage_features(model, model.preprocess_image([{"image": pixels[0]}]).tensor)

    proof = prove_from_pixels(backbone, seen_by_detector, channel_order)
    model.to(device).train(training)
    return proof


def stage_features(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Compute res2..res5 of a detectron2 detector; a C4 detector has its res5 in the head."""
    resnet = resnet_of(model)
    x, found = resnet.stem(images), {}
    for name in resnet.stage_names:
        found[name] = x = getattr(resnet, name)(x)
    if STAGES[-1] not in found:
        found[STAGES[-1]] = res5_blocks(model)(x)
    return found
