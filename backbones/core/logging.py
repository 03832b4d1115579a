"""The log, the JSON lines and the TensorBoard events of a run."""

import json
import logging
import sys
from pathlib import Path

from tqdm import tqdm

from backbones.core.distributed import is_main
from backbones.core.files import save_text

METRICS_FILE = "metrics.jsonl"
_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")


class _ProgressFriendlyHandler(logging.Handler):
    """Writes to standard error above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def get_logger(name: str = "smooth2det") -> logging.Logger:
    """The project's logger: to standard error on the main process, errors only on the others, which see the same."""
    logger = logging.getLogger(name)
    if name == "smooth2det" and not logger.handlers:
        handler = _ProgressFriendlyHandler()
        handler.setFormatter(_FORMAT)
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.INFO if is_main() else logging.ERROR)
    return logger


def log_to_file(path: Path) -> None:
    """Append the log to `path` too; a later call moves it to another file."""
    logger = get_logger()
    for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
        logger.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(path)
    handler.setFormatter(_FORMAT)
    logger.addHandler(handler)


class MetricsWriter:
    """Writes numbers to metrics.jsonl and TensorBoard; only the main process writes.

    Args:
        run_dir: the run's folder.
        start: the iteration the run goes on from.  Lines at or beyond it (written after the last checkpoint by a run
            that was killed) are dropped, so that the file equals that of an uninterrupted run.
    """

    def __init__(self, run_dir: str | Path, start: int = 0) -> None:
        self.path = Path(run_dir) / METRICS_FILE
        self._events = None
        if not is_main():
            return
        kept = [line for line in read_metrics(self.path) if line["iteration"] < start] if self.path.exists() else []
        save_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a", encoding="utf-8")
        from torch.utils.tensorboard import SummaryWriter  # a slow import, needed by training runs alone

        self._events = SummaryWriter(str(Path(run_dir) / "tensorboard"), purge_step=start)

    def write(self, iteration: int, **numbers: float) -> None:
        """One line: the 0-based iteration and its numbers."""
        if self._events is None:
            return
        self._file.write(json.dumps({"iteration": iteration, **numbers}) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            self._events.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Finish the files."""
        if self._events is not None:
            self._file.close()
            self._events.close()


def read_metrics(path: str | Path) -> list[dict]:
    """All lines of a metrics.jsonl; a last line cut short by a kill is left out."""
    lines = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
