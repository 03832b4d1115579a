"""Discovery of engines: a folder with an `engine.py` is the engine of that name, `ENGINE <folder>` in a config.

Folders are searched for here, in the IMPORTS of a config, and in the places that $SMOOTH2DET_ENGINES lists (separated
as in $PATH), so that your own detector needs no change of this project:

    IMPORTS: [toy]                                 # in toy.yaml, beside the folder toy, which holds engine.py
    ENGINE: toy

A run keeps a copy of an imported folder, and a suite hashes it.

`engine.py` ends with `ENGINE = <an instance>` of a subclass of `detection/engines/base.py::Engine`, which documents
what to define; the modules of a folder import each other as detection.engines.<folder>.<module>.
"""

import importlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.core.checks import check_choice
from backbones.core.config import IMPORTS, CfgNode, flatten, load_config, load_yaml
from backbones.core.errors import InputError
from backbones.core.imports import engine_folders, find_imports, import_all, load_config_with_imports

if TYPE_CHECKING:  # a slow import
    from detection.engines.base import Engine

KEY, FILE, INSTANCE = "ENGINE", "engine.py", "ENGINE"
VARIABLE = "SMOOTH2DET_ENGINES"
# Engines of the tools, used where the config names none.
OWN = ("torchvision", "yolo")
# Keys that every engine's config must have, since the run itself reads them.
REQUIRED = (
    "SEED", "LABEL", "PROTOCOL", "DATASETS.ROOT", "DATASETS.TRAIN", "DATASETS.TEST", "DATALOADER.NUM_WORKERS",
    "SOLVER.MAX_ITER", "SOLVER.CHECKPOINT_PERIOD", "SOLVER.LOG_PERIOD", "TEST.AP_SCORE_THRESH",
)  # fmt: skip


def _own_places() -> list[Path]:
    return [Path(part).expanduser().absolute() for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]


# On import, because a worker process imports an engine's modules by name only.
__path__ += [str(place) for place in _own_places()]


def find_engines() -> dict[str, Path]:
    """Return name -> folder of every engine; imports none of them.

    Raises:
        InputError: $SMOOTH2DET_ENGINES lists a missing folder, or two engines have the same name.
    """
    found: dict[str, Path] = {}
    for place in (Path(__file__).parent, *_own_places()):
        if not place.is_dir():
            raise InputError(f"{VARIABLE}: no folder {place}; set it to the parent folder of your engines")
        for file in sorted(place.glob(f"*/{FILE}")):
            name, other = file.parent.name, found.get(file.parent.name, file.parent)
            if other != file.parent:
                raise InputError(f"{VARIABLE}: {file.parent} and {other} are engines with the same name; rename yours")
            found[name] = file.parent
    for folder in engine_folders():
        if found.setdefault(folder.name, folder) != folder:
            raise InputError(f"IMPORTS: {folder} and {found[folder.name]} are engines with the same name; rename yours")
    return found


def build_engine(name: str) -> "Engine":
    """Return the engine of that name; imports neither other engines nor packages that must be installed for it.

    Raises:
        InputError: unknown engine, with the closest name or all names.
    """
    folder = find_engines()[check_choice(KEY, name, find_engines())]
    if str(folder.parent) not in __path__:  # the variable was set after the import
        __path__.append(str(folder.parent))
    module = importlib.import_module(f"{__name__}.{name}.{FILE.removesuffix('.py')}")
    if not hasattr(module, INSTANCE):
        raise InputError(f"{folder / FILE} defines no {INSTANCE}; end it with {INSTANCE} = <your subclass of Engine>()")
    return getattr(module, INSTANCE)


def engine_defaults(name: str) -> CfgNode:
    """Return the default config of an engine, with its name as ENGINE.

    Raises:
        InputError: the engine's defaults lack a key that the run reads.
    """
    cfg = build_engine(name).defaults()
    known = dict(flatten(cfg))
    if missing := [key for key in REQUIRED if key not in known]:
        raise InputError(f"ENGINE {name}: its defaults lack {', '.join(missing)}; add them to `defaults`")
    cfg[KEY] = name
    cfg.setdefault(IMPORTS, [])
    return cfg


def closest_engine(tree: Mapping[str, Any]) -> str:
    """Return the engine of a config's content: the one that it names, or that of our own whose keys it has."""
    if KEY in tree:
        return str(tree[KEY])
    keys = {key for key, _ in flatten(tree)} - {IMPORTS}
    return min(OWN, key=lambda name: len(keys - dict(flatten(engine_defaults(name))).keys()))


def load_engine_config(path: str | Path | None, overrides: Sequence[str] = (), *, otherwise: str) -> CfgNode:
    """Load the config of a fine-tuning: the defaults of its engine, the file at `path`, and KEY VALUE pairs, merged.

    What IMPORTS names is imported before.

    Args:
        otherwise: the engine if neither file nor pairs name one.

    Raises:
        InputError: see `load_config`; or an unknown engine.
    """
    named = [text for key, text in zip(overrides[0::2], overrides[1::2], strict=False) if key == KEY]
    tree = load_yaml(path) if path else {}  # once, as a pipe can be read only once
    import_all(find_imports(tree, overrides))  # one of them can be the engine
    stated = {KEY: tree[KEY]} if KEY in tree else {}
    chosen = load_config(CfgNode({KEY: otherwise}), path, [word for text in named for word in (KEY, text)], tree=stated)
    return load_config_with_imports(partial(engine_defaults, chosen[KEY]), path, overrides, tree=tree)
