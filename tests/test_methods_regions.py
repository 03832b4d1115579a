"""Combined and hidden images, against pixels: every share that a label weighs is counted on a painted image."""

import numpy as np
import pytest
import torch
from helpers.method_toys import K, build
from scipy.stats import chisquare

from backbones.data.batch import Batch
from backbones.data.geometry import union_area
from backbones.methods import functional as F
from backbones.methods.regions import cut_squares, union_areas

HEIGHT, WIDTH = 14, 17
DOUBLE = torch.float64


def painted(labels, num_classes=K):
    """Every image in the colour of its class: one channel a class."""
    return F.one_hot(labels, num_classes, DOUBLE)[:, :, None, None].repeat(1, 1, HEIGHT, WIDTH)


def numbered(count):
    """Every pixel says of which image it is, and where it was: (count, 1, H, W) of image, y, x in base 100."""
    image, y, x = torch.meshgrid(torch.arange(count), torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return (10_000 * image + 100 * y + x)[:, None].double()


# Shares of pixels


@pytest.mark.parametrize("name", ["CutMix", "RICAP", "Mixup"])
def test_mean_colour_is_the_target(name):
    method, labels = build(name), torch.arange(K).repeat(2)
    targets = F.one_hot(labels, K, DOUBLE)
    several = 0
    for seed in range(40):
        torch.manual_seed(seed)
        mixed, soft = method.mix(Batch(painted(labels), labels), targets)
        torch.testing.assert_close(mixed.images.mean(dim=(2, 3)), soft)
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(2 * K, dtype=DOUBLE))
        several += int(((soft > 0).sum(dim=1) > 1).any())
        changed = (soft - targets).abs().amax(dim=1) > 1e-9
        assert not (changed & ~mixed.mixed).any(), "a changed sample must say so"
    assert several > 20


@pytest.mark.parametrize("amount", [0.1, 0.4])
def test_mixing_soft_labels_keeps_the_linear_combination(amount):
    # With labels smoothed before mixing the colour is that of the smoothed labels.
    method, labels = build("CutMix"), torch.arange(K)
    targets = F.smooth_labels(labels, K, amount, "all", DOUBLE)
    mixed, soft = method.mix(Batch(painted(labels), labels), targets)
    expected = (1 - amount) * mixed.images.mean(dim=(2, 3)) + amount / K
    torch.testing.assert_close(soft, expected)


def quarters_of(image):
    """{(source, dy, dx): mask} of one mixed image (H, W) of `numbered` pixels: where each pixel was taken from."""
    source, position = image.long() // 10_000, image.long() % 10_000
    dy = position // 100 - torch.arange(HEIGHT)[:, None]
    dx = position % 100 - torch.arange(WIDTH)
    keys = torch.stack([source, dy, dx], dim=-1).reshape(-1, 3)
    return {tuple(key.tolist()): (keys == key).all(dim=1).reshape(HEIGHT, WIDTH) for key in keys.unique(dim=0)}


def test_each_part_of_ricap_is_a_crop_of_one_image():
    method, count = build("RICAP", alpha=1.0), 6
    labels = torch.arange(count) % K
    offsets = set()
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, soft = method.mix(Batch(numbered(count), labels), F.one_hot(labels, K, DOUBLE))
        sources = {}
        for i, image in enumerate(mixed.images[:, 0]):
            parts = quarters_of(image)
            assert len(parts) <= 4
            expected = torch.zeros(K, dtype=DOUBLE)
            for (source, dy, dx), mask in parts.items():
                rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
                assert mask.sum() == len(rows) * len(columns)  # a rectangle ...
                assert rows[0] == 0 or rows[-1] == HEIGHT - 1  # ... in a corner
                assert columns[0] == 0 or columns[-1] == WIDTH - 1
                assert int(rows[-1] - rows[0]) == len(rows) - 1
                expected[labels[source]] += mask.sum() / mask.numel()
                sources.setdefault((int(rows[0]), int(columns[0])), []).append(source)
                offsets.add((dy, dx))
            torch.testing.assert_close(soft[i], expected)
        # Every part is filled by a permutation of the batch.
        assert all(sorted(found) == list(range(count)) for found in sources.values())
    assert len(offsets) > 30, "crops start anywhere"


def test_mixup_is_the_formula():
    method, labels = build("Mixup"), torch.arange(K)
    images, targets = torch.rand(K, 3, HEIGHT, WIDTH, dtype=DOUBLE), F.one_hot(labels, K, DOUBLE)
    torch.manual_seed(1)
    mixed, soft = method.mix(Batch(images, labels), targets)
    # The targets of one-hot labels say which two images were mixed, and how.
    expected = torch.einsum("bk,kchw->bchw", soft, images)
    torch.testing.assert_close(mixed.images, expected)
    kept = soft.diagonal()[mixed.mixed]
    assert ((kept - kept[0]).abs() < 1e-12).all(), "one weight a batch"


# Hidden squares


