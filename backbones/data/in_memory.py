"""CIFAR-10, CIFAR-100, SVHN and Fashion-MNIST, read by torchvision's classes and held in memory.

    ROOT/cifar-10-batches-py/       cifar10         train, test
    ROOT/cifar-100-python/          cifar100        train, test
    ROOT/{train,extra,test}_32x32.mat   svhn        train, extra, train_extra (both, 604,388 images), test
    ROOT/FashionMNIST/raw/          fashion_mnist   train, test; grey converted to RGB

Nothing is downloaded.
"""

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from torchvision import datasets

from backbones.core.errors import InputError, suggestion
from backbones.core.files import fingerprint
from backbones.core.warning_counter import WarningCounter
from backbones.data.samples import DATASETS, Samples, StoredImages, build_samples

SVHN_PARTS = {"train": ["train"], "extra": ["extra"], "train_extra": ["train", "extra"], "test": ["test"]}
_T = TypeVar("_T")
Arrays = tuple[np.ndarray, np.ndarray]  # (P, H, W, 3) uint8 pixels, (P,) labels


@DATASETS.register()
def cifar10(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """CIFAR-10, 32 px: 50,000 and 10,000 images."""
    return _read_cifar(datasets.CIFAR10, "cifar10", root, split)


@DATASETS.register()
def cifar100(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """CIFAR-100, 32 px: 50,000 and 10,000 images."""
    return _read_cifar(datasets.CIFAR100, "cifar100", root, split)


@DATASETS.register()
def fashion_mnist(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """Fashion-MNIST, 28 px: 60,000 and 10,000 grey images."""
    check_split("fashion_mnist", split, ("train", "test"))
    found = open_torchvision(
        lambda: datasets.FashionMNIST(root, train=split == "train", download=False), root, "FashionMNIST/raw"
    )
    pixels = np.repeat(found.data.numpy()[..., None], 3, axis=3)
    return _build("fashion_mnist", split, found.classes, pixels, found.targets.numpy())


@DATASETS.register()
def svhn(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """SVHN, 32 px crops of house numbers: 73,257 train, 531,131 extra, 26,032 test."""
    check_split("svhn", split, tuple(SVHN_PARTS))
    return _build_svhn(root, split)


@functools.lru_cache(maxsize=1)  # 1.9 GB with extra, shared by the training and the held-out part
def _build_svhn(root: Path, split: str) -> Samples:
    pixels, labels = zip(*(_read_svhn(root, part) for part in SVHN_PARTS[split]), strict=True)
    joined = pixels[0] if len(pixels) == 1 else np.concatenate(pixels)
    return _build("svhn", split, [str(digit) for digit in range(10)], joined, np.concatenate(labels))


def _read_cifar(kind: type[datasets.CIFAR10], name: str, root: Path, split: str) -> Samples:
    check_split(name, split, ("train", "test"))
    found = open_torchvision(lambda: kind(root, train=split == "train", download=False), root, kind.base_folder)
    return _build(name, split, found.classes, found.data, np.array(found.targets))


def _read_svhn(root: Path, part: str) -> Arrays:
    found = open_torchvision(lambda: datasets.SVHN(root, split=part, download=False), root, f"{part}_32x32.mat")
    return np.ascontiguousarray(found.data.transpose(0, 2, 3, 1)), found.labels


def open_torchvision(read: Callable[[], _T], root: Path, expected: str) -> _T:
    """Return torchvision's data set; raise `InputError` if its files below `root` are missing or damaged."""
    try:
        return read()
    # "Dataset not found or corrupted"; a missing or unreadable file; errors of pickle and scipy; files cut short.
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, ValueError, AssertionError, KeyError) as error:
        reason = str(error).partition("\n")[0][:80] or type(error).__name__
        raise InputError(
            f"torchvision expects {root / expected}, which is missing or damaged ({reason}); "
            "put the original files there, or correct DATA.ROOT; nothing is downloaded"
        ) from None


def check_split(name: str, split: str, splits: tuple[str, ...]) -> None:
    """Raise `InputError`, with the nearest name, if the data set has no such split."""
    if split not in splits:
        raise InputError(f"{name} has no split '{split}'{suggestion(split, splits)}; splits: {', '.join(splits)}")


def _build(name: str, split: str, classes: list[str], pixels: np.ndarray, labels: np.ndarray) -> Samples:
    count, height, width = pixels.shape[:3]
    if len(labels) != count:
        raise InputError(f"{name} {split}: {count} images, but {len(labels)} labels; put the original files there")
    names = [f"{split}/{row:06d}" for row in range(count)]
    return build_samples(
        paths=names,
        relative=names,
        labels=labels,
        sizes=np.full((count, 2), [width, height], np.int64),
        boxes=np.zeros((0, 4)),
        offsets=np.zeros(count + 1, np.int64),
        classes=list(classes),
        name=name,
        split=split,
        display_names=list(classes),
        stored=StoredImages(pixels, np.arange(count), fingerprint(pixels)),
    )
