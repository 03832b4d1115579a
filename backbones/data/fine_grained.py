"""Fine-grained data sets of OLS (Tables III, IV) in their original layouts.

    ROOT/CUB_200_2011/{images,image_class_labels,train_test_split,bounding_boxes,classes}.txt, images/
                                                    cub200          train 5994, test 5794; one box each
    ROOT/flowers-102/{imagelabels,setid}.mat, jpg/  flowers102      train 1020, val 1020, test 6149
    ROOT/stanford_cars/devkit/, cars_train/ ...     stanford_cars   train 8144, test 8041
    ROOT/fgvc-aircraft-2013b/data/                  fgvc_aircraft   train, val, trainval 6667, test 3333; 100 variants

The last three are read by torchvision's classes, which document the files they expect.  NOTE: differs from the paper:
the lists of the OLS repository have 90 aircraft labels; these are the standard 100.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torchvision import datasets

from backbones.core.errors import InputError
from backbones.core.files import load_text
from backbones.core.warning_counter import WarningCounter
from backbones.data.in_memory import check_split, open_torchvision
from backbones.data.reading import SampleBuilder
from backbones.data.samples import DATASETS, Samples

CUB = "CUB_200_2011"


@DATASETS.register()
def cub200(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """Caltech-UCSD Birds 200 (2011), 200 species, with the box of the bird."""
    check_split("cub200", split, ("train", "test"))
    folder = CUB if (root / CUB).is_dir() else "."
    names = {number: rest[0] for number, rest in _read_table(root / folder / "classes.txt", 1).items()}
    if names.keys() != {str(number) for number in range(1, len(names) + 1)}:
        raise InputError(f"{root / folder / 'classes.txt'} does not number its classes from 1 on; restore it")
    classes = [names[str(number)] for number in range(1, len(names) + 1)]
    files = _read_table(root / folder / "images.txt", 1)
    labels, parts, boxes = (
        _read_table(root / folder / f"{name}.txt", columns, files)
        for name, columns in (("image_class_labels", 1), ("train_test_split", 1), ("bounding_boxes", 4))
    )
    builder = SampleBuilder("cub200", root, split, classes, warnings)
    for number, (file,) in files.items():
        if parts[number][0] not in ("0", "1"):
            raise InputError(f"train_test_split.txt gives {file} the part {parts[number][0]}, not 0 or 1; restore it")
        if parts[number][0] != ("1" if split == "train" else "0"):
            continue
        if labels[number][0] not in names:
            raise InputError(f"image_class_labels.txt gives {file} the class {labels[number][0]}, not in classes.txt")
        try:
            x, y, width, height = map(float, boxes[number])
        except ValueError:
            raise InputError(f"bounding_boxes.txt gives {file} the box {' '.join(boxes[number])}; restore it") from None
        builder.add(f"{folder}/images/{file}", int(labels[number][0]) - 1, [(x, y, x + width, y + height)])
    return builder.build([name.partition(".")[2].replace("_", " ") or name for name in classes])


def _read_table(path: Path, columns: int, expected: dict | None = None) -> dict[str, list[str]]:
    """Read lines of a number and `columns` words as number -> words; if given, `expected` holds the same numbers."""
    table: dict[str, list[str]] = {}
    for number, line in enumerate(load_text(path).split("\n"), 1):
        row = line.split()
        if not row:
            continue
        if len(row) != columns + 1:
            raise InputError(f"{path}, line {number}: expected {columns + 1} words, not '{' '.join(row)}'; correct it")
        if row[0] in table:
            raise InputError(f"{path}, line {number}: a second line for {row[0]}; remove one")
        table[row[0]] = row[1:]
    if expected is not None and (odd := table.keys() ^ expected.keys()):
        raise InputError(f"{path} and images.txt do not number the same images, such as {min(odd)}; restore both")
    return table


@DATASETS.register()
def flowers102(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """Oxford Flowers, 102 kinds; OLS trains on `train` and tests on `test`."""
    check_split("flowers102", split, ("train", "val", "test"))
    found = _open(lambda: datasets.Flowers102(root, split=split, download=False), root, "flowers-102")
    pairs = zip(found._image_files, found._labels, strict=True)
    return _build("flowers102", root, split, [f"{k:03d}" for k in range(1, 103)], pairs, warnings)


@DATASETS.register()
def stanford_cars(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """Stanford Cars, 196 models."""
    check_split("stanford_cars", split, ("train", "test"))
    found = _open(lambda: datasets.StanfordCars(root, split=split, download=False), root, "stanford_cars")
    return _build("stanford_cars", root, split, found.classes, found._samples, warnings)


@DATASETS.register()
def fgvc_aircraft(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """FGVC Aircraft, 100 variants."""
    check_split("fgvc_aircraft", split, ("train", "val", "trainval", "test"))
    found = _open(lambda: datasets.FGVCAircraft(root, split=split, download=False), root, "fgvc-aircraft-2013b")
    pairs = zip(found._image_files, found._labels, strict=True)
    return _build("fgvc_aircraft", root, split, found.classes, pairs, warnings)


def _open(read: Callable[[], Any], root: Path, expected: str) -> Any:  # the data set returned by `read`
    try:
        return open_torchvision(read, root, expected)
    except InputError:
        raise
    except Exception as error:  # scipy's reader and torchvision's parsers raise anything on damaged files
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{root / expected} is damaged ({reason}); restore the original files") from None


def _build(
    name: str, root: Path, split: str, classes: list[str], pairs: Iterable[tuple[Any, int]], warnings: WarningCounter
) -> Samples:
    """Build samples from (path, label) pairs, which are private attributes of torchvision's classes."""
    builder = SampleBuilder(name, root, split, list(classes), warnings)
    for path, label in pairs:
        builder.add(Path(path).relative_to(root).as_posix(), int(label), [])
    return builder.build()
