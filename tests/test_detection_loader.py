"""The detectors' loader: boxes stay on their pixels, and what a batch holds depends on nothing but its number."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.rectangles import boxes_in_pixels, load_rectangles
from PIL import Image

from backbones.core.errors import InputError
from backbones.core.images import decode_image
from backbones.core.sampling import Position
from detection.data import loader
from detection.data.images import load_resized, resized_size
from detection.data.loader import InferenceImages, TrainingImages, inference_batches, training_batches


def training_images(data, *, short_sides=(32,), flip=True, cache=False, seed=0):
    return TrainingImages(data.records, short_sides=short_sides, longest=1000, flip=flip, seed=seed, cache=cache)


def batches_of(images, start=0, stop=12, batch_size=2, **options):
    options = {"seed": 0, "group_by_shape": True, "num_workers": 0, "pin_memory": False, **options}
    return list(training_batches(images, batch_size=batch_size, start=start, stop=stop, **options))


def assert_equal_batches(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert (a.image_ids, a.sizes, a.originals) == (b.image_ids, b.sizes, b.originals)
        assert torch.equal(a.images, b.images)
        assert all(map(torch.equal, [*a.boxes, *a.labels], [*b.boxes, *b.labels]))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six images, two of each shape."""
    return load_rectangles(tmp_path_factory.mktemp("rectangles"), count=6)


@pytest.mark.parametrize(
    ("suffix", "size", "short_side"),
    [
        ("png", (96, 64), 64),  # as it is
        ("png", (96, 64), 32),  # halved: decoded at half size
        ("png", (64, 96), 48),  # three quarters
        ("png", (64, 96), 192),  # enlarged
        ("jpg", (128, 64), 64),
        ("jpg", (128, 256), 32),  # decoded at a quarter
        ("jpg", (256, 192), 24),  # at an eighth
        ("jpg", (128, 64), 48),
    ],
)
def test_boxes_stay_on_their_pixels(tmp_path, suffix, size, short_side):
    """The rectangle found in the pixels is the box, resized or mirrored."""
    scale = short_side / min(size)
    grid = 32 if min(size) > 96 else 16
    data = load_rectangles(tmp_path, count=2, sizes=(size,), grid=grid, suffix=suffix)
    images = training_images(data, short_sides=(short_side,))
    mirrored = set()
    for position in (Position(epoch, index) for epoch in range(4) for index in range(2)):
        item = images[position]
        assert item.image.shape == (3, size[1] * scale, size[0] * scale)
        assert item.labels.tolist() == [0, 1]
        found = boxes_in_pixels(item.image)
        assert [found[0], found[1]] == item.boxes.tolist()
        straight = torch.from_numpy(data.records[position.index].boxes) * scale
        mirrored.add(not torch.equal(straight, item.boxes))
    assert mirrored == {True, False}


def test_half_of_the_images_are_mirrored_and_none_if_unwanted(data):
    plain, flipped = training_images(data, flip=False), training_images(data)
    changed = 0
    for position in (Position(epoch, index) for epoch in range(20) for index in range(6)):
        one, other = plain[position], flipped[position]
        changed += not torch.equal(one.image, other.image)
        assert torch.equal(one.image, plain[Position(0, position.index)].image)
    assert 40 <= changed <= 80  # of 120; 3.6 standard deviations


def test_every_short_side_is_drawn(data):
    images = training_images(data, short_sides=(32, 40, 64))
    drawn = [min(images[Position(epoch, 0)].image.shape[1:]) for epoch in range(60)]
    assert all(drawn.count(side) >= 8 for side in (32, 40, 64))  # 20 each expected


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (1000, 100), (37, 411), (50, 50)])
def test_a_side_is_as_wanted_and_the_shape_is_kept(width, height):
    w, h = resized_size(width, height, 100, 160)
    assert min(w, h) == 100 or max(w, h) == 160
    assert max(w, h) <= 160
    assert abs(w / width - h / height) <= 0.5 / min(width, height) + 1e-9  # rounding of either side


def test_cached_images_are_those_of_the_file(data):
    assert_equal_batches(batches_of(training_images(data, cache=True)), batches_of(training_images(data)))


@pytest.mark.parametrize("start", [1, 3, 7])
def test_a_resumed_loader_gives_the_tail(data, start):
    images = training_images(data, short_sides=(32, 48))
    whole = batches_of(images)
    assert_equal_batches(whole[start:], batches_of(training_images(data, short_sides=(32, 48)), start=start))
    other = batches_of(training_images(data, short_sides=(32, 48), seed=1), seed=1)
    assert [batch.image_ids for batch in other] != [batch.image_ids for batch in whole]


def test_workers_and_the_global_generator_change_nothing(data):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = batches_of(training_images(data), stop=4)
    assert torch.equal(before, torch.get_rng_state())
    assert_equal_batches(one, batches_of(training_images(data), stop=4, num_workers=1))


