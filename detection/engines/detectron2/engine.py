"""Faster R-CNN by detectron2: its model, mapper, trainer and hooks, configured from our keys.

detectron2 is optional: it is imported here alone, when a run needs it, and handed to the modules
beside this one.  What is ours: the backbone is loaded with proof, the order of images resumes
exactly, every iteration is seeded, and checkpoints hold plain types.
"""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from backbones.core.config import CfgNode
from backbones.core.distributed import broadcast, is_main, setup_distributed, world_size
from backbones.core.errors import InputError
from backbones.core.run_log import get_logger
from backbones.models.weights import BackboneFile
from detection.config_pairs import FPN_BACKBONE
from detection.data.records import DetectionData
from detection.engines import save_loading
from detection.engines.detectron2.config import check_config, fill_config
from detection.engines.detectron2.data import test_batches
from detection.engines.detectron2.heads import freeze_res5, frozen_stages, register_heads, res5_blocks, resnet_of
from detection.engines.detectron2.training import Run
from detection.engines.finite import FiniteOutputs
from detection.exchange.export import export_detectron2
from detection.exchange.loading import LoadReport, check_spec, split_dropped, to_detectron2, verify_account
from detection.exchange.proof import STAGES, prove_from_pixels
from detection.training.frozen import FrozenStages
from detection.training.gathering import gather_detections
from detection.training.resuming import require_finished, training_settings

__all__ = ["build_detector", "check_config", "finetune", "import_detectron2", "predict", "prove_loading", "require"]

COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
_INSTALL = (
    "install it after torch with: pip install --no-build-isolation "
    f"'git+https://github.com/facebookresearch/detectron2@{COMMIT}', or set ENGINE torchvision"
)
# The first two repeat, as warnings and tracebacks, what our account and our errors say in one line; the third
# complains of a call inside detectron2.
_SILENCED = ("fvcore.common.checkpoint", "detectron2.engine.train_loop", "torch.fx._symbolic_trace")


def import_detectron2() -> SimpleNamespace:
    """detectron2's subpackages that this engine uses; `InputError` says how to install it."""
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


def require() -> None:
    """`InputError` where detectron2 is absent, with the way to get it."""
    import_detectron2()


def finetune(
    cfg: CfgNode,
    backbone: BackboneFile | None,
    train: DetectionData,
    test: DetectionData,
    run_dir: Path,
    resume: bool = False,
    eval_only: bool = False,
    begin: Callable[[], Path] | None = None,
) -> list[dict[str, Any]]:
    """Train from `backbone` (None: random) and detect once, at score 0, in every test image.

    Args:
        resume: go on from the run's checkpoint, if there is one.
        eval_only: detect with the run's checkpoint.
        begin: see detection/engines/__init__.py.

    Returns:
        COCO results: image_id, category_id, bbox (x, y, w, h in pixels of the file), score.  The account
        and the proof of the backbone's loading go to loading.json.
    """
    check_config(cfg)
    check_spec(backbone, cfg)
    d2 = import_detectron2()
    device = setup_distributed()
    settings = fill_config(cfg, d2.config.get_cfg(), device=str(device), processes=world_size())
    model, report = build_detector(d2, settings, cfg, backbone)
    frozen = FrozenStages(frozen_stages(model, cfg.MODEL.BACKBONE.FREEZE_AT))
    run = Run(d2, settings, cfg, model, training_settings(cfg, train, backbone, test), run_dir, device)
    if resume or eval_only:
        run.restore(required=eval_only)
    if eval_only:
        require_finished(run.path, run.finished, cfg.SOLVER.MAX_ITER)
    folder = begin() if begin else run_dir
    if report and is_main() and not eval_only:  # not before: a refused resumption leaves the run as it was
        save_loading(folder, report)
    if run.finished < cfg.SOLVER.MAX_ITER:
        run.train(train)
        broadcast(*model.state_dict().values())  # each process has its own BN statistics: all detect with the main's
    proof = frozen.prove()
    if report and is_main():
        save_loading(folder, report, proof)
    return predict(d2, settings, cfg, model, test, device)


