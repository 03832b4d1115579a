"""Log, JSON lines and TensorBoard events of a run."""

import json
import logging
import logging.handlers
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from backbones.core.disk import append, writing
from backbones.core.distributed import gather_objects, is_main
from backbones.core.errors import InputError
from backbones.core.files import save_text

METRICS_FILE = "metrics.jsonl"
_HELD_LINES = 10_000
_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")


class _ProgressFriendlyHandler(logging.Handler):
    """Writes to standard error above a progress bar, without breaking it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _FileHandler(logging.Handler):
    """Appends to a UTF-8 file; a line that cannot be written raises `InputError`, not a traceback of `logging`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        with writing(path):
            self._file = path.open("ab", buffering=0)

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        with writing(self.path, line):
            append(self._file, line)

    def close(self) -> None:
        self._file.close()
        super().close()


def get_logger(name: str = "smooth2det") -> logging.Logger:
    """Return the project's logger, which writes to standard error; processes other than the main one log only errors,
    as their messages would be the same."""
    logger = logging.getLogger(name)
    if name == "smooth2det" and not logger.handlers:
        handler = _ProgressFriendlyHandler()
        handler.setFormatter(_FORMAT)
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.INFO if is_main() else logging.ERROR)
    return logger


def log_to_file(path: Path) -> None:
    """Append the log to `path` too, with the records kept by `hold_log`; a later call switches to another file."""
    logger = get_logger()
    held = [h for h in logger.handlers if isinstance(h, logging.handlers.MemoryHandler)]
    _remove(logger, _FileHandler)
    handler = _FileHandler(path)
    handler.setFormatter(_FORMAT)
    for one in held:
        one.setTarget(handler)
        one.flush()
    _remove(logger, logging.handlers.MemoryHandler)
    logger.addHandler(handler)


def hold_log() -> None:
    """Keep log records until `log_to_file` names the file, so that a refused run leaves no log file."""
    logger = get_logger()
    _remove(logger, _FileHandler)
    _remove(logger, logging.handlers.MemoryHandler)
    logger.addHandler(logging.handlers.MemoryHandler(_HELD_LINES, flushLevel=logging.CRITICAL + 1))


@contextmanager
def own_log() -> Iterator[None]:
    """Hold the log of a tool (`hold_log`), and close its file at the end, so that the next tool of this process does
    not write to it."""
    hold_log()
    try:
        yield
    finally:
        _remove(get_logger(), _FileHandler)
        _remove(get_logger(), logging.handlers.MemoryHandler)


def _remove(logger: logging.Logger, kind: type[logging.Handler]) -> None:
    for handler in [h for h in logger.handlers if isinstance(h, kind)]:
        logger.removeHandler(handler)
        handler.close()


class MetricsWriter:
    """Writes numbers to metrics.jsonl and TensorBoard; a context that closes them.  Only the main process writes.

    Args:
        run_dir: the run's folder.
        start: the iteration from which the run resumes.  Lines at or beyond it (written by a killed run after its last
            checkpoint) are dropped, so that the file equals that of an uninterrupted run.

    Attributes:
        last: names of the numbers of iteration `start` - 1, on every process.
    """

    def __init__(self, run_dir: str | Path, start: int = 0) -> None:
        self.path = Path(run_dir) / METRICS_FILE
        self._events = None
        kept = []
        if is_main() and self.path.exists():
            kept = [line for line in read_metrics(self.path) if line["iteration"] < start]
        names = {name for line in kept if line["iteration"] == start - 1 for name in line}
        self.last: set[str] = gather_objects(names)[0]
        if not is_main():
            return
        save_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        with writing(self.path):
            self._file = self.path.open("ab", buffering=0)
        from torch.utils.tensorboard import SummaryWriter  # a slow import, needed only by training runs

        self._folder = Path(run_dir) / "tensorboard"
        with writing(self._folder):
            self._events = SummaryWriter(str(self._folder), purge_step=start)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Finish the files, after an exception too; of two errors, the first one is raised."""
        try:
            self.close()
        except InputError:
            if error is None:
                raise

    def write(self, iteration: int, **numbers: float) -> None:
        """Write one line with the 0-based iteration and its numbers; raise `InputError` on a full disk."""
        if self._events is None:
            return
        line = (json.dumps({"iteration": iteration, **numbers}) + "\n").encode()
        with writing(self.path, line):
            append(self._file, line)
        with writing(self._folder):  # raises the error of an earlier call, as a thread writes
            for name, value in numbers.items():
                self._events.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Close the files."""
        if self._events is not None:
            self._file.close()
            with writing(self._folder):
                self._events.close()


def read_metrics(path: str | Path) -> list[dict]:
    """Return all lines of a metrics.jsonl, except a last line that a killed run left incomplete."""
    lines = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
