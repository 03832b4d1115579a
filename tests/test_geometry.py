"""The geometry of boxes and crops against drawn masks, and against torchvision's distribution of crops."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from backbones.data.geometry import (
    FEW_BOXES,
    _union_area_of_few,
    box_areas,
    clip_boxes,
    map_boxes,
    objectness,
    sample_crop,
    union_area,
)

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def random_boxes(rng: np.random.Generator, count: int, width: int, height: int, *, whole: bool = False) -> np.ndarray:
    """Boxes that overlap, touch and stick out of the image."""
    corners = rng.random((count, 2, 2)) * [width * 1.4, height * 1.4] - [width * 0.2, height * 0.2]
    corners = np.round(corners) if whole else corners
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def drawn_mask(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in np.clip(boxes, 0, None).astype(int):
        mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, FEW_BOXES, FEW_BOXES + 1, 25])
def test_union_and_objectness_equal_a_drawn_mask(count):
    rng = np.random.default_rng(count)
    for _ in range(40):
        boxes = random_boxes(rng, count, 60, 40, whole=True)
        mask = drawn_mask(boxes, 60, 40)
        assert union_area(clip_boxes(boxes, 60, 40)) == mask.sum()
        x, y, w, h = sample_crop(rng, 60, 40, AREA, RATIO)
        assert objectness(boxes, (x, y, w, h)) == pytest.approx(mask[y : y + h, x : x + w].mean(), abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_the_two_ways_to_a_union_agree_on_fractions(count):
    rng = np.random.default_rng(count)
    for _ in range(50):
        boxes = random_boxes(rng, count, 10, 10)
        assert _union_area_of_few(list(map(tuple, boxes.tolist()))) == pytest.approx(union_area(boxes), rel=1e-12)


def test_union_lies_between_the_largest_box_and_the_sum():
    boxes = random_boxes(np.random.default_rng(0), 9, 100, 80)
    assert box_areas(boxes).max() < union_area(boxes) < box_areas(boxes).sum()
    assert union_area(np.concatenate([boxes, boxes])) == pytest.approx(union_area(boxes))


def test_empty_and_reversed_boxes_cover_nothing():
    boxes = np.array([[3.0, 3, 3, 9], [5, 5, 2, 8], [1, 1, 2, 2]])
    assert union_area(boxes) == 1
    assert objectness(boxes, (0, 0, 10, 10)) == 0.01


def test_inclusive_box_of_the_whole_image_fills_every_crop():
    xmin, ymin, xmax, ymax = 0, 0, 63, 47  # as ILSVRC and Tiny-ImageNet write a 64 x 48 image
    boxes = np.array([[xmin, ymin, xmax + 1, ymax + 1]], np.float32)
    rng = np.random.default_rng(0)
    assert objectness(boxes, (0, 0, 64, 48)) == 1
    assert all(objectness(boxes, sample_crop(rng, 64, 48, AREA, RATIO)) == 1 for _ in range(100))


@pytest.mark.parametrize("flip", [False, True])
def test_objectness_does_not_change_when_boxes_follow_the_crop(flip):
    rng = np.random.default_rng(1)
    for _ in range(50):
        boxes = random_boxes(rng, 3, 90, 70)
        crop = sample_crop(rng, 90, 70, AREA, RATIO)
        mapped = map_boxes(boxes, crop, 64, 32, flip=flip)
        assert objectness(mapped, (0, 0, 64, 32)) == pytest.approx(objectness(boxes, crop), abs=1e-5)


def test_mapped_boxes_keep_their_row_and_vanish_outside():
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 40]])
    np.testing.assert_allclose(map_boxes(boxes, (20, 20, 20, 20), 40, 40), [[0, 0, 0, 0], [0, 0, 20, 40]])
    np.testing.assert_allclose(map_boxes(boxes, (20, 20, 20, 20), 40, 40, flip=True)[1], [20, 0, 40, 40])


def test_clipping_is_idempotent_and_keeps_what_is_inside():
    boxes = random_boxes(np.random.default_rng(2), 30, 50, 50)
    clipped = clip_boxes(boxes, 50, 50)
    np.testing.assert_array_equal(clip_boxes(clipped, 50, 50), clipped)
    inside = ((boxes >= 0) & (boxes <= 50)).all(axis=1)
    np.testing.assert_array_equal(clipped[inside], boxes[inside])


@pytest.mark.parametrize(("width", "height"), [(500, 375), (64, 64), (300, 900)])
def test_crops_have_torchvisions_distribution(width, height):
    torch.manual_seed(0)
    rng, image, n = np.random.default_rng(0), torch.empty(3, height, width), 4000
    reference = np.array([RandomResizedCrop.get_params(image, list(AREA), list(RATIO)) for _ in range(n)])
    ours = np.array([sample_crop(rng, width, height, AREA, RATIO) for _ in range(n)])
    y, x, h, w = reference.T
    for name, a, b in zip("xywh", ours.T, (x, y, w, h), strict=True):
        assert ks_2samp(a, b).pvalue > 1e-3, name
    assert ks_2samp(ours[:, 2] * ours[:, 3], w * h).pvalue > 1e-3
    assert ks_2samp(ours[:, 2] / ours[:, 3], w / h).pvalue > 1e-3


@pytest.mark.parametrize(("width", "height"), [(1000, 20), (20, 1000), (7, 90)])
def test_a_image_that_no_crop_fits_gets_torchvisions_central_crop(width, height):
    y, x, h, w = RandomResizedCrop.get_params(torch.empty(3, height, width), [0.9, 1.0], list(RATIO))
    assert sample_crop(np.random.default_rng(0), width, height, (0.9, 1.0), RATIO) == (x, y, w, h)


def test_a_crop_reaches_every_position_alike():
    rng = np.random.default_rng(4)
    crops = [sample_crop(rng, 8, 8, (0.5, 0.52), (1.0, 1.0)) for _ in range(3000)]  # 6 x 6 in 8 x 8
    assert {crop[2:] for crop in crops} == {(6, 6)}
    counts = np.unique([crop[:2] for crop in crops], axis=0, return_counts=True)[1]
    assert len(counts) == 9
    assert abs(counts - 3000 / 9).max() < 5 * (3000 / 9) ** 0.5


def test_crops_stay_inside_and_keep_to_the_area():
    rng = np.random.default_rng(3)
    for _ in range(500):
        x, y, w, h = sample_crop(rng, 64, 64, (0.5, 1.0), RATIO)
        assert 0 <= x <= 64 - w
        assert 0 <= y <= 64 - h
        assert w * h >= 0.48 * 64 * 64  # rounding to pixels
