"""Loading: pixels as PIL's and torchvision's, samples as pure functions of their position, errors in one line."""

import io
import json
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from backbones.core import distributed
from backbones.core.errors import InputError
from backbones.core.images import decode_image
from backbones.core.sampling import Position
from backbones.data.batch import Batch
from backbones.data.evaluation_set import EvaluationSet
from backbones.data.images import normalize, resize_crop
from backbones.data.items import collate
from backbones.data.loader import evaluation_batches, training_batches
from backbones.data.masking import paint_boxes
from backbones.data.samples import Samples, build_samples
from backbones.data.training_set import TrainingSet

NEEDS = frozenset({"objectness", "boxes"})


def random_image(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth random image with some noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(coarse) + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)


def samples_of(paths: list[Path], boxes: list[list[list[float]]]) -> Samples:
    return build_samples(
        paths=[str(path) for path in paths],
        relative=[path.name for path in paths],
        labels=np.arange(len(paths)) % 3,
        sizes=None,
        boxes=[np.array(b, float).reshape(-1, 4) for b in boxes],
        classes=["a", "b", "c"],
        name="test",
        split="train",
        display_names=[],
    )


@pytest.fixture
def jpegs(tmp_path: Path) -> Samples:
    """Eleven images of different sizes with one or two boxes."""
    paths = [tmp_path / f"{i:02d}.JPEG" for i in range(11)]
    for i, path in enumerate(paths):
        Image.fromarray(random_image(60 + 7 * i, 90 - 5 * i, i)).save(path, quality=90)
    boxes = [[[5, 5, 40, 35]] if i % 2 else [[5, 5, 40, 35], [20, 10, 55, 30]] for i in range(11)]
    return samples_of(paths, boxes)


@pytest.fixture
def white_objects(tmp_path: Path) -> Samples:
    """Lossless black images, white within their boxes: what is white is object."""
    rng = np.random.default_rng(0)
    paths, boxes = [], []
    for i in range(12):
        image, own = np.zeros((120 + 9 * i, 200 - 7 * i, 3), np.uint8), []
        for _ in range(1 + i % 3):
            x0, y0 = rng.integers(0, 30, 2)
            w, h = rng.integers(20, 90, 2)
            image[y0 : y0 + h, x0 : x0 + w] = 255
            own.append([x0, y0, x0 + w, y0 + h])
        paths.append(tmp_path / f"{i:02d}.png")
        Image.fromarray(image).save(paths[-1])
        boxes.append(own)
    return samples_of(paths, boxes)


def training_set(samples: Samples, **options) -> TrainingSet:
    defaults = {"size": 32, "crop_area": (0.3, 1.0), "crop_ratio": (0.75, 4 / 3), "flip": 0.5, "seed": 1}
    return TrainingSet(samples, **{**defaults, **options})


def assert_batches_equal(one: Batch, other: Batch) -> None:
    for name, value in vars(one).items():
        if value is None:
            assert getattr(other, name) is None
        else:
            assert torch.equal(value, getattr(other, name)), name


# Images


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_decoding_equals_pil(tmp_path, mode):
    path = tmp_path / "x.JPEG"
    Image.fromarray(random_image(61, 43)).convert(mode).save(path, quality=80)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    ours = decode_image(path)
    assert (ours.dtype, ours.shape) == (np.uint8, (43, 61, 3))
    assert np.abs(ours - expected).max() <= (1 if mode == "CMYK" else 0)


def test_exif_does_not_turn_the_image_away_from_its_boxes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random_image(60, 40)).save(tmp_path / "x.JPEG", exif=exif)
    assert decode_image(tmp_path / "x.JPEG").shape == (40, 60, 3)


