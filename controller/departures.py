"""GpuNodes and agents' Leases of Nodes that are gone: removed, as nobody else will.

Called by: `process`. Rule: a Node is gone when the API server itself says so, and still does after
a while: a kubelet that registers anew deletes and makes its Node within seconds.
"""

from collections.abc import Mapping
from typing import Any

from controller.duties import Duty
from controller.readiness import LEASE_PREFIX
from kybernate.clients.clock import Clock
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Reflector
from kybernate.clients.resources import GPUNODES, LEASES, NODES, Resource
from kybernate.runtime.logs import get_logger

AFTER = 60.0  # seconds a Node has to be gone
UNSYNCED = 0.5  # seconds until the next look while a first list is under way


class Departures:
    """Watches Nodes and GpuNodes; the leader removes what belongs to no Node."""

    def __init__(self, kube: Kube, clock: Clock, namespace: str) -> None:
        self._kube, self._clock, self._namespace = kube, clock, namespace
        self._nodes: Reflector[bool] = Reflector(
            kube, NODES, project=lambda _: True, on_change=self._changed
        )
        self._gpunodes: Reflector[str] = Reflector(
            kube, GPUNODES, project=_uid, on_change=self._changed
        )
        self.watches = (self._nodes, self._gpunodes)
        self.duty: Duty[str] = Duty("departures", clock, self.look, self._names)
        self._missing: dict[str, float] = {}  # since when, on the monotonic clock
        self._log = get_logger(duty="departures")

    def look(self, name: str) -> float | None:
        """Remove what the Node left, once it is gone long enough. Raises ApiError."""
        if not all(watch.synced for watch in self.watches):
            return UNSYNCED
        uid = self._gpunodes.get(("", name))
        if uid is None or self._nodes.get(("", name)):
            self._missing.pop(name, None)
            return None
        now = self._clock.monotonic()
        left = self._missing.setdefault(name, now) + AFTER - now
        if left > 0:
            return left
        self._missing.pop(name, None)
        if not self._is_there(name):
            self._remove(LEASES, f"{LEASE_PREFIX}{name}", self._namespace)
            self._remove(GPUNODES, name, None, uid)
            self._log.info("removed what a node left", node=name)
        return None

    def _is_there(self, name: str) -> bool:
        try:
            self._kube.get(NODES, name)
        except NotFound:
            return False
        return True

    def _remove(
        self, resource: Resource, name: str, namespace: str | None, uid: str | None = None
    ) -> None:
        try:
            self._kube.delete(resource, name, namespace, uid=uid)
        except NotFound:
            self._log.info("gone before", kind=resource.kind, name=name)

    def _names(self) -> list[str]:
        return [name for _, name in self._gpunodes.items()]

    def _changed(self, change: Change[Any]) -> None:
        if change.old != change.new:
            self.duty.touch(change.key[1])


def _uid(obj: Mapping[str, Any]) -> str:
    return str(obj["metadata"]["uid"])
