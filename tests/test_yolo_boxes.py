"""Boxes of YOLO: closed forms of the overlaps, the code and its inverse, and which anchor learns which box."""

import pytest
import torch
from helpers.yolo_slow import assign_image

from detection.engines.yolo.anchors import VOC_ANCHORS
from detection.engines.yolo.assignment import assign, choose_anchors
from detection.engines.yolo.boxes import (
    box_giou,
    box_iou,
    decode_boxes,
    decode_map,
    encode_boxes,
    pairwise_iou,
    shape_iou,
)

STRIDES = (8, 16, 32)


def boxes_of(*rows, dtype=torch.float64):
    return torch.tensor(rows, dtype=dtype)


# Overlaps


def test_overlaps_have_their_closed_forms():
    square = boxes_of((0, 0, 2, 2))
    others = boxes_of((0, 0, 2, 2), (1, 0, 3, 2), (0.5, 0.5, 1.5, 1.5), (2, 0, 4, 2), (8, 0, 10, 2), (4, 4, 6, 6))
    assert box_iou(square, others).tolist() == pytest.approx([1, 1 / 3, 1 / 4, 0, 0, 0])
    # Hulls of 4, 6, 4, 8, 20 and 36; unions of 4, 6, 4, 8, 8 and 8.
    expected = [1, 1 / 3, 1 / 4, 0, -12 / 20, -28 / 36]
    assert box_giou(square, others).tolist() == pytest.approx(expected)
    assert box_giou(others, square).tolist() == pytest.approx(expected)


def test_empty_boxes_have_no_overlap_and_no_nan():
    point, square = boxes_of((1, 1, 1, 1)), boxes_of((0, 0, 2, 2))
    assert box_iou(point, square).item() == box_iou(point, point).item() == 0
    assert box_giou(point, point).isfinite().all()
    assert shape_iou(torch.zeros(2), torch.zeros(2)) == 0


def test_pairs_are_all_pairs():
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 7, 2, 2, generator=random, dtype=torch.float64)
    boxes = torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=-1)
    a, b = boxes[:, :4], boxes[:, 4:]
    pairs = pairwise_iou(a, b)
    for image in range(2):
        for i in range(4):
            for j in range(3):
                assert pairs[image, i, j] == box_iou(a[image, i], b[image, j])


def test_gradients_are_those_of_finite_differences():
    truth = boxes_of((10, 12, 42, 60), (5, 5, 9, 9))
    predicted = boxes_of((14, 8, 50, 55), (20, 21, 30, 33)).requires_grad_()
    assert torch.autograd.gradcheck(lambda boxes: box_giou(boxes, truth), predicted)
    assert torch.autograd.gradcheck(lambda boxes: box_iou(boxes, truth), predicted)
    # Apart, IoU is flat, but GIoU still pulls.
    (gradient,) = torch.autograd.grad(box_giou(predicted, truth)[1], predicted)
    assert gradient[1].abs().sum() > 0
    code = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    anchors, cells = torch.rand(5, 2, dtype=torch.float64) + 1, torch.arange(10.0).view(5, 2).double()
    assert torch.autograd.gradcheck(lambda values: decode_boxes(values, anchors, cells, 8), code)


# The code


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 1e-3)])
def test_encoding_is_the_inverse_of_decoding(dtype, tolerance):
    random = torch.Generator().manual_seed(0)
    cells = torch.randint(19, (500, 2), generator=random).to(dtype)
    anchors = 0.5 + 10 * torch.rand(500, 2, generator=random, dtype=dtype)
    code = torch.empty(500, 4, dtype=dtype).uniform_(-4, 4, generator=random)
    for stride in STRIDES:
        boxes = decode_boxes(code, anchors, cells, stride)
        torch.testing.assert_close(encode_boxes(boxes, anchors, cells, stride), code, rtol=0, atol=tolerance)
        assert (
            ((boxes[:, :2] + boxes[:, 2:]) / 2 / stride - cells)
            .clamp(0, 1)
            .equal((boxes[:, :2] + boxes[:, 2:]) / 2 / stride - cells)
        )  # the centre is in its cell
    # And the other way, at centres on the very edge of a cell.
    boxes = boxes_of((8, 8, 24, 40), (0, 0, 16, 16), (3, 9, 90, 50), dtype=dtype)
    cells = ((boxes[:, :2] + boxes[:, 2:]) / 16).floor()
    anchor = torch.tensor([2.0, 3.0], dtype=dtype)
    again = decode_boxes(encode_boxes(boxes, anchor, cells, 8), anchor, cells, 8)
    torch.testing.assert_close(again, boxes, rtol=1e-6, atol=2e-5)


def test_a_map_is_decoded_cell_by_cell():
    random = torch.Generator().manual_seed(0)
    code, anchors = torch.randn(2, 3, 4, 5, 4, generator=random), torch.tensor(VOC_ANCHORS[1])
    boxes = decode_map(code, anchors, 16)
    for a in range(3):
        for row in range(4):
            for column in range(5):
                one = decode_boxes(code[:, a, row, column], anchors[a], torch.tensor([column, row]), 16)
                torch.testing.assert_close(boxes[:, a, row, column], one)
    zero = decode_map(torch.zeros(1, 1, 1, 2, 4), torch.tensor([[2.0, 4.0]]), 8)
    assert zero.view(2, 4).tolist() == [[-4, -12, 12, 20], [4, -12, 20, 20]]


