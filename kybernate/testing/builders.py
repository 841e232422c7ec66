"""
Things to test with, in words: `a_pod("llama-a", annotations={...})`, `a_node(tenants=...)`.

Every argument has a default that makes a valid thing; a test names only what it is about.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from kybernate.api import gpunodes, names
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.gpu import Gpu, Group, Health, Profile, Seat
from kybernate.model.ids import GpuUuid, GroupName, NodeName, PodUid, ResourceName, WorkloadKey
from kybernate.model.node import NodeState, Tenant
from kybernate.model.tier import Bandwidth, Room, Tier
from kybernate.model.workload import State, Wishes, Workload, WorkloadClass
from kybernate.testing.clock import START

GIB = 1024**3
SEAT_1X = ResourceName("kyb.ai/gpu-1x-seat")
SEAT_2X = ResourceName("kyb.ai/gpu-2x-seat")
SEAT_4X = ResourceName("kyb.ai/gpu-4x-seat")


def a_pod(
    name: str = "llama-a",
    *,
    namespace: str = "default",
    resource: str | None = SEAT_1X,
    annotations: Mapping[str, str] | None = None,
    spec: Mapping[str, Any] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    """A pod with one container that asks for one seat; `resource=None`: an ordinary pod.

    `spec` is merged over the pod's own; `metadata` likewise (`uid="..."`, `labels={...}`).
    """
    container: dict[str, Any] = {"name": "model", "image": "example.com/model:1"}
    if resource is not None:
        seat = {resource: "1"}
        container["resources"] = {"limits": seat, "requests": dict(seat)}
    own: dict[str, Any] = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
    if annotations is not None:
        own["annotations"] = dict(annotations)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**own, **metadata},
        "spec": {"containers": [container], **(spec or {})},
        "status": {"phase": "Pending"},
    }


def a_workload(
    name: str = "llama-a",
    *,
    namespace: str = "default",
    resource: ResourceName = SEAT_1X,
    vram: int | None = 40 * GIB,
    wishes: Wishes | None = None,
    **fields: Any,
) -> Workload:
    """A workload that asks for one seat and 40 GiB. `fields` are Workload's own."""
    whole: dict[str, Any] = {
        "key": WorkloadKey(namespace, name),
        "uid": PodUid(f"uid-{name}"),
        "resource": resource,
        "seat_container": "model",
        "wishes": wishes if wishes is not None else Wishes(vram=vram),
    }
    return Workload(**{**whole, **fields})


def a_gpu(index: int = 0, *, memory: int = 80 * GIB, **fields: Any) -> Gpu:
    """A healthy 80 GiB card."""
    whole: dict[str, Any] = {
        "index": index,
        "uuid": GpuUuid(f"GPU-{index:08x}"),
        "product": "Simulated 80GB",
        "memory": memory,
    }
    return Gpu(**{**whole, **fields})


def a_profile(size: int = 1, *, seats: int = 4, active: int = 1) -> Profile:
    """`gpu-1x-seat` and its like."""
    name = f"gpu-{size}x-seat"
    return Profile(
        name=name,
        resource=ResourceName(f"{names.GROUP}/{name}"),
        group_size=size,
        seats_per_group=seats,
        active_per_group=active,
    )


def a_group(*gpus: int, seats: int = 4, vram_per_gpu: int = 80 * GIB, active: int = 1) -> Group:
    """A group of these GPUs, named after them: `a_group(0, 1)` is G01."""
    gpus = gpus or (0,)
    return Group(
        name=GroupName("G" + "".join(map(str, gpus))),
        gpus=gpus,
        profile=a_profile(len(gpus), seats=seats, active=active),
        vram=vram_per_gpu * len(gpus),
    )


def a_tenant(
    name: str = "llama-a",
    *,
    namespace: str = "default",
    group: str = "G0",
    number: int = 0,
    state: State = State.ACTIVE,
    vram: int = 40 * GIB,
    **fields: Any,
) -> Tenant:
    """A workload on seat `G0/0`, active."""
    whole: dict[str, Any] = {
        "key": WorkloadKey(namespace, name),
        "uid": PodUid(f"uid-{name}"),
        "group": GroupName(group),
        "seat": Seat(GroupName(group), number),
        "state": state,
        "vram": vram,
        "workload_class": WorkloadClass.INFERENCE,
        "tier": Tier.RAM if state is State.PARKED else None,
    }
    return Tenant(**{**whole, **fields})


def a_node(
    name: str = "node-a",
    *,
    groups: Iterable[Group] | None = None,
    tenants: Iterable[Tenant] = (),
    **fields: Any,
) -> NodeState:
    """A ready node with one 80 GiB GPU, 512 GiB of pool and measured rates."""
    held = tuple(groups) if groups is not None else (a_group(0),)
    whole: dict[str, Any] = {
        "name": NodeName(name),
        "groups": {group.name: group for group in held},
        "group_health": {group.name: Health.HEALTHY for group in held},
        "tenants": tuple(tenants),
        "bandwidths": {
            Tier.RAM: Bandwidth(bytes_per_second=50e9),
            Tier.NVME: Bandwidth(bytes_per_second=5e9),
            Tier.OBJECT: Bandwidth(bytes_per_second=1e9),
        },
        "rooms": {Tier.RAM: Room(capacity=512 * GIB), Tier.NVME: Room(capacity=4096 * GIB)},
        "product": "Simulated 80GB",
    }
    return NodeState(**{**whole, **fields})


def a_gpunode(node: NodeState | None = None) -> dict[str, Any]:
    """The GpuNode object of a node, as its agent writes it."""
    node = node or a_node()
    indices = sorted({index for group in node.groups.values() for index in group.gpus})
    seen = gpunodes.Observed(
        at=START,
        ready_since=START,
        gpus=[a_gpu(index) for index in indices],
        driver="simulated",
        mechanisms=["simulated"],
    )
    return {**gpunodes.new_object(node.name), "status": gpunodes.write_status(node, seen)}


def a_checkpoint(
    name: str = "llama-a-1", *, namespace: str = "default", **fields: Any
) -> Checkpoint:
    """A ready checkpoint of 40 GiB without copies."""
    whole: dict[str, Any] = {
        "namespace": namespace,
        "name": name,
        "size": 40 * GIB,
        "ready": True,
    }
    return Checkpoint(**{**whole, **fields})