def test_a_png_with_a_jpegs_name_is_read(tmp_path):
    image = random_image(30, 20)
    Image.fromarray(image).save(tmp_path / "x.JPEG", "PNG")
    np.testing.assert_array_equal(decode_image(tmp_path / "x.JPEG"), image)


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.7, 0.99])
def test_a_truncated_jpeg_is_named_not_filled_with_grey(tmp_path, kept):
    buffer = io.BytesIO()
    Image.fromarray(random_image(200, 150)).save(buffer, "JPEG")
    path = tmp_path / "cut.JPEG"
    path.write_bytes(buffer.getvalue()[: int(kept * buffer.tell())])
    with pytest.raises(InputError, match=r"cut\.JPEG is truncated or unreadable"):
        decode_image(path)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path):
    Image.fromarray(random_image(50, 40)).save(tmp_path / "a.JPEG")
    for tail in (bytes(10), bytes(5000)):
        (tmp_path / "b.JPEG").write_bytes((tmp_path / "a.JPEG").read_bytes() + tail)
        np.testing.assert_array_equal(decode_image(tmp_path / "b.JPEG"), decode_image(tmp_path / "a.JPEG"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.JPEG"):
        decode_image(tmp_path / "gone.JPEG")


@pytest.mark.parametrize("crop", [(0, 0, 200, 150), (13, 7, 40, 33), (50, 20, 32, 32), (3, 0, 190, 21)])
def test_resizing_a_crop_equals_pil_within_rounding(crop):
    image = random_image(200, 150)
    x, y, w, h = crop
    expected = Image.fromarray(image).crop((x, y, x + w, y + h)).resize((48, 32), Image.Resampling.BILINEAR)
    ours = resize_crop(image, crop, 48, 32).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalize_is_the_plain_formula(dtype):
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    mean, std = torch.tensor([0.4, 0.5, 0.6], dtype=dtype), torch.tensor([0.2, 0.25, 0.3], dtype=dtype)
    expected = (images.to(dtype) / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(normalize(images, mean, std), expected)


# Training samples


def test_objectness_is_the_share_of_the_crop_that_is_object(white_objects):
    dataset = training_set(white_objects, needs=NEEDS, size=96)
    batch = collate([dataset[Position(e, i)] for e in range(5) for i in range(len(dataset))])
    white = batch.images.float().mean(dim=(1, 2, 3)) / 255
    torch.testing.assert_close(batch.objectness, white, atol=0.01, rtol=0)
    assert batch.objectness.std() > 0.1


def test_boxes_follow_crop_and_flip(white_objects):
    dataset = training_set(white_objects, needs=NEEDS, size=96)
    batch = collate([dataset[Position(e, i)] for e in range(5) for i in range(len(dataset))])
    for image, boxes, count in zip(batch.images, batch.boxes, batch.box_count, strict=True):
        painted = torch.zeros(96, 96)
        for x0, y0, x1, y1 in boxes.round().int().tolist():
            painted[y0:y1, x0:x1] = 255
        assert (painted - image[0]).abs().mean() / 255 < 0.03  # the edges, which fall between pixels
        assert boxes[count:].eq(0).all()


def test_a_sample_is_a_function_of_seed_epoch_and_index(jpegs):
    dataset, again = training_set(jpegs, needs=NEEDS), training_set(jpegs, needs=NEEDS)
    one = collate([dataset[Position(3, i)] for i in range(11)])
    [again[Position(e, 0)] for e in range(3)]  # what was loaded before does not matter
    assert_batches_equal(one, collate([again[Position(3, i)] for i in range(11)]))
    for other in (training_set(jpegs, seed=2)[Position(3, 4)], dataset[Position(4, 4)]):
        assert not torch.equal(one.images[4], other.image)


def test_computing_objectness_does_not_change_the_images(jpegs):
    plain, needy = training_set(jpegs), training_set(jpegs, needs=NEEDS)
    for i in range(11):
        assert torch.equal(plain[Position(0, i)].image, needy[Position(0, i)].image)
    batch = collate([plain[Position(0, 0)]])
    assert batch.objectness is None
    assert batch.boxes is None
    assert not batch.mixed.any()


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (1.0, 1, 1), (0.3, 0.2, 0.4)])
def test_flips_come_with_their_probability(white_objects, probability, low, high):
    dataset = training_set(white_objects, flip=probability)
    share = np.mean([dataset[Position(e, i)].flip for e in range(25) for i in range(12)])
    assert low <= share <= high


def test_a_flip_mirrors_the_image(jpegs):
    as_it_is = training_set(jpegs, flip=0.0)[Position(0, 3)].image
    assert torch.equal(training_set(jpegs, flip=1.0)[Position(0, 3)].image, as_it_is.flip(2))


@pytest.mark.parametrize("options", [{"crop_area": (0.0, 1.0)}, {"crop_area": (0.5, 1.2)}, {"crop_ratio": (2.0, 1.0)}])
def test_impossible_crops_are_refused(jpegs, options):
    with pytest.raises(InputError, match=r"DATA\.CROP_"):
        training_set(jpegs, **options)


def test_a_image_without_box_is_refused_where_boxes_are_needed(jpegs):
    without = samples_of([Path(p) for p in jpegs.paths[:2]], [[[0, 0, 5, 5]], []])
    training_set(without)
    for build in (lambda: training_set(without, needs=NEEDS), lambda: EvaluationSet(without, with_objectness=True)):
        with pytest.raises(InputError, match=r"01\.JPEG"):
            build()


# Evaluated samples


@pytest.mark.parametrize(("resize", "crop"), [(64, 56), (33, 33), (0, 32), (80, 64)])
def test_evaluation_equals_torchvision_on_pil(jpegs, resize, crop):
    steps = [transforms.Resize(resize)] if resize else []
    reference = transforms.Compose([*steps, transforms.CenterCrop(crop), transforms.PILToTensor()])
    dataset = EvaluationSet(jpegs, resize=resize, crop=crop)
    for i, path in enumerate(jpegs.paths):
        with Image.open(path) as image:
            difference = (dataset[i].image.int() - reference(image.convert("RGB")).int()).abs()
        assert difference.max() <= 1


def test_objectness_of_the_centre_crop_and_of_the_whole_image(white_objects):
    dataset = EvaluationSet(white_objects, resize=128, crop=96, with_objectness=True)
    batch = collate([dataset[i] for i in range(12)])
    torch.testing.assert_close(batch.objectness, batch.images.float().mean(dim=(1, 2, 3)) / 255, atol=0.01, rtol=0)
    whole = torch.tensor([decode_image(path).mean() / 255 for path in white_objects.paths], dtype=torch.float32)
    torch.testing.assert_close(batch.objectness_full, whole)
    assert (batch.objectness - batch.objectness_full).abs().max() > 0.05


def test_painting_covers_exactly_the_objects(white_objects):
    dataset = EvaluationSet(white_objects, resize=64, stretch=True, cover=partial(paint_boxes, colour=(0, 0, 0)))
    assert all(dataset[i].image.max() == 0 for i in range(12))
    coloured = EvaluationSet(white_objects, cover=partial(paint_boxes, colour=(10, 20, 30)))[0].image
    assert set(map(tuple, coloured.flatten(1).T.tolist())) == {(0, 0, 0), (10, 20, 30)}


def test_boxes_of_a_square_are_scaled_by_side(jpegs):
    batch = collate([EvaluationSet(jpegs, resize=224, stretch=True)[i] for i in (1, 2)])
    width, height = 67, 85  # of image 1
    expected = torch.tensor([5 / width, 5 / height, 40 / width, 35 / height]) * 224
    torch.testing.assert_close(batch.boxes[0, 0], expected)
    assert batch.images.shape == (2, 3, 224, 224)
    assert batch.box_count.tolist() == [1, 2]
    assert batch.boxes[0, 1].eq(0).all()


def test_a_crop_larger_than_the_image_is_refused(jpegs):
    with pytest.raises(InputError, match=r"00\.JPEG has 60 x 90 .*EVAL_RESIZE"):
        EvaluationSet(jpegs, crop=64)[0]


# Batches


@pytest.mark.parametrize("workers", [0, 2])
def test_training_resumes_where_it_was_stopped_with_any_number_of_workers(jpegs, workers):
    dataset = training_set(jpegs, needs=NEEDS)
    options = {"batch_size": 4, "seed": 5, "stop": 6}
    whole = list(training_batches(dataset, start=0, **options))
    assert len(whole) == 6
    rest = training_batches(dataset, start=3, num_workers=workers, **options)
    assert len(rest) == 3
    for one, other in zip(whole[3:], rest, strict=True):
        assert_batches_equal(one, other)


LARGE_RESIZE = "cv2.resize(np.zeros((3000, 3000, 3), np.uint8), (2000, 2000))"
FORK = f"""
import os, sys, cv2, torch, numpy as np
import backbones.data.loader
{LARGE_RESIZE}
child = os.fork()
if not child:
    {LARGE_RESIZE}
    torch.set_num_threads(1)  # as torch does in every worker
    cv2.setNumThreads(1)
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_loader_process_waits_for_no_thread_of_opencv():
    """With threads of OpenCV's own, started by a large image before the fork, this one never ends."""
    done = subprocess.run([sys.executable, "-c", FORK], check=False, timeout=60, cwd=Path(__file__).parents[1])
    assert done.returncode == 7  # of the forked process


def test_each_epoch_visits_a_sample_at_most_once(jpegs):
    batches = list(training_batches(training_set(jpegs), batch_size=5, seed=0, start=0, stop=4))
    first = torch.cat([b.index for b in batches[:2]])
    assert len(first.unique()) == 10
    labels = torch.from_numpy(jpegs.labels)
    assert all(torch.equal(b.labels, labels[b.index]) for b in batches)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_sample_once_over_all_processes(jpegs, monkeypatch, world_size):
    seen = []
    monkeypatch.setattr(distributed, "world_size", lambda: world_size)
    for rank in range(world_size):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        batches = evaluation_batches(EvaluationSet(jpegs, resize=16, stretch=True), batch_size=4)
        seen += [i for batch in batches for i in batch.index.tolist()]
    assert sorted(seen) == list(range(11))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_ends_loading_with_one_line(jpegs, workers):
    path = Path(jpegs.paths[7])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"07\.JPEG is truncated") as caught:
        list(evaluation_batches(EvaluationSet(jpegs, resize=16, stretch=True), batch_size=2, num_workers=workers))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_images_of_different_sizes_in_a_batch_are_refused(jpegs):
    with pytest.raises(InputError, match=r"differ in size.*EVAL_CROP"):
        list(evaluation_batches(EvaluationSet(jpegs), batch_size=2))


