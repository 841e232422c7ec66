"""
What placement asks of a node, and nothing else: pods with the same demand get the same answer.

Called by: the extender, once per request. Rule: a demand is hashable, and whatever does not change
the answer (the pod's name, its class) stays out, so that replicas share what was worked out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kybernate.model.checkpoint import Checkpoint, key_of
from kybernate.model.ids import GroupName, NodeName, PodUid, ResourceName
from kybernate.model.tier import Tier
from kybernate.model.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The checkpoint a workload starts from. `size` in bytes; `copies` as in `Checkpoint`."""

    name: str
    size: int
    in_object_storage: bool
    copies: Mapping[NodeName, Tier] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A seat of `resource` with `vram` bytes (None: the whole group). `cold_start` in seconds.

    `nominated` is the pod's own uid while preemption has promised it a node: it must not count as
    somebody else waiting there.
    """

    resource: ResourceName
    vram: int | None
    priority: int
    cold_start: float
    require_group: GroupName | None = None
    prefer_group: GroupName | None = None
    contents: Contents | None = None
    nominated: PodUid | None = None


def of(workload: Workload, checkpoints: Mapping[str, Checkpoint], cold_start: float) -> Demand:
    """The demand of a workload. `checkpoints` is keyed `namespace/name`."""
    wishes = workload.wishes
    return Demand(
        resource=workload.resource,
        vram=wishes.vram,
        priority=workload.priority,
        cold_start=cold_start,
        require_group=wishes.require_group,
        prefer_group=wishes.prefer_group,
        contents=_contents(workload, checkpoints),
        nominated=workload.uid if workload.nominated_node else None,
    )


def _contents(workload: Workload, checkpoints: Mapping[str, Checkpoint]) -> Contents | None:
    """The first candidate that is ready; a candidate that is not there is passed over, and so is
    one of another namespace that is no gold image."""
    ours = workload.key.namespace
    for name in workload.wishes.restore_from:
        namespace, plain = key_of(name, ours)
        found = checkpoints.get(f"{namespace}/{plain}")
        if found is not None and found.ready and (namespace == ours or found.gold):
            return Contents(
                name=name,
                size=found.size,
                in_object_storage=found.in_object_storage,
                copies=found.copies,
            )
    return None
