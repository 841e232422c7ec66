"""
What a pod's life tells others: its status to the API server, its containers to the node agent.

Called by: `podlife`. Rule: whatever was not heard is told again, and nothing waits for a listener.
"""

from typing import Any

import structlog

from kybernate.clients.clock import Clock
from kybernate.clients.errors import Conflict, NotFound
from kybernate.clients.kube import Kube, PatchKind
from kybernate.clients.resources import PODS
from testbed.lightnode.agent import Agent, AgentAway
from testbed.lightnode.container import Container
from testbed.lightnode.podrecord import PodRecord, Records
from testbed.lightnode.podspec import Identity

_AGAIN_S = 0.25  # after the agent did not listen
_FIELD_OWNER = "lightnode"


class StatusReport:
    """Writes a pod's status where it changed."""

    def __init__(self, kube: Kube, pod: Identity) -> None:
        self._kube = kube
        self._pod = pod
        self._last: dict[str, Any] = {}

    def write(self, status: dict[str, Any]) -> None:
        """By server-side apply: conditions of others stay theirs. Raises ApiError."""
        if status == self._last:
            return
        pod = self._pod
        head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"uid": pod.uid}}
        try:
            self._kube.patch(
                PODS,
                pod.name,
                {**head, "status": status},
                pod.namespace,
                kind=PatchKind.APPLY,
                subresource="status",
                field_manager=_FIELD_OWNER,
            )
        except (NotFound, Conflict):
            return  # it is being removed, or another pod has the name now
        self._last = status

    def remove(self) -> None:
        """The pod has ended: its object may go. Raises ApiError."""
        pod = self._pod
        try:
            self._kube.delete(PODS, pod.name, pod.namespace, uid=pod.uid, grace_seconds=0)
        except (NotFound, Conflict):
            return  # somebody was quicker, or another pod has the name now


class AgentNews:
    """Tells the agent of containers that are held for it, and of their ends."""

    def __init__(self, agent: Agent, records: Records, clock: Clock) -> None:
        self._agent = agent
        self._records = records
        self._clock = clock
        self._quiet_until = 0.0
        self._log = structlog.get_logger()

    def ended(self, record: PodRecord, code: int) -> None:
        """To be told: this attempt's container ended."""
        news = (record.container_id, code)
        if news not in record.untold:
            record.untold.append(news)

    def tell(self, record: PodRecord, name: str, held: Container | None) -> None:
        """All the agent has not heard; `held` is this attempt's container while it runs."""
        if self._clock.monotonic() < self._quiet_until:
            return
        try:
            if held is not None and not record.told:
                waits = (held.pid, held.fifo)
                self._agent.created(record.identity, name, record.container_id, waits)
                record.told = True
                self._records.write(record)
            while record.untold:
                self._agent.exited(record.identity, record.untold[0][0])
                del record.untold[0]
                self._records.write(record)
        except AgentAway as away:
            self._quiet_until = self._clock.monotonic() + _AGAIN_S
            self._log.debug("agent away", detail=str(away))
