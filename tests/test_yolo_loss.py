"""YOLO's loss against plain loops, at its limits, and what must not change it."""

import math

import pytest
import torch
from helpers import yolo_slow

from detection.engines.yolo.anchors import VOC_ANCHORS
from detection.engines.yolo.boxes import encode_boxes
from detection.engines.yolo.loss import YOLOLoss, focal_loss

STRIDES, K, SIDES = (8, 16, 32), 3, (64, 96)


def make_batch(seed, number=6, images=3, dtype=torch.float64):
    """Random maps, and boxes (B, M, 4) with labels, weights and soft targets; the last image is empty."""
    random = torch.Generator().manual_seed(seed)
    maps = [torch.randn(images, 3, SIDES[0] // s, SIDES[1] // s, 5 + K, generator=random, dtype=dtype) for s in STRIDES]
    corners = torch.rand(images, number, 2, 2, generator=random, dtype=dtype) * torch.tensor(SIDES[::-1], dtype=dtype)
    boxes = torch.cat([corners.amin(dim=2), corners.amax(dim=2) + 1], dim=-1)
    labels = torch.randint(-1, K, (images, number), generator=random)
    labels[-1] = -1
    weights = torch.rand(images, number, generator=random, dtype=dtype)
    targets = torch.rand(images, number, K, generator=random, dtype=dtype)
    return maps, boxes, labels, weights, targets


def build(**options):
    return YOLOLoss(VOC_ANCHORS, **options).double()


def perfect_maps(boxes, labels, confidence):
    """Maps that predict the boxes where they are learned, and nothing elsewhere."""
    loss = build()
    maps = [
        torch.zeros(len(boxes), 3, SIDES[0] // s, SIDES[1] // s, 5 + K, dtype=torch.float64) for s in STRIDES
    ]  # fmt: skip
    for raw in maps:
        raw[..., 4:] = -confidence
    for scale, (raw, found) in enumerate(zip(maps, loss._assign(maps, boxes, labels >= 0), strict=True)):
        for image, number, a in found.positive.nonzero().tolist():
            row, column = found.row[image, number], found.column[image, number]
            cell = torch.stack([column, row]).double()
            anchor = torch.tensor(VOC_ANCHORS[scale][a], dtype=torch.float64)
            own = raw[image, a, row, column]
            own[:4] = encode_boxes(boxes[image, number], anchor, cell, STRIDES[scale])
            own[4] = own[5 + labels[image, number]] = confidence
    return maps


def one_hot(labels):
    return torch.nn.functional.one_hot(labels.clamp(min=0), K).double()


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_slow_one(seed):
    batch = make_batch(seed)
    found = [part.item() for part in build()(*batch).values()]
    assert found == pytest.approx(yolo_slow.loss(*batch, VOC_ANCHORS), rel=1e-9, abs=1e-9)
    single = YOLOLoss(VOC_ANCHORS)([raw.float() for raw in batch[0]], *batch[1:])
    assert [part.item() for part in single.values()] == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_focal_exponent_is_the_slow_one(gamma):
    batch = make_batch(7)
    found = build(gamma=gamma)(*batch)["loss_objectness"].item()
    assert found == pytest.approx(yolo_slow.loss(*batch, VOC_ANCHORS, gamma=gamma)[1], rel=1e-9)


def test_focal_loss_has_its_closed_form():
    logits = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)
    p = logits.sigmoid()
    torch.testing.assert_close(focal_loss(logits, 1.0, 2.0), -((1 - p) ** 2) * p.log())
    torch.testing.assert_close(focal_loss(logits, 0.0, 2.0), -(p**2) * (1 - p).log())
    assert focal_loss(torch.tensor(100.0), 1.0, 2.0) == 0
    assert focal_loss(torch.tensor(100.0), 0.0, 2.0) == 100


def test_a_perfect_prediction_has_no_loss_in_the_limit():
    _, boxes, labels, weights, _ = make_batch(0)
    losses = []
    for confidence in (2.0, 5.0, 10.0, 30.0):
        parts = build()(perfect_maps(boxes, labels, confidence), boxes, labels, weights, one_hot(labels))
        assert 0 <= parts["loss_box"] < 1e-4
        losses.append(float(parts["loss_objectness"] + parts["loss_class"]))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-8


def test_one_box_in_closed_form():
    # One box, exactly at one anchor; everything else is silent.
    anchors = [[[4.0, 4.0]], [[100.0, 100.0]], [[100.0, 100.0]]]
    box, label = torch.tensor([[[12.0, 12, 44, 44]]], dtype=torch.float64), torch.tensor([[1]])
    maps = [torch.zeros(1, 1, SIDES[0] // s, SIDES[1] // s, 5 + K, dtype=torch.float64) for s in STRIDES]
    for raw in maps:
        raw[..., 4] = -1000.0
    target = torch.tensor([[[0.1, 0.8, 0.1]]], dtype=torch.float64)
    own = maps[0][0, 0, 3, 3]  # it predicts (12, 12, 44, 44), the centre in the middle of its cell
    own[2:4], own[4] = math.log(1.5), 0.0  # 48 pixels a side instead of 32
    parts = YOLOLoss(anchors)(maps, box, label, torch.ones(1, 1), target)
    assert parts["loss_box"].item() == pytest.approx((2 - 32**2 / (64 * 96)) * (1 - 32**2 / 48**2), rel=1e-6)
    assert parts["loss_objectness"].item() == pytest.approx(math.log(2) / 4)
    assert parts["loss_class"].item() == pytest.approx(K * math.log(2))
    halved = YOLOLoss(anchors)(maps, box, label, torch.full((1, 1), 0.5), target)
    assert [halved[name].item() for name in parts] == pytest.approx([part.item() / 2 for part in parts.values()])


def test_negatives_on_a_box_are_ignored_from_the_threshold_on():
    anchors = [[[4.0, 4.0]], [[100.0, 100.0]], [[100.0, 100.0]]]
    box, label = torch.tensor([[[12.0, 12, 44, 44]]], dtype=torch.float64), torch.tensor([[0]])
    for side, ignored in ((32 * 0.5**0.5 + 0.01, True), (32 * 0.5**0.5 - 0.01, False)):
        maps = [torch.zeros(1, 1, SIDES[0] // s, SIDES[1] // s, 5 + K, dtype=torch.float64) for s in STRIDES]
        for raw in maps:
            raw[..., 4] = -1000.0
        maps[0][0, 0, 3, 3, 4] = 1000.0  # right
        other = maps[0][0, 0, 3, 4]  # the next cell: a square of `side` wholly inside the box
        other[0], other[2:4], other[4] = -40.0, math.log(side / 32), 0.0
        objectness = YOLOLoss(anchors)(maps, box, label, torch.ones(1, 1), one_hot(label))["loss_objectness"]
        assert objectness.item() == pytest.approx(0 if ignored else math.log(2) / 4)


def test_weights_of_mixup_are_linear_on_positives_alone():
    maps, boxes, labels, _, targets = make_batch(1)
    ones = torch.ones(labels.shape, dtype=torch.float64)
    at = [build()(maps, boxes, labels, share * ones, targets) for share in (0.0, 0.25, 1.0)]
    for name in at[0]:
        assert at[1][name].item() == pytest.approx(0.75 * at[0][name].item() + 0.25 * at[2][name].item())
    assert at[0]["loss_box"] == at[0]["loss_class"] == 0
    assert at[0]["loss_objectness"] > 0  # the background has no weight


def test_padding_changes_nothing():
    maps, boxes, labels, weights, targets = make_batch(2)
    expected = build()(maps, boxes, labels, weights, targets)
    random = torch.Generator().manual_seed(0)
    more = 9
    padded = [
        torch.cat([boxes, 90 * torch.rand(3, more, 4, generator=random).double()], dim=1),
        torch.cat([labels, torch.full((3, more), -1)], dim=1),
        torch.cat([weights, torch.rand(3, more, generator=random).double()], dim=1),
        torch.cat([targets, torch.rand(3, more, K, generator=random).double()], dim=1),
    ]
    torch.testing.assert_close(build()(maps, *padded), expected, rtol=1e-12, atol=0)
    garbage = torch.where(labels[..., None] < 0, float("nan"), boxes)
    torch.testing.assert_close(build()(maps, garbage, labels, weights, targets), expected, rtol=0, atol=0)
    # And in front.
    turned = [torch.roll(part, more, dims=1) for part in padded]
    torch.testing.assert_close(build()(maps, *turned), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("number", [0, 4])
def test_a_batch_without_boxes_has_only_background(number):
    maps, boxes, labels, weights, targets = make_batch(3)
    maps = [raw.requires_grad_() for raw in maps]
    none = torch.full_like(labels[:, :number], -1)
    parts = build()(maps, boxes[:, :number], none, weights[:, :number], targets[:, :number])
    assert parts["loss_box"] == parts["loss_class"] == 0
    expected = sum(focal_loss(raw[..., 4], 0.0, 2.0).sum() for raw in maps) / len(boxes)
    torch.testing.assert_close(parts["loss_objectness"], expected)
    sum(parts.values()).backward()
    assert all(raw.grad.isfinite().all() and (raw.grad[..., :4] == 0).all() for raw in maps)
    logits, found = build().classified(maps, boxes[:, :number], none, weights[:, :number])
    assert (found == -1).all()
    assert len(logits) == len(found)


def test_gradients_are_those_of_finite_differences():
    maps, boxes, labels, weights, targets = make_batch(4, number=3, images=2)
    labels[0, 0] = 1
    pick = [(raw * 0.5).requires_grad_() for raw in maps]

    def total(*raws):
        return sum(build()(raws, boxes, labels, weights, targets).values())

    gradients = torch.autograd.grad(total(*pick), pick)
    random = torch.Generator().manual_seed(0)
    direction = [torch.randn(raw.shape, generator=random, dtype=raw.dtype) for raw in pick]
    step = 1e-6
    ahead, behind = ([r.detach() + s * step * d for r, d in zip(pick, direction, strict=True)] for s in (1, -1))
    slope = float(total(*ahead) - total(*behind)) / (2 * step)
    assert slope == pytest.approx(
        sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True)), rel=1e-5
    )


def test_classified_are_the_positives_of_unmixed_boxes():
    maps, boxes, labels, weights, _ = make_batch(5)
    weights = torch.where(weights < 0.5, 1.0, weights)
    logits, found = build().classified(maps, boxes, labels, weights)
    expected = []
    for image in range(len(boxes)):
        real = [n for n, label in enumerate(labels[image].tolist()) if label >= 0]
        sizes = [tuple(raw.shape[2:4]) for raw in maps]
        places = yolo_slow.assign_image([boxes[image, n].tolist() for n in real], VOC_ANCHORS, sizes)
        for (scale, a, row, column), number in places.items():
            if weights[image, real[number]] == 1:
                expected.append((labels[image, real[number]].item(), maps[scale][image, a, row, column, 5:].tolist()))
    pairs = zip(found.tolist(), logits.tolist(), strict=True)
    assert sorted((label, row) for label, row in pairs if label >= 0) == sorted(expected)
    assert expected


def test_bfloat16_autocast_computes_in_float32():
    maps, boxes, labels, weights, targets = make_batch(6, dtype=torch.float32)
    low = [(8 * raw).bfloat16().requires_grad_() for raw in maps]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = YOLOLoss(VOC_ANCHORS)(low, boxes, labels, weights, targets)
    sum(parts.values()).backward()
    assert all(part.dtype == torch.float32 and part.isfinite() for part in parts.values())
    assert all(raw.grad.isfinite().all() for raw in low)
    torch.testing.assert_close(
        parts, YOLOLoss(VOC_ANCHORS)([raw.float() for raw in low], *(boxes, labels, weights, targets))
    )
    wild = [raw.detach() * 1e4 for raw in low]
    assert all(part.isfinite() for part in YOLOLoss(VOC_ANCHORS)(wild, boxes, labels, weights, targets).values())
