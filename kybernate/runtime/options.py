"""
One setting under its three names, and how its value is read and shown.

Called by: `settings.py` only.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from kybernate.api import duration, quantity
from kybernate.api.errors import Faults
from kybernate.runtime import addresses

ENVIRONMENT_PREFIX = "KYB_"


@dataclass(frozen=True)
class Option:
    """One field of a settings class, under its three names."""

    field: "dataclasses.Field[Any]"
    kind: Any  # the type without None

    @property
    def flag(self) -> str:
        """`--opa-url`."""
        return "--" + self.field.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """`KYB_OPA_URL`."""
        return ENVIRONMENT_PREFIX + self.field.name.upper()

    @property
    def key(self) -> str:
        """`opaUrl`."""
        first, *rest = self.field.name.split("_")
        return first + "".join(word.capitalize() for word in rest)

    @property
    def help(self) -> str:
        """What it does, and why the default is what it is."""
        text: str = self.field.metadata.get("help", "")
        return text

    @property
    def unit(self) -> str:
        """ "seconds", "bytes", "address", or a word that is printed only."""
        text: str = self.field.metadata.get("unit", "")
        return text

    @property
    def choices(self) -> tuple[str, ...]:
        """The accepted values; empty where any will do."""
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            return tuple(str(member.value) for member in self.kind)
        return tuple(self.field.metadata.get("choices", ()))

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.field.default is MISSING and self.field.default_factory is MISSING

    @property
    def placeholder(self) -> str:
        """What stands for the value in `--help`."""
        if self.choices:
            return "|".join(self.choices)
        by_unit = {"seconds": "DURATION", "bytes": "SIZE", "address": "HOST:PORT"}
        by_kind = {bool: "true|false", int: "N", float: "NUMBER", Path: "PATH"}
        return by_unit.get(self.unit) or by_kind.get(self.kind) or self.unit.upper() or "TEXT"

    @property
    def default_text(self) -> str:
        """The default as it would be written."""
        if self.required:
            return "It must be given."
        default = self.field.default
        if default is None or default is MISSING or default == "":
            return "No default."
        if self.unit == "seconds":
            return f"Default {duration.format_seconds(default)}."
        if self.unit == "bytes":
            return f"Default {quantity.format_bytes(default)}."
        return f"Default {getattr(default, 'value', default)}."

    def resolve(
        self,
        flags: Mapping[str, str | None],
        environ: Mapping[str, str],
        keys: Mapping[str, Any],
        values: dict[str, Any],
        faults: Faults,
    ) -> None:
        """Put the value of the first source that has one into `values`."""
        for path, source in ((self.flag, flags), (self.variable, environ), (self.key, keys)):
            if path in source:
                if source[path] is not None:
                    values[self.field.name] = self._read(path, source[path], faults)
                return
        if self.required:
            faults.add(self.flag, None, f"a value (or {self.variable}, or {self.key} in the file)")

    def _read(self, path: str, given: Any, faults: Faults) -> Any:
        if isinstance(given, list) and self._is_sequence():
            return tuple(faults.read(path, str(item), self._parse_one, None) for item in given)
        if isinstance(given, bool):
            given = "true" if given else "false"
        if isinstance(given, int | float):
            given = str(given)
        return faults.read(path, given, self._parse, None)

    def _is_sequence(self) -> bool:
        return typing.get_origin(self.kind) is tuple

    def _parse(self, text: str) -> Any:
        if self._is_sequence():
            return tuple(self._parse_one(part.strip()) for part in text.split(",") if part.strip())
        return self._parse_one(text)

    def _parse_one(self, text: str) -> Any:
        if self.choices and text not in self.choices:
            raise ValueError("one of " + ", ".join(self.choices))
        if self.unit in _UNITS:
            return _UNITS[self.unit](text)
        kind = typing.get_args(self.kind)[0] if self._is_sequence() else self.kind
        return _KINDS.get(kind, kind)(text)


def options_of(cls: type) -> list[Option]:
    """The fields of a settings class, in their order."""
    hints = typing.get_type_hints(cls)
    return [Option(found, _without_none(hints[found.name])) for found in dataclasses.fields(cls)]


def _without_none(kind: Any) -> Any:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number") from None


def _address(text: str) -> str:
    addresses.parse_listen(text)
    return text


_KINDS: Mapping[Any, Any] = {bool: _bool, int: _int, float: _float}
_UNITS: Mapping[str, Any] = {
    "seconds": duration.parse_seconds,
    "bytes": quantity.parse_bytes,
    "address": _address,
}
