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

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kybernate.api.errors import Faults, Malformed
from kybernate.runtime.options import ENVIRONMENT_PREFIX, Option, options_of

T = TypeVar("T")


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
    options = {option.flag: option for option in options_of(cls)}
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
    for option in options_of(cls):
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


def _read_flags(
    argv: Sequence[str], options: Mapping[str, Option], faults: Faults
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


def _following(flag: str, option: Option | None, rest: list[str], faults: Faults) -> str | None:
    if option is not None and option.kind is bool:
        return rest.pop(0) if rest and rest[0] in ("true", "false") else "true"
    if rest and not rest[0].startswith("--"):
        return rest.pop(0)
    faults.add(flag, None, "a value after it")
    return None


def _read_file(path: Path, options: Mapping[str, Option], faults: Faults) -> dict[str, Any]:
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
