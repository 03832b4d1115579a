"""Import of the tools from their files, so that `main(argv)` runs in this process instead of a new one."""

import importlib.util
from collections.abc import Callable
from types import ModuleType

from helpers.killing import ROOT


def load_tool(name: str) -> ModuleType:
    """Import `tools/<name>.py`."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tool(name: str) -> Callable[[list[str]], int | None]:
    """Return the `main` of `tools/<name>.py`."""
    return load_tool(name).main
