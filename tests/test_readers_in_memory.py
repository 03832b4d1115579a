"""CIFAR, SVHN and Fashion-MNIST on tiny files in their original formats."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets

from backbones.core.errors import InputError
from backbones.core.sampling import Position
from backbones.core.warning_counter import WarningCounter
from backbones.data import in_memory
from backbones.data.evaluation_set import EvaluationSet
from backbones.data.items import collate
from backbones.data.loader import evaluation_batches, training_batches
from backbones.data.samples import Samples, load_samples
from backbones.data.training_set import TrainingSet

CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10, "fashion_mnist": 10}


def load(name: str, root: Path, split: str) -> Samples:
    in_memory._build_svhn.cache_clear()
    return load_samples(name, root, split, drop_without_box=False, need_boxes=False, warnings=WarningCounter())


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(root: Path, kind: type, monkeypatch, count: int = 12) -> dict[str, np.ndarray]:
    """Files as python's pickle of the original release; the checksums of torchvision are those of the tiny files."""
    folder, written = root / kind.base_folder, {}
    folder.mkdir(parents=True)
    hundred = kind is datasets.CIFAR100
    labels, number = ("fine_labels" if hundred else "labels"), (100 if hundred else 10)
    for files, split in ((kind.train_list, "train"), (kind.test_list, "test")):
        parts = []
        for part, (file, _) in enumerate(files):
            data = pixels(count, 3, 32, 32, seed=part + 10 * (split == "test"))
            entry = {"data": data.reshape(count, -1), labels: [(7 * i + part) % number for i in range(count)]}
            (folder / file).write_bytes(pickle.dumps(entry))
            parts.append(data)
        written[split] = np.concatenate(parts).transpose(0, 2, 3, 1)
        attribute = f"{split}_list"
        monkeypatch.setattr(kind, attribute, [[file, md5(folder / file)] for file, _ in files])
    meta = {kind.meta["key"]: [f"class {k}" for k in range(number)]}
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(folder / kind.meta["filename"])})
    return written


def write_svhn(root: Path, monkeypatch) -> dict[str, np.ndarray]:
    """Matlab files: X is (32, 32, 3, N), y from 1 to 10 with 10 for the digit 0."""
    root.mkdir(parents=True)
    written, checksums = {}, dict(datasets.SVHN.split_list)
    for split, count in (("train", 9), ("extra", 14), ("test", 5)):
        data = pixels(count, 32, 32, 3, seed=count)
        path = root / f"{split}_32x32.mat"
        savemat(path, {"X": data.transpose(1, 2, 3, 0), "y": (np.arange(count) % 10 + 1)[:, None]})
        checksums[split] = [*checksums[split][:2], md5(path)]
        written[split] = data
    monkeypatch.setattr(datasets.SVHN, "split_list", checksums)
    return written


def write_fashion(root: Path) -> dict[str, np.ndarray]:
    folder, written = root / "FashionMNIST/raw", {}
    folder.mkdir(parents=True)
    for prefix, split, count in (("train", "train", 11), ("t10k", "test", 4)):
        data = pixels(count, 28, 28, seed=count)
        labels = np.arange(count, dtype=np.uint8) % 10
        header = struct.pack(">IIII", 0x803, count, 28, 28), struct.pack(">II", 0x801, count)
        for kind, head, body in (("images-idx3", header[0], data), ("labels-idx1", header[1], labels)):
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(head + body.tobytes())
            with gzip.open(folder / f"{prefix}-{kind}-ubyte.gz", "wb") as file:
                file.write(head + body.tobytes())
        written[split] = np.repeat(data[..., None], 3, axis=3)
    return written


@pytest.fixture(params=list(CLASSES))
def written(request, tmp_path, monkeypatch):
    """Name, root, and the pixels that were written by split."""
    root = tmp_path / "data"
    if request.param == "svhn":
        return request.param, root, write_svhn(root, monkeypatch)
    if request.param == "fashion_mnist":
        return request.param, root, write_fashion(root)
    kind = datasets.CIFAR10 if request.param == "cifar10" else datasets.CIFAR100
    return request.param, root, write_cifar(root, kind, monkeypatch)


