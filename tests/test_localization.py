"""Localisation measures and class activation maps: golden vectors, closed forms, independent formulas."""

import json

import cv2
import numpy as np
import pytest
import torch

from backbones.core.errors import InputError
from backbones.measuring.cam import CAMS, ClassMaps, stretch
from backbones.measuring.localization import (
    THRESHOLDS,
    BoxOverlap,
    LocalizationEvaluator,
    box_overlap,
    contour_boxes,
    energy_in_boxes,
    evenly_spaced,
    inclusive_boxes,
    max_box_accuracy,
    pairwise_iou,
    peak,
    pointing_hit,
    split_accuracy,
    union_mask,
)
from backbones.models import build_model


def smooth_map(seed: int, size: int = 48) -> np.ndarray:
    """A map in [0, 1] with a few hills."""
    values = cv2.resize(np.random.default_rng(seed).random((6, 6)), (size, size), interpolation=cv2.INTER_CUBIC)
    return (values - values.min()) / np.ptp(values)


# ---- MaxBoxAcc ---------------------------------------------------------------------------------


def test_golden(golden):
    maps = np.load(golden / "wsol_inputs.npz")["maps"]
    expected = json.loads((golden / "wsol_expected.json").read_text())
    boxes = [np.array(b) for b in expected["boxes_x0y0x1y1_inclusive"]]
    found = max_box_accuracy([box_overlap(m, b) for m, b in zip(maps, boxes, strict=True)])
    assert 100 * found["max_box_acc"] == pytest.approx(expected["max_box_acc_v1_iou50"], abs=1e-10)
    assert 100 * found["max_box_acc_v2"] == pytest.approx(expected["max_box_acc_v2_mean"], abs=1e-10)
    for iou, value in expected["max_box_acc_v2"].items():
        assert 100 * found[f"max_box_acc_v2_{iou}"] == pytest.approx(value, abs=1e-10)


def test_grouped_thresholds_equal_one_by_one():
    levels = (smooth_map(3) * 255).astype(np.uint8)
    boxes = np.array([[5, 8, 30, 25], [20, 20, 40, 47]])
    found = box_overlap(levels, boxes)
    for number in range(0, THRESHOLDS, 37):
        some, largest = contour_boxes(levels, int(number / THRESHOLDS * levels.max()))
        iou = pairwise_iou(some, boxes).max(axis=1)
        assert found.largest[number] == iou[largest]
        assert found.any[number] == iou.max()


def test_a_map_that_is_the_box_is_a_hit_and_nothing_helps_an_empty_map():
    levels = np.zeros((60, 60), dtype=np.uint8)
    levels[10:31, 20:41] = 200
    boxes = np.array([[20, 10, 40, 30]])
    hit = max_box_accuracy([box_overlap(levels, boxes)])
    assert hit["max_box_acc"] == 1
    assert hit["max_box_acc_v2"] == 1
    miss = max_box_accuracy([box_overlap(np.zeros_like(levels), boxes)])
    assert miss["max_box_acc"] == miss["max_box_acc_v2"] == 0


def test_a_threshold_of_the_other_half_is_never_better_than_that_of_all_and_honest_where_they_disagree():
    """Images that are only hit at one threshold each: whatever the split, one half chooses what misses in the other."""
    never = BoxOverlap(np.zeros(1000), np.zeros(1000))

    def at(threshold):
        hit = np.zeros(1000)
        hit[threshold] = 0.9
        return BoxOverlap(hit, hit)

    same = [at(300)] * 3 + [never]
    assert {k: v.mean() for k, v in split_accuracy(same).items()} == {
        "max_box_acc_split": 0.75,
        "max_box_acc_v2_split": 0.75,
    }
    differing = [at(threshold) for threshold in range(8)]
    assert max_box_accuracy(differing)["max_box_acc"] == 1 / 8
    assert split_accuracy(differing)["max_box_acc_split"].tolist() == [0] * 8
    rng = np.random.default_rng(1)
    drawn = [BoxOverlap(*rng.uniform(size=(2, 1000))) for _ in range(21)]
    found, best = split_accuracy(drawn), max_box_accuracy(drawn)
    order, hits = np.random.default_rng(0).permutation(21), np.stack([o.largest for o in drawn]) >= 0.5
    first, second = order[0::2], order[1::2]
    of_first, of_second = (hits[half].sum(axis=0).argmax() for half in (first, second))
    assert found["max_box_acc_split"].sum() == hits[first, of_second].sum() + hits[second, of_first].sum()
    assert found["max_box_acc_split"].mean() <= best["max_box_acc"]
    assert found["max_box_acc_v2_split"].mean() <= best["max_box_acc_v2"]
    assert split_accuracy(drawn[:1]) == {}


