"""The agents' part of a CheckpointRequest, as a port, and its adapter.

Called by: `checkpointing`. Errors are `AgentAway` and `AgentRefused` of `kybernate.clients.agents`;
that a workload cannot be sealed is no error but an `Outcome` that is not ok.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from kybernate.clients import reaching
from kybernate.clients.agents import Progress, Sealing
from kybernate.clients.kube import Kube
from kybernate.model.ids import NodeName, PodUid, WorkloadKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an agent is asked. With the same `idempotency_key` it does nothing twice.

    `parked` leaves the workload out of VRAM afterwards; `gold` makes a gold image; `within` is in
    seconds.
    """

    node: NodeName
    workload: WorkloadKey
    pod_uid: PodUid
    checkpoint: str
    parked: bool
    idempotency_key: str
    within: float
    gold: bool = False


class Sealer(Protocol):
    """Who seals."""

    def seal(self, asked: Asked) -> Iterator[Progress]:
        """Every step on the way; the last one has the outcome.

        Raises AgentAway, AgentRefused, ApiError.
        """
        ...


class AgentSealer:
    """The agents themselves, each where its GpuNode says."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def seal(self, asked: Asked) -> Iterator[Progress]:
        """As `Sealer` says; the connection lasts as long as the call."""
        sealing = Sealing(
            name=asked.checkpoint,
            leave_parked=asked.parked,
            idempotency_key=asked.idempotency_key,
            gold=asked.gold,
        )
        with reaching.agent_of(self._kube, asked.node) as agent:
            yield from agent.sealing(asked.workload, sealing, asked.within, asked.pod_uid)
