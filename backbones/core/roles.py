"""The role of every config key, stated once, next to its default.

    _C = Block()
    # Seed of the new layers.
    _C.SEED = SEED(0)
    # How the run is tested.
    _C.TEST = Block(TEST)  # the role of every key in the block ...
    _C.TEST.EXPECTED_RESULTS = MACHINE([])  # ... that does not state its own
    ROLES = Roles(_C)

The roles determine which keys a resumed run and `--eval-only` can change, which keys the weights depend on, and which
keys the protocol hash covers.  docs/protocols.md lists the keys of each role.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from backbones.core.config import IMPORTS, CfgNode, flatten


class Role(Enum):
    """What depends on a key.  Calling a role with a default value gives the assigned key this role."""

    MACHINE = "machine"  # no number: paths, processes, caches, periods, expected results
    NAMING = "naming"  # no number: names for tables
    CONTENT = "content"  # a name or path, which counts by the content it refers to (fingerprint, hash)
    SEED = "seed"  # the weights, but not the protocol: rows that differ in it are repetitions
    COMPARED = "compared"  # the weights, but not the protocol: the difference between rows (method, labels)
    TEST = "test"  # the protocol, but not the weights: how they are evaluated
    NUMBER = "number"  # both weights and protocol

    def __call__(self, default: Any) -> "_Marked":
        """Return `default`, marked with this role for the key (or the whole block) that it is assigned to."""
        return _Marked(default, self)


class _Marked(NamedTuple):
    default: Any
    role: Role


MACHINE, NAMING, CONTENT, SEED = Role.MACHINE, Role.NAMING, Role.CONTENT, Role.SEED
COMPARED, TEST, NUMBER = Role.COMPARED, Role.TEST, Role.NUMBER

# No number depends on these, so they can always change.
FREE = (MACHINE, NAMING)
# The weights depend on these, and on the content that CONTENT keys refer to.
WEIGHTS = (SEED, COMPARED, NUMBER)
# The protocol hash covers these, and the fingerprints of the data.
PROTOCOL = (NUMBER, TEST)


class Block(CfgNode):
    """A block of defaults that knows the roles of its keys.

    Args:
        role: role of the keys that do not state their own; None: the role of the enclosing block, if any.
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
        """Return the role of a dotted key: its own, or that of the innermost block with one; None if none is stated."""
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
        TypeError: keys without a role; lists all of them.
    """

    def __init__(self, defaults: Block) -> None:
        self._defaults = defaults
        without = [key for key, _ in flatten(defaults) if defaults.role_of(key) is None]
        if without:
            raise TypeError(f"keys without a role: {', '.join(without)}; write KEY = NUMBER(default), or another role")

    def of(self, key: str) -> Role:
        """Return the role of a key; NUMBER, the strictest, for a key of another version that the defaults lack."""
        return CONTENT if key == IMPORTS else self._defaults.role_of(key) or NUMBER

    def select(self, cfg: Mapping[str, Any], *roles: Role) -> dict[str, Any]:
        """Return {dotted key: value} of the keys of `cfg` with one of these roles, in the order of `cfg`."""
        return {key: value for key, value in flatten(cfg) if self.of(key) in roles}

    def keys(self, *roles: Role) -> list[str]:
        """Return the keys of the defaults with one of these roles."""
        return list(self.select(self._defaults, *roles))
