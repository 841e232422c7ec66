"""
The shape of a profile file: YAML text to lists of entries that fit `profiles.schema.json`.

Called by: `kybernate.api.profiles`, which checks what belongs together.
Rule: an entry that does not fit is reported here and left out of the result, so that the checks
that follow never meet one. What a fault "expected" is the `description` in the schema.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import orjson
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from kybernate.api.errors import Fault, Faults, Malformed

Entry = tuple[str, Mapping[str, Any]]  # its path, and itself
_GPUS = "#/$defs/gpus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The entries that fit; in `named` and `indices` also those that do not.

    `named` is every profile and group of the file that says anything at all, `indices` every GPU.
    """

    profiles: list[Entry]
    groups: list[Entry]
    gpus: list[Entry]
    named: list[Entry]
    indices: Collection[int]


def read_shape(text: str, faults: Faults, *, only_gpus: bool = False) -> Shape:
    """Read the text; what does not fit goes to `faults`. Raises Malformed when it is no YAML.

    With `only_gpus` nothing but the section `gpus` is looked at, and it must be there.
    """
    document = _load(text)
    if only_gpus:
        section = document.get("gpus") if isinstance(document, dict) else None
        document = {"gpus": section}
        faults.extend(_misfits(section, _GPUS, "gpus"))
    else:
        faults.extend(_misfits(document, "#"))
    indices = {gpu.get("index") for gpu in _list_at(document, "gpus") if isinstance(gpu, dict)}
    return Shape(
        profiles=_fitting(document, "profiles", "profile"),
        groups=_fitting(document, "gpuTopology.groups", "group"),
        gpus=_fitting(document, "gpus", "gpu"),
        named=[*_entries(document, "profiles"), *_entries(document, "gpuTopology.groups")],
        indices={index for index in indices if isinstance(index, int)},
    )


class _UniqueKeys(yaml.SafeLoader):
    """YAML whose keys are texts and come once: the last of two would else silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(self.construct_object(key_node, deep=True))
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key} twice", problem_mark=key_node.start_mark)
            seen.add(key)
        made = super().construct_mapping(node, deep)
        return {str(key): value for key, value in made.items()}


def _load(text: str) -> Any:
    try:
        return yaml.load(text, _UniqueKeys)  # noqa: S506 (it is a SafeLoader)
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise Malformed([Fault(f"(line {line})", problem.problem, "YAML")]) from problem
    except yaml.YAMLError as problem:
        raise Malformed([Fault("(file)", str(problem), "YAML")]) from problem


def _list_at(document: Any, path: str) -> list[Any]:
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, list) else []


def _fitting(document: Any, path: str, definition: str) -> list[Entry]:
    validator = _validator(f"#/$defs/{definition}")
    return [(at, entry) for at, entry in _entries(document, path) if validator.is_valid(entry)]


def _entries(document: Any, path: str) -> list[Entry]:
    return [
        (f"{path}[{number}]", entry)
        for number, entry in enumerate(_list_at(document, path))
        if isinstance(entry, dict)
    ]


@cache
def _schema() -> dict[str, Any]:
    text = resources.files("kybernate.api").joinpath("profiles.schema.json").read_bytes()
    loaded: dict[str, Any] = orjson.loads(text)
    return loaded


@cache
def _validator(reference: str) -> Draft202012Validator:
    if reference == "#":
        return Draft202012Validator(_schema())
    return Draft202012Validator({"$ref": reference, "$defs": _schema()["$defs"]})


def _misfits(document: Any, reference: str, root: str = "") -> Iterator[Fault]:
    for error in _validator(reference).iter_errors(document):
        path = root
        for part in error.absolute_path:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        yield from _faults_of(error, path)


def _faults_of(error: ValidationError, path: str) -> Iterator[Fault]:
    before = f"{path}." if path else ""
    schema: dict[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    properties = schema.get("properties", {})
    found: Any = error.instance
    if error.validator == "required":
        for key in schema["required"]:
            if key not in found and f"'{key}'" in error.message:
                yield Fault(before + key, None, _expected(properties[key]))
    elif error.validator == "additionalProperties":
        for key in found:
            if key not in properties:
                accepted = ", ".join(properties)
                yield Fault(before + key, found[key], f"one of the keys {accepted}")
    else:
        yield Fault(path or "(file)", found, _expected(schema))


def _expected(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        schema = _schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    return str(schema["description"])
