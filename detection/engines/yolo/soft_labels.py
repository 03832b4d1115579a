"""The file with a run's table of online labels: which classes each class is confused with.

soft_labels.json: {"iteration": number of finished iterations, "classes": [K names], "counts": [K] correct predictions
in the last period, "table": [K][K], row k: soft label of class k}
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.core.distributed import is_main
from backbones.core.files import load_json, save_json
from detection.engines.yolo.labels import ClassLabels

FILE = "soft_labels.json"


class SoftLabelHook:
    """Ends the period of the labels after every epoch, and writes the new table into the run's folder.

    Args:
        epoch: number of iterations.
    """

    def __init__(self, labels: ClassLabels, epoch: int, classes: Sequence[str], run_dir: Path) -> None:
        self.labels, self.epoch, self.classes, self.path = labels, epoch, list(classes), run_dir / FILE

    def after_step(self, finished: int) -> None:
        """End the period if an epoch is finished; called on every process."""
        if finished % self.epoch:
            return
        self.labels.gather()
        state = self.labels.state_dict()
        counts = state["count"].tolist() if "count" in state else []
        self.labels.end_period()
        if counts and is_main():
            table = self.labels.state_dict()["soft"].tolist()
            content = {"iteration": finished, "classes": self.classes, "counts": counts, "table": table}
            save_json(self.path, content, indent=None)


def load_soft_labels(run_dir: Path) -> dict[str, Any] | None:
    """Read the file of a run; None if the run has none."""
    return load_json(run_dir / FILE) if (run_dir / FILE).exists() else None


def confusions(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return for every class the other class with the largest share of its soft label.

    Returns:
        {"class", "looks_like", "share", "count"} per class; count: number of its correct predictions.
    """
    table, classes = np.array(found["table"]), found["classes"]
    others = np.where(np.eye(len(classes), dtype=bool), -1, table)
    return [
        {"class": name, "looks_like": classes[k], "share": float(others[n, k]), "count": int(found["counts"][n])}
        for n, (name, k) in enumerate(zip(classes, others.argmax(axis=1), strict=True))
    ]