def build_detector(
    d2: SimpleNamespace, settings: Any, cfg: CfgNode, backbone: BackboneFile | None
) -> tuple[nn.Module, LoadReport | None]:
    """detectron2's model on its device, with the backbone in it; and the proof that it is (None: random).

    Args:
        settings: detectron2's frozen config (`fill_config`).
    """
    torch.manual_seed(cfg.SEED)
    model = d2.modeling.build_model(settings)
    if cfg.MODEL.BACKBONE.NAME != FPN_BACKBONE and cfg.MODEL.BACKBONE.FREEZE_AT == 5:
        freeze_res5(model)
    if backbone is None:
        return model, None
    with tempfile.TemporaryDirectory() as folder:
        path = export_detectron2(backbone, Path(folder) / "backbone.pth")
        d2.checkpoint.DetectionCheckpointer(model).load(str(path))
    report = verify_account(to_detectron2(backbone.state), model)
    report.dropped = sorted(split_dropped(backbone.state)[1])
    report.proof = prove_loading(model, backbone, settings.INPUT.FORMAT)
    get_logger().info(
        "backbone %s: %d tensors loaded, %d of the detector new; features differ by at most %.1e",
        backbone.hash, len(report.loaded), len(report.new), max(report.proof["largest_difference"].values()),
    )  # fmt: skip
    return model, report


def prove_loading(model: Any, backbone: BackboneFile, channel_order: str) -> dict[str, Any]:
    """One raw image through detectron2's normalisation and backbone, and through torchvision's."""
    device, training = model.device, model.training
    model.cpu().eval()

    def seen_by_detector(pixels: Tensor) -> dict[str, Tensor]:
        return stage_features(model, model.preprocess_image([{"image": pixels[0]}]).tensor)

    proof = prove_from_pixels(backbone, seen_by_detector, channel_order)
    model.to(device).train(training)
    return proof


def stage_features(model: Any, images: Tensor) -> dict[str, Tensor]:
    """res2..res5 of a detectron2 detector; a C4 detector has its res5 in the head."""
    resnet = resnet_of(model)
    x, found = resnet.stem(images), {}
    for name in resnet.stage_names:
        found[name] = x = getattr(resnet, name)(x)
    if STAGES[-1] not in found:
        found[STAGES[-1]] = res5_blocks(model)(x)
    return found


@torch.inference_mode()
def predict(
    d2: SimpleNamespace, settings: Any, cfg: CfgNode, model: nn.Module, data: DetectionData, device: torch.device
) -> list[dict[str, Any]]:
    """COCO results of all test images, on every process, in the order of the data."""
    batches = test_batches(
        data.records,
        d2.data.DatasetMapper(settings, is_train=False),
        batch_size=cfg.TEST.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=device.type == "cuda",
    )
    category_ids = [category["id"] for category in data.categories]
    model.eval()
    heads: Any = model
    mine = []
    with FiniteOutputs([heads.proposal_generator.rpn_head, heads.roi_heads.box_predictor]) as finite:
        for batch in batches:
            outputs = model(batch)
            finite.check([image["file_name"] for image in batch])
            for image, output in zip(batch, outputs, strict=True):
                image_id = image["image_id"]
                mine.append((image_id, to_results(image_id, output["instances"], category_ids)))
    return gather_detections(mine, data.records)


def to_results(image_id: int, instances: Any, category_ids: list[int]) -> list[dict[str, Any]]:
    """detectron2's instances of one image (x0, y0, x1, y1) as COCO results (x, y, w, h)."""
    boxes = instances.pred_boxes.tensor.double().cpu()
    boxes[:, 2:] -= boxes[:, :2]
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, label, score in zip(
            boxes.tolist(), instances.pred_classes.tolist(), instances.scores.double().tolist(), strict=True
        )
    ]
