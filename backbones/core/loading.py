"""Data sets to batches, in this process or in worker processes, with the same result.

A worker finds a broken file.  Its `InputError` travels to the main process as a value and is raised there, so that the
user reads one line, not the traceback of a process that they do not know.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from backbones.core.errors import InputError

T = TypeVar("T")  # a batch


class GuardedLoader(Generic[T]):
    """An iterable of batches, as often as wanted; each pass starts its own workers.

    Args:
        dataset: maps a key to an item.
        keys: of the items of each batch; its length, where it has one, is that of the loader.
        collate: builds a batch of its items.
        num_workers: worker processes; 0 loads in this process.
        pin_memory: copy batches to page-locked memory for a GPU; no effect without one.

    Raises:
        InputError: while iterating, the one that `dataset` or `collate` raised, of the same class and with the same
            message with any number of workers.
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
            batch_sampler=keys,  # type: ignore[arg-type]  # torch only iterates, and asks for a length if we do
            collate_fn=_ErrorsAsBatches(collate),
            num_workers=num_workers,
            pin_memory=pin_memory and torch.cuda.is_available(),
            # Seeds only the workers, which draw from keys alone; without it, the global generator would be drawn from.
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