def test_a_wild_prediction_stays_finite():
    assert decode_boxes(torch.full((4,), 1e6), torch.ones(2), torch.zeros(2), 32).isfinite().all()


# Assignment


def assign_one(boxes, anchors, sides=(64, 64), labels=None):
    boxes = torch.as_tensor(boxes, dtype=torch.float32)[None]
    valid = torch.ones(boxes.shape[:2], dtype=torch.bool) if labels is None else torch.as_tensor(labels)[None] >= 0
    sizes = [(sides[0] // stride, sides[1] // stride) for stride in STRIDES]
    return assign(boxes, valid, [torch.tensor(own) for own in anchors], STRIDES, sizes, 0.3)


def learned(found):
    """{(scale, anchor, row, column): number of the box}"""
    places = {}
    for scale, own in enumerate(found):
        for _, number, a in own.positive.nonzero().tolist():
            place = (scale, a, own.row[0, number].item(), own.column[0, number].item())
            assert place not in places
            assert own.taken[(0, *place[1:])]
            places[place] = number
        assert own.taken.sum() == own.positive.sum()
    return places


def test_an_anchor_learns_above_the_threshold_not_at_it():
    # A box of 10 x 30 pixels: the anchors at stride 8 share 0.3 exactly, a little more, and a little less of it.
    anchors = [[[30 / 8, 30 / 8], [10 / 8, 9.1 / 8], [10 / 8, 8.9 / 8]]] + [[[50.0, 50.0]] * 3] * 2
    fit = shape_iou(torch.tensor([10.0, 30.0]), torch.tensor([[10.0, 9.0], [10.0, 9.1], [10.0, 8.9]]))
    assert fit.tolist() == pytest.approx([0.3, 0.30333, 0.29667], abs=1e-5)
    assert choose_anchors(torch.tensor([[0.3, 0.3001, 0.2999]]), 0.3).tolist() == [[False, True, False]]
    assert choose_anchors(torch.tensor([[0.3, 0.2, 0.3]]), 0.3).tolist() == [
        [True, False, False]
    ]  # none: the first best
    assert choose_anchors(torch.tensor([[0.31, 0.9, 0.5]]), 0.3).tolist() == [[True, True, True]]
    places = learned(assign_one([[20, 20, 30, 50]], anchors))
    assert places == {(0, 0, 4, 3): 0, (0, 1, 4, 3): 0}  # 300 / 900 is above 0.3


def test_without_a_fitting_anchor_the_best_of_all_scales_learns():
    anchors = [[[0.1, 0.1], [0.2, 0.2], [0.1, 0.2]], [[9.0, 9.0]] * 3, [[9.0, 9.0], [20.0, 20.0], [8.0, 8.0]]]
    assert learned(assign_one([[20, 20, 30, 50]], anchors)) == {(1, 0, 2, 1): 0}


def test_the_better_fit_wins_a_collision_then_the_first():
    anchors = [[[4.0, 4.0]] + [[0.1, 0.1]] * 2, [[60.0, 60.0]] * 3, [[60.0, 60.0]] * 3]
    close, exact, same = [4, 4, 34, 34], [3, 3, 35, 35], [4, 3, 36, 35]  # centres 19, 19, 20: one cell of stride 8
    assert learned(assign_one([close, exact], anchors)) == {(0, 0, 2, 2): 1}
    assert learned(assign_one([exact, close], anchors)) == {(0, 0, 2, 2): 0}
    assert learned(assign_one([exact, same], anchors)) == {(0, 0, 2, 2): 0}
    assert learned(assign_one([same, exact, close], anchors)) == {(0, 0, 2, 2): 0}


def test_a_centre_on_the_border_is_in_the_last_cell_and_padding_is_nothing():
    places = learned(assign_one([[54, 54, 74, 74], [-10, -10, 10, 10], [0, 0, 20, 20]], VOC_ANCHORS, labels=[1, 2, -1]))
    assert {place[2:] for place, number in places.items() if number == 0 and place[0] == 0} == {(7, 7)}
    assert {place[2:] for place, number in places.items() if number == 1} >= {(0, 0)}
    assert 2 not in places.values()


@pytest.mark.parametrize("seed", range(5))
def test_the_assignment_is_the_slow_one(seed):
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(30, 2, 2, generator=random) ** 1.5 * torch.tensor([96.0, 64.0])
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1) + 1], dim=1)
    sizes = [(64 // stride, 96 // stride) for stride in STRIDES]
    expected = assign_image(boxes.double().tolist(), VOC_ANCHORS, sizes)
    assert learned(assign_one(boxes, VOC_ANCHORS, (64, 96))) == expected
    assert len(expected) < 9 * 30  # some collide
