"""The cluster as placement sees it: values, made from watches or read back from a dump.

The extender keeps one up to date (`extender/view.py`); decisions only read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import GroupName, NodeName, PodUid, WorkloadKey
from kybernate.model.node import NodeState
from kybernate.model.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A seat pod that is bound or nominated to a node whose agent does not report it yet."""

    key: WorkloadKey
    uid: PodUid
    priority: int = 0
    require_group: GroupName | None = None
    nominated: bool = False  # preemption promised it the node; it is not bound yet


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A managed node: what its agent says, and who is on the way to it."""

    state: NodeState
    arrivals: tuple[Arrival, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """Everything a placement depends on, policy's verdict apart.

    `workloads` holds every living seat pod, `checkpoints` is keyed `namespace/name`.
    """

    nodes: Mapping[NodeName, NodeView] = field(default_factory=dict)
    workloads: Mapping[PodUid, Workload] = field(default_factory=dict)
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
