"""The comparison as CSV."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from comparison.failures import failure_text
from comparison.metrics import METRICS


def csv_text(comparison: Mapping[str, Any]) -> str:
    """Format one line per row: identity, every metric, and differences with intervals; full precision."""
    names = [metric.name for metric in METRICS]
    own = ["label", "method", "seed", "detector_seed", "hash", "protocol", "on_training_images"]
    own += ["chosen_on_test_images", "other_commit"]
    header = [*own, "failure", *names]
    header += [f"{name}_difference{end}" for name in names for end in ("", "_low", "_high")]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in comparison["rows"]:
        cells = [*(row[key] for key in own), failure_text(row), *(row["metrics"][name] for name in names)]
        for name in names:
            difference = (row["difference_to_baseline"] or {}).get(name, {})
            cells += [difference.get(key) for key in ("value", "low", "high")]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return stream.getvalue()