def hidden_slowly(size, centre_y, centre_x):
    """The pixels of the square of side `size` that begins size // 2 before the centre."""
    square = set()
    for i in range(size):
        for j in range(size):
            y, x = centre_y - size // 2 + i, centre_x - size // 2 + j
            if 0 <= y < HEIGHT and 0 <= x < WIDTH:
                square.add((y, x))
    return square


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 9, 100])
def test_exactly_the_pixels_of_the_square_are_hidden(size):
    centres = [(0, 0), (0, WIDTH - 1), (HEIGHT - 1, 0), (HEIGHT - 1, WIDTH - 1), (HEIGHT // 2, WIDTH // 2), (3, 11)]
    images = 1 + torch.rand(len(centres), 3, HEIGHT, WIDTH)
    y, x = torch.tensor(centres).T
    cut = cut_squares(images, y, x, size)
    for i, centre in enumerate(centres):
        hidden = hidden_slowly(size, *centre)
        for channel in range(3):
            assert {tuple(p) for p in (cut[i, channel] == 0).nonzero().tolist()} == hidden
        seen = cut[i, 0] != 0
        assert torch.equal(cut[i][:, seen], images[i][:, seen])


@pytest.mark.parametrize("name", ["CutOut", "CutOutLS", "CutOutOLS"])
def test_the_centre_of_the_square_is_uniform_over_the_image(name):
    method, count = build(name, size=1), 6000
    labels = torch.zeros(count, dtype=torch.int64)
    torch.manual_seed(0)
    mixed, targets = method.mix(Batch(torch.ones(count, 1, 4, 5), labels), F.one_hot(labels, K))
    assert torch.equal((mixed.images == 0).sum(dim=(1, 2, 3)), torch.ones(count, dtype=torch.int64))
    assert chisquare((mixed.images == 0).sum(dim=(0, 1)).flatten().numpy()).pvalue > 1e-3
    assert torch.equal(targets, F.one_hot(labels, K)), "a hidden part does not change the label"
    assert not mixed.mixed.any()


def test_cutout_with_online_labels_observes_what_it_sees():
    method = build("CutOutOLS", size=0, hard_weight=0.5)
    labels = torch.arange(K)
    method(Batch(4 * torch.eye(K, dtype=DOUBLE)[:, :, None, None], labels))
    method.end_period()
    torch.testing.assert_close(method.table.soft, (4 * torch.eye(K, dtype=DOUBLE)).softmax(dim=1))


def test_cutout_with_smoothed_labels_is_label_smoothing_of_the_cut_image():
    method = build("CutOutLS", amount=0.3, convention="k-1", size=4)
    labels = torch.arange(K)
    targets = method.targets(Batch(torch.zeros(K, K), labels))
    torch.testing.assert_close(targets, F.smooth_labels(labels, K, 0.3, "k-1", DOUBLE))


# Areas


def random_boxes(random, count, *, fractional):
    """(count, 4): some empty, some twice, some over the whole image."""
    corners = random.random((count, 4)) if fractional else random.integers(0, 12, (count, 4))
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    boxes = boxes.astype(np.float64)
    boxes[random.random(count) < 0.2] = 0
    if count > 1 and random.random() < 0.5:
        boxes[1] = boxes[0]
    return boxes


@pytest.mark.parametrize("fractional", [False, True])
def test_union_areas_of_a_batch_are_those_of_single_images(fractional):
    random = np.random.default_rng(0)
    for count in (1, 2, 3, 7):
        boxes = np.stack([random_boxes(random, count, fractional=fractional) for _ in range(30)])
        expected = [union_area(own) for own in boxes]
        np.testing.assert_allclose(union_areas(torch.from_numpy(boxes)), expected, rtol=0, atol=1e-9)


def test_no_box_covers_nothing():
    assert union_areas(torch.zeros(3, 4, 4)).tolist() == [0, 0, 0]
    reversed_box = torch.tensor([[[5.0, 5.0, 2.0, 2.0], [0.0, 0.0, 3.0, 3.0]]])
    assert union_areas(reversed_box).tolist() == [9]


# Adaptive label smoothing with context images


@pytest.mark.parametrize("convention", F.CONVENTIONS)
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_context_images_are_uniform_and_the_others_adaptive(convention, beta):
    labels, o = torch.arange(K).repeat(2), torch.rand(2 * K, dtype=DOUBLE)
    is_context = torch.arange(2 * K) % 3 == 0
    batch = Batch(torch.randn(2 * K, K, dtype=DOUBLE), labels, objectness=o, is_context=is_context)
    step = build("ALSContext", beta=beta, convention=convention)(batch)
    alone = build("ALS", beta=beta, convention=convention)(batch)
    assert torch.equal(step.targets[is_context], torch.full((int(is_context.sum()), K), 1 / K, dtype=DOUBLE))
    assert torch.equal(step.targets[~is_context], alone.targets[~is_context])


def test_context_images_do_not_count_as_crops():
    method = build("ALSContext")
    o = torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0])
    is_context = torch.tensor([True, True, False, False, False])
    for _ in range(3):
        method(Batch(torch.zeros(K, K, dtype=DOUBLE), torch.arange(K), objectness=o, is_context=is_context))
    method.gather()
    assert (method.counter.crops, method.counter.misleading) == (9, 3)


