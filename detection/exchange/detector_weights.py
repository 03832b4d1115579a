"""Export the weights of a trained detector, to the format of its own engine or of the other Faster R-CNN.

torchvision   the state dict of torchvision.models.detection.FasterRCNN
detectron2    {"model": state dict of GeneralizedRCNN}, for MODEL.WEIGHTS

Of two engines with the same config, only a Faster R-CNN with a feature pyramid has all tensors in both.

Letters: K classes without background, C input features.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.core.checkpoint import load_checkpoint
from backbones.core.config import CfgNode, flatten
from backbones.core.errors import InputError
from backbones.core.files import save_atomic
from detection.exchange.names import detectron2_name, torchvision_name

TARGETS = ("torchvision", "detectron2")
State = dict[str, Tensor]
_Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]

_COUNTER, _VARIANCE = "num_batches_tracked", "running_var"
_TO_DETECTRON2: _Rules = (
    (r"^body\.(.+)", lambda m: f"backbone.bottom_up.{detectron2_name(m[1])}"),
    (r"^pyramid\.inner_blocks\.(\d)\.(0|1)\.", lambda m: f"backbone.fpn_lateral{int(m[1]) + 2}.{_norm(m[2])}"),
    (r"^pyramid\.layer_blocks\.(\d)\.(0|1)\.", lambda m: f"backbone.fpn_output{int(m[1]) + 2}.{_norm(m[2])}"),
    (r"^proposals\.head\.conv\.0\.0\.", "proposal_generator.rpn_head.conv."),
    (r"^proposals\.head\.cls_logits\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^proposals\.head\.bbox_pred\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^heads\.box_head\.layers\.(\d+)\.", lambda m: f"roi_heads.box_head.fc{int(m[1]) + 1}."),
    (r"^heads\.box_predictor\.", "roi_heads.box_predictor."),
)
_FROM_DETECTRON2: _Rules = (
    (r"^backbone\.bottom_up\.(.+)", lambda m: f"body.{torchvision_name(m[1])}"),
    (r"^backbone\.fpn_lateral(\d)\.(norm\.)?", lambda m: f"pyramid.inner_blocks.{int(m[1]) - 2}.{int(bool(m[2]))}."),
    (r"^backbone\.fpn_output(\d)\.(norm\.)?", lambda m: f"pyramid.layer_blocks.{int(m[1]) - 2}.{int(bool(m[2]))}."),
    (r"^proposal_generator\.rpn_head\.conv\.", "proposals.head.conv.0.0."),
    (r"^proposal_generator\.rpn_head\.objectness_logits\.", "proposals.head.cls_logits."),
    (r"^proposal_generator\.rpn_head\.anchor_deltas\.", "proposals.head.bbox_pred."),
    (r"^roi_heads\.box_head\.fc(\d+)\.", lambda m: f"heads.box_head.layers.{int(m[1]) - 1}."),
    (r"^roi_heads\.box_predictor\.", "heads.box_predictor."),
)
_TO_LIBRARY: _Rules = (
    (r"^body\.", "backbone.body."),
    (r"^pyramid\.", "backbone.fpn."),
    (r"^proposals\.head\.", "rpn.head."),
    (r"^heads\.box_head\.layers\.([01])\.", lambda m: f"roi_heads.box_head.fc{int(m[1]) + 6}."),
    (r"^heads\.box_predictor\.", "roi_heads.box_predictor."),
)


def _norm(place: str) -> str:
    return "norm." if place == "1" else ""


def export_detector(cfg: CfgNode, state: Mapping[str, Tensor], path: Path, target: str) -> int:
    """Write a detector's weights for `target`, one of TARGETS, and read them back; return the number of tensors.

    Args:
        cfg: of the run.
        state: state dict of its model.
    Raises:
        InputError: another engine, or a setting whose tensors the target does not have.
    """
    if path.suffix != ".pth":
        raise InputError(f"{path}: an export is a torch file; give it the suffix .pth")
    found = convert_detector(cfg, state, target)
    content: Any = {"model": found, "__author__": "smooth2det"} if target == "detectron2" else found
    save_atomic(path, lambda temporary: torch.save(content, temporary), content)
    written = load_checkpoint(path)
    written = written["model"] if target == "detectron2" else written
    if written.keys() != found.keys() or not all(torch.equal(written[name], found[name]) for name in found):
        raise InputError(f"{path} does not hold what was written; export it again")
    return len(found)


def convert_detector(cfg: CfgNode, state: Mapping[str, Tensor], target: str) -> State:
    """Return the tensors under the names and in the order of classes of `target`."""
    if cfg.ENGINE not in TARGETS:
        raise InputError(
            f"ENGINE {cfg.ENGINE}: only weights of {' and '.join(TARGETS)} are exported; others have no reader but "
            "this project (detection.load_detector)"
        )
    refuse_settings(cfg, target)
    own = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    if cfg.ENGINE == "detectron2":
        return own if target == "detectron2" else _to_library(_from_detectron2(own))
    return _to_detectron2(own) if target == "detectron2" else _to_library(own)


def refuse_settings(cfg: CfgNode, target: str) -> None:
    """Raise `InputError` for a setting with which the target has other tensors than the run."""
    if cfg.ENGINE == target == "detectron2":
        return
    values, wanted = dict(flatten(cfg)), {"MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone"}
    if target == "torchvision":
        wanted |= {"MODEL.ROI_BOX_HEAD.NUM_FC": 2, "MODEL.FPN.NORM": "", "MODEL.RESNETS.STRIDE_IN_1X1": False}
        wanted |= {"INPUT.FORMAT": "RGB"}
    for key, value in wanted.items():
        if values[key] != value:
            raise InputError(f"{key} {values[key]!r}: {target} loads only {value!r} from ENGINE {cfg.ENGINE}")
    if target != cfg.ENGINE and any(len(sizes) > 1 for sizes in cfg.MODEL.ANCHOR_GENERATOR.SIZES):
        raise InputError(
            "MODEL.ANCHOR_GENERATOR.SIZES: with several sizes per level, the two engines order anchors differently"
        )


def _to_detectron2(state: State) -> State:
    """The background is the last class of detectron2, and has no boxes."""
    renamed = _rename(state, _TO_DETECTRON2)
    for name, tensor in renamed.items():
        if ".box_predictor.cls_score." in name:
            renamed[name] = tensor.roll(-1, 0)
        elif ".box_predictor.bbox_pred." in name:
            renamed[name] = tensor[4:].clone()
    return renamed


def _from_detectron2(state: State) -> State:
    """The background is the first class of torchvision; its boxes are not used."""
    renamed = _rename(state, _FROM_DETECTRON2)
    for name, tensor in renamed.items():
        if ".box_predictor.cls_score." in name:
            renamed[name] = tensor.roll(1, 0)
        elif ".box_predictor.bbox_pred." in name:
            renamed[name] = torch.cat([torch.zeros_like(tensor[:4]), tensor])
    return renamed


def _to_library(state: State) -> State:
    """A frozen batch norm gets the step counter that torchvision's usual one has, and which has no effect."""
    renamed = _rename(state, _TO_LIBRARY)
    norms = [name.removesuffix(_VARIANCE) for name in renamed if name.endswith(_VARIANCE)]
    return renamed | {f"{name}{_COUNTER}": torch.tensor(0) for name in norms if f"{name}{_COUNTER}" not in renamed}


