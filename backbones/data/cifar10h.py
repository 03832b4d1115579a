"""CIFAR-10H (Peterson et al. 2019): human labels of the 10,000 test images of CIFAR-10.

FOLDER/cifar10h-probs.npy       (10000, 10) shares of the answers, in the order of CIFAR-10's test set
FOLDER/cifar10h-counts.npy      (10000, 10) answers, about 51 per image; either file suffices, both must agree
"""

from pathlib import Path

import numpy as np

from backbones.core.errors import InputError

LEAST_AGREEMENT = 0.9  # the human majority and CIFAR agree on 99 % of the images; in another order, on 10 %


def load_cifar10h(folder: str | Path) -> np.ndarray:
    """Return (10000, 10) float64, each row a distribution over CIFAR-10's classes; (n, 10) for a file of n images."""
    folder = Path(folder)
    folder = folder / "data" if (folder / "data").is_dir() else folder
    found = {name: _load(folder / f"cifar10h-{name}.npy") for name in ("probs", "counts")}
    tables = {name: table / table.sum(axis=1, keepdims=True) for name, table in found.items() if table is not None}
    if not tables:
        raise InputError(f"{folder} holds neither cifar10h-probs.npy nor cifar10h-counts.npy; put one there")
    shapes = {table.shape for table in tables.values()}
    if len(shapes) > 1 or (len(tables) == 2 and np.abs(tables["probs"] - tables["counts"]).max() > 1e-6):
        raise InputError(f"the probabilities and the counts in {folder} do not agree; restore the original files")
    return tables.get("probs", tables.get("counts"))  # type: ignore[return-value]  # at least one exists


def check_agreement(human: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    """Return the share of images whose most common human answer is their label.

    Args:
        human: (N, K) distributions.
        labels: (N,) labels of the same images, of `num_classes` classes.

    Raises:
        InputError: the shape differs, or the share is so low that the order of the images must differ.
    """
    if human.shape != (len(labels), num_classes):
        raise InputError(
            f"CIFAR-10H has {human.shape[0]} images of {human.shape[1]} classes, the split {len(labels)} of "
            f"{num_classes}; set DATA.VAL_SPLIT to the `test` of CIFAR-10"
        )
    agreement = float((human.argmax(axis=1) == labels).mean())
    if agreement < LEAST_AGREEMENT:
        raise InputError(
            f"the human labels agree with {agreement:.1%} of the labels, so the order of the images must differ; "
            "CIFAR-10H needs the test set of CIFAR-10 in its original order"
        )
    return agreement


def _load(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        table = np.load(path, allow_pickle=False).astype(np.float64)
    except (OSError, ValueError, EOFError, AttributeError) as error:  # AttributeError: an archive of arrays
        raise InputError(f"cannot read {path}: {error}; restore the original file") from None
    if table.ndim != 2 or not (np.isfinite(table) & (table >= 0)).all() or not (table.sum(axis=1) > 0).all():
        raise InputError(f"{path} must hold a row of shares or counts per image, none below 0, not {table.shape}")
    return table
