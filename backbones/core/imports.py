"""Files of the user that a config names in IMPORTS: methods, networks, data sets and detectors outside the project.

    IMPORTS: [my_method.py]     # relative to the yaml file; on the command line, to the current folder

They are imported before the defaults of the config are built, so that their entries in the registries have keys like
all others.  A run keeps a copy in RUN/imports and names it in its config.yaml: every later tool uses the code that the
run was trained with.  An entry is a Python file, or a folder with an `engine.py` (a detector, detection/engines).
Each file must be complete on its own: it imports the project and installed packages, not other files beside it.
"""

import importlib.util
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from backbones.core.config import IMPORTS, CfgNode, expand_path, load_config, load_yaml
from backbones.core.errors import InputError
from backbones.core.files import fingerprint, save_atomic

FOLDER = "imports"  # of a run, with its copies
ENGINE_FILE = "engine.py"

_imported: dict[str, tuple[str, Path]] = {}  # name -> digest and path; of files and of folders
_folders: list[Path] = []


def load_config_with_imports(
    defaults: Callable[[], CfgNode],
    path: str | Path | None,
    overrides: Sequence[str] = (),
    *,
    tree: Mapping[str, Any] | None = None,
) -> CfgNode:
    """Import the files that the config names, then load it as `load_config` does.

    Args:
        defaults: returns the defaults; called after the imports.
        tree: content of the file, if it has been read already.

    Returns:
        the config; its IMPORTS holds absolute paths.
    """
    if tree is None and path is not None:
        tree = load_yaml(path)
    paths = find_imports(tree, overrides)
    import_all(paths)
    base = defaults()
    base.setdefault(IMPORTS, [])
    cfg = load_config(base, path, overrides, tree=tree)
    cfg[IMPORTS] = [str(one) for one in paths]
    return cfg


def find_imports(tree: Mapping[str, Any] | None, overrides: Sequence[str] = ()) -> list[Path]:
    """Return the absolute paths that a config file's content and KEY VALUE pairs name in IMPORTS; the last one counts.

    A value that is not a list of strings counts as none: `load_config` refuses it.

    Raises:
        InputError: a path that is neither a Python file nor a folder with an engine.py, or two of the same name.
    """
    stated = (tree or {}).get(IMPORTS, [])
    for key, text in zip(overrides[0::2], overrides[1::2], strict=False):
        if key == IMPORTS:
            stated = _read(text)
    if not isinstance(stated, list) or not all(isinstance(item, str) for item in stated):
        return []
    paths = [expand_path(item).absolute() for item in stated]
    for path in paths:
        _check(path)
        if [other.name for other in paths].count(path.name) > 1:
            raise InputError(f"{IMPORTS}: several entries are called {path.name}; rename one, as a run keeps both")
    return paths


def import_all(paths: Sequence[Path]) -> None:
    """Import files and make engine folders known; each content is imported once per process.

    Raises:
        InputError: a file that cannot be imported, with the line that fails.
    """
    for path in paths:
        found = digest(path)
        before, where = _imported.get(path.name, ("", path))
        if before == found:
            continue
        if before:
            raise InputError(
                f"{IMPORTS}: {path} differs from {where}, which was imported before; rename the file and what it "
                "registers, or use the same version for all"
            )
        _folders.append(path) if path.is_dir() else _import(path, found)
        _imported[path.name] = found, path


def engine_folders() -> list[Path]:
    """Return the imported folders with an engine.py."""
    return list(_folders)


def digest(path: Path) -> str:
    """Return 12 hex digits over the content of a file, or over names and contents of the Python files of a folder.

    Raises:
        InputError: it does not exist, or cannot be read.
    """
    try:
        if path.is_file():
            return fingerprint(path.read_bytes())
        parts = [(str(file.relative_to(path)), file.read_bytes()) for file in sorted(path.rglob("*.py"))]
    except OSError as error:
        raise InputError(f"{IMPORTS}: cannot read {error.filename or path}: {error.strerror}") from None
    if not path.is_dir():
        raise InputError(f"{IMPORTS}: {path} does not exist; restore it, or name the file that replaces it")
    return fingerprint(*(part for pair in parts for part in pair))


def join_digests(paths: Sequence[Path]) -> str:
    """Return one digest of several entries; "" for none."""
    return fingerprint(*map(digest, paths)) if paths else ""


def digests(cfg: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> digest of every entry of a config's IMPORTS."""
    return {Path(path).name: digest(Path(path)) for path in cfg.get(IMPORTS, [])}


def known_digests(cfg: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> digest of the entries of a config's IMPORTS that exist; a run can lie without its copies."""
    return {path.name: digest(path) for path in map(Path, cfg.get(IMPORTS, [])) if path.exists()}


def imported_digests(cfg: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> digest of every entry of a config's IMPORTS as it was imported.

    The files can change, or be deleted, while the run lasts.
    """
    paths = [Path(path) for path in cfg.get(IMPORTS, [])]
    return {path.name: _imported[path.name][0] if path.name in _imported else digest(path) for path in paths}


def describe_imports(cfg: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return `details.imports` of results.json, as {"imports": name -> digest}; {} without IMPORTS."""
    found = imported_digests(cfg)
    return {FOLDER: found} if found else {}


def with_copies(tree: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """Copy the entries of IMPORTS to RUN/imports; return the config's content to save there, which names the copies."""
    copies = [f"{FOLDER}/{Path(path).name}" for path in tree.get(IMPORTS, [])]
    for path, target in zip(map(Path, tree.get(IMPORTS, [])), (run_dir / copy for copy in copies), strict=True):
        if target.resolve() == path.resolve():  # a run that is evaluated with its own config
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            save_atomic(target, partial(shutil.copyfile, path))
    return {**tree, **({IMPORTS: copies} if IMPORTS in tree else {})}


def refuse_changed_imports(run_dir: Path, before: Mapping[str, Any], cfg: Mapping[str, Any]) -> None:
    """Raise `InputError` if IMPORTS differs in content from that of the run; paths may differ.

    before: content of the run's config.yaml.
    """
    then, now = digests(before), digests(cfg)
    for name in sorted(then.keys() | now.keys()):
        if name not in now or name not in then:
            state = "no longer names" if name in then else "now names"
            raise InputError(f"cannot resume {run_dir}: {IMPORTS} {state} {name}; set it back, or use another folder")
        if then[name] != now[name]:
            raise InputError(
                f"cannot resume {run_dir}: {name} of {IMPORTS} has changed since the run started; restore it from "
                f"{run_dir / FOLDER / name}, or start in another folder"
            )


def import_of_run(folder: Path) -> None:
    """Import what the config.yaml in a run's folder names, if it has one."""
    config = folder / "config.yaml"
    if config.is_file():
        import_all(find_imports(load_yaml(config)))


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _check(path: Path) -> None:
    if path.is_dir():
        if not (path / ENGINE_FILE).is_file():
            raise InputError(f"{IMPORTS}: the folder {path} has no {ENGINE_FILE}; name a Python file, or a detector")
    elif path.suffix != ".py" or not path.is_file():
        missing = "does not exist" if path.suffix == ".py" else "is not a Python file"
        raise InputError(f"{IMPORTS}: {path} {missing}; give a path relative to the yaml file that names it")


def _import(path: Path, found: str) -> None:
    name = f"imported_{path.stem}_{found}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickle and inspect look classes up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"{IMPORTS}: {path}{_line(error, path)}: {type(error).__name__}: {error}") from error


def _line(error: Exception, path: Path) -> str:
    """Return ", line N" of the statement of the file that failed."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
