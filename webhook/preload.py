"""
What the seat container's environment needs for parking by the guest library, and what rules it out.

Pure; `additions` and `warnings` are called by `defaulting`, `faults` by `validation`. The library
itself comes with the seat, from the device plugin (docs/decisions/0011); only what depends on the
pod is here.
Rule: a pod that names another mechanism, or none, gets an empty `KYB_GUEST_SOCKET`: the library
then replaces nothing. Rule: what parking would break is refused while the pod is to be parked by us
or by the driver, all of it at once; a pod with `kyb.ai/park: never` may have it, and an engine that
sleeps by itself keeps it. What only shows at run time is the
agent's to report (nodeagent/eligibility/).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kybernate.api import annotations, names
from kybernate.api.errors import Fault, Malformed
from kybernate.model.workload import ParkMechanism
from webhook import seats
from webhook.wire import Addition

BY_GUEST = frozenset({ParkMechanism.AUTO})
_MOVED = frozenset({ParkMechanism.AUTO, ParkMechanism.DRIVER})  # memory of any kind is taken away
_ONE_CARD = f"{names.SEAT_RESOURCE_PREFIX}1x{names.SEAT_RESOURCE_SUFFIX}"
# NCCL's registered buffers outlive a park at their old place; its multicast memory cannot leave.
_GRAPHS, _MULTICAST = "NCCL_GRAPH_REGISTER", "NCCL_NVLS_ENABLE"
_NO_CUSTOM = "--disable-custom-all-reduce"
CUSTOM_REDUCE = (
    f"vLLM on several cards without {_NO_CUSTOM} has kernels that wait for each other past NCCL: "
    "such a workload is not parked (reason PeerMemory)"
)
_MPS = "CUDA_MPS_PIPE_DIRECTORY"
_NEVER = f"or {names.PARK}: never, which keeps the GPU for good"
_ENVIRONMENT = {
    _GRAPHS: f"0: buffers registered in graphs may hang after a park; {_NEVER}",
    _MULTICAST: f"0: multicast memory cannot leave the card; {_NEVER}",
}
# Shared and exclusive NICs as their device plugins name them: rdma/hca, vpc.amazonaws.com/efa.
_NIC = re.compile(r"(?:^|[/._-])(?:rdma|roce|efa|hca|infiniband|ib)(?:$|[/._-]|\d)")
_NIC_NODES = "/dev/infiniband"
_NO_NIC = f"no RDMA device: what a NIC has registered cannot leave the card; {_NEVER}"
_OTHER_GPU = re.compile(r"nvidia\.com/(?:gpu|mig-)")


def additions(pod: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[Addition]:
    """What its seat container's environment lacks, with the annotations as they will be."""
    for place, container in seats.holders(pod):
        env = container.get("env")
        if env is not None and not isinstance(env, list):
            continue  # the API server refuses it
        present = {name for name, _ in _environment(container)}
        wanted = _wanted(container, _mechanism(given))
        lacking = [{"name": k, "value": v} for k, v in wanted.items() if k not in present]
        if lacking:
            yield Addition((*place, "env"), [*(env or ()), *lacking])


def faults(pod: Mapping[str, Any]) -> Iterator[Fault]:
    """What keeps it from being parked, or from being parked alone."""
    metadata = pod.get("metadata") or {}
    parked = _mechanism(metadata.get("annotations") or {}) in _MOVED
    for place, container in seats.holders(pod):
        path = f"spec.containers[{place[-1]}]"
        yield from _setting_faults(container, path, parked=parked)
        yield from _resource_faults(container, path, parked=parked)
    if parked:
        yield from _volume_faults(pod["spec"])


def warnings(pod: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
    """What keeps it from being parked as it stands, and shows at run time only for sure."""
    if _mechanism(given) not in BY_GUEST:
        return ()
    said = (CUSTOM_REDUCE for _, one in seats.holders(pod) if _has_own_reduction(one))
    return tuple(said)


def _has_own_reduction(container: Mapping[str, Any]) -> bool:
    """vLLM over several cards, with kernels of its own beside NCCL's."""
    lists = (container.get(part) for part in ("command", "args"))
    words = [str(word) for some in lists if isinstance(some, list) for word in some]
    image = str(container.get("image", ""))
    vllm = any("vllm" in text for text in (image, *words))
    return vllm and _has_many_cards(container) and not any(_NO_CUSTOM in word for word in words)


def _has_many_cards(container: Mapping[str, Any]) -> bool:
    return any(names.is_seat_resource(one) and one != _ONE_CARD for one in _resources(container))


def _wanted(container: Mapping[str, Any], park: ParkMechanism) -> Mapping[str, str]:
    if park not in BY_GUEST:
        return {names.ENV_GUEST_SOCKET: ""}
    return {_GRAPHS: "0"} | ({_MULTICAST: "0"} if _has_many_cards(container) else {})


def _setting_faults(container: Mapping[str, Any], path: str, *, parked: bool) -> Iterator[Fault]:
    for name, (at, value) in _environment(container):
        where = f"{path}.env[{at}]"
        if name == names.ENV_GUEST_SOCKET and value != "":
            yield Fault(where, name, "nothing, or an empty value: the device plugin sets it")
        elif parked and name == _MPS:
            expected = f"nothing: contexts of NVIDIA's multi-process service are not its; {_NEVER}"
            yield Fault(where, name, expected)
        elif parked and name in _ENVIRONMENT and value not in ("0", None):
            yield Fault(f"{where}.value", value, _ENVIRONMENT[name])


def _resource_faults(container: Mapping[str, Any], path: str, *, parked: bool) -> Iterator[Fault]:
    for name in sorted(_resources(container)):
        where = f"{path}.resources[{name}]"
        if _OTHER_GPU.match(name):
            yield Fault(where, name, "no other GPU beside a seat: a seat is of whole cards, no MIG")
        elif parked and _NIC.search(name):
            yield Fault(where, name, _NO_NIC)


def _volume_faults(spec: Mapping[str, Any]) -> Iterator[Fault]:
    volumes = spec.get("volumes")
    for index, volume in enumerate(volumes if isinstance(volumes, list) else ()):
        host = volume.get("hostPath") if isinstance(volume, dict) else None
        path = host.get("path") if isinstance(host, dict) else None
        if isinstance(path, str) and f"{path}/".startswith(f"{_NIC_NODES}/"):
            yield Fault(f"spec.volumes[{index}].hostPath.path", path, _NO_NIC)


def _mechanism(given: Mapping[str, Any]) -> ParkMechanism:
    """What is unreadable is refused elsewhere."""
    try:
        return annotations.read_wishes(given).park
    except (Malformed, TypeError, AttributeError):
        return ParkMechanism.AUTO


def _environment(container: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, object]]]:
    """Name, place and value; None for a value that comes from elsewhere."""
    env = container.get("env")
    for at, one in enumerate(env if isinstance(env, list) else ()):
        name = one.get("name") if isinstance(one, dict) else None
        if isinstance(name, str):
            yield name, (at, None if one.get("valueFrom") else one.get("value", ""))


def _resources(container: Mapping[str, Any]) -> set[str]:
    resources = container.get("resources")
    listed = resources.values() if isinstance(resources, dict) else ()
    return {name for kind in listed if isinstance(kind, dict) for name in kind}
