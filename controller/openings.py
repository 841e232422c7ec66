"""Refused pods tried again when a node has become able to take them.

The extender refuses by what GpuNodes say, and kube-scheduler hears nothing of GpuNodes: in a quiet
cluster a pod that was refused while a group was full, a card was sick, host memory was short or an
agent was silent would wait for the scheduler's own five minutes. So a GpuNode that changes for the
better is told to the scheduler by an annotation of its Node, while pods with seats wait for one.
Rule: a moment after the change, so that the extender has seen it too; and once for all changes
until then, because each time every refused pod is tried again.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controller.duties import Duty
from kybernate.api import gpunodes, names, timestamps
from kybernate.clients.clock import Clock
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import DELETED, Change, Reflector
from kybernate.clients.resources import GPUNODES, NODES
from kybernate.model.gpu import Health
from kybernate.model.ids import GroupName, PodUid
from kybernate.model.tier import Tier
from kybernate.runtime.logs import get_logger

SETTLE = 1.0  # seconds; watches bring a change to the extender within a fraction of it
KEY = "openings"


@dataclass(frozen=True, slots=True)
class Standing:
    """What placement may be refused for. `free` is host memory for parked contents, in bytes."""

    ready: bool
    healthy: frozenset[GroupName]
    tenants: frozenset[PodUid]
    free: int


def better(before: Standing | None, after: Standing) -> bool:
    """Whether a pod that was refused before may be taken now."""
    if not after.ready:
        return False
    if before is None or not before.ready:
        return True
    return bool(
        after.healthy - before.healthy or before.tenants - after.tenants or after.free > before.free
    )


class Openings:
    """Watches GpuNodes; the leader annotates. `waiting` tells whether any seat pod has no node."""

    def __init__(self, kube: Kube, clock: Clock, waiting: Callable[[], bool]) -> None:
        self._kube, self._clock, self._waiting = kube, clock, waiting
        self._lock = threading.Lock()
        self._opened: dict[str, float] = {}  # node -> when, on the monotonic clock
        self._nodes = Reflector(kube, GPUNODES, project=_standing, on_change=self._changed)
        self.watches = (self._nodes,)
        self.duty: Duty[str] = Duty("openings", clock, self.look, lambda: [KEY])
        self._log = get_logger(duty="openings")

    def look(self, _key: str = KEY) -> float | None:
        """Annotate one Node, once the first of the changes has settled. Raises ApiError."""
        with self._lock:
            opened = dict(self._opened)
        if not opened:
            return None
        left = min(opened.values()) + SETTLE - self._clock.monotonic()
        if left > 0:
            return left
        if self._waiting():
            self._annotate(opened)
        with self._lock:
            for name, at in opened.items():
                if self._opened.get(name) == at:
                    del self._opened[name]
        return SETTLE  # those that opened meanwhile

    def _annotate(self, opened: Mapping[str, float]) -> None:
        value = timestamps.rfc3339_micro(self._clock.now())
        for name in sorted(opened):
            try:
                patch = {"metadata": {"annotations": {names.OPENED: value}}}
                self._kube.patch(NODES, name, patch)
                self._log.info("refused pods are tried again", node=name)
                return
            except NotFound:
                continue  # a GpuNode whose Node is gone

    def _changed(self, change: Change[Standing]) -> None:
        if change.kind is DELETED or change.new is None:
            return
        if better(change.old, change.new):
            with self._lock:
                self._opened[change.key[1]] = self._clock.monotonic()
            self.duty.touch(KEY)


def _standing(obj: Mapping[str, Any]) -> Standing:
    node = gpunodes.read_node(obj)
    room = node.rooms.get(Tier.RAM)
    return Standing(
        ready=node.agent_ready,
        healthy=frozenset(n for n, h in node.group_health.items() if h is Health.HEALTHY),
        tenants=frozenset(tenant.uid for tenant in node.tenants),
        free=room.free if room else 0,
    )
