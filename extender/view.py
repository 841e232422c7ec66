"""
The cluster as the watches last showed it, kept so that one change costs one node.

Called by: `watching.py` (changes) and `placing.py` (questions), which hold `lock` while they do.
Rule: nothing here asks the network or knows the time. Rule: a seat pod that is bound or nominated
counts on its node until the node's agent reports it.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from kybernate.decisions import classes, outlook
from kybernate.decisions.outlook import NodeOutlook
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.cluster import Arrival, ClusterView, NodeView
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.node import NodeState
from kybernate.model.policy import NodeClass
from kybernate.model.workload import Workload

K = TypeVar("K")
V = TypeVar("V")

_NO_LABELS: Mapping[str, str] = {}


class View:
    """Mutable, and guarded by `lock`, which is the caller's to take."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.checkpoints: dict[str, Checkpoint] = {}
        self.workloads: dict[PodUid, Workload] = {}
        self._states: dict[NodeName, NodeState] = {}
        self._labels: dict[NodeName, Mapping[str, str]] = {}
        self._coming: dict[NodeName, dict[PodUid, Workload]] = {}
        self._outlooks: dict[NodeName, NodeOutlook] = {}
        self._classes: dict[str, NodeClass] = {}
        self._members: Counter[str] = Counter()
        self._dirty: set[NodeName] = set()
        self._listeners: list[Callable[[NodeName], None]] = []

    @property
    def managed(self) -> int:
        """How many nodes have an agent."""
        return len(self._states)

    def on_dirty(self, listener: Callable[[NodeName], None]) -> None:
        """`listener` hears of every node whose outlook may have changed."""
        self._listeners.append(listener)

    def put_state(self, name: NodeName, state: NodeState | None) -> None:
        """What the agent says; None when its GpuNode is gone."""
        if self._states.get(name) == state:
            return
        _put(self._states, name, state)
        self._mark(name)

    def put_labels(self, name: NodeName, labels: Mapping[str, str] | None) -> None:
        """The Node's labels; None when it is gone."""
        if self._labels.get(name) == labels:
            return
        _put(self._labels, name, labels)
        self._mark(name)

    def put_workload(self, uid: PodUid, workload: Workload | None) -> None:
        """A seat pod; None when it has ended or is gone."""
        old = self.workloads.get(uid)
        if old == workload:
            return
        _put(self.workloads, uid, workload)
        for one, coming in ((old, False), (workload, True)):
            if one is not None:
                self._move(one, coming)

    def put_checkpoint(self, key: str, checkpoint: Checkpoint | None) -> None:
        """A checkpoint by `namespace/name`; None when it is gone."""
        _put(self.checkpoints, key, checkpoint)

    def outlooks(self) -> Mapping[NodeName, NodeOutlook]:
        """Every managed node, as of now."""
        while self._dirty:
            self._renew(self._dirty.pop())
        return self._outlooks

    def classes(self) -> tuple[NodeClass, ...]:
        """The distinct classes of the nodes, in a stable order."""
        self.outlooks()
        return tuple(self._classes[name] for name in sorted(self._classes))

    def node(self, name: NodeName) -> NodeView | None:
        """One node; None when no agent manages it."""
        state = self._states.get(name)
        if state is None:
            return None
        labels = self._labels.get(name, _NO_LABELS)
        return NodeView(state=replace(state, labels=labels), arrivals=self._arrivals(state))

    def snapshot(self) -> ClusterView:
        """All of it, as values."""
        nodes = {name: node for name in sorted(self._states) if (node := self.node(name))}
        return ClusterView(
            nodes=nodes, workloads=dict(self.workloads), checkpoints=dict(self.checkpoints)
        )

    def _mark(self, name: NodeName) -> None:
        self._dirty.add(name)
        for listener in self._listeners:
            listener(name)

    def _move(self, workload: Workload, coming: bool) -> None:
        node = workload.node or workload.nominated_node
        if node is None:
            return
        here = self._coming.setdefault(node, {})
        _put(here, workload.uid, workload if coming else None)
        if not here:
            del self._coming[node]
        self._mark(node)

    def _arrivals(self, state: NodeState) -> tuple[Arrival, ...]:
        coming = self._coming.get(state.name)
        if not coming:
            return ()
        reported = {tenant.uid for tenant in state.tenants}
        return tuple(
            Arrival(
                key=one.key,
                uid=one.uid,
                priority=one.priority,
                require_group=one.wishes.require_group,
                nominated=one.node is None,
            )
            for one in sorted(coming.values(), key=lambda one: one.uid)
            if one.uid not in reported
        )

    def _renew(self, name: NodeName) -> None:
        old = self._outlooks.pop(name, None)
        if old is not None:
            self._members[old.class_id] -= 1
        node = self.node(name)
        if node is not None:
            found = classes.of(node.state)
            self._classes[found.id] = found
            self._members[found.id] += 1
            self._outlooks[name] = outlook.of(node, found.id)
        if old is not None and not self._members[old.class_id]:
            del self._members[old.class_id], self._classes[old.class_id]


def _put(into: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        into.pop(key, None)
    else:
        into[key] = value
