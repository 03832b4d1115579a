"""Loading of batches, in this process or in worker processes, with the same result.

If a worker finds a broken file, its `InputError` is passed to the main process as a value and raised there, so that the
user sees one line, not the traceback of a worker process.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from backbones.core.errors import InputError

T = TypeVar("T")  # a batch


class GuardedLoader(Generic[T]):
    """A re-iterable loader of batches; each pass starts its own workers.

    Args:
        dataset: maps a key to an item.
        keys: the keys of the items of each batch; if it has a length, the loader has the same.
        collate: builds a batch from its items.
        num_workers: worker processes; 0 loads in this process.
        pin_memory: copy batches to page-locked memory for a GPU; no effect without one.

    Raises:
        InputError: while iterating, the error that `dataset` or `collate` raised, with the same class and message for
            any number of workers.
    """

    def __init__(
        self,
        dataset: Dataset,
        keys: Iterable[Sequence[Any]],
        collate: Callable[[Any], T],
        *,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        self._loader = DataLoader(
            _ErrorsAsItems(dataset),
            batch_sampler=keys,  # type: ignore[arg-type]  # torch only iterates, and asks for its length if we do
            collate_fn=_ErrorsAsBatches(collate),
            num_workers=num_workers,
            pin_memory=pin_memory and torch.cuda.is_available(),
            # Seeds only the workers, whose randomness depends on keys alone; without it, DataLoader would draw from the
            # global generator.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[T]:
        for batch in self._loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


class _ErrorsAsItems(Dataset):
    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except InputError as error:
            return error


class _ErrorsAsBatches:
    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[Any]) -> Any:
        errors = [item for item in items if isinstance(item, InputError)]
        if errors:
            return errors[0]
        try:
            return self.collate(items)
        except InputError as error:
            return error