def test_loading_leaves_the_global_generator_alone(jpegs):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(training_batches(training_set(jpegs), batch_size=4, seed=0, start=0, stop=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_moves_as_a_whole(jpegs):
    dataset = EvaluationSet(jpegs, resize=8, stretch=True, with_objectness=True)
    moved = collate([dataset[0]]).to("meta")
    assert all(value.device.type == "meta" for value in vars(moved).values() if value is not None)
    assert len(moved) == 1


def test_the_benchmark_runs_on_a_folder_of_jpegs(tmp_path, capsys):
    for i in range(3):
        Image.fromarray(random_image(320, 240, i)).save(tmp_path / f"{i}.jpg")
    script = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks/loader.py"))
    script["main"](["--images", str(tmp_path), "--repeats", "1"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "loader"
    assert set(result["ratios"]) == {"ours_over_torchvision", "objectness"}
    assert result["details"]["parity_255"] < 0.5


def test_stretched_images_show_the_middle_of_both_sides(white_objects):
    """Resize(256, 256) and a centre crop: half of either side, so a quarter of the image, whatever its ratio."""
    dataset = EvaluationSet(white_objects, resize=128, crop=64, stretch=True, with_objectness=True)
    whole = EvaluationSet(white_objects, resize=128, stretch=True)
    for i in range(len(white_objects)):
        item = dataset[i]
        width, height = item.source_size
        assert item.crop == pytest.approx((width / 4, height / 4, width / 2, height / 2))
        assert torch.equal(item.image, whole[i].image[:, 32:96, 32:96])
