"""Gather the detections of all processes into one list, checking that every image was tested exactly once."""

from collections.abc import Sequence
from typing import Any

from backbones.core.stopping import gather_finished
from detection.data.records import Record

Detections = list[dict[str, Any]]


def gather_detections(mine: list[tuple[int, Detections]], records: Sequence[Record]) -> Detections:
    """Return the detections of all images in the order of `records`, on every process.

    Args:
        mine: (image id, COCO results) of each image that this process tested.

    Raises:
        RuntimeError: an image was tested twice, or not at all.
        Unfinished: a signal has cut off the evaluation, which was part of a training.
    """
    parts = [pair for part in gather_finished(mine) for pair in part]
    found = dict(parts)
    twice, wanted = len(parts) - len(found), {record.image_id for record in records}
    if twice or found.keys() != wanted:
        raise RuntimeError(
            f"{len(parts)} images were tested for {len(wanted)}: {twice} twice, {len(wanted - found.keys())} not at "
            f"all, {len(found.keys() - wanted)} of another data set"
        )
    return [one for record in records for one in found[record.image_id]]
