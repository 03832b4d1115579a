"""Teachers: trained networks that provide logits for every sample.

online   logits of the student's own augmented images, computed in each step
cached   logits of the images without augmentation, computed once (tools/cache_teacher.py) and memory-mapped

The two are different methods, with different names in every table.  Letters: B batch, N samples, K classes.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backbones.core.distributed import all_reduce_sum
from backbones.core.errors import InputError
from backbones.core.files import fingerprint, load_json, save_atomic, save_json
from backbones.core.loading import GuardedLoader
from backbones.core.runs import check_writable
from backbones.data.batch import Batch
from backbones.data.images import normalize
from backbones.data.samples import Samples
from backbones.measuring.calibration import fit_temperature
from backbones.measuring.finite import refuse_image, refuse_not_finite
from backbones.measuring.predictions import predict
from backbones.models.weights import BackboneFile, differing_classes

FORMAT = "smooth2det teacher 1"
LOGITS, DESCRIPTION = "logits.npy", "teacher.json"
_ROWS = 16384  # rows of the cache that are checked at once


class OnlineTeacher:
    """A finished backbone that is evaluated in each step; not a module, so that no state dict contains it.

    hash: hash of its weights. identity: of all that its students learn from, here the same.
    trained_on: fingerprint of its training split.
    """

    def __init__(self, file: BackboneFile, classes: list[str], device: torch.device, dtype: torch.dtype) -> None:
        if difference := differing_classes(file.spec["classes"], classes):
            raise InputError(
                f"the teacher {file.hash} ({file.provenance['label']}) knows {len(file.spec['classes'])} classes that "
                f"are not the {len(classes)} of the data ({difference}); set TEACHER.RUN to a run on the same data set"
            )
        self.hash = self.identity = file.hash
        self.trained_on = file.provenance["data_fingerprint"]
        self.model = file.build().to(device, dtype).requires_grad_(False)
        self.mean, self.std = (torch.tensor(file.spec[name], device=device, dtype=dtype) for name in ("mean", "std"))
        self.finite = torch.ones((), dtype=torch.bool, device=device)  # whether all logits so far were finite

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of uint8 images (B, 3, H, W), normalised as in the teacher's own training."""
        logits = self.model(normalize(images, self.mean, self.std)).logits
        self.finite &= logits.isfinite().all()  # on the device; read by `refuse_not_finite`
        return logits

    def refuse_not_finite(self) -> None:
        """Raise `InputError` if any logit so far was not finite; some methods would train on without an error."""
        wrong = (~self.finite).float()
        all_reduce_sum(wrong)  # so that all processes stop
        if wrong:
            refuse_image("an image of the training, as augmented", self.model)

    def temperature(self, batches: Iterable[Batch], names: Sequence[str] | None = None) -> float:
        """Return T_cal, which minimises the teacher's NLL over the batches of all processes (the validation split).

        names: of the images, by sample index, for messages.
        """
        precision = "float64" if self.mean.dtype == torch.float64 else "float32"
        mean, std = self.mean.tolist(), self.std.tolist()
        found = predict(self.model, batches, self.mean.device, mean, std, precision, names)
        return fit_temperature(found.logits, found.labels)


class CachedTeacher:
    """The stored logits of a teacher for the samples of one training split.

    folder: written by tools/cache_teacher.py.  hash, trained_on: as in `OnlineTeacher`.  identity: digest of its logits
    and temperature, as one backbone gives other logits with other DATA.EVAL_*; its hash in folders of earlier versions.

    Raises:
        InputError: the folder does not hold finite logits of this split.
    """

    def __init__(self, folder: Path, samples: Samples) -> None:
        if not (folder / DESCRIPTION).is_file():
            raise InputError(f"no cached teacher in {folder}: write it with tools/cache_teacher.py, or set TEACHER.RUN")
        description = load_json(folder / DESCRIPTION)
        keys = {"format", "fingerprint", "backbone", "trained_on", "temperature"}
        if not isinstance(description, dict) or description.get("format") != FORMAT or keys - description.keys():
            raise InputError(f"{folder / DESCRIPTION} is not a cached teacher; write one with tools/cache_teacher.py")
        if description["fingerprint"] != samples.fingerprint:
            raise InputError(
                f"TEACHER.CACHE {folder} was made for data of fingerprint {description['fingerprint']}, this training "
                f"split has {samples.fingerprint}; run tools/cache_teacher.py on these data"
            )
        self.hash, self.fitted = description["backbone"], description["temperature"]
        self.identity = str(description.get("digest", self.hash))
        self.trained_on = description["trained_on"]
        # The split that its temperature was fitted on; empty in folders of earlier versions.
        self.fitted_on = str(description.get("temperature_split", ""))
        try:
            self.logits = np.lib.format.open_memmap(folder / LOGITS, mode="r")
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {folder / LOGITS}: {error}; run tools/cache_teacher.py again") from None
        if self.logits.shape != (len(samples), len(samples.classes)):
            raise InputError(
                f"{folder / LOGITS} has the shape {self.logits.shape}, not {(len(samples), len(samples.classes))}; "
                "run tools/cache_teacher.py again"
            )
        self._refuse_not_finite(folder, samples)

    def _refuse_not_finite(self, folder: Path, samples: Samples) -> None:
        """Check before training: some methods would train on the finite logits without an error."""
        if self.logits.dtype.kind != "f" or not isinstance(self.fitted, float | int) or not math.isfinite(self.fitted):
            raise InputError(
                f"{folder}: logits of {self.logits.dtype} or temperature {self.fitted!r} are not finite numbers; "
                "run tools/cache_teacher.py again"
            )
        for first in range(0, len(self.logits), _ROWS):
            wrong = np.flatnonzero(~np.isfinite(self.logits[first : first + _ROWS]).all(axis=1))
            if len(wrong):
                raise InputError(
                    f"{folder / LOGITS} holds NaN or infinite logits for {samples.paths[first + wrong[0]]}; "
                    "run tools/cache_teacher.py again with another teacher"
                )

    def fill(self, batches: GuardedLoader[Batch]) -> "TaughtBatches":
        """Return the batches, with their `teacher_logits`."""
        return TaughtBatches(batches, self.logits)


