"""ImageNetV2, the fine-grained sets and CIFAR-10H on tiny files in their original formats."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import flowers102 as torchvision_flowers

from backbones.core.errors import InputError
from backbones.core.warning_counter import WarningCounter
from backbones.data.cifar10h import check_agreement, load_cifar10h
from backbones.data.samples import Samples, load_samples


def load(name: str, root: Path, split: str) -> Samples:
    return load_samples(name, root, split, drop_without_box=False, need_boxes=False, warnings=WarningCounter())


def save_image(path: Path, seed: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path, "JPEG")


# ImageNetV2


def write_v2(root: Path, names: tuple[str, ...] = ("0", "1", "10", "2")) -> Path:
    for name in names:
        save_image(root / f"test/{name}/x.jpeg")
    return root


def test_folders_of_imagenet_v2_are_numbers(tmp_path):
    root = write_v2(tmp_path / "v2")
    wnids = [f"n{k:08d}" for k in (5, 3, 9, 1, 0, 2, 4, 6, 8, 7, 11)]
    (root / "classes.txt").write_text("\n".join(wnids) + "\n")
    samples = load("imagenet_v2", root, "test")
    assert samples.classes == sorted(wnids)
    assert dict(zip(samples.relative, samples.labels.tolist(), strict=True)) == {
        "test/0/x.jpeg": 0,
        "test/1/x.jpeg": 1,
        "test/10/x.jpeg": 10,
        "test/2/x.jpeg": 2,
    }


def test_imagenet_v2_knows_the_order_of_imagenet(tmp_path, shared_data):
    samples = load("imagenet_v2", write_v2(tmp_path / "v2", ("0", "999")), "test")
    assert samples.classes == (shared_data / "imagenet-meta/imagenet_synsets.txt").read_text().split()
    assert samples.labels.tolist() == [0, 999]


@pytest.mark.parametrize("name", ["1000", "n01440764", "-1", "²"])
def test_a_folder_that_is_not_a_class_of_imagenet_is_named(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} is not a class: folders are numbered 0 to 999"):
        load("imagenet_v2", write_v2(tmp_path / "v2", ("0", name)), "test")


# Fine-grained


def write_cub(root: Path) -> Path:
    folder = root / "CUB_200_2011"
    files = ["001.Auk/a.jpg", "001.Auk/b.jpg", "002.Old_Owl/c.jpg"]
    for file in files:
        save_image(folder / "images" / file)
    tables = {
        "images": files,
        "image_class_labels": [1, 1, 2],
        "train_test_split": [1, 0, 1],
        "bounding_boxes": ["2.0 3.0 10.0 12.0", "0.0 0.0 40.0 30.0", "30.0 20.0 30.0 30.0"],
        "classes": ["001.Auk", "002.Old_Owl"],
    }
    for name, rows in tables.items():
        (folder / f"{name}.txt").write_text("".join(f"{k} {row}\n" for k, row in enumerate(rows, 1)))
    return root


def test_cub_has_its_splits_and_boxes(tmp_path):
    root = write_cub(tmp_path / "cub")
    train, test = load("cub200", root, "train"), load("cub200", root, "test")
    assert train.relative == ["CUB_200_2011/images/001.Auk/a.jpg", "CUB_200_2011/images/002.Old_Owl/c.jpg"]
    np.testing.assert_array_equal(train.labels, [0, 1])
    np.testing.assert_array_equal(train.boxes, [[2, 3, 12, 15], [30, 20, 40, 30]])
    assert train.display_names == ["Auk", "Old Owl"]
    np.testing.assert_array_equal(test.boxes, [[0, 0, 40, 30]])
    assert len({load("cub200", root / "CUB_200_2011", "train").fingerprint, train.fingerprint}) == 2


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("bounding_boxes", "1 2 3 4\n", r"bounding_boxes\.txt, line 1: expected 5 words"),
        ("bounding_boxes", "1 2 3 4 5\n", "do not number the same images, such as 2"),
        ("image_class_labels", "1 1\n2 1\n3 7\n", r"c\.jpg the class 7"),
        ("images", None, r"no such file: .*images\.txt"),
    ],
)
def test_cub_errors_name_the_file(tmp_path, file, text, message):
    path = write_cub(tmp_path / "cub") / f"CUB_200_2011/{file}.txt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        load("cub200", tmp_path / "cub", "train")


def write_flowers(root: Path, monkeypatch) -> None:
    for k in range(1, 6):
        save_image(root / f"flowers-102/jpg/image_{k:05d}.jpg")
    savemat(root / "flowers-102/imagelabels.mat", {"labels": np.array([[3, 102, 1, 1, 7]])})
    savemat(root / "flowers-102/setid.mat", {"trnid": [[2, 5]], "valid": [[1, 3]], "tstid": [[4, 1, 2]]})
    monkeypatch.setattr(torchvision_flowers, "check_integrity", lambda path, md5: Path(path).is_file())


def write_cars(root: Path, monkeypatch) -> None:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    kind = [("fname", object), ("class", object)]
    for split, path, classes in (
        ("train", "devkit/cars_train_annos", [2, 1]),
        ("test", "cars_test_annos_withlabels", [2, 2]),
    ):
        rows = np.array([(f"{k:05d}.jpg", label) for k, label in enumerate(classes, 1)], dtype=kind)
        savemat(base / f"{path}.mat", {"annotations": rows})
        for k in (1, 2):
            save_image(base / f"cars_{split}/{k:05d}.jpg")
    savemat(base / "devkit/cars_meta.mat", {"class_names": np.array(["Audi A", "BMW B"], dtype=object)})


def write_aircraft(root: Path, monkeypatch) -> None:
    data = root / "fgvc-aircraft-2013b/data"
    for k in range(3):
        save_image(data / f"images/{k:07d}.jpg")
    (data / "variants.txt").write_text("707-320\nDC 3\n")
    (data / "images_variant_trainval.txt").write_text("0000002 DC 3\n0000000 707-320\n")
    (data / "images_variant_test.txt").write_text("0000001 DC 3\n")


SETS = {
    "flowers102": (write_flowers, "train", [101, 6], "flowers-102", 102),
    "stanford_cars": (write_cars, "train", [1, 0], "stanford_cars", 2),
    "fgvc_aircraft": (write_aircraft, "trainval", [0, 1], "fgvc-aircraft-2013b", 2),
}


@pytest.mark.parametrize("name", list(SETS))
def test_torchvisions_fine_grained_sets(tmp_path, monkeypatch, name):
    write, split, labels, folder, classes = SETS[name]
    with pytest.raises(InputError, match=f"torchvision expects .*{folder}"):
        load(name, tmp_path, split)
    write(tmp_path, monkeypatch)
    samples = load(name, tmp_path, split)
    np.testing.assert_array_equal(samples.labels, labels)
    assert len(samples.classes) == classes
    assert samples.relative == sorted(samples.relative)
    assert samples.load_image(0).shape == (30, 40, 3)
    (tmp_path / samples.relative[0]).unlink()
    with pytest.raises(InputError, match=samples.relative[0]):
        load(name, tmp_path, split)
    with pytest.raises(InputError, match="has no split 'extra'"):
        load(name, tmp_path, "extra")


def test_nothing_is_downloaded(tmp_path, monkeypatch):
    calls = []

    def refuse(*args, **kwargs):
        calls.append(args)
        raise OSError("a download")

    for module in ("cifar", "mnist", "svhn", "flowers102", "fgvc_aircraft"):
        for name in ("download_url", "download_and_extract_archive", "urlopen"):
            monkeypatch.setattr(getattr(datasets, module), name, refuse, raising=False)
    for name in ("cifar10", "cifar100", "svhn", "fashion_mnist", "flowers102", "stanford_cars", "fgvc_aircraft"):
        with pytest.raises(InputError, match="nothing is downloaded"):
            load(name, tmp_path, "test")
    assert calls == []


def write_fashion(root, images, labels, cut=None):
    """Write the test set of Fashion-MNIST as idx files; cut: bytes that an interrupted copy leaves of the images."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, 3]) + b"".join(number.to_bytes(4, "big") for number in (images, 28, 28))
    (folder / "t10k-images-idx3-ubyte").write_bytes((head + bytes(images * 784))[:cut])
    (folder / "t10k-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + labels.to_bytes(4, "big") + bytes(labels))
    for part in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (folder / part).write_bytes(b"")  # only looked for


def test_parts_of_fashion_mnist_belong_together(tmp_path):
    write_fashion(tmp_path, 11, 11)
    assert len(load("fashion_mnist", tmp_path, "test")) == 11
    for labels in (4, 12):
        write_fashion(tmp_path, 11, labels)
        with pytest.raises(InputError, match=f"fashion_mnist test: 11 images, but {labels} labels; put the original"):
            load("fashion_mnist", tmp_path, "test")
    for cut in (0, 2, 10, 500):
        write_fashion(tmp_path, 11, 11, cut)
        with pytest.raises(InputError, match=r"missing or damaged \(.*; put the original files there"):
            load("fashion_mnist", tmp_path, "test")


# CIFAR-10H


def test_cifar10h_is_a_distribution_about_the_labels(shared_data):
    human = load_cifar10h(shared_data / "cifar10h")
    np.testing.assert_allclose(human.sum(axis=1), 1)
    counts = np.load(shared_data / "cifar10h/data/cifar10h-counts.npy")
    np.testing.assert_allclose(human, counts / counts.sum(axis=1, keepdims=True))
    labels = human.argmax(axis=1)
    assert check_agreement(human, labels, 10) == 1
    labels[:500] = (labels[:500] + 1) % 10
    assert check_agreement(human, labels, 10) == pytest.approx(0.95)
    with pytest.raises(InputError, match=r"the order of the images must differ"):
        check_agreement(human, np.roll(labels, 1), 10)
    with pytest.raises(InputError, match="10000 images of 10 classes, the split 5"):
        check_agreement(human, labels[:5], 10)


def test_cifar10h_files_are_checked(tmp_path):
    with pytest.raises(InputError, match="holds neither"):
        load_cifar10h(tmp_path)
    counts = np.random.default_rng(0).integers(0, 5, (10000, 10)) + np.eye(10, dtype=int)[np.arange(10000) % 10]
    np.save(tmp_path / "cifar10h-counts.npy", counts)
    np.testing.assert_allclose(load_cifar10h(tmp_path)[7], counts[7] / counts[7].sum())
    np.save(tmp_path / "cifar10h-probs.npy", np.full((10000, 10), 0.1))
    with pytest.raises(InputError, match="do not agree"):
        load_cifar10h(tmp_path)
    np.save(tmp_path / "cifar10h-probs.npy", np.full((20, 10), 0.1))
    with pytest.raises(InputError, match="do not agree"):
        load_cifar10h(tmp_path)
    np.save(tmp_path / "cifar10h-probs.npy", -np.ones((10, 10)))
    with pytest.raises(InputError, match=r"cifar10h-probs\.npy must hold a row of shares"):
        load_cifar10h(tmp_path)
    (tmp_path / "cifar10h-probs.npy").write_bytes(b"text")
    with pytest.raises(InputError, match=r"cannot read .*probs\.npy"):
        load_cifar10h(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes", "1 001.Auk\nx 002.Old_Owl\n", r"classes\.txt does not number its classes from 1 on"),
        ("classes", "1 001.Auk\n3 002.Old_Owl\n", r"classes\.txt does not number its classes from 1 on"),
        ("bounding_boxes", "1 a 2 3 4\n2 1 2 3 4\n3 1 2 3 4\n", r"bounding_boxes\.txt gives \S+ the box a 2 3 4"),
    ],
)
def test_numbers_of_cub_that_are_none_are_named(tmp_path, name, text, message):
    root = write_cub(tmp_path)
    (root / f"CUB_200_2011/{name}.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        load("cub200", root, "train")
