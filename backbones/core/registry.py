"""A registry maps a name to a class or function, and nothing else."""

from typing import Any

from fvcore.common.registry import Registry as _Registry

from backbones.core.checks import check_choice


class Registry(_Registry):
    """fvcore's Registry with an error that names the closest entry."""

    def get(self, name: str) -> Any:
        """Return the entry `name`; if unknown, raise `InputError` with the closest name or all choices."""
        return super().get(check_choice(self._name, name, self.names()))

    def names(self) -> list[str]:
        """Return all registered names, sorted."""
        return sorted(name for name, _ in self)
