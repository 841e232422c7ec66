"""
Many nodes that run nothing, for tests of scale: Nodes, their status, their Leases.

Called by: `__main__` (--bulk). It writes as an administrator: one process cannot be N nodes.
Rule: Leases are renewed one after the other, spread over the heartbeat, so that the API server sees
a stream and not bursts.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog

from kybernate.api.timestamps import rfc3339_micro
from kybernate.clients.clock import Clock
from kybernate.clients.errors import AlreadyExists, ApiError
from kybernate.clients.kube import Kube
from kybernate.clients.resources import LEASES
from testbed.lightnode.nodeobject import (
    LEASE_NAMESPACE,
    Counts,
    NodeFacts,
    register,
    write_status,
)

T = TypeVar("T")

_THREADS = 16  # what one API server on two cores takes without queueing
_LEASE_S = 40


class Bulk:
    """Nodes that all have the same devices."""

    def __init__(
        self,
        kube: Kube,
        nodes: Sequence[NodeFacts],
        counts: Counts,
        clock: Clock,
        heartbeat: float,
    ) -> None:
        self._kube = kube
        self._nodes = nodes
        self._counts = counts
        self._clock = clock
        self._heartbeat = heartbeat
        self._log = structlog.get_logger()

    def register(self) -> None:
        """Make all Nodes, ready, with their devices and Leases. Raises ApiError."""
        _each(self._register, self._nodes)

    def run(self, stop: threading.Event) -> None:
        """Renew Leases until stopped."""
        pause = self._heartbeat / max(1, len(self._nodes))
        while not stop.is_set():
            for facts in self._nodes:
                if self._clock.wait(stop, pause):
                    return
                self._renew(facts)

    def _register(self, facts: NodeFacts) -> None:
        register(self._kube, facts)
        write_status(self._kube, facts, self._counts, self._clock.now())
        try:
            self._kube.create(LEASES, self._lease(facts))
        except AlreadyExists:
            self._renew(facts)

    def _renew(self, facts: NodeFacts) -> None:
        spec = self._lease(facts)["spec"]
        try:
            self._kube.patch(LEASES, facts.name, {"spec": spec}, LEASE_NAMESPACE)
        except ApiError as problem:
            self._log.warning("lease not renewed", node=facts.name, detail=str(problem))

    def _lease(self, facts: NodeFacts) -> dict[str, Any]:
        return {
            "metadata": {"name": facts.name, "namespace": LEASE_NAMESPACE},
            "spec": {
                "holderIdentity": facts.name,
                "leaseDurationSeconds": _LEASE_S,
                "renewTime": rfc3339_micro(self._clock.now()),
            },
        }


def _each(do: Callable[[T], None], things: Iterable[T]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        for done in [pool.submit(do, thing) for thing in things]:
            done.result()
