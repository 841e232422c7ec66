"""
containerd as it is configured now, by its own word: `containerd config dump` with its own flags.

Called by: `node`, `kyb.nodefiles`.
Rule: drop-in files, defaults and migrations are containerd's business; only its result is read.
"""

import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kyb.doctor import host
from kyb.doctor.facts import Containerd, Handler
from kyb.doctor.host import Host, Process
from kybernate.api import names

PLUGIN = "io.containerd.cri.v1.runtime"
OLD_PLUGIN = "io.containerd.grpc.v1.cri"  # of containerd 1.x
CONFIGURATION = "/etc/containerd/config.toml"
STATE = "/run/containerd"
_NOTICED_S = 1.0  # a file written while it starts is read


class NotSeen(Exception):
    """containerd does not run, or does not tell; the text is for people."""


@dataclass(frozen=True, slots=True)
class Running:
    """The process, its configuration and the files that made it."""

    process: Process
    version: str
    configuration: Mapping[str, Any]
    path: str

    @property
    def main_file(self) -> Mapping[str, Any] | None:
        """As it is written; None where it runs on its defaults. Raises NotSeen."""
        try:
            return tomllib.loads((self.process.root / self.path.lstrip("/")).read_text())
        except FileNotFoundError:
            return None
        except (OSError, tomllib.TOMLDecodeError) as problem:
            raise NotSeen(f"{self.path}: {problem}") from problem

    @property
    def imports(self) -> tuple[str, ...]:
        """Patterns of the drop-in files it reads. Raises NotSeen.

        A main file without `imports` has none, although the default that is dumped names a folder.
        """
        main = self.main_file
        given = self.configuration if main is None else main
        return tuple(map(str, given.get("imports", ())))

    @property
    def state(self) -> str:
        """Its folder of what runs; a flag wins over the configuration."""
        told = self.process.flag("--state") or self.configuration.get("state")
        return str(told or STATE)

    @property
    def handled(self) -> str | None:
        """The BinaryName of the runtime of seat pods; None where there is no such runtime."""
        runtime = self.runtimes.get(names.RUNTIME_CLASS)
        return None if runtime is None else str(runtime.get("options", {}).get("BinaryName", ""))

    @property
    def runtimes(self) -> Mapping[str, Any]:
        """By handler."""
        plugins = self.configuration.get("plugins", {})
        plugin = plugins.get(PLUGIN) or plugins.get(OLD_PLUGIN) or {}
        found: Mapping[str, Any] = plugin.get("containerd", {}).get("runtimes", {})
        return found

    @property
    def systemd_cgroup(self) -> bool:
        """What the runtime runc is told: another runtime of the node has to be told the same."""
        options = self.runtimes.get("runc", {}).get("options", {})
        return bool(options.get("SystemdCgroup", False))


def find(node: Host) -> Running:
    """The one that runs. Raises NotSeen."""
    process = node.process("containerd")
    if process is None:
        raise NotSeen("no containerd runs")
    given = process.flag("--config", "-c")
    flags = ["--config", given] if given else []
    environment, program = process.environment.get("PATH", ""), process.called
    try:
        said, _ = host.run(process.root, [program, "--version"], environment)
        dump, _ = host.run(process.root, [program, *flags, "config", "dump"], environment)
    except (host.CommandFailed, OSError) as problem:
        raise NotSeen(f"containerd does not tell its configuration: {problem}") from problem
    found = re.search(r"\bv?(\d+\.\d+\.\d+\S*)", said)
    version = found.group(1) if found else ""
    return Running(process, version, tomllib.loads(dump), given or CONFIGURATION)


def facts(running: Running) -> Containerd:
    """What checks want to know of it. Raises NotSeen."""
    wanted = running.runtimes.get(names.RUNTIME_CLASS)
    return Containerd(
        version=running.version,
        handler=None if wanted is None else _handler(running.process.root, wanted),
        of_others=running.systemd_cgroup,
        imports=running.imports,
        stale=_stale(running),
    )


def _handler(root: Path, runtime: Mapping[str, Any]) -> Handler:
    options = runtime.get("options", {})
    program = str(options.get("BinaryName", ""))
    both = set(runtime.get("pod_annotations", ())) & set(runtime.get("container_annotations", ()))
    return Handler(
        program=program,
        runs=bool(program) and host.executable(root, program),
        annotations=tuple(sorted(both)),
        systemd_cgroup=bool(options.get("SystemdCgroup", False)),
    )


def _stale(running: Running) -> bool:
    """Whether it would be another one if it were started again."""
    started, root = running.process.started, running.process.root
    newest = 0.0
    for pattern in (running.path, *running.imports):
        for path in root.glob(pattern.lstrip("/")):
            with suppress(OSError):
                newest = max(newest, path.stat().st_mtime)
    return newest > started + _NOTICED_S
