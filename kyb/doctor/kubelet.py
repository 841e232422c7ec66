"""
The kubelet as it is configured now: its flags, its configuration file and the drop-ins.

Called by: `node`. On its own, in k3s, or in MicroK8s' kubelite.
Rule: flags win over drop-ins, drop-ins over the file, as the kubelet does it.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from kyb.doctor import host, supported
from kyb.doctor.facts import Kubelet, Unknown
from kyb.doctor.host import Host, Process
from kybernate.api import names
from kybernate.api.duration import parse_seconds

PROGRAMS = ("kubelet", "kubelite", "k3s-server", "k3s-agent", "k3s")
MICROK8S_FLAGS = "/var/snap/microk8s/current/args/kubelet"
K3S_SETTINGS = "/etc/rancher/k3s/config.yaml"
K3S_DROP_INS = "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d"


def facts(node: Host) -> Kubelet | Unknown:
    """The one that runs."""
    process = node.process(*PROGRAMS)
    if process is None:
        return Unknown("no kubelet runs")
    try:
        flags = _flags(process)
        settings = _settings(process.root, flags)
    except (OSError, yaml.YAMLError) as problem:
        return Unknown(f"the kubelet's configuration cannot be read: {problem}")
    timeout = host.flag_of(flags, "--runtime-request-timeout")
    pods = host.flag_of(flags, "--pod-manifest-path") or str(settings.get("staticPodPath") or "")
    return Kubelet(
        version=_version(process),
        request_timeout=seconds(timeout or settings.get("runtimeRequestTimeout")),
        static_seats=_static_seats(process.root, pods),
    )


def seconds(value: object) -> float:
    """Of a runtimeRequestTimeout; not set, or 0, is the kubelet's default."""
    try:
        found = parse_seconds(str(value)) if value else 0.0
    except ValueError:
        found = 0.0
    return found or supported.KUBELET_REQUEST_TIMEOUT_S


def asks_for_a_seat(pod: object) -> bool:
    """Whether a container of a pod, as its manifest has it, asks for one of our resources."""
    spec = pod.get("spec") if isinstance(pod, Mapping) else None
    containers = spec.get("containers") if isinstance(spec, Mapping) else None
    wanted: list[str] = []
    for one in containers if isinstance(containers, list) else ():
        resources = one.get("resources") if isinstance(one, Mapping) else None
        limits = resources.get("limits") if isinstance(resources, Mapping) else None
        wanted += map(str, limits) if isinstance(limits, Mapping) else []
    return any(name.startswith(names.SEAT_RESOURCE_PREFIX) for name in wanted)


def _flags(process: Process) -> Sequence[str]:
    """The kubelet's own, wherever its program keeps them."""
    program = Path(process.program).name
    if program == "kubelite":
        return shlex.split((process.root / MICROK8S_FLAGS.lstrip("/")).read_text(), comments=True)
    if program.startswith("k3s"):
        file = process.root / K3S_SETTINGS.lstrip("/")
        given = (yaml.safe_load(file.read_text()) or {}) if file.exists() else {}
        more = [f"--{one}" for one in _texts(given.get("kubelet-arg"))]
        typed = [w.partition("=")[2] for w in process.arguments if w.startswith("--kubelet-arg=")]
        return [*more, *(f"--{one}" for one in typed), f"--config-dir={K3S_DROP_INS}"]
    return process.arguments


def _settings(root: Path, flags: Sequence[str]) -> Mapping[str, Any]:
    """The file with its drop-ins, top-level fields only. Raises OSError, YAMLError."""
    found: dict[str, Any] = {}
    file, folder = host.flag_of(flags, "--config"), host.flag_of(flags, "--config-dir")
    files = [root / file.lstrip("/")] if file else []
    if folder:
        files += sorted((root / folder.lstrip("/")).glob("*.conf"))
    for path in files:
        body = yaml.safe_load(path.read_text())
        found.update(body if isinstance(body, dict) else {})
    return found


def _static_seats(root: Path, folder: str) -> tuple[str, ...]:
    found = []
    for path in sorted((root / folder.lstrip("/")).glob("*")) if folder else ():
        with suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
            if path.is_file() and asks_for_a_seat(yaml.safe_load(path.read_text())):
                found.append(path.name)
    return tuple(found)


def _version(process: Process) -> str:
    with suppress(host.CommandFailed, OSError):
        said, _ = host.run(process.root, [process.program, "--version"])
        if found := re.search(r"\bv(\d+\.\d+\.\d+\S*)", said):
            return found.group(1)
    return ""


def _texts(value: object) -> Iterable[str]:
    return [value] if isinstance(value, str) else map(str, value) if isinstance(value, list) else ()
