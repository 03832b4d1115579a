"""One guarded loader: the same batches with any number of workers, and an InputError that arrives as itself."""

import ast
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from backbones.core.errors import InputError
from backbones.core.images import ImageError
from backbones.core.loading import GuardedLoader
from detection.data.records import Record
from detection.engines.detectron2.data import MappedRecords
from detection.engines.detectron2.data import test_batches as detectron2_batches

ROOT = Path(__file__).resolve().parent.parent
WORKERS = pytest.mark.parametrize("workers", [0, 2])


class Squares(Dataset):
    """Key n is n squared; the keys of `errors` raise theirs."""

    def __init__(self, errors=None):
        self.errors = errors or {}

    def __getitem__(self, key):
        if key in self.errors:
            raise self.errors[key]
        return key * key


class Refusing:
    """Collate that refuses a batch which holds `item`."""

    def __init__(self, item):
        self.item = item

    def __call__(self, items):
        if self.item in items:
            raise InputError(f"the batch {items} holds {self.item}")
        return items


def record(path):
    none = np.zeros(0)
    return Record(1, str(path), 8, 8, none.reshape(0, 4), none, none, none)


def read_or_fail(item):
    if item["file_name"].endswith("1.png"):
        raise OSError("cut short")
    return item


def load(dataset, keys, collate=list, workers=0):
    return GuardedLoader(dataset, keys, collate, num_workers=workers, pin_memory=False)


@WORKERS
def test_batches_keep_the_order_of_their_keys_on_every_pass(workers):
    loader = load(Squares(), [[3, 1], [2], [5, 4, 0]], torch.tensor, workers)
    assert len(loader) == 3
    for _ in range(2):
        assert [batch.tolist() for batch in loader] == [[9, 1], [4], [25, 16, 0]]


@WORKERS
def test_the_error_of_an_item_comes_as_itself_after_the_batches_before_it(workers):
    loader = load(Squares({4: ImageError("cannot read 4.png: broken", "broken")}), [[0, 1], [4, 5], [6]], list, workers)
    batches = iter(loader)
    assert next(batches) == [0, 1]
    with pytest.raises(ImageError) as caught:
        next(batches)
    assert (type(caught.value), str(caught.value)) == (ImageError, "cannot read 4.png: broken")
    assert caught.value.reason == "broken"
    assert "worker process" not in "".join(traceback.format_exception(caught.value))


@WORKERS
def test_of_several_errors_in_a_batch_the_first_is_raised(workers):
    errors = {n: InputError(f"item {n}") for n in (1, 2)}
    with pytest.raises(InputError, match=r"^item 2$"):
        list(load(Squares(errors), [[0], [2, 1]], list, workers))


@WORKERS
def test_the_error_of_collate_comes_as_itself(workers):
    with pytest.raises(InputError, match=r"^the batch \[4, 9\] holds 9$"):
        list(load(Squares(), [[0, 1], [2, 3]], Refusing(9), workers))


@WORKERS
def test_another_exception_is_not_taken_for_the_users(workers):
    with pytest.raises(KeyError, match="a fault of ours"):
        list(load(Squares({1: KeyError("a fault of ours")}), [[0], [1]], list, workers))


@WORKERS
def test_loading_draws_nothing_from_the_global_generator(workers):
    before = torch.get_rng_state()
    list(load(Squares(), [[0], [1]], list, workers))
    assert torch.equal(torch.get_rng_state(), before)


@WORKERS
def test_an_image_that_detectron2s_mapper_cannot_read_is_named(workers, tmp_path):
    records = [record(tmp_path / f"{n}.png") for n in range(3)]
    with pytest.raises(InputError, match=r"^cannot use the image .*1\.png \(cut short\); restore or remove it$"):
        list(detectron2_batches(records, read_or_fail, batch_size=2, num_workers=workers, pin_memory=False))
    with pytest.raises(InputError, match=r"1\.png"):
        MappedRecords(records, read_or_fail, 0)[1]


def test_workers_are_started_in_one_place():
    """A second loader would be a second set of rules: seeds, errors, pinned memory."""
    found = []
    for package in ("backbones", "detection", "comparison", "suites", "tools"):
        for path in (ROOT / package).rglob("*.py"):
            names = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
            found += [path.name for name in names if getattr(name, "id", getattr(name, "attr", "")) == "DataLoader"]
    assert found == ["loading.py"]
