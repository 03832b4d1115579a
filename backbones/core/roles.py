"""The role of every key of a config, said once, beside its default.

    _C = Block()
    # Seed of the new layers.
    _C.SEED = SEED(0)
    # How the run is tested.
    _C.TEST = Block(TEST)  # the role of every key in it ...
    _C.TEST.EXPECTED_RESULTS = MACHINE([])  # ... that does not say its own
    ROLES = Roles(_C)

What a resumed run may change, what `--eval-only` may change, what weights depend on and what the hash of a protocol
covers follow from the roles.  docs/protocols.md lists the keys of each role.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from backbones.core.config import CfgNode, flatten


class Role(Enum):
    """What depends on a key.  Calling a role with a default value marks the key that it is assigned to."""

    MACHINE = "machine"  # no number: places, processes, caches, periods, what a run must end with
    NAMING = "naming"  # no number: how tables call it
    CONTENT = "content"  # a name or path; what it names counts by its content (fingerprint, hash), not by its place
    SEED = "seed"  # the weights, but not the protocol: rows that differ in it are repetitions
    COMPARED = "compared"  # the weights, but not the protocol: what the rows of a table differ in (method, labels)
    TEST = "test"  # the protocol, but not the weights: how they are measured
    NUMBER = "number"  # weights and protocol

    def __call__(self, default: Any) -> _Marked:
        """`default`, with this role for the key (or for the whole block) that it becomes the default of."""
        return _Marked(default, self)


class _Marked(NamedTuple):
    default: Any
    role: Role


MACHINE, NAMING, CONTENT, SEED = Role.MACHINE, Role.NAMING, Role.CONTENT, Role.SEED
COMPARED, TEST, NUMBER = Role.COMPARED, Role.TEST, Role.NUMBER

# What no number depends on, so that it may always change.
FREE = (MACHINE, NAMING)
# What weights depend on, beside the content of what CONTENT names.
WEIGHTS = (SEED, COMPARED, NUMBER)
# What the hash of a protocol covers, beside the fingerprints of the data.
PROTOCOL = (NUMBER, TEST)


class Block(CfgNode):
    """A block of defaults that knows the roles of its keys.

    Args:
        role: of the keys that do not say their own; without it that of the block it is in, if this has one.
    """

    def __init__(self, role: Role | None = None) -> None:
        super().__init__()
        self.__dict__.update(_role=role, _stated={})

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, _Marked):
            self.__dict__["_stated"][name] = value.role
            value = value.default
        super().__setattr__(name, value)

    def role_of(self, key: str) -> Role | None:
        """The role of a dotted key, or that of the innermost block on its way; None where nothing states one."""
        role, node = None, self
        for part in key.split("."):
            if isinstance(node, Block):
                role = node.__dict__["_stated"].get(part) or node.__dict__["_role"] or role
            node = node.get(part) if isinstance(node, Mapping) else None
        if isinstance(node, Block):
            role = node.__dict__["_role"] or role
        return role


class Roles:
    """The roles of the keys of a finished block of defaults.

    Raises:
        TypeError: a key without a role; names all of them.
    """

    def __init__(self, defaults: Block) -> None:
        self._defaults = defaults
        without = [key for key, _ in flatten(defaults) if defaults.role_of(key) is None]
        if without:
            raise TypeError(f"keys without a role: {', '.join(without)}; write KEY = NUMBER(default), or another role")

    def of(self, key: str) -> Role:
        """The role of a key; one that the defaults do not hold, of another version, may concern any number."""
        return self._defaults.role_of(key) or NUMBER

    def select(self, cfg: Mapping[str, Any], *roles: Role) -> dict[str, Any]:
        """Dotted key -> value of the keys of `cfg` that have one of these roles, in the order of `cfg`."""
        return {key: value for key, value in flatten(cfg) if self.of(key) in roles}

    def keys(self, *roles: Role) -> list[str]:
        """The keys of the defaults that have one of these roles."""
        return list(self.select(self._defaults, *roles))
