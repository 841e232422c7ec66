"""
Nodes registered in bulk: a Node with seats and the GpuNode its agent would write. Nobody is behind
them, so pods are bound to them and never start.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from kybernate.api import gpunodes
from kybernate.clients.kube import Kube
from kybernate.clients.resources import GPUNODES, NODES
from kybernate.model.node import NodeState
from kybernate.testing.builders import a_gpunode, a_group, a_node

SEAT = "kyb.ai/gpu-1x-seat"
GPUS = 4
SEATS = 8  # a GPU
_AT_ONCE = 16


def register(kube: Kube, count: int) -> None:
    """`count` nodes of four 80 GiB GPUs, ready and empty."""
    in_parallel(partial(_register, kube), range(count))


def in_parallel(work: Callable[[Any], object], items: Iterable[Any]) -> None:
    """All of them, some at a time. Raises the first error."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done in [pool.submit(work, item) for item in items]:
            done.result()


def _register(kube: Kube, number: int) -> None:
    state = a_node(f"light-{number:05d}", groups=[a_group(gpu, seats=SEATS) for gpu in range(GPUS)])
    room = {"cpu": "128", "memory": "1Ti", "pods": "250", SEAT: str(GPUS * SEATS)}
    ready = {"type": "Ready", "status": "True", "reason": "Light", "message": ""}
    labels = {"topology.kubernetes.io/zone": f"zone-{number % 3}"}
    kube.create(NODES, {"metadata": {"name": state.name, "labels": labels}})
    status = {"capacity": room, "allocatable": room, "conditions": [ready]}
    kube.patch(NODES, state.name, {"status": status}, subresource="status")
    kube.create(GPUNODES, gpunodes.new_object(state.name))
    report(kube, state)


def report(kube: Kube, state: NodeState) -> None:
    """What the node's agent would write."""
    status = {"status": a_gpunode(state)["status"]}
    kube.patch(GPUNODES, state.name, status, subresource="status")
