"""Faster R-CNN with a feature pyramid, on torchvision's proposal network and matching.

Differences from torchvision's own class: images arrive resized, padded and as uint8, so
without a transform; losses, initial weights and RoIAlign follow detectron2, so that a key means the
same for both engines; boxes are float32 regardless of the precision of the network.

Letters: B images of 3 x H x W, A anchors per image, R regions, C channels, K classes without background.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork, batched_nms, clip_boxes_to_image, remove_small_boxes, roi_align

Targets = list[dict[str, Tensor]]
STRIDES = (4, 8, 16, 32)  # of res2 .. res5
# FPN, eq. 1 (Lin et al. 2017, arXiv:1612.03144): a region of 224 pixels is pooled from the level of stride 16.
CANONICAL_SIZE, CANONICAL_LEVEL = 224, 2


class FasterRCNN(nn.Module):
    """Maps images to losses (training) or detections (evaluation).

    Args:
        body: network with `stages(x)` -> {"res2" .. "res5"}.
        pyramid: FeaturePyramidNetwork over these four, with one more level.
        mean, std: per channel, range 0..255.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        pyramid: FeaturePyramidNetwork,
        proposals: "ProposalNetwork",
        heads: "BoxHeads",
        mean: list[float],
        std: list[float],
    ) -> None:
        super().__init__()
        self.body, self.pyramid, self.proposals, self.heads = body, pyramid, proposals, heads
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(
        self, images: Tensor, sizes: list[tuple[int, int]], targets: Targets | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """
        Args:
            images: (B, 3, H, W) uint8, padded.
            sizes: (height, width) of each image without padding.
            targets: in training, B times {"boxes": (n, 4) float32, "labels": (n,) 1 .. K}.

        Returns:
            in training four losses, otherwise B times {"boxes", "scores", "labels"}, best first.
        """
        x = self.normalize(images, sizes)
        stages: Any = self.body.stages
        features = self.pyramid(OrderedDict(stages(x.contiguous(memory_format=torch.channels_last))))
        batch = ImageList(x, sizes)
        proposals, rpn_losses = self.proposals(batch, features, targets)
        detections, box_losses = self.heads(features, proposals, sizes, targets)
        return {**rpn_losses, **box_losses} if self.training else detections

    def normalize(self, images: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """Normalise the images of `forward` for the body: (B, 3, H, W) float."""
        # NOTE: padding is zero after normalisation, as in detectron2.
        return (images - self.mean) / self.std * _inside(sizes, images)


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's proposal network with detectron2's box loss; float32 after its convolutions."""

    def __init__(self, *args: object, smooth_l1_beta: float, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.smooth_l1_beta = smooth_l1_beta

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: Targets | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        maps = list(features.values())
        scores, deltas = self.head(maps)
        anchors = self.anchor_generator(images, [m.float() for m in maps])
        level_sizes = [s[0].numel() for s in scores]
        scores, deltas = concat_box_prediction_layers([s.float() for s in scores], [d.float() for d in deltas])
        boxes = self.box_coder.decode(deltas.detach(), anchors).view(len(anchors), -1, 4)
        proposals, _ = self.filter_proposals(boxes, scores, images.image_sizes, level_sizes)
        if targets is None:
            return proposals, {}
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        wanted = self.box_coder.encode(matched, anchors)
        objectness_loss, box_loss = self.compute_loss(scores, deltas, labels, wanted)
        return proposals, {"loss_rpn_cls": objectness_loss, "loss_rpn_loc": box_loss}

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        positive, negative = (torch.cat(masks).bool() for masks in self.fg_bg_sampler(labels))
        chosen = positive | negative
        truth, wanted = torch.cat(labels), torch.cat(regression_targets)
        count = chosen.sum().clamp(min=1)
        losses = smooth_l1(pred_bbox_deltas[positive], wanted[positive], self.smooth_l1_beta)
        objectness_loss = F.binary_cross_entropy_with_logits(
            objectness.flatten()[chosen], truth[chosen], reduction="sum"
        )
        return objectness_loss / count, losses / count


class BoxHeads(RoIHeads):
    """torchvision's second stage with detectron2's box loss, and much faster inference at score 0."""

    def __init__(self, *args: object, smooth_l1_beta: float) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.smooth_l1_beta = smooth_l1_beta

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: Targets | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        labels, wanted = [], []
        if self.training:
            proposals, _, labels, wanted = self.select_training_samples(proposals, targets)
        pooled = self.box_head(self.box_roi_pool(features, proposals))
        logits, deltas = (output.float() for output in self.box_predictor(pooled))
        if self.training:
            return [], self.losses(logits, deltas, torch.cat(labels), torch.cat(wanted))
        found = self.postprocess_detections(logits, deltas, proposals, image_shapes)
        return [dict(zip(("boxes", "scores", "labels"), one, strict=True)) for one in zip(*found, strict=True)], {}

    def losses(self, logits: Tensor, deltas: Tensor, labels: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Compute losses from logits (R, K + 1), deltas (R, 4 (K + 1)), labels (R,) (0: background), wanted (R, 4)."""
        positive = torch.where(labels > 0)[0]
        own = deltas.view(len(labels), -1, 4)[positive, labels[positive]]
        box_loss = smooth_l1(own, wanted[positive], self.smooth_l1_beta) / max(len(labels), 1)
        return {"loss_cls": F.cross_entropy(logits, labels), "loss_box_reg": box_loss}

    def postprocess_detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        counts = [len(boxes) for boxes in proposals]
        boxes = self.box_coder.decode(box_regression, proposals).split(counts)
        scores = class_logits.softmax(-1).split(counts)
        found = [self._best(*one) for one in zip(boxes, scores, image_shapes, strict=True)]
        return tuple(map(list, zip(*found, strict=True)))  # type: ignore[return-value]

    def _best(self, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the detections of one image: boxes (n, 4), scores (n,), labels (n,), by decreasing score.

        Suppression is greedy from the best score down, so its result on the best M candidates is a prefix
        of its result on all: if M give enough detections, the rest can be skipped.
        """
        classes = scores.shape[1]
        boxes = clip_boxes_to_image(boxes, size)[:, 1:].reshape(-1, 4)
        labels = torch.arange(1, classes, device=scores.device).expand(len(scores), -1).reshape(-1)
        scores = scores[:, 1:].reshape(-1)
        kept = remove_small_boxes(boxes, min_size=1e-2)
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        scores, order = scores.sort(descending=True, stable=True)
        boxes, labels = boxes[order], labels[order]
        tried = 4 * self.detections_per_img
        while True:
            best = batched_nms(boxes[:tried], scores[:tried], labels[:tried], self.nms_thresh)
            if len(best) >= self.detections_per_img or tried >= len(scores):
                best = best[: self.detections_per_img]
                return boxes[best], scores[best], labels[best]
            tried *= 4


class RoIPooler(nn.Module):
    """Pools every region from the pyramid level that fits its size: (R, C, resolution, resolution) float32.

    Args:
        sampling_ratio: samples per cell and side; 0: as many as pixels.
        aligned: half-pixel exact (ROIAlignV2).
    """

    def __init__(self, resolution: int, sampling_ratio: int, aligned: bool) -> None:
        super().__init__()
        self.resolution, self.sampling_ratio, self.aligned = resolution, sampling_ratio, aligned

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor]) -> Tensor:
        maps = list(features.values())[: len(STRIDES)]
        image = torch.cat([torch.full_like(one[:, :1], n) for n, one in enumerate(boxes)])
        regions = torch.cat([image, torch.cat(boxes)], dim=1)
        levels = assign_levels(regions[:, 1:])
        pooled = regions.new_zeros(len(regions), maps[0].shape[1], self.resolution, self.resolution)
        for level, (feature, stride) in enumerate(zip(maps, STRIDES, strict=True)):
            here = torch.where(levels == level)[0]
            pooled[here] = roi_align(
                feature.float(), regions[here], self.resolution, 1 / stride, self.sampling_ratio, self.aligned
            )
        return pooled


class BoxHead(nn.Module):
    """Fully connected layers over a pooled region."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        sizes = [inputs, *[width] * layers]
        layers_of_sizes = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.layers = nn.ModuleList(layers_of_sizes)
        for layer in layers_of_sizes:
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class BoxPredictor(nn.Module):
    """Class scores and box deltas of a region; initialised near "no class, box as proposed"."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(inputs, classes + 1)
        self.bbox_pred = nn.Linear(inputs, 4 * (classes + 1))
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


def build_anchors(sizes: list[list[int]], ratios: list[list[float]]) -> AnchorGenerator:
    """Build the anchors of every level: `sizes` has one list per level, `ratios` one for all or one per level."""
    ratios = ratios * len(sizes) if len(ratios) == 1 else ratios
    return AnchorGenerator(tuple(map(tuple, sizes)), tuple(map(tuple, ratios)))


def assign_levels(boxes: Tensor) -> Tensor:
    """Return the level 0 .. 3 (stride 4 .. 32), (R,), of boxes (R, 4): floor(k0 + log2(sqrt(area) / 224)), clamped."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_SIZE + 1e-8))
    return level.clamp(0, len(STRIDES) - 1).long()


def smooth_l1(found: Tensor, wanted: Tensor, beta: float) -> Tensor:
    """Return the sum () of |d| - beta / 2 where |d| > beta, else d^2 / (2 beta); plain L1 at beta 0."""
    return F.smooth_l1_loss(found, wanted, beta=beta, reduction="sum")


def _inside(sizes: list[tuple[int, int]], images: Tensor) -> Tensor:
    """Return a mask, (B, 1, H, W) or (1,): 1 inside each image, 0 in the padding."""
    if all(size == images.shape[-2:] for size in sizes):
        return images.new_ones(1, dtype=torch.float32)
    mask = images.new_zeros(len(sizes), 1, *images.shape[-2:], dtype=torch.float32)
    for one, (height, width) in zip(mask, sizes, strict=True):
        one[:, :height, :width] = 1
    return mask