def _rename(state: State, rules: _Rules) -> State:
    """Rename every tensor by the rule that matches; raise `InputError` for one without a rule."""
    renamed = {}
    for name, tensor in state.items():
        found = [re.sub(pattern, new, name) for pattern, new in rules if re.match(pattern, name)]
        if not found:
            raise InputError(f"the tensor {name} has no place in the other format; export to its own engine")
        renamed[found[0]] = tensor
    return renamed


# By MODEL.ROI_BOX_HEAD.POOLER_TYPE.
_DIFFERENCES = {
    "ROIAlign": "# torchvision resizes images otherwise, so that boxes and scores differ slightly from the run's.",
    "ROIAlignV2": "# torchvision resizes images otherwise and pools regions half a pixel off ROIAlignV2, so that\n"
    "# boxes and scores differ slightly from the run's.",
}


def usage(cfg: CfgNode, path: Path, target: str) -> str:
    """Return the lines that load the file: of a detectron2 config, or Python for torchvision."""
    if target == "detectron2":
        return f'MODEL:\n  WEIGHTS: "{path.absolute()}"  # with the run\'s MODEL, INPUT and TEST.DETECTIONS_PER_IMAGE'
    model, anchors = cfg.MODEL, cfg.MODEL.ANCHOR_GENERATOR
    ratios = list(anchors.ASPECT_RATIOS) * (5 if len(anchors.ASPECT_RATIOS) == 1 else 1)
    widths = [model.RESNETS.RES2_OUT_CHANNELS * 2**n for n in range(4)]
    norm = "norm_layer=lambda channels: torch.nn.GroupNorm(32, channels)" if model.RESNETS.NORM == "GN" else ""
    classes, channels, head = model.ROI_HEADS.NUM_CLASSES + 1, model.FPN.OUT_CHANNELS, model.ROI_BOX_HEAD
    heads, rpn = model.ROI_HEADS, model.RPN
    sampling = head.POOLER_SAMPLING_RATIO or -1  # 0 of ours: as many samples as pixels
    mean, std = ([round(value / 255, 6) for value in values] for values in (model.PIXEL_MEAN, model.PIXEL_STD))
    return f"""import torch, torchvision
from torchvision.models.detection import FasterRCNN, backbone_utils, faster_rcnn
from torchvision.models.detection.anchor_utils import AnchorGenerator
net = torchvision.models.resnet{model.RESNETS.DEPTH}({norm})
stages = dict(layer1="0", layer2="1", layer3="2", layer4="3")
detector = FasterRCNN(
    backbone_utils.BackboneWithFPN(net, stages, {widths}, {channels}),
    rpn_anchor_generator=AnchorGenerator({_tuples(anchors.SIZES)}, {_tuples(ratios)}),
    box_head=faster_rcnn.TwoMLPHead({channels * head.POOLER_RESOLUTION**2}, {head.FC_DIM}),
    box_predictor=faster_rcnn.FastRCNNPredictor({head.FC_DIM}, {classes}),
    box_roi_pool=torchvision.ops.MultiScaleRoIAlign(list("0123"), {head.POOLER_RESOLUTION}, {sampling}),
    rpn_pre_nms_top_n_test={rpn.PRE_NMS_TOPK_TEST}, rpn_post_nms_top_n_test={rpn.POST_NMS_TOPK_TEST},
    rpn_nms_thresh={rpn.NMS_THRESH}, box_nms_thresh={heads.NMS_THRESH_TEST},
    box_score_thresh={heads.SCORE_THRESH_TEST}, box_detections_per_img={cfg.TEST.DETECTIONS_PER_IMAGE},
    min_size={cfg.INPUT.MIN_SIZE_TEST}, max_size={cfg.INPUT.MAX_SIZE_TEST}, image_mean={mean}, image_std={std},
)
detector.load_state_dict(torch.load("{path.absolute()}", weights_only=True))
{_DIFFERENCES[head.POOLER_TYPE]}"""


def _tuples(lists: Sequence[Sequence[float]]) -> str:
    return str(tuple(tuple(one) for one in lists))
