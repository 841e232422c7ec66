"""
What the API server tells about every node that is managed: facts, and findings from them.

Called by: `command`, where it does not look at this machine.
Rule: what a kubelet or an agent reports is believed; what only the node itself can tell is left to
`--node-local`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from kyb.doctor import kubelet, runtimeconf, software, supported
from kyb.doctor.facts import Unknown
from kyb.doctor.findings import Finding, Grade, versioned
from kybernate.api import names
from kybernate.clients import resources
from kybernate.clients.errors import ApiError
from kybernate.clients.kube import Kube

_MIRROR = "kubernetes.io/config.mirror"
_FOREIGN = "nvidia.com/"
_CONTAINERD = "containerd://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One node, as the API server shows it."""

    name: str
    kubelet: str
    runtime: str
    """As "containerd://2.3.4"."""
    kernel: str
    handlers: tuple[str, ...]
    allocatable: Mapping[str, int]
    static_seats: tuple[str, ...]
    request_timeout: float | Unknown
    agent_ready: bool


def managed(kube: Kube) -> tuple[Seen, ...]:
    """Those that are labelled. Raises ApiError."""
    pods = kube.list(resources.PODS)
    ready = {one["metadata"]["name"] for one in kube.list(resources.GPUNODES) if _ready(one)}
    nodes = kube.list(resources.NODES, label_selector=f"{names.MANAGED_LABEL}=true")
    return tuple(_seen(kube, node, pods, ready) for node in nodes)


def examine(node: Seen) -> tuple[Finding, ...]:
    """What can be told from afar."""
    return (
        versioned("kubelet", node.kubelet, supported.KUBERNETES, "a newer Kubernetes"),
        software.kernel_version(node.kernel),
        _runtime(node.runtime),
        _handler(node.handlers),
        _request(node.request_timeout),
        software.others_for_gpus(_others(node.allocatable)),
        software.seats_of_static_pods(node.static_seats),
        _seats(node.allocatable),
        _agent(node),
    )


def _runtime(found: str) -> Finding:
    if not found.startswith(_CONTAINERD):
        return Finding(
            check="containerd", grade=Grade.FAULT, found=found, wanted="containerd",
            mend="seat pods need containerd: nothing else calls kybernate-runc",
        )  # fmt: skip
    version = found.removeprefix(_CONTAINERD)
    return versioned("containerd", version, supported.CONTAINERD, "a newer one")


def _handler(found: tuple[str, ...]) -> Finding:
    there = names.RUNTIME_CLASS in found
    return Finding(
        check="runtime handler",
        grade=Grade.OK if there else Grade.FAULT,
        found=", ".join(one or "(default)" for one in found) or "none told",
        wanted=names.RUNTIME_CLASS,
        mend=""
        if there
        else "on the node: kyb install-node, then restart containerd (pods run on)",
    )


def _request(timeout: float | Unknown) -> Finding:
    """From afar, its waits are known as they usually are: shorter timeouts get shorter ones."""
    check, wait = "runtimeRequestTimeout", runtimeconf.WAKE_WAIT_S
    wanted = f"more than agent-wait and wake-wait, usually {wait:g} s"
    if isinstance(timeout, Unknown):
        return Finding(check=check, grade=Grade.WARNING, found=timeout.why, wanted=wanted)
    late = timeout <= wait
    return Finding(
        check=check,
        grade=Grade.WARNING if late else Grade.OK,
        found=f"{timeout:g} s",
        wanted=wanted,
        mend="on the node, kyb doctor --node-local looks at its waits" if late else "",
    )


def _seats(allocatable: Mapping[str, int]) -> Finding:
    mine = {k: n for k, n in allocatable.items() if k.startswith(names.SEAT_RESOURCE_PREFIX) and n}
    return Finding(
        check="seats",
        grade=Grade.OK if mine else Grade.FAULT,
        found=", ".join(f"{count} x {name}" for name, count in sorted(mine.items())) or "none",
        wanted="seats of the profile file",
        mend="" if mine else "kubectl -n kyb-system logs ds/kyb-deviceplugin",
    )


def _agent(node: Seen) -> Finding:
    return Finding(
        check="agent",
        grade=Grade.OK if node.agent_ready else Grade.FAULT,
        found="ready" if node.agent_ready else "not ready",
        wanted="ready",
        mend="" if node.agent_ready else f"kubectl describe gpunode {node.name}",
    )


def _others(allocatable: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(k for k, n in allocatable.items() if k.startswith(_FOREIGN) and n))


def _seen(
    kube: Kube, node: dict[str, Any], pods: Iterable[dict[str, Any]], ready: set[str]
) -> Seen:
    name, status = node["metadata"]["name"], node.get("status", {})
    told = status.get("nodeInfo", {})
    return Seen(
        name=name,
        kubelet=told.get("kubeletVersion", ""),
        runtime=told.get("containerRuntimeVersion", ""),
        kernel=told.get("kernelVersion", ""),
        handlers=tuple(one.get("name", "") for one in status.get("runtimeHandlers", ())),
        allocatable=_counts(status.get("allocatable", {})),
        static_seats=_static_seats(name, pods),
        request_timeout=_request_timeout(kube, name),
        agent_ready=name in ready,
    )


def _counts(allocatable: Mapping[str, str]) -> Mapping[str, int]:
    """Of extended resources, which are whole numbers."""
    return {name: int(n) for name, n in allocatable.items() if "/" in name and str(n).isdigit()}


def _static_seats(node: str, pods: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods
        if pod["spec"].get("nodeName") == node
        and _MIRROR in (pod["metadata"].get("annotations") or {})
        and kubelet.asks_for_a_seat(pod)
    )


def _request_timeout(kube: Kube, node: str) -> float | Unknown:
    """By the kubelet's own word, through the API server; not everybody may ask."""
    try:
        body = orjson.loads(kube.raw(f"/api/v1/nodes/{node}/proxy/configz"))
        return kubelet.seconds(body["kubeletconfig"].get("runtimeRequestTimeout"))
    except (ApiError, ValueError, KeyError) as problem:
        return Unknown(f"the kubelet's configuration is not told: {problem}")


def _ready(gpunode: Mapping[str, Any]) -> bool:
    conditions = gpunode.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
