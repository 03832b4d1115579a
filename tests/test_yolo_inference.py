"""From maps to detections: suppression against a plain loop, views mapped back, duplicates joined."""

import pytest
import torch

from detection.engines.yolo.anchors import VOC_ANCHORS
from detection.engines.yolo.boxes import box_iou, encode_boxes
from detection.engines.yolo.inference import Candidates, Rules, View, detect, find_candidates, suppress, to_original

STRIDES, K, ANCHORS = (8, 16, 32), 4, torch.tensor(VOC_ANCHORS)


def random_candidates(seed, images=3, number=60):
    random = torch.Generator().manual_seed(seed)
    corner = 80 * torch.rand(images, number, 2, generator=random)
    boxes = torch.cat([corner, corner + 5 + 40 * torch.rand(images, number, 2, generator=random)], dim=-1)
    scores = torch.rand(images, number, generator=random)
    return Candidates(boxes, scores, torch.randint(K, (images, number), generator=random))


def slow_suppression(boxes, scores, labels, rules):
    """Greedy, one box after the other."""
    kept = []
    for n in sorted(range(len(scores)), key=lambda n: -scores[n]):
        rivals = [m for m in kept if labels[m] == labels[n]]
        if scores[n] > rules.score_threshold and all(box_iou(boxes[m], boxes[n]) <= rules.nms_iou for m in rivals):
            kept.append(n)
    return kept[: rules.max_detections]


@pytest.mark.parametrize("rules", [Rules(), Rules(0.3, 0.2), Rules(max_detections=7)])
def test_suppression_is_the_slow_one(rules):
    candidates = random_candidates(0)
    found = suppress(candidates, rules)
    for image, detections in enumerate(found):
        boxes, scores, labels = (part[image] for part in (candidates.boxes, candidates.scores, candidates.labels))
        kept = slow_suppression(boxes, scores.tolist(), labels.tolist(), rules)
        assert detections["boxes"].equal(boxes[kept])
        assert detections["scores"].equal(scores[kept])
        assert detections["labels"].equal(labels[kept])


def test_a_image_does_not_depend_on_its_neighbours():
    many = random_candidates(1, images=8)
    many.scores[3] = 0  # nothing at all
    together = suppress(many, Rules())
    for n in range(8):
        alone = suppress(Candidates(many.boxes[n : n + 1], many.scores[n : n + 1], many.labels[n : n + 1]), Rules())[0]
        assert all(alone[field].equal(together[n][field]) for field in alone)
    assert together[3]["boxes"].shape == (0, 4)
    assert all(len(found["scores"]) == 0 for found in suppress(many, Rules(score_threshold=1.0)))


def test_groups_are_kept_apart_without_loss_of_digits():
    # Pairs whose IoU is a millionth above or below the threshold, in images and classes far from the first.
    images, sides = 64, torch.tensor([10 + 2e-5, 10 - 2e-5])
    boxes = torch.tensor([[[0.0, 0, 600, 20], [0, 0, 600, 10]]]).repeat(images, 1, 1)
    boxes[:, 1, 3] = sides.repeat(images // 2)
    labels = (torch.arange(images) % 20)[:, None].repeat(1, 2)
    found = suppress(Candidates(boxes, torch.tensor([[0.9, 0.5]]).repeat(images, 1), labels), Rules(nms_iou=0.5))
    assert [len(image["scores"]) for image in found] == [1, 2] * (images // 2)


def test_boxes_outside_the_image_are_no_detections():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 5, 20, 9], [3, 3, 8, 3]]])
    found = suppress(Candidates(boxes, torch.tensor([[0.5, 0.9, 0.8]]), torch.zeros(1, 3, dtype=torch.int64)), Rules())
    assert found[0]["boxes"].tolist() == [[0, 0, 10, 10]]


