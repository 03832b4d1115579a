"""Gallery of class activation maps: tiles of images with map and boxes, and their contact sheet."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from backbones.core.files import save_atomic, save_json
from backbones.data.samples import Samples
from backbones.measuring.cam import Localized
from backbones.measuring.predictions import Predictions

COLOURS = "inferno"
STRENGTH = 0.75  # opacity of the map where it is 1
RIGHT, WRONG, OTHER = "#1a7f37", "#c4320a", "#9aa4b2"
CELLS_PER_ROW = 2


class Tile(NamedTuple):
    """An image of the gallery; top3: [(class, probability)], sorted by descending probability.

    covered: its objects are painted over.
    """

    image_id: str
    label: str
    top3: list[tuple[str, float]]
    image: np.ndarray
    overlay: np.ndarray
    covered: bool = False


def make_tiles(localized: Iterable[Localized], samples: Samples, said: Predictions) -> list[Tile]:
    """Draw localised images; said: the classifier's predictions for the same samples in the same order."""
    names, tiles = samples.display_names, []
    for found, p in zip(localized, np.exp(said.log_p), strict=True):
        top3 = [(names[k], float(p[k])) for k in np.argsort(-p, kind="stable")[:3]]
        image = draw_boxes(found.image, found.boxes)
        overlay = draw_boxes(blend(found.image, found.values), found.boxes)
        tiles.append(Tile(samples.relative[found.index], names[found.label], top3, image, overlay))
    return tiles


def blend(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Overlay (H, W, 3) uint8 with a map (H, W) in [0, 1], more opaque where it is larger."""
    heat = 255 * matplotlib.colormaps[COLOURS](values)[..., :3]
    opacity = STRENGTH * values[..., None]
    return ((1 - opacity) * image + opacity * heat).round().astype(np.uint8)


def draw_boxes(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return a copy with the outlines of half-open boxes (m, 4): white on black, visible on any background."""
    drawn = np.ascontiguousarray(image).copy()
    low, high = np.floor(boxes[:, :2]).astype(int), np.ceil(boxes[:, 2:]).astype(int) - 1
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        for corner, opposite in zip(low.tolist(), high.tolist(), strict=True):
            cv2.rectangle(drawn, corner, opposite, colour, thickness)
    return drawn


def save_gallery(run_dir: Path, tiles: Sequence[Tile], title: str) -> dict[str, str]:
    """Write gallery.png, gallery.json and gallery/NN.png, and return their names for results.json."""
    listed = []
    for number, tile in enumerate(tiles):
        name = f"gallery/{number:02d}.png"
        save_image(run_dir / name, tile.overlay)
        listed.append({"image": tile.image_id, "tile": name, "label": tile.label, "top3": tile.top3})
    save_json(run_dir / "gallery.json", listed)
    figure = draw_sheet(tiles, title)
    save_atomic(run_dir / "gallery.png", lambda path: figure.savefig(path))
    return {"gallery": "gallery.json", "gallery_sheet": "gallery.png"}


def save_image(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB as PNG."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())

    save_atomic(path, write)


def draw_sheet(tiles: Sequence[Tile], title: str) -> Figure:
    """Draw every tile as a cell: the image, the image with its map, and the three top probabilities (green: right)."""
    rows = -(-len(tiles) // CELLS_PER_ROW)
    figure = Figure(figsize=(6.6 * CELLS_PER_ROW, 0.5 + 2.3 * rows), dpi=100, facecolor="white", layout="constrained")
    figure.suptitle(f"{title}\n", fontsize=12)
    cells = figure.subfigures(rows, CELLS_PER_ROW, squeeze=False, wspace=0.03, hspace=0.03).flat
    for cell, tile in zip(cells, tiles, strict=False):
        _draw_cell(cell, tile)
    return figure


def _draw_cell(cell, tile: Tile) -> None:
    shown, overlay, bars = cell.subplots(1, 3, width_ratios=(1, 1, 1.25))
    for axes, image in ((shown, tile.image), (overlay, tile.overlay)):
        axes.imshow(image)
        axes.axis("off")
    shown.set_title(tile.label, fontsize=11, fontweight="bold", loc="left")
    overlay.set_title("map", fontsize=9, loc="left")
    names, values = [name for name, _ in tile.top3], [value for _, value in tile.top3]
    best = RIGHT if names[0] == tile.label else WRONG
    colours = [best if i == 0 else OTHER for i in range(len(names))]
    bars.barh(range(len(names)), values, height=0.32, color=colours)
    for i, (name, value) in enumerate(tile.top3):
        bars.text(0, i - 0.25, f"{name}  {value:.2f}", fontsize=9, va="bottom", ha="left")
    bars.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.7))
    bars.axis("off")
