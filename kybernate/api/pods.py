"""
Pods to workloads: which seat a pod asks for, and what its annotations wish.

Called by: the extender and the controller for every watch event of a seat pod, the webhook, the
agent. Rule: every fault of a pod is reported at once. Rule: "exactly one seat" is the webhook's to
enforce; here the first container that asks for one is the seat container.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from kybernate.api import annotations, names, quantity
from kybernate.api.annotations import read_wishes
from kybernate.api.errors import Fault, Faults, Malformed
from kybernate.model.gpu import Seat
from kybernate.model.ids import NodeName, PodUid, ResourceName, WorkloadKey
from kybernate.model.workload import Wishes, Workload

Pod = Mapping[str, Any]
_Ours = tuple[tuple[str, str], ...]  # our annotations, by name and value

_FINISHED = frozenset({"Succeeded", "Failed"})
_NONE: Mapping[str, Any] = {}


def seat_requests(pod: Pod) -> list[tuple[str, ResourceName, int]]:
    """(container, resource, count) of every seat asked for, init containers last.

    A resource in both limits and requests counts once, with the larger number. Raises Malformed
    for a count that is not a whole number.
    """
    found: list[tuple[str, ResourceName, int]] = []
    faults = Faults()
    for path, container in _containers(pod):
        for resource in _seat_resources(container):
            count = _count(container, resource, f"{path}.resources", faults)
            found.append((container.get("name", ""), ResourceName(resource), count))
    faults.check()
    return found


def is_seat_pod(pod: Pod) -> bool:
    """Whether any container asks for a seat, in limits or requests."""
    return _first_seat(pod) is not None


def seat_container(pod: Pod) -> str | None:
    """The name of the container that asks for a seat; None where none does."""
    first = _first_seat(pod)
    return None if first is None else first[0]


def is_finished(pod: Pod) -> bool:
    """Whether its containers have ended for good: it holds no seat any more."""
    return pod.get("status", _NONE).get("phase") in _FINISHED


def read_workload(pod: Pod) -> Workload | None:
    """The workload of a seat pod; None for any other pod. Raises Malformed with all faults."""
    first = _first_seat(pod)
    if first is None:
        return None
    container, resource = first
    metadata = pod["metadata"]
    wishes, seat = _read_annotations(metadata.get("annotations"))
    spec = pod["spec"]
    return Workload(
        key=WorkloadKey(metadata.get("namespace", "default"), metadata.get("name", "")),
        uid=PodUid(metadata.get("uid", "")),
        resource=ResourceName(resource),
        seat_container=container,
        priority=spec.get("priority") or 0,
        wishes=wishes,
        node=_node(spec.get("nodeName")),
        nominated_node=_node(pod.get("status", _NONE).get("nominatedNodeName")),
        seat=seat,
        policy_class=spec.get("priorityClassName", ""),
    )


def _first_seat(pod: Pod) -> tuple[str, str] | None:
    # Every pod of the cluster may come past here: no generators, no copies.
    spec = pod.get("spec", _NONE)
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            resources = container.get("resources")
            if not resources:
                continue
            for part in ("limits", "requests"):
                for resource in resources.get(part) or ():
                    if names.is_seat_resource(resource):
                        return container.get("name", ""), resource
    return None


def _containers(pod: Pod) -> list[tuple[str, Mapping[str, Any]]]:
    spec = pod.get("spec", _NONE)
    return [
        (f"spec.{field}[{index}]", container)
        for field in ("containers", "initContainers")
        for index, container in enumerate(spec.get(field) or ())
    ]


def _seat_resources(container: Mapping[str, Any]) -> list[str]:
    resources = container.get("resources") or _NONE
    asked = [*(resources.get("limits") or ()), *(resources.get("requests") or ())]
    return [name for name in dict.fromkeys(asked) if names.is_seat_resource(name)]


def _count(container: Mapping[str, Any], resource: str, path: str, faults: Faults) -> int:
    counts = [0]
    for part in ("limits", "requests"):
        value = (container["resources"].get(part) or _NONE).get(resource)
        if value is not None:
            counts.append(
                faults.read(f"{path}.{part}[{resource}]", str(value), quantity.parse_count, 0)
            )
    return max(counts)


def _node(name: str | None) -> NodeName | None:
    return NodeName(name) if name else None


def _read_annotations(given: Mapping[str, str] | None) -> tuple[Wishes, Seat | None]:
    ours = annotations.ours(given or _NONE)
    if not ours:
        return _DEFAULT, None
    outcome = _remembered(ours) if _is_small(ours) else _read(ours)
    if isinstance(outcome, Malformed):
        raise Malformed(outcome.faults)  # a fresh one: the remembered one would collect tracebacks
    return outcome


_DEFAULT = Wishes()
# Characters. What pods ask for takes a few hundred; a pod may carry 256 KiB, and 4,096 of those
# remembered would be a GiB.
_WORTH_REMEMBERING = 4096


def _is_small(ours: _Ours) -> bool:
    texts = all(isinstance(value, str) for _, value in ours)
    return texts and sum(len(name) + len(value) for name, value in ours) <= _WORTH_REMEMBERING


@lru_cache(maxsize=4096)  # replicas and watch events repeat the same few annotations
def _remembered(ours: _Ours) -> tuple[Wishes, Seat | None] | Malformed:
    return _read(ours)


def _read(ours: _Ours) -> tuple[Wishes, Seat | None] | Malformed:
    faults: list[Fault] = []
    wishes = _DEFAULT
    try:
        wishes = read_wishes(dict(ours))
    except Malformed as problem:
        faults += problem.faults
    seat = None
    try:
        seat = annotations.read_seat(dict(ours))
    except Malformed as problem:
        faults += problem.faults
    return Malformed(faults) if faults else (wishes, seat)
