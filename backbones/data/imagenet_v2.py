"""ImageNetV2 (Recht et al. 2019): 10,000 images in folders named by the numbers of ImageNet's classes.

    ROOT/<split>/0 ... 999/*.jpeg       split: imagenetv2-matched-frequency-format-val, the name of the archive
    ROOT/classes.txt                    optional: one WordNet id per line, for other classes than ImageNet's 1000

Folder k holds the class of the k-th sorted WordNet id, which is the order of the training set's class folders.  Folder
names are compared as numbers; as strings, they would sort as 0, 1, 10, 100.  There are no boxes.
"""

from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.files import load_lines
from backbones.core.warning_counter import WarningCounter
from backbones.data.reading import (
    SampleBuilder,
    count_beside_folders,
    find_split,
    label_numbers,
    list_folders,
    list_images,
    read_display_names,
)
from backbones.data.samples import DATASETS, Samples


@DATASETS.register()
def imagenet_v2(root: Path, split: str, warnings: WarningCounter) -> Samples:
    """Read one version of ImageNetV2."""
    folder = find_split(root, split, list_folders(root))
    classes = _sorted_ids(root)
    builder = SampleBuilder("imagenet_v2", root, split, classes, warnings)
    count_beside_folders(folder, warnings, split)
    for name in list_folders(folder):
        label = int(name) if name.isascii() and name.isdigit() else -1
        if not 0 <= label < len(classes):
            raise InputError(
                f"{folder / name} is not a class: folders are numbered 0 to {len(classes) - 1}; move it away"
            )
        for file in list_images(folder / name, warnings, f"{split}/{name}"):
            builder.add(f"{split}/{name}/{file}", label, [])
    return builder.build(read_display_names(root, classes))


def _sorted_ids(root: Path) -> list[str]:
    listed = root / "classes.txt"
    if listed.is_file():
        ids = load_lines(listed)
    else:
        from timm.data import ImageNetInfo  # slow to import, and needed only here

        ids = ImageNetInfo().label_names()  # of ImageNet-1k
    label_numbers(ids, listed)
    return sorted(ids)