def test_batches_hold_wide_or_tall_images_and_padding(data):
    ids, kinds = [], set()
    for batch in batches_of(training_images(data), stop=6):
        wide = {width >= height for height, width in batch.originals}
        assert len(wide) == 1
        kinds |= wide
        ids += batch.image_ids
        assert batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0
        for image, (height, width), boxes in zip(batch.images, batch.sizes, batch.boxes, strict=True):
            assert not image[:, height:].any()
            assert not image[:, :, width:].any()
            assert [*boxes_in_pixels(image).values()] == boxes.tolist()
    assert kinds == {True, False}
    # Two epochs of three batches: every image once in each.
    assert sorted(ids[:6]) == sorted(ids[6:]) == [record.image_id for record in data.records]
    mixed = batches_of(training_images(data), stop=12, group_by_shape=False)
    assert any(len({w >= h for h, w in batch.originals}) == 2 for batch in mixed)


def test_two_processes_share_the_batches_of_one(data, monkeypatch):
    whole = batches_of(training_images(data), stop=3)
    shares = []
    monkeypatch.setattr(loader, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(loader, "rank", lambda rank=rank: rank)
        shares.append(batches_of(training_images(data), stop=3))
    assert [[*a.image_ids, *b.image_ids] for a, b in zip(*shares, strict=True)] == [b.image_ids for b in whole]
    with pytest.raises(InputError, match="batch of 3 cannot be shared by 2 processes"):
        batches_of(training_images(data), batch_size=3)


@pytest.mark.parametrize(("processes", "batch_size"), [(1, 1), (1, 4), (2, 2), (4, 4), (8, 1)])
def test_every_test_image_comes_once(data, monkeypatch, processes, batch_size):
    """Also with more processes than images."""
    images = InferenceImages(data.records, short_side=32, longest=100)
    ids = []
    monkeypatch.setattr(loader, "world_size", lambda: processes)
    for rank in range(processes):
        monkeypatch.setattr(loader, "rank", lambda rank=rank: rank)
        batches = inference_batches(images, batch_size=batch_size, num_workers=0, pin_memory=False)
        for batch in batches:
            assert len(batch.image_ids) <= batch_size
            assert not any(len(boxes) for boxes in batch.boxes)
            ids += batch.image_ids
    assert sorted(ids) == [record.image_id for record in data.records]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_truncated_jpeg_is_named_when_it_is_read(tmp_path, num_workers):
    data = load_rectangles(tmp_path, count=2, suffix="jpg")
    path = tmp_path / "1.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"the image .*1\.jpg is truncated or unreadable"):
        batches_of(training_images(data), stop=4, batch_size=1, num_workers=num_workers)
    tested = InferenceImages(data.records, short_side=32, longest=100)
    with pytest.raises(InputError, match=r"1\.jpg is truncated"):
        list(inference_batches(tested, batch_size=2, num_workers=num_workers, pin_memory=False))


def test_a_image_that_changed_or_went_is_named(tmp_path):
    data = load_rectangles(tmp_path, count=1)
    Image.new("RGB", (96, 65)).save(tmp_path / "0.png")
    with pytest.raises(InputError, match=r"0\.png is 96x65, its annotations state \(96, 64\)"):
        training_images(data, short_sides=(64,))[Position(0, 0)]
    (tmp_path / "0.png").unlink()
    with pytest.raises(InputError, match=r"cannot read the image .*0\.png: No such file"):
        training_images(data)[Position(0, 0)]


def test_too_few_images_of_a_shape_are_refused(data):
    with pytest.raises(
        InputError,
        match=r"6 samples form groups of 2 and 4 .* use a batch of 4 or less",
    ):
        batches_of(training_images(data), batch_size=5)


def test_a_shape_that_never_fills_a_batch_is_said(data, monkeypatch):
    """Two of the six images are tall: with batches of three they would silently never be learned."""
    said = []
    monkeypatch.setattr(loader, "get_logger", lambda: SimpleNamespace(warning=lambda text, *args: said.append(args)))
    ids = {n for batch in batches_of(training_images(data), batch_size=3) for n in batch.image_ids}
    assert said == [(2, "tall", 3)]
    assert ids == {r.image_id for r in data.records if r.width >= r.height}
    batches_of(training_images(data), batch_size=3, group_by_shape=False)
    assert len(said) == 1


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P"])
def test_other_images_become_rgb(tmp_path, mode):
    """A grey value survives every way into RGB."""
    path = tmp_path / ("x.jpg" if mode in ("L", "CMYK") else "x.png")
    Image.new("RGB", (32, 16), (200, 200, 200)).convert(mode, dither=Image.Dither.NONE).save(path)
    pixels = decode_image(path)
    assert pixels.shape == (16, 32, 3)
    assert np.abs(pixels.astype(int) - 200).max() <= 4  # the palette's nearest grey is 204
    assert load_resized(path, (32, 16), (16, 8)).shape == (3, 8, 16)


def test_exif_does_not_turn_a_image(tmp_path):
    """Boxes refer to the pixels as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to show"
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :16] = 255
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    for reduction in (1, 2):
        decoded = decode_image(tmp_path / "turned.jpg", reduction)
        assert decoded.shape == (32 // reduction, 64 // reduction, 3)
        assert (decoded[:, : 16 // reduction] > 128).all()
        assert (decoded[:, 16 // reduction :] < 128).all()
