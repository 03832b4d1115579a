"""The gallery of class activation maps."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from backbones.core.errors import InputError
from backbones.core.files import load_json
from comparison.row import Row

GALLERY_IMAGES, MOST_COLUMNS = 16, 8
TILE_SIZE, TILE_QUALITY = 224, 88


def build_gallery(rows: Sequence[Row]) -> dict[str, Any] | None:
    """{"columns": [names], "rows": [{"label", "image", "cells": [{"image", "top3"} or None]}]}; None without tiles.

    Images are lines and backbones are columns; a missing tile is None.
    """
    columns = {row.hash: row for row in rows if row.file("localization", "gallery", "gallery.json")}
    names = dict(zip(columns, _column_names(list(columns.values())), strict=True))
    if len(columns) > MOST_COLUMNS:  # the first seed of each method
        first = {row.label: key for key, row in reversed(columns.items())}
        columns = {key: row for key, row in columns.items() if first[row.label] == key}
    found: dict[str, dict[str, Any]] = {}
    for key, row in columns.items():
        path = row.file("localization", "gallery", "gallery.json")
        assert path is not None
        for item in load_json(path):
            line = found.setdefault(item["image"], {"image": item["image"], "label": item["label"], "cells": {}})
            line["cells"][key] = {"image": _image(path.parent / item["tile"]), "top3": item["top3"]}
    if not found:
        return None
    lines = list(found.values())[:GALLERY_IMAGES]
    return {
        "columns": [names[key] for key in columns],
        "rows": [line | {"cells": [line["cells"].get(key) for key in columns]} for line in lines],
    }


def _column_names(rows: Sequence[Row]) -> list[str]:
    labels = [row.label for row in rows]
    return [f"{r.label} (seed {r.seed})" if labels.count(r.label) > 1 else r.label for r in rows]


def _image(path: Path) -> str:
    """Return a tile as a JPEG data URL, a tenth of the size of the PNG."""
    try:
        with Image.open(path) as image:
            tile = image.convert("RGB")
    except OSError as error:
        raise InputError(f"cannot read the gallery's tile {path}: {error}; localise again") from None
    tile.thumbnail((TILE_SIZE, TILE_SIZE))
    stream = io.BytesIO()
    tile.save(stream, "JPEG", quality=TILE_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
