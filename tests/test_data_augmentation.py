"""Augmentations: geometry against rasters and torchvision, colours against torchvision, views and context images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from backbones.core.errors import InputError
from backbones.core.sampling import Position, position_rng
from backbones.data.augmentation import PadCrop, ResizeCrop, WholeImage
from backbones.data.color import EIGENVALUES, EIGENVECTORS, GREY, ColorChange

from backbones.data.color import adjust_brightness, adjust_contrast, adjust_saturation  # isort: skip
from backbones.data.geometry import map_boxes, objectness
from backbones.data.items import collate
from backbones.data.loader import training_batches
from backbones.data.samples import Samples, build_samples
from backbones.data.training_set import TrainingSet

AUGMENTATIONS = ("random_resized_crop", "pad_crop", "resize_crop", "none")
OBJECT, GROUND = 255, 90


@pytest.fixture
def objects(tmp_path: Path) -> Samples:
    """Sixteen 40 x 30 images, grey with one or two white objects."""
    rng = np.random.default_rng(0)
    paths, boxes = [], []
    for i in range(16):
        image, own = np.full((30, 40, 3), GROUND, np.uint8), []
        for _ in range(1 + i % 2):
            (x, y), (w, h) = rng.integers(0, 18, 2), rng.integers(6, 20, 2)
            own.append([x, y, min(x + w, 40), min(y + h, 30)])
            image[y : y + h, x : x + w] = OBJECT
        paths.append(str(tmp_path / f"{i:02d}.png"))
        Image.fromarray(image).save(paths[-1])
        boxes.append(np.array(own))
    return build_samples(
        paths=paths, relative=[p[-6:] for p in paths], labels=np.arange(16) % 3, sizes=None, boxes=boxes,
        classes=["a", "b", "c"], name="objects", split="train", display_names=[],
    )  # fmt: skip


def training_set(samples: Samples, augmentation: str = "pad_crop", **options) -> TrainingSet:
    defaults = {"size": 28, "crop_area": (0.3, 1.0), "crop_ratio": (0.75, 4 / 3), "flip": 0.5, "seed": 1}
    fixed = {"pad": 4, "resize": 40, "augmentation": augmentation, "needs": frozenset({"objectness", "boxes"})}
    return TrainingSet(samples, **{**defaults, **fixed, **options})


# Geometry


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_objectness_and_boxes_follow_the_geometry(objects, augmentation):
    dataset = training_set(objects, augmentation)
    batch = collate([dataset[Position(e, i)] for e in range(4) for i in range(16)])
    white = ((batch.images.float() - GROUND) / (OBJECT - GROUND)).clamp(0, 1).mean(dim=(1, 2, 3))
    exact = augmentation == "pad_crop"  # no pixel is resampled
    torch.testing.assert_close(batch.objectness, white, atol=1e-6 if exact else 0.02, rtol=0)
    for image, boxes in zip(batch.images, batch.boxes, strict=True):
        drawn = torch.zeros(28, 28)
        for x0, y0, x1, y1 in boxes.round().int().tolist():
            drawn[y0:y1, x0:x1] = 1
        shown = ((image[0].float() - GROUND) / (OBJECT - GROUND)).clamp(0, 1)
        assert (drawn - shown).abs().mean() < (1e-6 if exact else 0.08)


def test_pad_crop_equals_the_padded_raster(objects):
    image, boxes = objects.load_image(5), objects.boxes_of(5)
    padded = np.pad(image, ((6, 6), (6, 6), (0, 0)))
    seen = set()
    for draw in range(300):
        pixels, (x, y, w, h) = PadCrop(32, 6)(np.random.default_rng(draw), image)
        expected = padded[y + 6 : y + 6 + h, x + 6 : x + 6 + w]
        np.testing.assert_array_equal(pixels.permute(1, 2, 0), expected)
        assert objectness(boxes, (x, y, w, h)) == pytest.approx((expected == OBJECT).all(axis=2).mean(), abs=1e-12)
        seen.add((x, y))
    assert {x for x, _ in seen} == set(range(-6, 40 + 6 - 32 + 1))
    assert {y for _, y in seen} == set(range(-6, 30 + 6 - 32 + 1))


def test_padding_is_background():
    assert objectness(np.array([[0.0, 0, 32, 32]]), (-4, -4, 32, 32)) == (28 / 32) ** 2
    np.testing.assert_array_equal(map_boxes(np.array([[0, 0, 32, 32]]), (-4, 2, 32, 32), 32, 32), [[4, 0, 32, 30]])


def test_resize_crop_is_a_window_of_the_resized_image(objects):
    image = objects.load_image(3)
    whole = WholeImage(64)(np.random.default_rng(0), image)[0]
    for draw in range(20):
        pixels, (x, y, w, h) = ResizeCrop(48, 64)(np.random.default_rng(draw), image)
        left, top = round(x * 64 / 40), round(y * 64 / 30)
        assert torch.equal(pixels, whole[:, top : top + 48, left : left + 48])
        assert (w, h) == (48 * 40 / 64, 48 * 30 / 64)


def test_a_whole_image_of_the_right_size_is_untouched():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    pixels, crop = WholeImage(32)(np.random.default_rng(0), image)
    np.testing.assert_array_equal(pixels.permute(1, 2, 0), image)
    assert crop == (0, 0, 32, 32)


def test_crops_that_cannot_be_are_refused(objects):
    with pytest.raises(InputError, match=r"40 x 30 with DATA\.PAD 0 holds no crop of IMAGE_SIZE 31"):
        training_set(objects, "pad_crop", size=31, pad=0)[Position(0, 0)]
    with pytest.raises(InputError, match=r"IMAGE_SIZE 50 exceeds DATA\.RESIZE 40"):
        training_set(objects, "resize_crop", size=50)


# Colours


def noise(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, 24, 20), np.uint8))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_a_change_of_colour_is_torchvisions_up_to_rounding(name, factor):
    ours = {"brightness": adjust_brightness, "contrast": adjust_contrast, "saturation": adjust_saturation}[name]
    expected = getattr(reference, f"adjust_{name}")(noise(), factor).int()
    changed = (ours(noise() / 255, factor) * 255).round().int()
    # Three weights that sum to 0.9999, and torchvision cuts its grey to whole levels.
    assert (changed - expected).abs().max() <= 2
    in_float = getattr(reference, f"adjust_{name}")(noise() / 255, factor)
    torch.testing.assert_close(ours(noise() / 255, factor), in_float, atol=2e-4, rtol=0)


def test_colours_change_in_every_order_and_by_every_factor():
    rng, grey = np.random.default_rng(0), torch.full((3, 4, 4), 100, dtype=torch.uint8)
    bright = [int(ColorChange((0.4, 0.0, 0.0), 0)(rng, grey)[0, 0, 0]) for _ in range(400)]
    assert 60 <= min(bright) < 64
    assert 136 < max(bright) <= 140
    assert abs(np.mean(bright) - 100) < 4
    changed = [ColorChange((0.4, 0.4, 0.4), 0)(np.random.default_rng(s), noise()) for s in range(5)]
    assert len({tuple(c.flatten().tolist()) for c in changed}) == 5
    assert torch.equal(changed[2], ColorChange((0.4, 0.4, 0.4), 0)(np.random.default_rng(2), noise()))


def test_lighting_shifts_a_image_along_the_principal_colours():
    grey, n = torch.full((3, 2, 2), 128, dtype=torch.uint8), 4000
    rng, change = np.random.default_rng(1), ColorChange((0, 0, 0), 0.1)
    shifts = np.stack([change(rng, grey)[:, 0, 0].numpy() / 255 for _ in range(n)])
    vectors, values = np.array(EIGENVECTORS), np.array(EIGENVALUES)
    expected = vectors @ np.diag((0.1 * values) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=0.08 * expected.max() + (1 / 255) ** 2)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=2e-3)
    assert sum(GREY) == pytest.approx(1, abs=2e-4)


def test_without_colour_keys_no_number_is_drawn(objects):
    plain = training_set(objects)
    coloured = training_set(objects, color_jitter=(0.4, 0.4, 0.4), lighting=0.1)
    for i in range(16):
        one, other = plain[Position(0, i)], coloured[Position(0, i)]
        assert (one.crop, one.flip) == (other.crop, other.flip)  # colours are drawn after the geometry
    assert any(not torch.equal(plain[Position(0, i)].image, coloured[Position(0, i)].image) for i in range(16))


# Second view and context


def test_a_second_view_is_another_augmentation_of_the_same_sample(objects):
    needs = frozenset({"second_view"})
    dataset = training_set(objects, needs=needs)
    batch = collate([dataset[Position(0, i)] for i in range(16)])
    assert batch.second_view.shape == batch.images.shape
    same = (batch.second_view == batch.images).flatten(1).all(dim=1)
    assert same.sum() < 3
    # It shows the same image: as far as both are the whole image, they are equal.
    whole = training_set(objects, "none", flip=0.0, needs=needs)
    assert all(torch.equal(whole[Position(0, i)].image, whole[Position(0, i)].second_view) for i in range(16))
    assert torch.equal(collate([training_set(objects)[Position(0, 3)]]).images[0], batch.images[3])


def test_streams_of_a_position_are_independent():
    draws = {position_rng(0, 1, 2, stream).random() for stream in range(4)}
    assert len(draws) == 4
    assert position_rng(0, 1, 2).random() == position_rng(0, 1, 2, 0).random()
    pairs = np.array([[position_rng(0, 0, i, s).random() for s in (0, 1)] for i in range(2000)])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.07


@pytest.mark.parametrize("workers", [0, 2])
def test_views_and_contexts_do_not_depend_on_the_processes(objects, workers):
    needs = frozenset({"second_view", "is_context", "objectness"})
    dataset = training_set(objects, needs=needs, context_share=0.3, color_jitter=(0.4, 0.4, 0.4))
    options = {"batch_size": 4, "seed": 5, "start": 2, "stop": 6}
    expected = list(training_batches(dataset, **options))
    for one, other in zip(expected, training_batches(dataset, num_workers=workers, **options), strict=True):
        for name in ("images", "second_view", "is_context", "objectness"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_context_images_come_with_their_share_and_keep_crop_and_colours(objects):
    needs = frozenset({"is_context", "objectness"})
    plain = training_set(objects, needs=needs)
    dataset = training_set(objects, needs=needs, context_share=0.15, context_colour=(7, 8, 9))
    items = [(dataset[Position(e, i)], plain[Position(e, i)]) for e in range(60) for i in range(16)]
    contexts = [(own, other) for own, other in items if own.is_context]
    assert abs(len(contexts) / len(items) - 0.15) < 4 * (0.15 * 0.85 / len(items)) ** 0.5
    for own, other in items:
        assert (own.crop, own.flip, own.label) == (other.crop, other.flip, other.label)
        assert own.is_context or torch.equal(own.image, other.image)
    for own, other in contexts:
        white = (other.image == OBJECT).all(dim=0)
        painted = (own.image == torch.tensor([7, 8, 9], dtype=torch.uint8)[:, None, None]).all(dim=0)
        assert torch.equal(white, painted)  # exactly the objects: they are all that is white
        assert torch.equal(own.image[:, ~white], other.image[:, ~white])


def test_whether_a_sample_is_context_says_nothing_about_its_crop(objects):
    dataset = training_set(objects, "random_resized_crop", needs=frozenset({"is_context"}), context_share=0.5)
    items = [dataset[Position(e, i)] for e in range(80) for i in range(16)]
    context = np.array([item.is_context for item in items], float)
    for drawn in ([item.crop[2] * item.crop[3] for item in items], [item.flip for item in items]):
        assert abs(np.corrcoef(context, drawn)[0, 1]) < 0.1  # 3.6 standard errors


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (1.0, 16)])
def test_shares_at_their_ends(objects, share, count):
    dataset = training_set(objects, needs=frozenset({"is_context"}), context_share=share)
    assert int(collate([dataset[Position(0, i)] for i in range(16)]).is_context.sum()) == count


def test_context_images_need_boxes(objects):
    without = build_samples(
        paths=objects.paths, relative=objects.relative, labels=objects.labels, sizes=None,
        boxes=[np.zeros((0, 4))] * 16,
        classes=objects.classes, name="objects", split="train", display_names=[],
    )  # fmt: skip
    with pytest.raises(InputError, match="no usable box"):
        training_set(without, needs=frozenset(), context_share=0.1)