def silent_maps(side, images=1):
    maps = [torch.zeros(images, 3, side // s, side // s, 5 + K) for s in STRIDES]
    for raw in maps:
        raw[..., 4:] = -20.0
    return maps


def write_box(raw, box, stride, anchor, logits):
    """Make the map predict a box, with (objectness, classes)."""
    box = torch.tensor(box)
    cell = ((box[:2] + box[2:]) / 2 / stride).floor()
    own = raw[0, anchor, int(cell[1]), int(cell[0])]
    own[:4] = encode_boxes(box, ANCHORS[STRIDES.index(stride), anchor], cell, stride)
    own[4:] = torch.tensor(logits)


def test_scores_are_objectness_times_the_best_class():
    maps = silent_maps(64)
    write_box(maps[0], (8.0, 9, 30, 40), 8, 1, [1.0, -9, 2.0, 0.5, -9])
    write_box(maps[2], (2.0, 2, 60, 50), 32, 0, [0.0, -9, -9, -9, 3.0])
    (found,) = detect(lambda _: maps, [plain_view(64)], torch.tensor([[64, 64]]), ANCHORS, STRIDES, Rules())
    assert found["labels"].tolist() == [1, 3]
    sigmoid = torch.tensor([1.0, 2.0, 0.0, 3.0]).sigmoid()
    torch.testing.assert_close(found["scores"], torch.stack([sigmoid[0] * sigmoid[1], sigmoid[2] * sigmoid[3]]))
    torch.testing.assert_close(found["boxes"], torch.tensor([[8.0, 9, 30, 40], [2, 2, 60, 50]]), rtol=0, atol=1e-4)
    rules = Rules(multi_label=True)
    (found,) = detect(lambda _: maps, [plain_view(64)], torch.tensor([[64, 64]]), ANCHORS, STRIDES, rules)
    assert found["labels"].tolist() == [1, 3, 2]
    torch.testing.assert_close(found["scores"][2], sigmoid[0] * torch.tensor(0.5).sigmoid())


@pytest.mark.parametrize("multi_label", [False, True])
def test_candidates_are_the_best_of_all_scales(multi_label):
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, 64 // s, 64 // s, 5 + K, generator=random) for s in STRIDES]
    every = find_candidates(maps, ANCHORS, STRIDES, Rules(max_candidates=0, multi_label=multi_label))
    few = find_candidates(maps, ANCHORS, STRIDES, Rules(max_candidates=10, multi_label=multi_label))
    number = sum(3 * (64 // s) ** 2 for s in STRIDES)
    assert every.scores.shape == (2, number * (K if multi_label else 1))
    for image in range(2):
        assert few.scores[image].equal(every.scores[image][:10])
        assert few.boxes[image].equal(every.boxes[image][:10])
    flat = torch.cat([raw.flatten(1, 3) for raw in maps], dim=1)
    scores = flat[..., 4:5].sigmoid() * flat[..., 5:].sigmoid()
    best = scores.flatten(1) if multi_label else scores.amax(dim=2)
    torch.testing.assert_close(every.scores, best.sort(dim=1, descending=True).values)


# Views


def plain_view(side):
    return View(torch.zeros(1, 3, side, side), torch.ones(1, 2), torch.zeros(1, 2))


@pytest.mark.parametrize("flipped", [False, True])
def test_a_view_is_undone(flipped):
    boxes = torch.tensor([[[10.0, 20, 50, 60]], [[0, 0, 100, 40]]], dtype=torch.float64)
    scale, offset = torch.tensor([[0.5, 0.5], [2.0, 2.0]]), torch.tensor([[8.0, 0.0], [0.0, 30.0]])
    seen = boxes * scale.repeat(1, 2)[:, None] + offset.repeat(1, 2)[:, None]
    if flipped:
        seen = torch.stack([256 - seen[..., 2], seen[..., 1], 256 - seen[..., 0], seen[..., 3]], dim=-1)
    view = View(torch.zeros(2, 3, 256, 256), scale, offset, flipped)
    sizes = torch.tensor([[100, 100], [90, 40]])
    expected = torch.tensor([[[10.0, 20, 50, 60]], [[0, 0, 90, 40]]], dtype=torch.float64)  # cut to the image
    torch.testing.assert_close(to_original(seen, view, sizes), expected)


def test_of_duplicates_in_several_views_the_better_remains():
    # Original 64 x 64.  One view at 64, one at 128, mirrored: both see the object, the second is surer of it.
    small, large = silent_maps(64), silent_maps(128)
    write_box(small[0], (8.0, 10, 30, 40), 8, 1, [1.0, 3.0, -9, -9, -9])
    write_box(large[1], (128 - 60.0, 22, 128 - 18.0, 80), 16, 1, [2.0, 3.0, -9, -9, -9])  # (9, 11, 30, 40)
    write_box(small[2], (30.0, 30, 60, 64), 32, 0, [2.0, -9, 3.0, -9, -9])  # seen in one view alone
    views = [plain_view(64), View(torch.zeros(1, 3, 128, 128), torch.full((1, 2), 2.0), torch.zeros(1, 2), True)]
    maps = {64: small, 128: large}
    for order in (views, views[::-1]):
        (found,) = detect(
            lambda images: maps[images.shape[2]], order, torch.tensor([[64, 64]]), ANCHORS, STRIDES, Rules(nms_iou=0.45)
        )
        assert sorted(found["labels"].tolist()) == [0, 1]
        best = found["labels"].tolist().index(0)
        torch.testing.assert_close(found["boxes"][best], torch.tensor([9.0, 11, 30, 40]), rtol=0, atol=1e-4)
        torch.testing.assert_close(found["scores"][best], torch.tensor(2.0).sigmoid() * torch.tensor(3.0).sigmoid())


def test_the_same_view_twice_changes_nothing():
    random = torch.Generator().manual_seed(2)
    maps = [torch.randn(1, 3, 64 // s, 64 // s, 5 + K, generator=random) for s in STRIDES]
    one, two = (
        detect(lambda _: maps, [plain_view(64)] * n, torch.tensor([[64, 64]]), ANCHORS, STRIDES, Rules())[0]
        for n in (1, 2)
    )
    assert all(one[field].equal(two[field]) for field in one)
