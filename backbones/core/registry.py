"""A registry maps a name to a class or function."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from fvcore.common.registry import Registry as _Registry

from backbones.core.checks import check_choice
from backbones.core.errors import InputError


class Registry(_Registry):
    """fvcore's Registry with an error that names the closest entry, and optional import of the registering modules.

    Args:
        name: the kind of an entry, in messages.
        package: package whose modules register the entries; all of them are imported before the first look-up, so that
            a new file needs no line elsewhere.  Empty: only entries of modules imported elsewhere.
    """

    def __init__(self, name: str, package: str = "") -> None:
        super().__init__(name)
        self._unread = package

    def _do_register(self, name: str, obj: Any) -> None:
        if not obj.__module__.startswith(self._unread):
            self._import_package()  # otherwise, an entry from elsewhere would take the name of one of the package
        if name in self._obj_map:
            raise InputError(f"the {self._name} '{name}' is registered already, by {self._obj_map[name].__module__}")
        super()._do_register(name, obj)

    def get(self, name: str) -> Any:
        """Return the entry `name`; if unknown, raise `InputError` with the closest name or all choices."""
        return super().get(check_choice(self._name, name, self.names()))

    def names(self) -> list[str]:
        """Return all registered names, sorted."""
        return sorted(name for name, _ in self)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        self._import_package()
        return super().__iter__()

    def __contains__(self, name: str) -> bool:
        self._import_package()
        return super().__contains__(name)

    def _import_package(self) -> None:
        if self._unread:
            for module in pkgutil.iter_modules(importlib.import_module(self._unread).__path__, f"{self._unread}."):
                importlib.import_module(module.name)
            self._unread = ""
