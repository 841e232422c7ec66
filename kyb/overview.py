"""GpuNodes and GpuWorkloads as the rows of `kyb top`. Pure.

Rule: USED is what the inventory shows on the card, BOOKED what the books give to whoever has it
now; where they differ, something of the difference is nobody's we know.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kybernate.api import fields, gpuworkloads
from kybernate.api.errors import Malformed
from kybernate.api.fields import Reader

GIB = 1 << 30
GPU_COLUMNS = ("NODE", "GPU", "PRODUCT", "USED", "BOOKED", "OF", "HEALTH", "ACTIVE", "WAITING")
WORKLOAD_COLUMNS = ("NAMESPACE", "NAME", "STATE", "NODE", "SEAT", "TIER", "VRAM", "FOR", "WHY")
HOLDS = frozenset({"Activating", "Active", "Parking"})

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """Rows of text, one per GPU and one per workload."""

    gpus: Rows
    workloads: Rows


@dataclass(frozen=True, slots=True)
class _Tenant:
    """Who sits on a group; `share` is bytes of each of its cards."""

    name: str
    gpus: frozenset[int]
    state: str
    share: int
    waits: bool


def of(nodes: Iterable[Mapping[str, Any]], workloads: Sequence[Any], now: float) -> Overview:
    """What the API server has. `now` is the wall clock."""
    gpus = [row for node in nodes for row in _node_rows(node)]
    found = sorted(workloads, key=_place)
    return Overview(tuple(gpus), tuple(_workload_row(obj, now) for obj in found))


def span(seconds: float) -> str:
    """`41s`, `9m`, `3h20m`, `2d`."""
    whole = max(0, int(seconds))
    minutes, hours = whole // 60, whole // 3600
    if whole < 120:
        return f"{whole}s"
    if minutes < 120:
        return f"{minutes}m"
    return f"{hours}h{minutes % 60:02}m" if hours < 48 else f"{hours // 24}d"


def _node_rows(node: Mapping[str, Any]) -> list[tuple[str, ...]]:
    name = node["metadata"]["name"]
    try:
        return fields.read(node.get("status") or {}, "status", lambda s: _gpu_rows(name, s))
    except Malformed as fault:
        return [(name, "?", str(fault), "", "", "", "", "", "")]


def _gpu_rows(node: str, status: Reader) -> list[tuple[str, ...]]:
    cards = {g.text("name"): frozenset(g.sequence("gpus")) for g in status.each("groups")}
    tenants = [_tenant(reader, cards) for reader in status.each("tenants")]
    product = status.text("product", "")
    return [_gpu_row(node, product, gpu, tenants) for gpu in status.each("gpus")]


def _tenant(reader: Reader, cards: Mapping[str, frozenset[int]]) -> _Tenant:
    gpus, workload = cards.get(reader.text("group"), frozenset()), reader.below("workload")
    return _Tenant(
        name=f"{workload.text('namespace')}/{workload.text('name')}",
        gpus=gpus,
        state=reader.text("state"),
        share=reader.integer("vramBytes") // max(1, len(gpus)),
        waits=reader.flag("waits"),
    )


def _gpu_row(node: str, product: str, gpu: Reader, tenants: list[_Tenant]) -> tuple[str, ...]:
    index = gpu.integer("index")
    here = [tenant for tenant in tenants if index in tenant.gpus]
    holding = [tenant for tenant in here if tenant.state in HOLDS]
    return (
        node,
        str(index),
        product,
        _size(gpu.integer("usedBytes", 0)),
        _size(sum(tenant.share for tenant in holding)),
        _size(gpu.integer("memoryBytes")),
        gpu.text("health", "Unknown"),
        ", ".join(tenant.name for tenant in holding),
        str(sum(tenant.waits for tenant in here)),
    )


def _workload_row(obj: Mapping[str, Any], now: float) -> tuple[str, ...]:
    metadata = obj["metadata"]
    first = (metadata["namespace"], metadata["name"])
    try:
        spec, status = gpuworkloads.read_spec(obj), gpuworkloads.read_status(obj)
    except Malformed as fault:
        return (*first, "?", "", "", "", "", "", str(fault))
    vram = _size(spec.vram) if spec.vram else "group"
    if status is None:
        return (*first, "Pending", "", "", "", vram, "", last_said(obj))
    waited = span(now - status.since) if status.since else ""
    where = (status.node, status.seat, status.tier or "")
    return (*first, status.state.value, *where, vram, waited, status.why)


def last_said(obj: Mapping[str, Any]) -> str:
    """Of a workload without a node: why the extender found none."""
    decisions = (obj.get("status") or {}).get("decisions") or [{}]
    return str(decisions[-1].get("message", ""))


def _place(obj: Mapping[str, Any]) -> tuple[str, str, str]:
    status = obj.get("status") or {}
    name = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
    return str(status.get("node", "~")), str(status.get("seat", "~")), name


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
