"""Build the torchvision engine's detector from MODEL and a backbone."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from backbones.core.config import CfgNode
from backbones.models import build_model
from backbones.models.weights import BackboneFile
from detection.engines.torchvision.faster_rcnn import (
    BoxHead,
    BoxHeads,
    BoxPredictor,
    FasterRCNN,
    ProposalNetwork,
    RoIPooler,
    build_anchors,
)
from detection.exchange.loading import LoadReport, export_torchvision
from detection.exchange.proof import STAGES, prove_from_pixels

PYRAMID_NORMS = {"": None, "BN": nn.BatchNorm2d, "GN": partial(nn.GroupNorm, 32)}
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of dx, dy, dw, dh in the second stage, the usual values


def build_detector(model: CfgNode, detections: int, backbone: BackboneFile | None) -> tuple[FasterRCNN, LoadReport]:
    """Build the detector with the backbone's weights, or random ones; also return the account and proof of the loading.

    Args:
        model: MODEL of the config.
        detections: TEST.DETECTIONS_PER_IMAGE.
        backbone: None for random initialisation.
    """
    body, report = build_body(model, backbone)
    widths = [model.RESNETS.RES2_OUT_CHANNELS * 2**n for n in range(4)]
    channels = model.FPN.OUT_CHANNELS
    pyramid = FeaturePyramidNetwork(widths, channels, LastLevelMaxPool(), PYRAMID_NORMS[model.FPN.NORM])
    detector = FasterRCNN(
        body,
        pyramid,
        _build_proposals(model, channels),
        _build_heads(model, channels, detections),
        list(model.PIXEL_MEAN),
        list(model.PIXEL_STD),
    )
    report.loaded = [f"body.{name}" for name in report.loaded]
    report.new = sorted(set(detector.state_dict()) - set(report.loaded))
    if backbone is not None:
        report.proof = prove_loading(detector, backbone)
    return detector, report


def prove_loading(detector: FasterRCNN, backbone: BackboneFile) -> dict[str, Any]:
    """Compare the features of one raw image from the detector's normalisation and body with torchvision's ResNet."""
    training = detector.training
    detector.eval()

    def seen_by_detector(pixels: Tensor) -> dict[str, Tensor]:
        stages: Any = detector.body.stages
        return stages(detector.normalize(pixels, [(pixels.shape[2], pixels.shape[3])]))

    proof = prove_from_pixels(backbone, seen_by_detector, channel_order="RGB")
    detector.train(training)
    return proof


def build_body(model: CfgNode, backbone: BackboneFile | None) -> tuple[nn.Module, LoadReport]:
    """Build the ResNet without its classifier, load it, and freeze it up to MODEL.BACKBONE.FREEZE_AT."""
    norm = "GN" if model.RESNETS.NORM == "GN" else "BN"
    body: Any = build_model(f"resnet{model.RESNETS.DEPTH}", num_classes=2, norm=norm)
    del body.fc
    report = LoadReport(new=sorted(body.state_dict())) if backbone is None else export_torchvision(backbone, body)
    for stage in frozen_stages(body, model.BACKBONE.FREEZE_AT).values():
        stage.requires_grad_(False)
    freeze_norms(body, everywhere=model.RESNETS.NORM == "FrozenBN")
    return body, report


def frozen_stages(body: Any, freeze_at: int) -> dict[str, nn.Module]:
    """Return the stages that MODEL.BACKBONE.FREEZE_AT freezes, by detectron2's names."""
    stages = [nn.ModuleList([body.conv1, body.bn1]), *body.stage_modules()]
    return dict(list(zip(("stem", *STAGES), stages, strict=True))[:freeze_at])


def freeze_norms(module: nn.Module, *, everywhere: bool) -> None:
    """Replace batch normalisation by its frozen form: everywhere, or only where its weights do not train.

    A frozen stage whose statistics kept changing would not be frozen.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            if everywhere or not child.weight.requires_grad:
                setattr(module, name, _frozen(child))
        else:
            freeze_norms(child, everywhere=everywhere)


def _frozen(norm: nn.BatchNorm2d) -> FrozenBatchNorm2d:
    frozen = FrozenBatchNorm2d(norm.num_features, eps=norm.eps)
    frozen.load_state_dict(norm.state_dict())
    return frozen


def _build_proposals(model: CfgNode, channels: int) -> ProposalNetwork:
    rpn = model.RPN
    anchors = build_anchors(model.ANCHOR_GENERATOR.SIZES, model.ANCHOR_GENERATOR.ASPECT_RATIOS)
    background, foreground = rpn.IOU_THRESHOLDS
    return ProposalNetwork(
        anchors,
        RPNHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=foreground,
        bg_iou_thresh=background,
        batch_size_per_image=rpn.BATCH_SIZE_PER_IMAGE,
        positive_fraction=rpn.POSITIVE_FRACTION,
        pre_nms_top_n={"training": rpn.PRE_NMS_TOPK_TRAIN, "testing": rpn.PRE_NMS_TOPK_TEST},
        post_nms_top_n={"training": rpn.POST_NMS_TOPK_TRAIN, "testing": rpn.POST_NMS_TOPK_TEST},
        nms_thresh=rpn.NMS_THRESH,
        smooth_l1_beta=rpn.SMOOTH_L1_BETA,
    )


def _build_heads(model: CfgNode, channels: int, detections: int) -> BoxHeads:
    heads, box = model.ROI_HEADS, model.ROI_BOX_HEAD
    resolution = box.POOLER_RESOLUTION
    return BoxHeads(
        RoIPooler(resolution, box.POOLER_SAMPLING_RATIO, aligned=box.POOLER_TYPE == "ROIAlignV2"),
        BoxHead(channels * resolution**2, box.FC_DIM, box.NUM_FC),
        BoxPredictor(box.FC_DIM, heads.NUM_CLASSES),
        heads.IOU_THRESHOLDS[0],
        heads.IOU_THRESHOLDS[0],
        heads.BATCH_SIZE_PER_IMAGE,
        heads.POSITIVE_FRACTION,
        BOX_WEIGHTS,
        heads.SCORE_THRESH_TEST,
        heads.NMS_THRESH_TEST,
        detections,
        smooth_l1_beta=box.SMOOTH_L1_BETA,
    )
