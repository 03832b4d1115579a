"""Fine-tuning of detectors from a backbone, and their evaluation.

`load_detector` is the call for users of the library; docs/results_files.md shows it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a slow import
    from detection.training.trained import TrainedDetector

__all__ = ["load_detector"]


def load_detector(run: str | Path) -> "TrainedDetector":
    """Return the detector of a finished fine-tuning; its `detect(images)` returns a COCO tree with scores."""
    from detection.training.trained import load_detector as load

    return load(run)
