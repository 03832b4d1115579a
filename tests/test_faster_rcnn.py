"""The mathematics of the torchvision detector, against closed forms and slow implementations in plain Python."""

import math

import numpy as np
import pytest
import torch
from torchvision.models.detection.rpn import RPNHead

from detection.engines.torchvision.faster_rcnn import (
    STRIDES,
    BoxHead,
    BoxHeads,
    BoxPredictor,
    FasterRCNN,
    ProposalNetwork,
    RoIPooler,
    assign_levels,
    build_anchors,
    smooth_l1,
)


def random_boxes(generator, count, size=200.0, smallest=4.0):
    corners = torch.rand(count, 2, generator=generator) * (size - smallest)
    sides = smallest + torch.rand(count, 2, generator=generator) * (size - smallest - corners)
    return torch.cat([corners, corners + sides], dim=1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


# ------------------------------------------------------------------------------------------- losses


def slow_smooth_l1(found, wanted, beta):
    total = 0.0
    for a, b in zip(found.flatten().tolist(), wanted.flatten().tolist(), strict=True):
        d = abs(a - b)
        total += d - beta / 2 if d >= beta else d * d / (2 * beta)
    return total


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_smooth_l1(generator, beta):
    found, wanted = torch.randn(2, 20, 4, generator=generator, dtype=torch.float64)
    assert smooth_l1(found, wanted, beta).item() == pytest.approx(slow_smooth_l1(found, wanted, beta), rel=1e-12)
    assert smooth_l1(found[:0], wanted[:0], beta) == 0  # a batch without objects
    at = torch.tensor([beta], dtype=torch.float64)  # where both pieces meet, in value and in slope
    for d in (1 - 1e-9, 1 + 1e-9):
        assert smooth_l1(at * d, at * 0, beta).item() == pytest.approx(beta / 2, abs=1e-8)


def make_proposals(batch_size=10_000, beta=0.0, **options):
    anchors = build_anchors([[16], [32]], [[0.5, 1.0, 2.0]])
    top = {"training": 50, "testing": 50}
    return ProposalNetwork(
        anchors, RPNHead(4, 3), fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size_per_image=batch_size,
        positive_fraction=0.5, pre_nms_top_n=top, post_nms_top_n=top, nms_thresh=0.7, smooth_l1_beta=beta, **options,
    )  # fmt: skip


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_proposal_losses_are_means_over_the_sampled_anchors(generator, beta):
    """Every anchor of both images fits into the sample, so none is left to chance; -1 does not count."""
    network = make_proposals(beta=beta)
    labels = [torch.tensor([1, 0, -1, 0, 1, 0.0]), torch.tensor([0, 0, -1, 1, -1, 0.0])]
    scores = torch.randn(12, 1, generator=generator)
    deltas, wanted = torch.randn(2, 12, 4, generator=generator)
    losses = network.compute_loss(scores, deltas, labels, list(wanted.split(6)))
    objectness = boxes = 0.0
    sampled = [n for n, label in enumerate(torch.cat(labels).tolist()) if label >= 0]
    for n in sampled:
        p = 1 / (1 + math.exp(-scores[n].item()))
        if torch.cat(labels)[n] == 1:
            objectness -= math.log(p)
            boxes += slow_smooth_l1(deltas[n], wanted[n], beta)
        else:
            objectness -= math.log(1 - p)
    assert len(sampled) == 9
    assert losses[0].item() == pytest.approx(objectness / 9, rel=1e-5)
    assert losses[1].item() == pytest.approx(boxes / 9, rel=1e-5)


def test_proposal_sampling_keeps_its_size_and_its_share():
    network = make_proposals(batch_size=8)
    labels = [torch.ones(100), torch.cat([torch.ones(1), torch.zeros(99)])]
    positive, negative = network.fg_bg_sampler(labels)
    assert [int(p.sum()) for p in positive] == [4, 1]
    assert [int(n.sum()) for n in negative] == [0, 7]


def make_heads(classes=3, detections=20, score=0.0, overlap=0.5, beta=0.0, resolution=2):
    return BoxHeads(
        RoIPooler(resolution, 1, aligned=True), BoxHead(4 * resolution**2, 8, 2), BoxPredictor(8, classes),
        0.5, 0.5, 32, 0.25, (10.0, 10.0, 5.0, 5.0), score, overlap, detections, smooth_l1_beta=beta,
    )  # fmt: skip


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_region_losses_use_the_own_classs_box_and_count_all_regions(generator, beta):
    regions, classes = 9, 3
    logits = torch.randn(regions, classes + 1, generator=generator)
    deltas = torch.randn(regions, 4 * (classes + 1), generator=generator)
    wanted = torch.randn(regions, 4, generator=generator)
    labels = torch.tensor([0, 1, 3, 0, 2, 0, 0, 3, 0])
    losses = make_heads(classes, beta=beta).losses(logits, deltas, labels, wanted)
    classification = boxes = 0.0
    for r, label in enumerate(labels.tolist()):
        weights = [math.exp(v) for v in logits[r].tolist()]
        classification -= math.log(weights[label] / sum(weights))
        if label:
            boxes += slow_smooth_l1(deltas[r, 4 * label : 4 * label + 4], wanted[r], beta)
    assert losses["loss_cls"].item() == pytest.approx(classification / regions, rel=1e-5)
    assert losses["loss_box_reg"].item() == pytest.approx(boxes / regions, rel=1e-5)


# ------------------------------------------------------------------------------------------ regions


def test_levels_double_with_the_side():
    """A side of 112 begins the level of stride 8, 224 that of 16, 448 that of 32 (FPN, eq. 1)."""
    sides = {1: 0, 56: 0, 111.9: 0, 112: 1, 223.9: 1, 224: 2, 447.9: 2, 448: 3, 900: 3, 5000: 3}
    boxes = torch.tensor([[10, 20, 10 + side, 20 + side] for side in sides])
    assert assign_levels(boxes).tolist() == list(sides.values())
    # Only the area counts, and a box without one stays below.
    assert assign_levels(torch.tensor([[0, 0, 56, 4 * 224.0], [0, 0, 0, 9.0]])).tolist() == [2, 0]


def ramps(size):
    """Of every level, the x and the y of each cell's centre, in pixels of the image."""
    features = {}
    for level, stride in enumerate((*STRIDES, 64)):
        centre = (torch.arange(size // stride) + 0.5) * stride
        features[f"p{level}"] = torch.stack(torch.meshgrid(centre, centre, indexing="xy"))[None].repeat(2, 1, 1, 1)
    return features


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_pooled_ramps_are_the_centres_of_the_cells(aligned, sampling_ratio):
    """On features that are their own coordinates a cell pools its own centre, on every level.

    ROIAlign's first version reads half a cell of the level further on.
    """
    boxes = torch.tensor([[100, 200, 160, 240], [150, 101, 290, 261], [64, 128, 384, 256], [200, 100, 700, 720.0]])
    levels = assign_levels(boxes).tolist()
    assert levels == [0, 1, 1, 3]
    boxes = torch.cat([boxes, torch.tensor([[128, 128, 384, 384.0]])])  # level 2
    pooled = RoIPooler(4, sampling_ratio, aligned)(ramps(1024), [boxes[:2], boxes[2:]])
    assert pooled.shape == (5, 2, 4, 4)
    for box, cells, level in zip(boxes.tolist(), pooled, [*levels, 2], strict=True):
        shift = 0 if aligned else STRIDES[level] / 2
        steps = (torch.arange(4) + 0.5) / 4
        x, y = (low + steps * (high - low) + shift for low, high in (box[::2], box[1::2]))
        torch.testing.assert_close(cells, torch.stack(torch.meshgrid(x, y, indexing="xy")), rtol=1e-5, atol=1e-3)


def test_each_region_comes_from_its_own_image_and_level(generator):
    """On features constant per image and level, the pooled value says which was read; the order is kept."""
    features = {f"p{n}": torch.full((2, 1, 512 // s, 512 // s), 10.0 * n) for n, s in enumerate((*STRIDES, 64))}
    for feature in features.values():
        feature[1] += 1
    boxes = [random_boxes(generator, 30, size=500), random_boxes(generator, 20, size=500)]
    pooled = RoIPooler(3, 0, aligned=True)(features, boxes)
    expected = 10.0 * assign_levels(torch.cat(boxes)) + torch.tensor([0.0] * 30 + [1.0] * 20)
    torch.testing.assert_close(pooled, expected[:, None, None, None].expand(-1, 1, 3, 3))


# --------------------------------------------------------------------------------------- detections


def slow_nms(boxes, scores, limit):
    """Positions kept, best first: every one that overlaps none of the kept by more than `limit`."""
    kept = []
    for n in np.argsort(-scores, kind="stable"):
        low, high = np.maximum(boxes[n, :2], boxes[kept, :2]), np.minimum(boxes[n, 2:], boxes[kept, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=-1)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        if not (shared / (area[n] + area[kept] - shared) > limit).any():
            kept.append(n)
    return kept


def slow_best(boxes, scores, most, limit, threshold=0.0):
    """The `most` best of every class's suppression: [(score, label, box)]."""
    found = []
    for label in range(1, scores.shape[1]):
        chosen = np.flatnonzero(scores[:, label] > threshold)
        kept = chosen[slow_nms(boxes[chosen, label], scores[chosen, label], limit)]
        found += [(scores[n, label], label, boxes[n, label]) for n in kept]
    return sorted(found, key=lambda one: -one[0])[:most]


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_suppressing_the_best_first_equals_suppressing_all(generator, crowded, threshold):
    """`crowded`: the best half lies at one place and falls but for one a class, so that more must be tried.

    What scores above a threshold is what an inference at that threshold gives: one inference serves AP and AR.
    """
    boxes = random_boxes(generator, 200 * 4).view(200, 4, 4)
    scores = (4 * torch.randn(200, 4, generator=generator)).softmax(dim=1)
    if crowded:
        boxes[:100] = torch.tensor([50, 50, 150, 150.0]) + boxes[:100] / 20
        scores[100:] /= 1000
    found = make_heads(classes=3, detections=20)._best(boxes, scores, (200, 200))
    assert len(found[1]) == 20
    above = found[1] > threshold
    expected = slow_best(boxes.double().numpy(), scores.double().numpy(), 20, 0.5, threshold)
    assert [int(v) for v in found[2][above]] == [label for _, label, _ in expected]
    np.testing.assert_allclose(found[1][above], [score for score, _, _ in expected], rtol=1e-6)
    np.testing.assert_allclose(found[0][above], np.stack([box for _, _, box in expected]), rtol=1e-6)


def test_detections_are_cut_to_the_image_and_empty_ones_go():
    boxes = torch.tensor([[[0, 0, 1, 1], [-50, 10, 30, 900]], [[0, 0, 1, 1], [300, 300, 400, 400.0]]])
    scores = torch.tensor([[0.1, 0.9], [0.2, 0.8]])
    found, kept, labels = make_heads(classes=1)._best(boxes, scores, (100, 200))  # height, width
    assert found.tolist() == [[0, 10, 30, 100]]  # the other lies outside
    assert kept.tolist() == pytest.approx([0.9])
    assert labels.tolist() == [1]


def test_an_untouched_head_leaves_boxes_as_proposed(generator):
    """Deltas of zero decode to the proposals themselves, for every class."""
    proposals = random_boxes(generator, 5)
    logits = torch.eye(4)[[1, 2, 3, 1, 2]] * 9
    found = make_heads(classes=3, detections=5, overlap=1.0).postprocess_detections(
        logits, torch.zeros(5, 16), [proposals], [(200, 200)]
    )
    np.testing.assert_allclose(sorted(found[0][0].tolist()), sorted(proposals.tolist()), atol=1e-3)
    assert sorted(found[2][0].tolist()) == [1, 1, 2, 2, 3]


# ------------------------------------------------------------------------------------------ pixels


class Recorder(torch.nn.Module):
    """In place of the body: keeps what it is given and stops there."""

    def stages(self, x):
        raise StopIteration(x)


def test_images_are_normalised_and_their_padding_is_zero():
    mean, std = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]
    detector = FasterRCNN(Recorder(), None, None, None, mean, std)
    images = torch.full((2, 3, 32, 64), 130, dtype=torch.uint8)
    with pytest.raises(StopIteration) as stopped:
        detector(images, [(32, 64), (20, 30)])
    x = stopped.value.args[0]
    inside = torch.tensor([(130 - m) / s for m, s in zip(mean, std, strict=True)])
    torch.testing.assert_close(x[0], inside[:, None, None].expand(3, 32, 64))
    torch.testing.assert_close(x[1, :, :20, :30], inside[:, None, None].expand(3, 20, 30))
    assert not x[1, :, 20:].any()
    assert not x[1, :, :, 30:].any()
