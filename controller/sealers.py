"""The agents' part of a CheckpointRequest, as a port.

Called by: `checkpointing`. Errors are `AgentAway` and `AgentRefused` of `kybernate.clients.agents`;
that a workload cannot be sealed is no error but an `Outcome` that is not ok.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from kybernate.clients.agents import Progress
from kybernate.model.ids import NodeName, PodUid, WorkloadKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an agent is asked. With the same `idempotency_key` it does nothing twice.

    `parked` leaves the workload out of VRAM afterwards; `within` is in seconds.
    """

    node: NodeName
    workload: WorkloadKey
    pod_uid: PodUid
    checkpoint: str
    parked: bool
    idempotency_key: str
    within: float


class Sealer(Protocol):
    """Who seals."""

    def seal(self, asked: Asked) -> Iterator[Progress]:
        """Every step on the way; the last one has the outcome.

        Raises AgentAway, AgentRefused, ApiError.
        """
        ...
