"""
Label and field selectors. Part of the fake API server.

Fields may be any path (`spec.nodeName`); the real server knows a few per resource.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

Obj = Mapping[str, Any]
Matches = Callable[[Obj], bool]

_SET = re.compile(r"^(\S+)\s+(in|notin)\s+\((.*)\)$")
_COMMA = re.compile(r",(?![^(]*\))")


def selector(labels: str | None, fields: str | None) -> Matches:
    """Whether an object is selected by both; None selects everything."""
    tests = [_label(part.strip()) for part in _COMMA.split(labels)] if labels else []
    tests += [_field(part.strip()) for part in fields.split(",")] if fields else []
    return lambda obj: all(test(obj) for test in tests)


def _label(text: str) -> Matches:
    found = _SET.match(text)
    if found:
        name, operator, values = found.groups()
        wanted = {value.strip() for value in values.split(",")}
        return lambda obj: (_labels(obj).get(name) in wanted) == (operator == "in")
    for operator in ("!=", "==", "="):
        if operator in text:
            name, value = (part.strip() for part in text.split(operator, 1))
            return lambda obj: (_labels(obj).get(name) == value) == (operator != "!=")
    if text.startswith("!"):
        return lambda obj: text[1:] not in _labels(obj)
    return lambda obj: text in _labels(obj)


def _field(text: str) -> Matches:
    operator = "!=" if "!=" in text else "="
    path, value = text.replace("==", "=").split(operator, 1)
    return lambda obj: (_at(obj, path) == value) == (operator == "=")


def _labels(obj: Obj) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def _at(obj: Any, path: str) -> str:
    for step in path.split("."):
        obj = (obj or {}).get(step)
    return "" if obj is None else str(obj)
