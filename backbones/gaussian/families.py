"""Families of candidates: groups of rows that are included or left out together."""

from collections.abc import Iterable

from backbones.core.errors import InputError, suggestion

FAMILIES = ("ls", "ils1", "sine", "ils2", "ils", "distillation", "figure11", "curves")


def check_families(chosen: Iterable[str]) -> tuple[str, ...]:
    """Return the chosen families in their usual order; raise `InputError` for an unknown one."""
    chosen = list(chosen)
    for name in chosen:
        if name not in FAMILIES:
            raise InputError(f"--rows: unknown family '{name}'{suggestion(name, FAMILIES)}")
    return tuple(name for name in FAMILIES if name in chosen)
