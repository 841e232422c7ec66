"""
Settings of a process: one frozen dataclass each, read from flags, environment and a file.

Called by: every `__main__` (`from_process`). Precedence, here and nowhere else:
flag (`--opa-url`) > environment (`KYB_OPA_URL`) > file (`opaUrl`, YAML, named by `--config` or
`KYB_CONFIG`) > default. Unknown flags and keys are refused with the accepted ones (unknown `KYB_*`
variables are not: Kubernetes adds its own for every Service). All faults are reported at once.

    @dataclass(frozen=True, kw_only=True)
    class Settings(ProcessSettings):
        candidates: int = setting(32, help="nodes that filter answers with; 0 = all")
"""

import dataclasses
import os
import sys
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kybernate.api import duration, quantity
from kybernate.api.errors import Faults, Malformed
from kybernate.runtime import addresses

T = TypeVar("T")

ENVIRONMENT_PREFIX = "KYB_"


def setting(
    default: Any = MISSING,
    *,
    help: str,  # noqa: A002 - the word argparse and click have taught everybody
    unit: str = "",
    choices: Sequence[str] = (),
) -> Any:
    """A field. `help` says what it does and why the default is what it is.

    `unit`: "seconds" (a float, written `90s`), "bytes" (an int, written `40Gi`), "address" (a str,
    `HOST:PORT`), or any other word that is printed only. Without a default it must be given.
    """
    metadata = {"help": help, "unit": unit, "choices": tuple(choices)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """What every process has."""

    kubeconfig: Path | None = setting(
        None, help="who we are to the API server; without it: the pod's service account"
    )
    metrics_listen: str = setting(
        ":9090", unit="address", help="where /metrics, /healthz and /readyz are served"
    )
    tls_dir: Path | None = setting(
        None, help="folder with tls.crt, tls.key and ca.crt; read again when they change"
    )
    log_level: str = setting(
        "info", choices=("debug", "info", "warning", "error"), help="the least severe event logged"
    )


def load(
    cls: type[T],
    *,
    argv: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> T:
    """The settings. Raises Malformed with every fault, SystemExit(0) after printing `--help`.

    `argv` is without the program's name. `file` is used where `--config` and `KYB_CONFIG` are not.
    """
    environ = {} if environ is None else environ
    faults = Faults()
    options = {option.flag: option for option in _options(cls)}
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(help_text(cls))
        raise SystemExit(0)
    flags = _read_flags(argv, options, faults)
    config = flags.pop("--config", None) or environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    path = Path(config) if config else file
    keys = _read_file(path, options, faults) if path else {}
    values: dict[str, Any] = {}
    for option in options.values():
        option.resolve(flags, environ, keys, values, faults)
    faults.check()
    return cls(**values)


def from_process(cls: type[T]) -> T:
    """The settings of this process. Prints every fault and raises SystemExit(2)."""
    try:
        return load(cls, argv=sys.argv[1:], environ=os.environ)
    except Malformed as problem:
        lines = [f"  {fault}" for fault in problem.faults]
        sys.stderr.write("\n".join(["these settings cannot be used:", *lines, ""]))
        raise SystemExit(2) from None


def help_text(cls: type) -> str:
    """The text of `--help`: each setting with its unit, default and reason."""
    lines = [(cls.__doc__ or cls.__name__).strip(), ""]
    for option in _options(cls):
        lines.append(f"  {option.flag} {option.placeholder}")
        lines += textwrap.wrap(
            f"{option.help}. {option.default_text} "
            f"Environment {option.variable}, file key {option.key}.",
            width=96,
            initial_indent="      ",
            subsequent_indent="      ",
        )
    lines += [
        "  --config FILE",
        "      YAML file with any of these keys. Environment KYB_CONFIG.",
        "",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Option:
    """One field of a settings class, under its three names."""

    field: "dataclasses.Field[Any]"
    kind: Any  # the type without None

    @property
    def flag(self) -> str:
        return "--" + self.field.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.field.name.upper()

    @property
    def key(self) -> str:
        first, *rest = self.field.name.split("_")
        return first + "".join(word.capitalize() for word in rest)

    @property
    def help(self) -> str:
        text: str = self.field.metadata.get("help", "")
        return text

    @property
    def unit(self) -> str:
        text: str = self.field.metadata.get("unit", "")
        return text

    @property
    def choices(self) -> tuple[str, ...]:
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            return tuple(str(member.value) for member in self.kind)
        return tuple(self.field.metadata.get("choices", ()))

    @property
    def required(self) -> bool:
        return self.field.default is MISSING and self.field.default_factory is MISSING

    @property
    def placeholder(self) -> str:
        if self.choices:
            return "|".join(self.choices)
        by_unit = {"seconds": "DURATION", "bytes": "SIZE", "address": "HOST:PORT"}
        by_kind = {bool: "true|false", int: "N", float: "NUMBER", Path: "PATH"}
        return by_unit.get(self.unit) or by_kind.get(self.kind) or self.unit.upper() or "TEXT"

    @property
    def default_text(self) -> str:
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


def _options(cls: type) -> list[_Option]:
    hints = typing.get_type_hints(cls)
    return [_Option(found, _without_none(hints[found.name])) for found in dataclasses.fields(cls)]


def _without_none(kind: Any) -> Any:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def _read_flags(
    argv: Sequence[str], options: Mapping[str, _Option], faults: Faults
) -> dict[str, str | None]:
    found: dict[str, str | None] = {}  # None: its value is missing, which is told already
    rest = list(argv)
    while rest:
        flag, equals, given = rest.pop(0).partition("=")
        option = options.get(flag)
        if option is None and flag != "--config":
            faults.add(flag, given or None, "one of " + ", ".join([*options, "--config"]))
            if rest and not rest[0].startswith("--"):
                rest.pop(0)  # its value is not a second fault
            continue
        found[flag] = given if equals else _following(flag, option, rest, faults)
    return found


def _following(flag: str, option: _Option | None, rest: list[str], faults: Faults) -> str | None:
    if option is not None and option.kind is bool:
        return rest.pop(0) if rest and rest[0] in ("true", "false") else "true"
    if rest and not rest[0].startswith("--"):
        return rest.pop(0)
    faults.add(flag, None, "a value after it")
    return None


def _read_file(path: Path, options: Mapping[str, _Option], faults: Faults) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as problem:
        faults.add("--config", str(path), f"a readable YAML file ({problem})")
        return {}
    if not isinstance(content, dict):
        faults.add("--config", str(path), "a YAML file with keys and values")
        return {}
    accepted = {option.key for option in options.values()}
    for unknown in content.keys() - accepted:
        faults.add(str(unknown), content[unknown], "one of " + ", ".join(sorted(accepted)))
    return {key: value for key, value in content.items() if key in accepted and value is not None}


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