# Adaptive label smoothing with CutMix


def adaptive_slowly(label, share, num_classes, convention):
    wrong = (1 - share) / (num_classes - 1 if convention == "k-1" else num_classes)
    y = [wrong] * num_classes
    y[label] = share if convention == "k-1" else share + wrong
    return torch.tensor(y, dtype=DOUBLE)


def visible_slowly(shares, num_classes, convention):
    """shares: {class: share of the pixels}; the background goes to the other classes, or to all."""
    rest = 1 - sum(shares.values())
    others = [k for k in range(num_classes) if k not in shares]
    if convention == "all" or not others:
        others = range(num_classes)
    y = torch.zeros(num_classes, dtype=DOUBLE)
    for k in others:
        y[k] += rest / len(others)
    for k, share in shares.items():
        y[k] += share
    return y


def images_with_objects(count, num_classes, random):
    """A batch of `numbered` images with up to three integer boxes each, and the masks (B, H, W) of their objects."""
    boxes = np.zeros((count, 3, 4))
    masks = torch.zeros(count, HEIGHT, WIDTH, dtype=torch.bool)
    for i in range(count):
        for m in range(random.integers(1, 4)):
            (x0, x1), (y0, y1) = (np.sort(random.integers(0, side + 1, 2)) for side in (WIDTH, HEIGHT))
            boxes[i, m] = x0, y0, x1, y1
            masks[i, y0:y1, x0:x1] = True
    return Batch(
        numbered(count),
        torch.from_numpy(random.integers(0, num_classes, count)),
        objectness=masks.double().mean(dim=(1, 2)),
        boxes=torch.from_numpy(boxes),
    ), masks


def raster_targets(batch, masks, shown, num_classes, reading, convention):
    """The targets of each sample, by counting pixels. shown: (B, H, W), the image that each pixel is of."""
    count = len(batch)
    own = torch.arange(count)[:, None, None]
    pasted = (shown != own).any(dim=0)  # one rectangle for the whole batch
    targets = []
    for i in range(count):
        j = int(shown[i][pasted][0])
        a, b = int(batch.labels[i]), int(batch.labels[j])
        seen_a = (masks[i] & ~pasted).double().mean().item()
        seen_b = (masks[j] & pasted).double().mean().item()
        weight = pasted.double().mean().item()
        if reading == "visible":
            shares = {a: seen_a + seen_b} if a == b else {a: seen_a, b: seen_b}
            targets.append(visible_slowly(shares, num_classes, convention))
            continue
        if reading == "targets":
            seen_a, seen_b = masks[i].double().mean().item(), masks[j].double().mean().item()
        first = adaptive_slowly(a, seen_a, num_classes, convention)
        targets.append((1 - weight) * first + weight * adaptive_slowly(b, seen_b, num_classes, convention))
    return torch.stack(targets)


@pytest.mark.parametrize("reading", ["visible", "targets", "both"])
@pytest.mark.parametrize("convention", F.CONVENTIONS)
@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_adaptive_labels_of_cutmix_against_a_raster(reading, convention, num_classes):
    method = build("ALSCutMix", num_classes, reading=reading, convention=convention)
    random, compared = np.random.default_rng(0), 0
    for seed in range(12):
        batch, masks = images_with_objects(7, num_classes, random)
        torch.manual_seed(seed)
        mixed, targets = method.mix(batch, method.targets(batch))
        shown = (mixed.images[:, 0] // 10_000).long()
        assert targets.min() >= 0
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(7, dtype=DOUBLE))
        if mixed.mixed.any():
            expected = raster_targets(batch, masks, shown, num_classes, reading, convention)
            torch.testing.assert_close(targets, expected)
            compared += 1
    assert compared >= 8


@pytest.mark.parametrize("reading", ["visible", "targets", "both"])
def test_cutmix_of_nothing_is_adaptive_label_smoothing(reading):
    batch, _ = images_with_objects(7, K, np.random.default_rng(1))
    method = build("ALSCutMix", reading=reading, probability=0.0)
    mixed, targets = method.mix(batch, method.targets(batch))
    assert mixed is batch
    torch.testing.assert_close(targets, build("ALS").targets(batch))


def test_what_two_objects_leave_is_never_negative():
    # The object fills both images: rounding must not make the background less than nothing.
    method = build("ALSCutMix", dtype=torch.float32)
    boxes = torch.tensor([0.0, 0.0, 20.0, 20.0]).repeat(8, 1, 1)
    batch = Batch(torch.zeros(8, 3, 20, 20), torch.arange(8) % K, objectness=torch.ones(8), boxes=boxes)
    for seed in range(60):
        torch.manual_seed(seed)
        _, targets = method.mix(batch, method.targets(batch))
        assert targets.min() >= 0