def test_images_come_back_as_they_were_written(written):
    name, root, expected = written
    for split in ("train", "test"):
        samples = load(name, root, split)
        assert (len(samples), len(samples.classes)) == (len(expected[split]), CLASSES[name])
        for i in range(len(samples)):
            np.testing.assert_array_equal(samples.load_image(i), expected[split][i])
        assert 0 <= samples.labels.min() <= samples.labels.max() < CLASSES[name]
        assert samples.relative == sorted(samples.relative)
    assert load(name, root, "train").labels[1] == {"svhn": 2, "fashion_mnist": 1}.get(name, 7)


def test_fingerprints_follow_the_pixels_and_not_the_place(written, tmp_path, monkeypatch):
    name, root, _ = written
    before = load(name, root, "train")
    root.rename(tmp_path / "elsewhere")
    assert load(name, tmp_path / "elsewhere", "train").fingerprint == before.fingerprint
    before.stored.pixels[3, 0, 0, 0] ^= 1
    changed = in_memory._build(name, "train", before.classes, before.stored.pixels, before.labels)
    assert changed.fingerprint != before.fingerprint
    part = changed.subset(np.array([0, 2]))
    assert part.fingerprint not in (changed.fingerprint, changed.subset(np.array([0, 3])).fingerprint)
    assert part.stored.pixels is changed.stored.pixels  # a part shares the pixels
    np.testing.assert_array_equal(part.load_image(1), changed.load_image(2))


def test_a_missing_file_names_what_torchvision_expects(written):
    name, root, _ = written
    for path in sorted(root.rglob("*")):
        if path.is_file():
            path.unlink()
    expected = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "svhn": "train_32x32.mat"}
    with pytest.raises(InputError, match=f"torchvision expects .*{expected.get(name, 'FashionMNIST/raw')}") as caught:
        load(name, root, "train")
    assert "nothing is downloaded" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_split_is_named(written):
    name, root, _ = written
    with pytest.raises(InputError, match="no split 'trian'; did you mean 'train'"):
        load(name, root, "trian")


def test_svhn_with_extra_is_both_in_order(tmp_path, monkeypatch):
    expected = write_svhn(tmp_path / "svhn", monkeypatch)
    samples = load("svhn", tmp_path / "svhn", "train_extra")
    np.testing.assert_array_equal(samples.stored.pixels, np.concatenate([expected["train"], expected["extra"]]))
    np.testing.assert_array_equal(samples.labels[:12], [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3])
    assert load("svhn", tmp_path / "svhn", "extra").labels[9] == 0  # Matlab's 10


def test_images_in_memory_train_and_are_evaluated_like_files(tmp_path, monkeypatch):
    write_cifar(tmp_path / "c", datasets.CIFAR10, monkeypatch)
    samples = load("cifar10", tmp_path / "c", "train")
    options = {"size": 32, "crop_area": (0.5, 1), "crop_ratio": (1, 1), "flip": 0.5, "seed": 0}
    dataset = TrainingSet(samples, **options, augmentation="pad_crop", pad=4)
    loading = {"batch_size": 8, "seed": 0, "start": 0, "stop": 5}
    expected = training_batches(dataset, **loading)
    for one, other in zip(expected, training_batches(dataset, **loading, num_workers=2), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, torch.from_numpy(samples.labels)[one.index])
    (batch,) = evaluation_batches(EvaluationSet(samples, crop=32), batch_size=60)
    np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1), samples.stored.pixels)
    painted = EvaluationSet(samples, crop=32)
    painted[0].image.zero_()
    assert samples.stored.pixels[0].any()  # what is done to an image is not done to the data
    assert collate([dataset[Position(0, 1)]]).images.shape == (1, 3, 32, 32)
