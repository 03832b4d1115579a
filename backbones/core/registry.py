"""A registry maps a name to a class or function, and nothing else."""

from typing import Any

from fvcore.common.registry import Registry as _Registry

from backbones.core.checks import check_choice


class Registry(_Registry):
    """fvcore's Registry, whose error names the nearest entry."""

    def get(self, name: str) -> Any:
        """Return the entry `name`; `InputError` with the nearest name or all choices if there is none."""
        return super().get(check_choice(self._name, name, self.names()))

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(name for name, _ in self)
