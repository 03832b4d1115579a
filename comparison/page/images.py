"""The images that move a difference most, with the detections of both methods and the truth drawn on them.

Whoever calls `compare` gives a reader of images, as this package reads result files only
(`detection.exchange.scenes.SceneReader.read`).
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from backbones.core.errors import InputError
from comparison.row import Row

SHOWN = 3  # images for, and against, each difference
WIDTH, QUALITY = 280, 80  # of the drawn images, in pixels
LEAST_SCORE = 0.3  # of the detections that are drawn
LABELLED = 0.5  # score from which wrong detections have a visible label; all have a title
Reader = Callable[..., Mapping[int, Any]]
# Outcome -> colour and dashes, so that no meaning rests on colour alone.
_LINES = {"matched": ("#0072B2", ""), "wrong": ("#D55E00", "6 3"), "ignored": ("#888888", "2 3")}
_TRUTH = {"matched": ("#ffffff", "1 3"), "missed": ("#ff2d2d", "1 3"), "crowd": ("#888888", "1 3")}


class Shown(NamedTuple):
    """An image: its file, what it adds to the difference, and the drawings of the method and of the baseline."""

    file: str
    influence: float
    drawings: tuple[str, str]


class _Pair(NamedTuple):
    """A method, the first run of it and of its baseline, and the images to show on each side."""

    protocol: str
    own: Row
    other: Row
    sides: dict[str, list[Mapping[str, Any]]]


def influential_images(comparison: Mapping[str, Any], rows: Sequence[Row], read: Reader | None) -> list[dict[str, Any]]:
    """Return {"protocol", "label", "baseline", "seeds", "for", "against", "problem"} per method.

    read: maps a run's folder and image ids to scenes.  If it cannot, the problem is stated in place of the images.
    """
    if read is None:
        return []
    pairs = list(_pairs(comparison, rows))
    wanted: dict[Path, list[int]] = {}
    for pair in pairs:
        for row in (pair.own, pair.other):
            ids = [one["image_id"] for images in pair.sides.values() for one in images]
            wanted.setdefault(row.folders["detection"], []).extend(ids)
    scenes: dict[Path, Mapping[int, Any]] = {}
    problems: dict[Path, str] = {}
    for folder, ids in wanted.items():
        try:
            scenes[folder] = read(folder, list(dict.fromkeys(ids)), least_score=LEAST_SCORE)
        except (InputError, OSError) as error:
            problems[folder] = str(error)
    drawn: dict[tuple[str, int], str] = {}
    return [_shown(pair, scenes, problems, drawn) for pair in pairs]


def _pairs(comparison: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[_Pair]:
    for entry in comparison["diagnosis"]:
        first = {
            row.label: row for row in reversed(rows) if row.protocol == entry["protocol"] and "detection" in row.folders
        }
        baseline = next((first[method["label"]] for method in entry["methods"] if method["is_baseline"]), None)
        for method in entry["methods"]:
            if method["influence"] and baseline:
                sides = {side: method["influence"][side][:SHOWN] for side in ("for", "against")}
                yield _Pair(entry["protocol"] or "", first[method["label"]], baseline, sides)


def _shown(
    pair: _Pair, scenes: Mapping[Path, Mapping[int, Any]], problems: Mapping[Path, str],
    drawn: dict[tuple[str, int], str],
) -> dict[str, Any]:  # fmt: skip
    folders = [row.folders["detection"] for row in (pair.own, pair.other)]
    problem = next((problems[folder] for folder in folders if folder in problems), "")
    sides: dict[str, list[Shown]] = {"for": [], "against": []}
    try:
        if not problem:
            both = [scenes[folder] for folder in folders]
            sides = {side: [_show(one, both, drawn) for one in images] for side, images in pair.sides.items()}
    except OSError as error:
        problem = str(error)
    seeds = [pair.own.seed, pair.other.seed]
    said = {"protocol": pair.protocol, "label": pair.own.label, "baseline": pair.other.label, "seeds": seeds}
    return {**said, "problem": problem, **sides}


def _show(one: Mapping[str, Any], scenes: Sequence[Mapping[int, Any]], drawn: dict[tuple[str, int], str]) -> Shown:
    own, other = (scene[one["image_id"]] for scene in scenes)
    return Shown(own.path.name, one["influence"], (_draw(own, drawn), _draw(other, drawn)))


def _draw(scene: Any, drawn: dict[tuple[str, int], str]) -> str:
    """Draw a scene as SVG; an image that the page has already is referred to.

    drawn: id of every image on the page.
    """
    scale = WIDTH / scene.width
    height = round(scene.height * scale)
    key = (str(scene.path), scene.image_id)
    if key in drawn:
        drawing = f'<use href="#{drawn[key]}"/>'
    else:
        drawn[key] = f"image-{len(drawn)}"
        drawing = f'<image id="{drawn[key]}" href="{_jpeg(scene.path, height)}" width="{WIDTH}" height="{height}"/>'
    boxes = [_box(box, _TRUTH[box.outcome], scale, 3.0) for box in scene.truth]
    boxes += [_box(box, _LINES[box.outcome], scale, 2.0) for box in reversed(scene.detections)]
    counts = ", ".join(f"{sum(b.outcome == o for b in scene.detections)} {o}" for o in ("matched", "wrong"))
    missed = sum(box.outcome == "missed" for box in scene.truth)
    said = escape(f"{scene.path.name}: {len(scene.truth)} objects; detections: {counts}; {missed} missed", quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg" class="scene" '
        f'aria-label="{said}">{drawing}{"".join(boxes)}</svg>'
    )


def _box(box: Any, line: tuple[str, str], scale: float, stroke: float) -> str:
    x, y, width, height = (round(value * scale, 1) for value in box.xywh)
    colour, dashes = line
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    text = box.label if box.score is None else f"{box.label} {box.score:.2f}"
    label = ""
    if box.score is not None and (box.outcome == "matched" or box.score >= LABELLED):
        label = f'<text x="{x + 2}" y="{max(y - 3, 9)}" class="label" fill="{colour}">{escape(text)}</text>'
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="{colour}" '
        f'stroke-width="{stroke}"{dashed}><title>{escape(f"{text}, {box.outcome}")}</title></rect>{label}'
    )


def _jpeg(path: Path, height: int) -> str:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((WIDTH, max(height, 1)))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
