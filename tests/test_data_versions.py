"""Held-out parts, the mask version, class caps and label noise: exact counts, exact pixels, exact partitions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare

from backbones.config import get_defaults, validate
from backbones.core.config import load_config
from backbones.core.errors import InputError
from backbones.core.sampling import Position, StatelessBatchSampler
from backbones.core.warning_counter import WarningCounter
from backbones.data.masking import paint_around, paint_boxes
from backbones.data.noise import NOISE_FILE, add_noise, noisy_labels, save_noise
from backbones.data.samples import Samples, build_samples, ragged_rows
from backbones.data.training_set import TrainingSet
from backbones.data.versions import cap_classes, mask_objects, split_holdout
from backbones.pretraining.building import build_samples as build_configured
from backbones.pretraining.building import read_split

COLOUR = (124, 116, 104)


def samples_of(labels: np.ndarray, boxes: list[np.ndarray] | None = None, paths: list[str] | None = None) -> Samples:
    n = len(labels)
    return build_samples(
        paths=paths or [f"/data/{i:05d}.png" for i in range(n)],
        relative=[f"{i:05d}.png" for i in range(n)],
        labels=labels,
        sizes=None,
        boxes=boxes or [np.zeros((0, 4))] * n,
        classes=["a", "b", "c", "d"],
        name="test",
        split="train",
        display_names=[],
    )


@pytest.fixture
def images(tmp_path: Path) -> Samples:
    """Images of noise with 1, 2 and 4 boxes, some of which overlap."""
    rng = np.random.default_rng(0)
    boxes = [
        np.array([[2, 3, 20, 15]]),
        np.array([[0, 0, 20, 20], [10, 10, 30, 25]]),
        np.array([[1, 1, 9, 9], [5, 5, 12, 12], [20, 2, 39, 28], [25, 5, 30, 10]]),
    ]
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(130, 256, (30, 40, 3), np.uint8)).save(path)
    return samples_of(np.array([0, 1, 2]), boxes, paths)


def is_painted(image: np.ndarray) -> np.ndarray:
    return (image == COLOUR).all(axis=2)


def inside(boxes: np.ndarray, shape: tuple[int, int] = (30, 40)) -> np.ndarray:
    ys, xs = np.mgrid[: shape[0], : shape[1]] + 0.5
    tests = [(x0 < xs) & (xs < x1) & (y0 < ys) & (ys < y1) for x0, y0, x1, y1 in boxes]
    return np.any(tests, axis=0) if tests else np.zeros(shape, bool)


# Painting and the mask version


def test_painting_touches_exactly_the_pixels_of_the_boxes():
    image = np.zeros((30, 40, 3), np.uint8)
    boxes = np.array([[3, 4, 10, 8], [8, 6, 40, 30]], np.float32)
    paint_boxes(image, boxes, COLOUR)
    np.testing.assert_array_equal(is_painted(image), inside(boxes))
    fraction = np.zeros((30, 40, 3), np.uint8)
    paint_boxes(fraction, np.array([[3.5, 4.0, 9.2, 8.0]]), COLOUR)
    np.testing.assert_array_equal(is_painted(fraction), inside(np.array([[3, 4, 10, 8]])))


def test_painting_around_leaves_the_own_object_whole():
    rng = np.random.default_rng(1)
    for _ in range(50):
        corners = np.sort(rng.integers(0, 30, (5, 2, 2)), axis=1).reshape(5, 4)
        image = rng.integers(130, 256, (30, 40, 3), np.uint8)
        painted = image.copy()
        paint_around(painted, corners[1:], corners[:1], COLOUR)
        expected = inside(corners[1:]) & ~inside(corners[:1])
        np.testing.assert_array_equal(is_painted(painted), expected)
        np.testing.assert_array_equal(painted[~expected], image[~expected])


def test_mask_has_one_sample_an_object(images):
    masked = mask_objects(images, COLOUR)
    assert len(masked) == len(images.boxes) == 7
    np.testing.assert_array_equal(masked.labels, [0, 1, 1, 2, 2, 2, 2])
    np.testing.assert_array_equal(masked.boxes, images.boxes)
    np.testing.assert_array_equal(masked.box_counts(), 1)
    np.testing.assert_array_equal(masked.load_image(0), images.load_image(0))  # one object: unchanged
    first = 0
    for i in range(3):
        image, boxes = images.load_image(i), images.boxes_of(i)
        for k in range(len(boxes)):
            expected = inside(np.delete(boxes, k, axis=0)) & ~inside(boxes[k : k + 1])
            shown = masked.load_image(first + k)
            np.testing.assert_array_equal(is_painted(shown), expected)
            np.testing.assert_array_equal(shown[~expected], image[~expected])
        first += len(boxes)


def test_a_part_of_a_mask_paints_the_same(images):
    masked = mask_objects(images, COLOUR)
    part = masked.subset(np.array([2, 4, 6]))
    for new, old in enumerate((2, 4, 6)):
        np.testing.assert_array_equal(part.load_image(new), masked.load_image(old))
    assert len({images.fingerprint, masked.fingerprint, part.fingerprint}) == 3
    assert mask_objects(images, (0, 0, 0)).fingerprint != masked.fingerprint
    assert part.painted.boxes is masked.painted.boxes  # nothing is stored twice


def test_context_of_a_mask_paints_every_object(images):
    masked = mask_objects(images, COLOUR)
    options = {"size": 30, "crop_area": (0.5, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0, "seed": 0}
    dataset = TrainingSet(masked, **options, augmentation="none", context_share=1.0, context_colour=COLOUR)
    shown = {i: dataset[Position(0, i)].image for i in range(7)}
    assert all((shown[k] == shown[3]).all() for k in (4, 5, 6))  # whichever object it was


def test_a_mask_needs_boxes():
    with pytest.raises(InputError, match=r"DATA\.VERSION box"):
        mask_objects(samples_of(np.array([0, 1])), COLOUR)


def test_rows_of_a_ragged_array():
    offsets = np.array([0, 2, 2, 5, 6])
    np.testing.assert_array_equal(ragged_rows(offsets, np.array([0, 2])), [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(ragged_rows(offsets, np.array([3, 1, 0])), [5, 0, 1])
    assert ragged_rows(offsets, np.array([], int)).tolist() == []


# Held-out part and cap


def test_the_held_out_part_and_the_rest_are_the_whole():
    whole = samples_of(np.arange(200) % 4)
    parts = [[split_holdout(whole, 30, seed, held_out=out) for out in (False, True)] for seed in (0, 1)]
    for kept, out in parts:
        assert len(out) == 30
        assert sorted(kept.relative + out.relative) == whole.relative
        assert out.relative == sorted(out.relative)
    assert parts[0][1].relative != parts[1][1].relative
    assert len({p.fingerprint for pair in parts for p in pair} | {whole.fingerprint}) == 5
    assert split_holdout(whole, 30, 0, held_out=True).fingerprint == parts[0][1].fingerprint


def test_a_held_out_image_is_equally_often_any():
    whole = samples_of(np.zeros(12, int))
    counts = np.zeros(12)
    for seed in range(1200):
        counts[[int(name[:5]) for name in split_holdout(whole, 3, seed, held_out=True).relative]] += 1
    assert chisquare(counts).pvalue > 1e-3


def test_a_image_is_held_out_with_all_its_objects(images):
    masked = mask_objects(images, COLOUR)
    for seed in range(6):
        kept, out = (set(split_holdout(masked, 1, seed, held_out=o).relative) for o in (False, True))
        assert len(out) == 1
        assert not kept & out


@pytest.mark.parametrize("count", [200, 201, 0])
def test_a_part_must_leave_something(count):
    with pytest.raises(InputError, match=rf"DATA\.HOLDOUT {count} is not less than the 200 images"):
        split_holdout(samples_of(np.arange(200) % 4), count, 0, held_out=False)


def test_a_cap_keeps_so_many_of_a_class_and_is_the_same_for_every_run():
    labels = np.repeat([0, 1, 2, 3], [5, 50, 17, 100])
    whole, warnings = samples_of(labels), WarningCounter()
    capped = cap_classes(whole, 17, warnings)
    np.testing.assert_array_equal(np.bincount(capped.labels), [5, 17, 17, 17])
    assert capped.relative == sorted(capped.relative)
    assert warnings.as_list()[0]["count"] == 33 + 83
    assert cap_classes(whole, 17, WarningCounter()).fingerprint == capped.fingerprint
    assert cap_classes(whole, 100, WarningCounter()) is whole
    chosen = [int(name[:5]) for name in capped.relative if int(name[:5]) >= 72]
    assert max(np.diff(chosen)) > 1  # not the first ones


# Label noise


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.123])
def test_exactly_the_rate_is_wrong_and_only_that(rate):
    labels = np.random.default_rng(0).integers(0, 10, 1001)
    noisy = noisy_labels(labels, 10, rate, 3)
    assert (noisy != labels).sum() == round(rate * 1001)
    assert noisy.min() >= 0
    assert noisy.max() < 10
    np.testing.assert_array_equal(noisy_labels(labels, 10, rate, 3), noisy)


def test_wrong_labels_are_uniform_over_the_other_classes():
    classes, labels = 7, np.repeat(np.arange(7), 6000)
    noisy = noisy_labels(labels, classes, 0.5, 11)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, noisy), 1)
    wrong = counts[~np.eye(classes, dtype=bool)].reshape(classes, classes - 1)
    assert all(chisquare(row).pvalue > 1e-4 for row in wrong)
    assert chisquare(wrong.sum(axis=1)).pvalue > 1e-3  # and no class is spared


def test_noise_differs_by_seed_and_keeps_the_clean_labels(tmp_path):
    clean = samples_of(np.arange(400) % 4)
    noisy, other = add_noise(clean, 0.25, 0), add_noise(clean, 0.25, 1)
    np.testing.assert_array_equal(noisy.clean_labels, clean.labels)
    assert len({clean.fingerprint, noisy.fingerprint, other.fingerprint}) == 3
    assert noisy.subset(np.arange(100)).clean_labels.tolist() == clean.labels[:100].tolist()
    save_noise(tmp_path, clean)
    assert not (tmp_path / NOISE_FILE).exists()
    save_noise(tmp_path, noisy)
    stored = np.load(tmp_path / NOISE_FILE)
    assert len(stored["index"]) == 100
    np.testing.assert_array_equal(noisy.labels[stored["index"]], stored["labels"])
    np.testing.assert_array_equal(clean.labels[stored["index"]], stored["clean_labels"])


@pytest.mark.parametrize("rate", [-0.1, 1.01])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(InputError, match=r"NOISE_RATE"):
        noisy_labels(np.zeros(4, int), 2, rate, 0)
    with pytest.raises(InputError, match=r"NOISE_RATE is .*between 0 and 1"):
        validate(load_config(get_defaults(), None, ["DATA.ROOT", "x", "DATA.NOISE_RATE", str(rate)]))


# By config


def configured(root: Path, *overrides: object):
    return load_config(get_defaults(), None, ["DATA.ROOT", str(root), *map(str, overrides)])


def test_a_config_makes_the_parts(small_scenes):
    cfg = configured(small_scenes, "DATA.HOLDOUT", 10, "DATA.VAL_SPLIT", "holdout", "DATA.NOISE_RATE", 0.5)
    validate(cfg)
    train, out = (build_configured(cfg, s, WarningCounter(), training=s == "train") for s in ("train", "holdout"))
    assert (len(train), len(out)) == (30, 10)
    assert not set(train.relative) & set(out.relative)
    assert out.split == "holdout"
    assert (train.labels != train.clean_labels).sum() == 15
    assert out.clean_labels is None
    measured = read_split(cfg, "holdout", WarningCounter())
    assert measured.fingerprint == out.fingerprint
    cfg.SEED = 1
    again = build_configured(cfg, "train", WarningCounter(), training=True)
    assert again.relative != train.relative
    assert again.source == train.source  # one protocol for all seeds
    cfg.DATA.HOLDOUT_SEED, cfg.DATA.NOISE_SEED = 0, 0  # a teacher of seed 1 with the data of its student of seed 0
    same = build_configured(cfg, "train", WarningCounter(), training=True)
    assert (same.fingerprint, same.relative) == (train.fingerprint, train.relative)
    assert build_configured(cfg, "holdout", WarningCounter()).relative == out.relative
    plain = build_configured(configured(small_scenes), "train", WarningCounter(), training=True)
    assert plain.source == plain.fingerprint


def test_versions_of_training_and_validation_are_set_apart(small_scenes):
    cfg = configured(small_scenes, "DATA.VERSION", "mask")
    train, val = (build_configured(cfg, s, WarningCounter(), training=s == "train") for s in ("train", "val"))
    assert train.painted is not None
    assert val.painted is None
    assert train.painted.colour == COLOUR
    full = build_configured(configured(small_scenes), "train", WarningCounter(), training=True)
    assert len(train) == len(full.boxes)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["DATA.VERSION", "masked"], r"unknown DATA\.VERSION 'masked'; did you mean 'mask'"),
        (["DATA.AUGMENTATION", "padcrop"], r"unknown DATA\.AUGMENTATION 'padcrop'; did you mean 'pad_crop'"),
        (["DATA.VAL_SPLIT", "holdout"], r"DATA\.VAL_SPLIT 'holdout' needs DATA\.HOLDOUT above 0"),
        (["EVAL.TEMPERATURE_SPLIT", "holdout"], r"EVAL\.TEMPERATURE_SPLIT 'holdout' needs DATA\.HOLDOUT above 0"),
        (["DATA.HOLDOUT", "-1"], r"DATA\.HOLDOUT"),
        (["DATA.CONTEXT_SHARE", "1.5"], r"DATA\.CONTEXT_SHARE is 1\.5"),
        (["DATA.COLOR_JITTER", "[0.4]"], r"DATA\.COLOR_JITTER is \[0\.4\]; it must be 3 numbers \(brightness"),
        (["DATA.EVAL_STRETCH", "True", "DATA.EVAL_RESIZE", "0"], r"EVAL_STRETCH True needs DATA\.EVAL_RESIZE above 0"),
        (["DATA.AUGMENTATION", "resize_crop", "DATA.RESIZE", "64"], r"IMAGE_SIZE 224 exceeds DATA\.RESIZE 64"),
    ],
)
def test_a_wrong_key_is_named_before_work(overrides, message):
    with pytest.raises(InputError, match=message):
        validate(configured(Path("x"), *overrides))


def test_a_key_without_effect_is_said(small_scenes, caplog):
    overrides = ["DATA.AUGMENTATION", "pad_crop", "DATA.CROP_AREA", "[0.5, 1.0]", "DATA.PAD", 2]
    with caplog.at_level("WARNING", logger="smooth2det"):
        build_configured(configured(small_scenes, *overrides), "train", WarningCounter(), training=True)
    assert [r.getMessage() for r in caplog.records] == ["DATA.CROP_AREA has no effect: DATA.AUGMENTATION is pad_crop"]


def test_context_images_go_only_to_a_method_that_knows_them():
    with pytest.raises(InputError, match=r"CONTEXT_SHARE is 0\.15, but METHOD\.NAME CE"):
        validate(configured(Path("x"), "DATA.CONTEXT_SHARE", 0.15))


def test_a_method_that_learns_from_context_needs_it(monkeypatch):
    from backbones.methods.base import METHODS

    monkeypatch.setattr(METHODS.get("CE"), "needs", frozenset({"is_context"}))
    with pytest.raises(InputError, match=r"METHOD\.NAME CE .*DATA\.CONTEXT_SHARE is 0"):
        validate(configured(Path("x")))
    validate(configured(Path("x"), "DATA.CONTEXT_SHARE", 0.15))


def test_more_held_out_than_there_are(small_scenes):
    with pytest.raises(InputError, match=r"DATA\.HOLDOUT 40 is not less than the 40 images"):
        build_configured(configured(small_scenes, "DATA.HOLDOUT", 40), "train", WarningCounter(), training=True)


def test_no_epoch_visits_the_wrong_labels_first():
    """The draw of the noise is independent of the order of every epoch: each half of an epoch has its share."""
    clean = np.arange(2000) % 4
    wrong = noisy_labels(clean, 4, 0.5, 3) != clean
    sampler = StatelessBatchSampler(2000, 100, seed=3, start=0, stop=0)
    shares = [wrong[sampler.epoch_batches(epoch)[:10].ravel()].mean() for epoch in range(320)]
    assert min(shares) > 0.4, np.argmin(shares)  # 9 standard deviations
    assert max(shares) < 0.6, np.argmax(shares)
