"""The images that move a difference most, with the detections of both methods and the truth drawn on them.

Whoever calls `compare` gives a reader of images, as this package reads result files only
(`detection.drawing.reading.SceneReader.read`).
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from backbones.core.errors import InputError

SHOWN = 3  # images for, and against, each difference
WIDTH, QUALITY = 280, 80  # of the drawn images, in pixels
LEAST_SCORE = 0.3  # of the detections that are drawn
LABELLED = 0.5  # score from which wrong detections have a visible label, if there is room; all have a title
LETTER_WIDTH, LETTER_HEIGHT = 6.8, 10.0  # of labels, in pixels
Reader = Callable[..., Mapping[int, Any]]
# Outcome -> colour and dashes, so that no meaning rests on colour alone.
_LINES = {"matched": ("#0072B2", ""), "wrong": ("#D55E00", "6 3"), "ignored": ("#888888", "2 3")}
_TRUTH = {"matched": ("#ffffff", "1 3"), "missed": ("#ff2d2d", "1 3"), "crowd": ("#888888", "1 3")}


class Shown(NamedTuple):
    """An image: its file, what it adds to the difference of means and of the drawn runs, their names and drawings."""

    file: str
    influence: float
    of_runs: float | None
    names: tuple[str, str]
    drawings: tuple[str, str]


class _Choice(NamedTuple):
    """An influential image, and the folder of the run of the method, and of the baseline, that it is drawn of."""

    image: Mapping[str, Any]
    names: tuple[str, str]
    folders: tuple[Path, Path]


class _Pair(NamedTuple):
    """A method, its baseline, and the images to show on each side."""

    protocol: str
    label: str
    baseline: str
    sides: dict[str, list[_Choice]]


def influential_images(comparison: Mapping[str, Any], read: Reader | None) -> list[dict[str, Any]]:
    """Return {"protocol", "label", "baseline", "for", "against", "problem"} per method.

    read: maps a run's folder and image ids to scenes.  If it cannot, the problem is stated in place of the images.
    """
    if read is None:
        return []
    pairs = list(_pairs(comparison))
    wanted: dict[Path, list[int]] = {}
    for pair in pairs:
        for choice in (one for chosen in pair.sides.values() for one in chosen):
            for folder in choice.folders:
                wanted.setdefault(folder, []).append(choice.image["image_id"])
    scenes: dict[Path, Mapping[int, Any]] = {}
    problems: dict[Path, str] = {}
    for folder, ids in wanted.items():
        try:
            scenes[folder] = read(folder, list(dict.fromkeys(ids)), least_score=LEAST_SCORE)
        except (InputError, OSError) as error:
            problems[folder] = str(error)
    drawn: dict[tuple[str, int], str] = {}
    return [_shown(pair, scenes, problems, drawn) for pair in pairs]


def _pairs(comparison: Mapping[str, Any]) -> Iterator[_Pair]:
    for entry in comparison["diagnosis"]:
        rows = [
            row for row in comparison["rows"] if row["protocol"] == entry["protocol"] and "detection" in row["stages"]
        ]
        folders = {row["name"]: Path(row["stages"]["detection"]["folder"]) for row in rows}
        first = {row["label"]: row["name"] for row in reversed(rows)}
        baseline = next((method["label"] for method in entry["methods"] if method["is_baseline"]), None)
        for method in entry["methods"]:
            if method["influence"] and baseline:
                usual = first[method["label"]], first[baseline]
                sides = {
                    side: [_choose(one, usual, folders) for one in method["influence"][side][:SHOWN]]
                    for side in ("for", "against")
                }
                yield _Pair(entry["protocol"] or "", method["label"], baseline, sides)


def _choose(image: Mapping[str, Any], usual: tuple[str, str], folders: Mapping[str, Path]) -> _Choice:
    run = image["run"]
    names = (run["name"], run["baseline"]) if run else usual
    return _Choice(image, names, (folders[names[0]], folders[names[1]]))


def _shown(
    pair: _Pair, scenes: Mapping[Path, Mapping[int, Any]], problems: Mapping[Path, str],
    drawn: dict[tuple[str, int], str],
) -> dict[str, Any]:  # fmt: skip
    chosen = [one for own in pair.sides.values() for one in own]
    problem = next((problems[folder] for one in chosen for folder in one.folders if folder in problems), "")
    sides: dict[str, list[Shown]] = {"for": [], "against": []}
    try:
        if not problem:
            sides = {side: [_show(one, scenes, drawn) for one in own] for side, own in pair.sides.items()}
    except OSError as error:
        problem = str(error)
    return {"protocol": pair.protocol, "label": pair.label, "baseline": pair.baseline, "problem": problem, **sides}


def _show(choice: _Choice, scenes: Mapping[Path, Mapping[int, Any]], drawn: dict[tuple[str, int], str]) -> Shown:
    image = choice.image
    own, other = (scenes[folder][image["image_id"]] for folder in choice.folders)
    of_runs = image["run"]["influence"] if image["run"] else None
    return Shown(own.path.name, image["influence"], of_runs, choice.names, (_draw(own, drawn), _draw(other, drawn)))


def _draw(scene: Any, drawn: dict[tuple[str, int], str]) -> str:
    """Draw a scene as SVG; an image that the page has already is referred to.

    drawn: id of every image on the page.
    """
    width, height = _size(scene)
    scale = WIDTH / width
    height = round(height * scale)
    key = (str(scene.path), scene.image_id)
    if key in drawn:
        drawing = f'<use href="#{drawn[key]}"/>'
    else:
        drawn[key] = f"image-{len(drawn)}"
        drawing = f'<image id="{drawn[key]}" href="{_jpeg(scene.path, height)}" width="{WIDTH}" height="{height}"/>'
    boxes = [_box(box, _TRUTH[box.outcome], scale, 3.0) for box in scene.truth]
    boxes += [_box(box, _LINES[box.outcome], scale, 2.0) for box in reversed(scene.detections)]
    boxes += _labels(scene, scale, height)
    counts = ", ".join(f"{sum(b.outcome == o for b in scene.detections)} {o}" for o in ("matched", "wrong"))
    missed = sum(box.outcome == "missed" for box in scene.truth)
    said = escape(f"{scene.path.name}: {len(scene.truth)} objects; detections: {counts}; {missed} missed", quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg" class="scene" '
        f'aria-label="{said}">{drawing}{"".join(boxes)}</svg>'
    )


def _size(scene: Any) -> tuple[int, int]:
    """Return width and height; of the file, if the truth does not state them."""
    if scene.width and scene.height:
        return scene.width, scene.height
    with Image.open(scene.path) as image:
        return image.size


def _box(box: Any, line: tuple[str, str], scale: float, stroke: float) -> str:
    x, y, width, height = (round(value * scale, 1) for value in box.xywh)
    colour, dashes = line
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="{colour}" '
        f'stroke-width="{stroke}"{dashed}><title>{escape(f"{_text(box)}, {box.outcome}")}</title></rect>'
    )


def _text(box: Any) -> str:
    return box.label if box.score is None else f"{box.label} {box.score:.2f}"


def _labels(scene: Any, scale: float, height: int) -> list[str]:
    """Write the labels of the surest detections first; one without room among them is left out."""
    found: list[str] = []
    taken: list[tuple[float, float, float, float]] = []
    for box in scene.detections:
        if box.outcome != "matched" and box.score < LABELLED:
            continue
        x, y, w, h = (value * scale for value in box.xywh)
        wide = LETTER_WIDTH * len(_text(box))
        corners = [(x, y - 2), (x, y + h + LETTER_HEIGHT), (x + w - wide, y - 2), (x + w - wide, y + h + LETTER_HEIGHT)]
        corners += [(x + 3, y + LETTER_HEIGHT), (x + 3, y + h - 4)]
        for left, base in corners:
            left = min(max(left, 1.0), max(WIDTH - wide - 1.0, 1.0))
            base = min(max(base, LETTER_HEIGHT), height - 3.0)
            area = left, base - LETTER_HEIGHT, left + wide, base + 2.0
            if not any(_overlap(area, other) for other in taken):
                taken.append(area)
                colour = _LINES[box.outcome][0]
                place = f'x="{left:.1f}" y="{base:.1f}"'
                found.append(f'<text {place} class="label" fill="{colour}">{escape(_text(box))}</text>')
                break
    return found


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _jpeg(path: Path, height: int) -> str:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((WIDTH, max(height, 1)))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
