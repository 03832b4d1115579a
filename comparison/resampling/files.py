"""The resampled numbers of the rows of a table, from every file of per-image data that their stages have.

    stage                                file              numbers
    detection                            matches.npz       AP and AR by COCO's definition
    detection                            matches_voc.npz   mAP by VOC's definitions
    backbone, localization, robustness   per_image.npz     numbers of the classifier

A row without a file, such as one of an earlier version, has no resampled numbers of that stage.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from backbones.core.errors import InputError
from backbones.core.matches import MATCHES_FILE, load_matches
from backbones.core.per_image import load_per_image
from comparison.bootstrap import Resampled, resample_rows
from comparison.resampling.draws import draw, draw_per_image, draw_voc
from comparison.row import Row

STAGES = ("backbone", "localization", "robustness")  # with numbers of a classifier
LARGEST_DIFFERENCE = 1e-6  # of a number from its results; larger ones are of another run


def resample_group(group: Sequence[Row], *, resamples: int, seed: int) -> dict[int, Resampled]:
    """Return the resampled numbers of comparable rows by `id(row)`, of those that have any; all on the same resamples.

    Raises:
        InputError: a file is broken or contradicts its results, or two rows have matches of different ground truth.
    """
    parts: dict[int, list[Resampled]] = {id(row): [] for row in group}
    known: dict[Path, Resampled] = {}  # rows share a backbone
    for row in group:
        for stage in STAGES:
            if path := row.file(stage, "per_image"):
                if path not in known:
                    known[path] = _resample(path, row.results[stage]["metrics"], resamples, seed)
                parts[id(row)].append(known[path])
    for name, usual, draw_row in (("matches", MATCHES_FILE, draw), ("matches_voc", "", draw_voc)):
        found = [(row, load_matches(path)) for row in group if (path := row.file("detection", name, usual))]
        drawn = resample_rows([one for _, one in found], resamples=resamples, seed=seed, draw_row=draw_row)
        for (row, _), one in zip(found, drawn, strict=True):
            parts[id(row)].append(one)
    return {key: _join(found) for key, found in parts.items() if found}


def _resample(path: Path, metrics: Mapping[str, float | None], resamples: int, seed: int) -> Resampled:
    """Return the resampled numbers of one per_image.npz, which must be those of the results beside it."""
    groups = load_per_image(path)
    identities = {name: group.identity for group in groups for name in group.numbers}
    value, draws = draw_per_image(groups, path, resamples=resamples, seed=seed)
    for name, number in value.items():
        stated = metrics.get(name)
        if stated is None or not abs(stated - number) <= LARGEST_DIFFERENCE:
            raise InputError(f"{path}: {name} is {number:.6g}, but {stated} in the results beside it; measure again")
    return Resampled(value, draws, identities)


def _join(parts: Sequence[Resampled]) -> Resampled:
    """Return the numbers of all files of a row."""
    whole = Resampled({}, {}, {}, next((part.matches for part in parts if part.matches), None))
    for part in parts:
        whole.value.update(part.value)
        whole.draws.update(part.draws)
        whole.images.update(part.images)
    return whole