def test_only_version_2_sees_the_smaller_blob():
    levels = np.zeros((80, 80), dtype=np.uint8)
    levels[2:40, 2:40] = 255
    levels[60:70, 60:70] = 255
    found = max_box_accuracy([box_overlap(levels, np.array([[60, 60, 69, 69]]))])
    assert found["max_box_acc"] == 0
    assert found["max_box_acc_v2"] == 1


def test_iou_counts_pixels():
    rng = np.random.default_rng(0)
    a, b = (np.sort(rng.integers(0, 20, size=(12, 2, 2)), axis=1).reshape(12, 4) for _ in range(2))

    def mask(box):
        drawn = np.zeros((20, 20), dtype=bool)
        drawn[box[1] : box[3] + 1, box[0] : box[2] + 1] = True
        return drawn

    expected = [[(mask(x) & mask(y)).sum() / (mask(x) | mask(y)).sum() for y in b] for x in a]
    np.testing.assert_allclose(pairwise_iou(a, b), expected)


def test_inclusive_boxes_are_the_pixels_of_the_mask():
    rng = np.random.default_rng(1)
    for _ in range(50):
        low, side = rng.uniform(0, 30, size=2), rng.uniform(1, 20, size=2)
        box = np.concatenate([low, np.minimum(low + side, 40)])[None]
        rows, columns = np.nonzero(union_mask(box, 40, 40))
        x0, y0, x1, y1 = inclusive_boxes(box, 40, 40)[0]
        assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max(), rows.max())
    assert inclusive_boxes(np.array([[3.6, 3.6, 3.9, 3.9], [0, 0, 40, 40]]), 40, 40).tolist() == [
        [4, 4, 4, 4],  # never empty
        [0, 0, 39, 39],
    ]


# ---- pointing game and energy ------------------------------------------------------------------


def test_pointing_tolerance_is_a_distance():
    box = np.array([[20.0, 20.0, 30.0, 30.0]])
    assert pointing_hit((25, 25), box, 0)
    assert not pointing_hit((31, 25), box, 0)
    assert pointing_hit((45, 25), box, 15)
    assert not pointing_hit((45.1, 25), box, 15)
    assert pointing_hit((39, 42), box, 15)  # 9 and 12 away: 15
    assert not pointing_hit((40, 42), box, 15)


def test_peak_is_the_first_maximum():
    values = np.zeros((5, 6))
    values[2, 4] = values[3, 1] = 1
    assert peak(values) == (4.5, 2.5)


def test_energy_of_a_uniform_map_is_the_share_of_the_union():
    boxes = np.array([[0.0, 0, 20, 10], [10, 0, 30, 10]])
    assert energy_in_boxes(np.ones((40, 40)), boxes) == pytest.approx(300 / 1600)
    assert energy_in_boxes(union_mask(boxes, 40, 40).astype(float), boxes) == 1
    assert energy_in_boxes(np.zeros((40, 40)), boxes) == 0


def test_evaluator_means_baselines_and_zero_maps():
    evaluator = LocalizationEvaluator()
    box = np.array([[0.0, 0.0, 112.0, 224.0]])  # the left half; the centre lies on its edge
    in_box = np.zeros((224, 224), dtype=np.float32)
    in_box[100:120, 20:60] = 1
    far = np.zeros_like(in_box)
    far[100, 200] = 1
    for values in (in_box, far, np.zeros_like(in_box)):
        evaluator.process(values, box, right=bool(values.any()))
    metrics, details = evaluator.metrics(), evaluator.details()
    assert metrics["energy_in_box"] == pytest.approx(1 / 3)
    assert metrics["pointing"] == pytest.approx(2 / 3)  # a zero map points at its first pixel, here in the box
    assert details["zero_maps"] == 1
    assert details["images"] == 3
    assert details["top1_at_this_size"] == pytest.approx(2 / 3)
    assert details["baselines"]["mean box share, energy_in_box"] == pytest.approx(0.5)
    assert details["baselines"]["centre point, pointing"] == 1


