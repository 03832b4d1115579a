"""Smoothing towards classes that look alike: the table against a loop over images, and its limits."""

import math

import pytest
import torch
from helpers.method_toys import K, build, context

from backbones.core.errors import InputError
from backbones.data.batch import Batch
from backbones.methods import functional as F

DOUBLE = torch.float64


class Images:
    """A pass over images without augmentation, that can be counted."""

    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __call__(self):
        self.passes += 1
        return self.batches


def bright_images(classes=30, each=3):
    """Images that all look much alike, in batches that do not begin with class 0."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(classes * each) % classes
    offsets = torch.randint(-40, 40, (classes, 3, 4, 4), generator=random)
    noise = torch.randint(0, 5, (len(labels), 3, 4, 4), generator=random)
    images = (200 + offsets[labels] // 4 + noise).to(torch.uint8)
    order = torch.randperm(len(labels), generator=random)
    return Batch(images[order], labels[order])


def table_slowly(batch, classes, temperature):
    means = []
    for k in range(classes):
        own = [image.double() for image, label in zip(batch.images, batch.labels, strict=True) if label == k]
        means.append(sum(own) / len(own))
    distance = [[(a - b).square().sum().sqrt().item() for b in means] for a in means]
    mean = sum(map(sum, distance)) / (classes * (classes - 1))
    table = torch.zeros(classes, classes, dtype=DOUBLE)
    for t in range(classes):
        for j in range(classes):
            table[t, j] = math.exp(-distance[t][j] / (temperature * mean)) if t != j else 0
    return table / table.sum(dim=1, keepdim=True), torch.tensor(distance)


def in_batches(batch, size=17):
    return [Batch(i, t) for i, t in zip(batch.images.split(size), batch.labels.split(size), strict=True)]


@pytest.mark.parametrize("temperature", [0.2, 1.0, 16.0])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_table_of_similar_classes_is_the_loop(temperature, dtype):
    batch = bright_images()
    method = build("ClassSimilarityLS", 30, dtype=dtype, amount=0.2, temperature=temperature)
    method.setup(context(batch.labels, unaugmented=Images(in_batches(batch))))
    table, distance = table_slowly(batch, 30, temperature)
    torch.testing.assert_close(method.table.double(), table, rtol=1e-5 if dtype == torch.float32 else 1e-9, atol=0)
    nearest = distance.masked_fill(torch.eye(30, dtype=torch.bool), torch.inf).argmin(dim=1)
    assert torch.equal(method.table.argmax(dim=1), nearest)
    labels = torch.arange(30)
    y = method.targets(Batch(torch.zeros(30, 30), labels))
    torch.testing.assert_close(y, (0.8 * F.one_hot(labels, 30) + 0.2 * table).to(dtype), rtol=1e-5, atol=1e-9)


def test_similarity_at_a_high_temperature_is_label_smoothing():
    batch, labels = bright_images(), torch.arange(30)
    expected, distance = F.smooth_labels(labels, 30, 0.2, "k-1", DOUBLE), []
    for temperature in (1e1, 1e3, 1e30):
        method = build("ClassSimilarityLS", 30, amount=0.2, temperature=temperature)
        method.setup(context(batch.labels, unaugmented=Images([batch])))
        distance.append((method.targets(Batch(torch.zeros(30, 30), labels)) - expected).abs().max().item())
    assert distance[0] > 50 * distance[1] > 0
    assert distance[2] < 1e-15


def test_without_images_or_difference_similarity_is_label_smoothing():
    labels = torch.arange(K)
    expected = F.smooth_labels(labels, K, 0.1, "k-1", DOUBLE)
    method = build("ClassSimilarityLS", amount=0.1)
    torch.testing.assert_close(method.targets(Batch(torch.zeros(K, K), labels)), expected)
    grey = Batch(torch.full((K, 3, 2, 2), 9, dtype=torch.uint8), labels)
    method.setup(context(labels, unaugmented=Images([grey])))
    torch.testing.assert_close(method.targets(Batch(torch.zeros(K, K), labels)), expected)


def test_resumed_run_keeps_its_table():
    batch, images = bright_images(), Images([bright_images()])
    method, resumed = build("ClassSimilarityLS", 30), build("ClassSimilarityLS", 30)
    method.setup(context(batch.labels, unaugmented=images))
    resumed.setup(context(batch.labels, unaugmented=images, resumed=True))
    assert images.passes == 1
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(resumed.table, method.table)


def test_class_without_a_image_is_refused():
    batch = Batch(torch.zeros(2, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="no training image"):
        build("ClassSimilarityLS").setup(context(batch.labels, unaugmented=Images([batch])))
