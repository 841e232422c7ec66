"""
Pods as the light node understands them. Pure.

Called by: `podlife`, `node`.
Rule: a pod has one container here. What would need more of a kubelet is refused in words rather
than run wrongly.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kybernate.api import names
from kybernate.api.quantity import parse_count

Obj = Mapping[str, Any]
_REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_.-][A-Za-z0-9_.-]*)\))")
_MAP_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_PYTHONS = frozenset({"python", "python3"})


class NotRunnable(Exception):
    """Why this pod cannot run here, in words for its status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A pod's own."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """What is to be run."""

    identity: Identity
    container: str
    image: str
    command: tuple[str, ...]
    environment: tuple[Obj, ...] = ()
    working_dir: str = ""
    wanted: Mapping[str, int] = field(default_factory=dict)  # extended resource -> count
    held: bool = False  # the agent decides when its first instruction runs
    restart_policy: str = "Always"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What fields of a pod may refer to."""

    pod: Obj
    pod_ip: str
    host_ip: str


def identity(pod: Obj) -> Identity:
    """Who it is."""
    metadata = pod["metadata"]
    return Identity(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])


def held(pod: Obj) -> bool:
    """Whether the agent decides when its first instruction runs."""
    return bool(pod["spec"].get("runtimeClassName") == names.RUNTIME_CLASS)


def read(pod: Obj) -> PodSpec:
    """The pod's one container. Raises NotRunnable."""
    spec = pod["spec"]
    containers = spec.get("containers") or []
    if len(containers) != 1 or spec.get("initContainers"):
        raise NotRunnable("the light node runs pods of exactly one container")
    container = containers[0]
    command = (*(container.get("command") or ()), *(container.get("args") or ()))
    if not command:
        raise NotRunnable("the light node has no images, so a command must be given")
    return PodSpec(
        identity=identity(pod),
        container=container["name"],
        image=container.get("image", ""),
        command=tuple(str(word) for word in command),
        environment=tuple(container.get("env") or ()),
        working_dir=container.get("workingDir", ""),
        wanted=_extended(container.get("resources") or {}),
        held=held(pod),
        restart_policy=spec.get("restartPolicy", "Always"),
    )


def environment(spec: PodSpec, facts: Facts, given: Mapping[str, str]) -> dict[str, str]:
    """The container's variables: the pod's own, then `given` (devices), then the spec's.

    A real pod has an address to itself; here it must be told which, so POD_IP is always there.
    Raises NotRunnable.
    """
    own = {
        "HOSTNAME": spec.identity.name,
        "POD_NAME": spec.identity.name,
        "POD_NAMESPACE": spec.identity.namespace,
        "POD_IP": facts.pod_ip,
    }
    found = {**own, **given}
    for entry in spec.environment:
        found[entry["name"]] = _value(entry, facts, found)
    return found


def command(spec: PodSpec, variables: Mapping[str, str]) -> list[str]:
    """What to execute: references expanded, `python` being the interpreter that runs us."""
    words = [expand(word, variables) for word in spec.command]
    return [sys.executable if words[0] in _PYTHONS else words[0], *words[1:]]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` by its value where there is one, `$$` by `$`, as Kubernetes does."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


def _value(entry: Obj, facts: Facts, so_far: Mapping[str, str]) -> str:
    source = entry.get("valueFrom")
    if source is None:
        return expand(str(entry.get("value") or ""), so_far)
    path = (source.get("fieldRef") or {}).get("fieldPath")
    if path is None:
        raise NotRunnable(f"the light node sets {entry['name']} from fieldRef only")
    return _field(path, facts)


def _field(path: str, facts: Facts) -> str:
    metadata, spec = facts.pod["metadata"], facts.pod["spec"]
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": facts.pod_ip,
        "status.hostIP": facts.host_ip,
    }
    if path in fields:
        return str(fields[path])
    match = _MAP_FIELD.fullmatch(path)
    if match is None:
        raise NotRunnable(f"the light node knows no field {path!r}")
    return str((metadata.get(match[1]) or {}).get(match[2], ""))


def _extended(resources: Obj) -> dict[str, int]:
    """Resources of a domain of their own; what is native is not counted here."""
    limits = resources.get("limits") or {}
    return {
        name: parse_count(count)
        for name, count in limits.items()
        if "/" in name and "kubernetes.io/" not in name and parse_count(count) > 0
    }
