"""
What runc's wrapper would tell the node agent: a container exists and is held, a container ended.

Called by: `podlife`, which tells again until it was heard: the agent may be away for a while.
Rule: in the wrapper's own words (`kybernate/clients/runtimecalls.py`).
"""

from pathlib import Path

from kybernate.clients import runtimecalls
from kybernate.clients.errors import Refused, Retry
from kybernate.clients.runtimecalls import Call, Op, RuntimeCaller
from kybernate.model.ids import PodUid, WorkloadKey
from testbed.lightnode.podspec import Identity


class AgentAway(Exception):
    """Nobody listens now, or what was told cannot be taken in."""


class Agent:
    """The agent with this socket; what is told goes to the one beside it."""

    def __init__(self, socket: Path) -> None:
        self._caller = RuntimeCaller(runtimecalls.beside(socket))

    def created(
        self, pod: Identity, container: str, container_id: str, held: tuple[int, Path]
    ) -> None:
        """It exists: `held` is its process and where that waits. Raises AgentAway."""
        pid, fifo = held
        self._tell(
            Call(
                op=Op.HELD,
                pod=WorkloadKey(pod.namespace, pod.name),
                uid=PodUid(pod.uid),
                container=container,
                container_id=container_id,
                pid=pid,
                fifo=fifo.absolute(),
            )
        )

    def exited(self, pod: Identity, container_id: str) -> None:
        """It ended. Raises AgentAway."""
        key = WorkloadKey(pod.namespace, pod.name)
        self._tell(Call(op=Op.ENDED, pod=key, uid=PodUid(pod.uid), container_id=container_id))

    def _tell(self, call: Call) -> None:
        try:
            self._caller.tell(call)
        except (Retry, Refused) as problem:
            raise AgentAway(str(problem)) from problem
