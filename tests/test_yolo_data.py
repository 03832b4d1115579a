"""YOLO's images: the letterbox and its inverse, augmentations that keep every box, and an order that repeats."""

import itertools

import numpy as np
import pytest
import torch
from helpers.yolo_tiny import write_data

from backbones.core.errors import InputError
from backbones.core.sampling import Position, StatelessBatchSampler
from backbones.core.warning_counter import WarningCounter
from backbones.data.scenes.parameters import VocParameters
from backbones.data.scenes.voc_layout import draw_scene, draw_tiles, write_scenes_voc
from detection.data.catalog import load_data
from detection.engines.yolo.augmentation import (
    GREY,
    flip,
    letterbox,
    letterbox_boxes,
    letterbox_image,
    mix,
    random_crop,
    random_shift,
    undo_letterbox,
)
from detection.engines.yolo.data import Augmentation, Item, Key, SizedBatchSampler, TrainingImages, collate, draw_side

NOTHING = Augmentation(flip=0, crop=0, shift=0, mixup=0, mixup_alpha=1.5)
EVERYTHING = Augmentation(flip=0.5, crop=0.5, shift=0.5, mixup=0.5, mixup_alpha=1.5)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = write_data(tmp_path_factory.mktemp("data"))
    return load_data(["scenes_voc_train"], str(root), WarningCounter()).records