def test_nothing_to_localise_is_null():
    assert set(LocalizationEvaluator().metrics().values()) == {None}


@pytest.mark.parametrize("images", [1, 2])
def test_a_null_of_a_single_image_has_a_reason(images):
    evaluator = LocalizationEvaluator()
    for _ in range(images):
        evaluator.process(np.eye(40, dtype=np.float32), np.array([[5, 5, 30, 30]]), right=True)
    missing = {name for name, value in evaluator.metrics().items() if value is None}
    assert missing == ({"max_box_acc_split", "max_box_acc_v2_split"} if images == 1 else set())
    assert evaluator.details()["null"] == dict.fromkeys(missing, "a single image cannot be split into halves")


@pytest.mark.parametrize(("total", "count"), [(100, 8), (7, 7), (3, 8), (5, 0), (0, 4)])
def test_evenly_spaced(total, count):
    chosen = evenly_spaced(10 + np.arange(total), count)
    assert len(chosen) == len(set(chosen)) == min(total, count)
    if len(chosen) > 1:
        assert np.ptp(np.diff(chosen)) <= 1
        assert abs((chosen[0] - 10) - (9 + total - chosen[-1])) <= 1  # as far from the start as from the end


# ---- maps --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model("resnet18", 5).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(1)), torch.tensor([4, 0, 2])


def resized(raw: np.ndarray, size: int = 96) -> np.ndarray:
    return stretch(np.stack([cv2.resize(np.maximum(m, 0), (size, size)) for m in raw.astype(np.float32)]))


def test_cam_is_the_closed_form(network, images):
    images, labels = images
    maps, logits = ClassMaps(network, "CAM")(images, labels)
    with torch.no_grad():
        outputs = network(images)
        raw = torch.einsum("bc,bchw->bhw", network.fc.weight[labels], outputs.features["res5"])
    np.testing.assert_allclose(maps, resized(raw.numpy()), atol=1e-5)
    np.testing.assert_allclose(logits, outputs.logits, atol=1e-6)
    assert maps.min() == 0
    assert maps.max() == 1


def test_gradcam_is_cam_behind_average_pooling(network, images):
    np.testing.assert_allclose(
        ClassMaps(network, "GradCAM")(*images)[0], ClassMaps(network, "CAM")(*images)[0], atol=1e-5
    )


def test_gradcam_plus_plus_against_the_formula(images):
    torch.manual_seed(2)
    network = build_model("resnet18", 5).eval()
    images, labels = images
    with torch.no_grad():
        features = network.stages(images)["res5"].double()
    features.requires_grad_()
    scores = features.mean(dim=(2, 3)) @ network.fc.weight.detach().double().T
    (g,) = torch.autograd.grad(scores.gather(1, labels[:, None]).sum(), features)
    a = features.detach()
    denominator = 2 * g**2 + a.sum(dim=(2, 3), keepdim=True) * g**3
    alpha = torch.where(denominator == 0, 0.0, g**2 / torch.where(denominator == 0, 1.0, denominator))
    weights = (alpha * g.relu()).sum(dim=(2, 3))
    raw = torch.einsum("bc,bchw->bhw", weights, a).relu()
    np.testing.assert_allclose(
        ClassMaps(network, "GradCAMPlusPlus")(images, labels)[0], resized(raw.numpy()), atol=1e-4
    )


def test_maps_follow_the_class(network, images):
    images, labels = images
    own, _ = ClassMaps(network, "CAM")(images, labels)
    other, _ = ClassMaps(network, "CAM")(images, (labels + 1) % 5)
    assert np.abs(own - other).mean() > 0.01


def test_stretch_maps_flat_to_zero():
    flat = stretch(np.full((2, 4, 4), 0.7))
    assert not flat.any()
    tiny = stretch(1e-12 * np.arange(16.0).reshape(1, 4, 4))
    assert tiny.max() == 1


def test_unknown_method_lists_the_choices(network):
    with pytest.raises(InputError, match="CAM"):
        ClassMaps(network, "ScoreCAM")
    assert CAMS.names() == ["CAM", "GradCAM", "GradCAMPlusPlus"]
