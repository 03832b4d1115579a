"""Check JSON content against the JSON Schema (draft 7) of its format, which the package holds as a file.

fastjsonschema compiles a schema to Python code once per process; a file of results then takes a tenth of a millisecond.
"""

import reprlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from backbones.core.files import load_json

_ROOT = "the content"
_A = {"object": "an object with keys", "array": "a list", "string": "a text", "integer": "an integer"}
_A |= {"number": "a number", "boolean": "true or false", "null": "null"}


def find_violation(content: Any, schema: Path) -> str:
    """Return what is wrong with JSON content: "KEY is VALUE; it must be ..." of the first violation, "" if it is valid.

    KEY is its path, such as metrics.AP or warnings[0].count.

    Args:
        schema: file with a JSON Schema of draft 7.
    """
    from fastjsonschema import JsonSchemaValueException  # slow: imported on use

    try:
        _compile(schema)(content)
    except JsonSchemaValueException as error:
        where = " ".join((error.name or "").removeprefix("data").removeprefix(".").split()) or _ROOT
        return _describe(where, error.value, str(error.rule), error.rule_definition, str(error.message))
    return ""


@cache
def _compile(schema: Path) -> Callable[[Any], Any]:
    import fastjsonschema  # slow: imported on use

    return fastjsonschema.compile(load_json(schema), use_default=False)


def _describe(where: str, value: Any, rule: str, definition: Any, message: str) -> str:
    if rule == "required":
        missing = next(key for key in definition if key not in value)
        return f"{missing if where == _ROOT else f'{where}.{missing}'} is missing"
    allowed = {
        "type": lambda: _either([_A[kind] for kind in ([definition] if isinstance(definition, str) else definition)]),
        "enum": lambda: _either(list(map(str, definition))),
        "minimum": lambda: f"at least {definition}",
    }
    if rule not in allowed:
        return message
    return f"{where} is {reprlib.repr(value)}; it must be {allowed[rule]()}"


def _either(names: Sequence[str]) -> str:
    """Format as "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