def painted(rng, width=60, height=40):
    """A black image with a white rectangle, and its box."""
    x0, y0 = rng.integers(1, width // 2), rng.integers(1, height // 2)
    x1, y1 = x0 + rng.integers(2, width // 2), y0 + rng.integers(2, height // 2)
    image = np.zeros((height, width, 3), np.uint8)
    image[y0:y1, x0:x1] = 255
    return image, np.array([[x0, y0, x1, y1]], np.float32)


def white_box(image):
    """The box of what is white."""
    rows, columns = np.nonzero((image == 255).all(axis=2))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


# ---------------------------------------------------------------------------------------- letterbox


@pytest.mark.parametrize("side", [32, 416])
def test_the_letterbox_has_an_inverse_and_holds_the_whole_image(side):
    rng = np.random.default_rng(0)
    for width, height in rng.integers(1, 900, (200, 2)).tolist():
        placed = letterbox(width, height, side)
        corners = rng.uniform(0, 1, (5, 4)) * [width, height, width, height]
        np.testing.assert_allclose(undo_letterbox(letterbox_boxes(corners, placed), placed), corners, atol=1e-9)
        whole = letterbox_boxes(np.array([[0.0, 0, width, height]]), placed)[0]
        assert (whole >= 0).all()
        assert (whole <= side + 1e-9).all()
        assert max(placed.width, placed.height) == side  # as large as it fits
        # In the middle: what is left over is shared to a pixel.
        assert abs(placed.left - (side - placed.left - placed.width)) <= 1
        assert abs(placed.top - (side - placed.top - placed.height)) <= 1


def test_boxes_follow_the_pixels_into_the_letterbox():
    image, boxes = painted(np.random.default_rng(1), 60, 40)
    for side in (120, 180):  # whole factors: no pixel is shared
        placed = letterbox(60, 40, side)
        square = letterbox_image(np.repeat(np.repeat(image, 3, 0), 3, 1), placed, side)
        mask = (square > 200).all(axis=2)
        x0, y0, x1, y1 = letterbox_boxes(boxes, placed)[0].round().astype(int)
        assert mask[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].all()
        mask[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = False
        assert not mask.any()
        assert (square[: placed.top] == GREY).all()


# ----------------------------------------------------------------------------------- augmentations


def test_flip_twice_is_nothing_and_once_moves_the_box_with_its_pixels():
    image, boxes = painted(np.random.default_rng(2))
    once = flip(image, boxes)
    assert white_box(once[0]) == once[1][0].tolist()
    assert once[1][0].tolist() != boxes[0].tolist()
    twice = flip(*once)
    np.testing.assert_array_equal(twice[0], image)
    np.testing.assert_array_equal(twice[1], boxes)


@pytest.mark.parametrize("augment", [random_crop, random_shift])
def test_every_box_stays_whole_and_on_its_pixels(augment):
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(200):
        image, boxes = painted(rng)
        changed, moved = augment(image, boxes, rng)
        assert white_box(changed) == moved[0].tolist()
        np.testing.assert_array_equal(moved[:, 2:] - moved[:, :2], boxes[:, 2:] - boxes[:, :2])
        dx, dy = (moved - boxes)[0, :2].tolist()
        height, width = changed.shape[:2]
        seen |= {("left", dx != 0), ("top", dy != 0), ("right", width - dx < 60), ("bottom", height - dy < 40)}
        if augment is random_shift:
            assert changed.shape == image.shape
            seen |= {("x", np.sign(dx)), ("y", np.sign(dy))}
    # The reference cuts left and top only: the right and lower edges must move, too.
    assert {(edge, True) for edge in ("left", "top", "right", "bottom")} <= seen
    if augment is random_shift:
        assert {("x", -1.0), ("x", 1.0), ("y", -1.0), ("y", 1.0)} <= seen


@pytest.mark.parametrize("augment", [random_crop, random_shift])
def test_a_image_without_boxes_stays(augment):
    image = np.full((4, 5, 3), 7, np.uint8)
    changed, boxes = augment(image, np.zeros((0, 4), np.float32), np.random.default_rng(0))
    np.testing.assert_array_equal(changed, image)
    assert boxes.shape == (0, 4)


def test_mixup_weighs_boxes_as_it_weighs_pixels(records):
    """The pixels of a mixed image are those of both with the weights of their boxes."""
    mixing = Augmentation(flip=0, crop=0, shift=0, mixup=1, mixup_alpha=1.5)
    mixed, plain = (
        TrainingImages(records, augmentation, largest=64, seed=0, cache=True) for augmentation in (mixing, NOTHING)
    )
    weights = []
    for index in range(len(records)):
        item = mixed[Key(Position(0, index), 64)]
        first = plain[Key(Position(0, index), 64)]
        count = len(first.labels)
        own, others = set(item.weights[:count].tolist()), set(item.weights[count:].tolist())
        assert len(own) == len(others) == 1
        weight = own.pop()
        assert weight + others.pop() == pytest.approx(1, abs=1e-6)
        np.testing.assert_array_equal(item.boxes[:count], first.boxes)
        second = next(
            other
            for other in (plain[Key(Position(0, n), 64)] for n in range(len(records)))
            if np.array_equal(other.boxes, item.boxes[count:]) and np.array_equal(other.labels, item.labels[count:])
        )
        expected = weight * first.image + (1 - weight) * second.image.astype(float)
        np.testing.assert_allclose(item.image, expected, atol=1)
        weights.append(weight)
    assert 0.2 < np.mean(weights) < 0.8
    assert np.std(weights) > 0.1  # Beta(1.5, 1.5) has 0.25
    np.testing.assert_array_equal(mix(np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 200, np.uint8), 0.25), 150)


# ------------------------------------------------------------------------------------------- order


def test_a_image_is_a_function_of_seed_epoch_and_index(records):
    def item(seed, epoch, index, side=64, cache=False):
        return TrainingImages(records, EVERYTHING, largest=96, seed=seed, cache=cache)[
            Key(Position(epoch, index), side)
        ]

    kept = TrainingImages(records, EVERYTHING, largest=96, seed=0, cache=True)
    for key in (Key(Position(1, 2), 64), Key(Position(0, 3), 96), Key(Position(1, 2), 64)):
        again = item(0, *key.position, key.side)
        for one, other in zip(kept[key], again, strict=True):  # whatever was asked for before
            np.testing.assert_array_equal(one, other)
    images = [item(*key).image for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(images, 2))


def test_sizes_change_with_the_period_and_resume_where_they_were():
    sides = (320, 416, 608)

    def keys(start, stop, rank=0, world_size=1):
        batches = StatelessBatchSampler(9, 4, seed=5, start=start, stop=stop, rank=rank, world_size=world_size)
        return list(SizedBatchSampler(batches, sides, 10, 5))

    whole = keys(0, 200)
    drawn = [{key.side for key in batch} for batch in whole]
    assert all(len(side) == 1 for side in drawn)
    periods = [set.union(*drawn[first : first + 10]) for first in range(0, 200, 10)]
    assert all(len(side) == 1 for side in periods)
    assert set.union(*periods) == set(sides)
    assert keys(37, 200) == whole[37:]
    halves = [keys(0, 200, rank, 2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole  # the same size on every process
    counts = [sum(draw_side(seed, 0, sides) == side for seed in range(600)) for side in sides]
    assert min(counts) > 150  # every one of the three as often


def test_batches_pad_boxes_with_what_no_loss_counts():
    def item(count):
        return Item(
            np.full((32, 32, 3), count, np.uint8), np.ones((count, 4), np.float32), np.arange(count),
            np.full(count, 0.5, np.float32),
        )  # fmt: skip

    batch = collate([item(2), item(0), item(1)])
    assert batch.images.shape == (3, 3, 32, 32)
    assert batch.labels.tolist() == [[0, 1], [-1, -1], [0, -1]]
    assert batch.weights.tolist() == [[0.5, 0.5], [0, 0], [0.5, 0]]
    assert torch.equal(batch.boxes.sum(dim=(1, 2)), torch.tensor([8.0, 0.0, 4.0]))
    assert collate([item(0)]).labels.shape == (1, 0)


# ------------------------------------------------------------------------------- scenes in VOC's layout


@pytest.mark.parametrize("tiles", [0, 2])
def test_scenes_in_vocs_layout_read_back_as_drawn(tmp_path, tiles):
    parameters = VocParameters(train=3, val=1, tiles=tiles)
    summary, drawn = write_scenes_voc(tmp_path, parameters, workers=1, overwrite=False)
    assert drawn
    assert write_scenes_voc(tmp_path, parameters, workers=1, overwrite=False) == (summary, False)
    warnings = WarningCounter()
    data = load_data([f"voc:{tmp_path}:train"], "unused", warnings)
    assert not warnings.as_list()
    names = [category["name"] for category in data.categories]
    for index, record in enumerate(data.records):
        image, objects = draw_tiles(0, "train", index, tiles) if tiles else draw_scene(0, "train", index)
        assert image.shape == (record.height, record.width, 3)
        assert record.boxes.tolist() == [list(map(float, box)) for _, box in objects]
        assert [names[label] for label in record.labels] == [name for name, _ in objects]
        if tiles:  # one object in each quarter
            centres = (record.boxes[:, :2] + record.boxes[:, 2:]) / 2 // 64
            assert sorted(map(tuple, centres.tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    with pytest.raises(InputError, match=r"holds another 'scenes-voc\.json'; choose another --output-dir"):
        write_scenes_voc(tmp_path, VocParameters(train=2, val=1), workers=1, overwrite=False)
    write_scenes_voc(tmp_path, VocParameters(train=2, val=1), workers=1, overwrite=True)
    assert len(list((tmp_path / "JPEGImages").iterdir())) == 3
