"""
The three kinds of patches, on plain dicts. Part of the fake API server. Pure: nothing is changed in
place.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

Json = Any


class CannotApply(Exception):
    """The patch does not fit the object."""


def merge(target: Json, patch: Json) -> Json:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, Mapping):
        return deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def json_patch(target: Json, operations: Sequence[Mapping[str, Any]]) -> Json:
    """RFC 6902: add, remove, replace, test. Raises CannotApply."""
    whole = {"": deepcopy(target)}
    for operation in operations:
        steps = ["", *(_unescaped(step) for step in operation["path"].split("/")[1:])]
        try:
            parent: Json = whole
            for step in steps[:-1]:
                parent = parent[_place(parent, step)]
            _operate(parent, steps[-1], operation)
        except (KeyError, IndexError, TypeError, ValueError) as problem:
            raise CannotApply(f"{operation['op']} {operation['path']}: {problem}") from problem
    return whole[""]


def apply(target: Json, body: Json, before: Json) -> Json:
    """Server-side apply, simplified: maps merge, lists are replaced whole (atomic), and what this
    manager had applied `before` and no longer names is removed."""
    return merge(_without(target, before, body), body)


def _without(target: Json, before: Json, body: Json) -> Json:
    if not isinstance(target, Mapping) or not isinstance(before, Mapping):
        return target
    kept = dict(target)
    for name, value in before.items():
        if name not in body:
            kept.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(body[name], Mapping) and name in kept:
            kept[name] = _without(kept[name], value, body[name])
    return kept


def _operate(parent: Json, last: str, operation: Mapping[str, Any]) -> None:
    place = _place(parent, last)
    match operation["op"]:
        case "test" if parent[place] != operation["value"]:
            raise CannotApply(f"test {operation['path']} failed")
        case "test":
            pass
        case "add" if isinstance(parent, list):
            parent.insert(len(parent) if place == "-" else int(place), operation["value"])
        case "add":
            parent[place] = operation["value"]
        case "replace":
            _ = parent[place]
            parent[place] = operation["value"]
        case "remove":
            del parent[place]
        case unknown:
            raise ValueError(f"operation {unknown!r}")


def _place(parent: Json, step: str) -> Any:
    return int(step) if isinstance(parent, list) and step != "-" else step


def _unescaped(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")