class TaughtBatches:
    """Batches whose `teacher_logits` come from an (N, K) array, read on the host before the batch is moved."""

    def __init__(self, batches: GuardedLoader[Batch], logits: np.ndarray) -> None:
        self.batches, self.logits = batches, logits

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            assert batch.index is not None
            rows = self.logits[batch.index.numpy()]
            yield replace(batch, teacher_logits=torch.from_numpy(np.ascontiguousarray(rows)))


def write_cache(
    folder: Path,
    teacher: OnlineTeacher,
    samples: Samples,
    batches: Iterable[Batch],
    val: Iterable[Batch],
    val_names: Sequence[str] | None = None,
    val_split: str = "",
) -> dict:
    """Compute the teacher's logits for every sample of `batches`; write the folder and return its description.

    A cache that the folder holds already is replaced at the end: until then, and in trainings that have it open, it
    stays as it is.

    batches: all samples of `samples`, without augmentation, in one process. val: batches to fit the temperature on.
    val_names: names of the images of `val`, for messages. val_split: name of that split.

    Raises:
        InputError: logits that are not finite, with the image and the teacher's file; a file that cannot be written.
    """
    check_writable(folder)
    description = {
        "format": FORMAT,
        "fingerprint": samples.fingerprint,
        "data": samples.name,
        "split": samples.split,
        "backbone": teacher.hash,
        "trained_on": teacher.trained_on,
    }

    def write(temporary: Path) -> None:
        _write_rows(temporary, shape, _rows(teacher, samples, batches))
        temperature = teacher.temperature(val, val_names)
        digest = _digest(np.lib.format.open_memmap(temporary, mode="r"), temperature, val_split)
        description.update(temperature=temperature, temperature_split=val_split, digest=digest)
        (folder / DESCRIPTION).unlink(missing_ok=True)  # written last: without it the folder is not a cache

    shape = (len(samples), len(samples.classes))
    save_atomic(folder / LOGITS, write, np.broadcast_to(np.float32(0), shape))  # an array of this size, without memory
    save_json(folder / DESCRIPTION, description)
    return description


def _rows(teacher: OnlineTeacher, samples: Samples, batches: Iterable[Batch]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the index and the logits (K,) of every sample of `batches`."""
    for batch in batches:
        assert batch.index is not None
        found = teacher(batch.images.to(teacher.mean.device)).float().cpu().numpy()
        refuse_not_finite(found, [samples.paths[index] for index in batch.index.tolist()], teacher.model)
        yield from zip(batch.index.tolist(), found, strict=True)


def _write_rows(path: Path, shape: tuple[int, int], rows: Iterable[tuple[int, np.ndarray]]) -> None:
    """Write a float32 .npy file from its rows, in any order.

    It is not memory-mapped: on a full disk, a write to a map kills the process instead of raising an error.
    """
    header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for index, row in rows:
            file.seek(start + index * row.nbytes)
            file.write(row.tobytes())


def _digest(logits: np.ndarray, temperature: float, split: str) -> str:
    """Return the fingerprint of what students read from a cache, from a pass over its rows."""
    parts = [fingerprint(logits[first : first + _ROWS]) for first in range(0, len(logits), _ROWS)]
    return fingerprint(*parts, repr(temperature), split)
