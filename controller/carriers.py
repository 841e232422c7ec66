"""The agents' part of a TierPlacement, as a port, and its adapter.

Called by: `tiers`. Errors are `AgentAway` and `AgentRefused` of `kybernate.clients.agents`: the
latter says in words why a copy cannot come or go.
"""

from typing import Protocol

from kybernate.clients import reaching
from kybernate.clients.copies import Moved
from kybernate.clients.kube import Kube
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName


class Carrier(Protocol):
    """Who moves copies. Both raise AgentAway, AgentRefused, ApiError."""

    def bring(self, node: NodeName, one: Checkpoint, sources: tuple[NodeName, ...]) -> Moved:
        """Have a copy on the node; one that is there already is verified."""
        ...

    def remove(self, node: NodeName, one: Checkpoint) -> Moved:
        """Have none on the node; refused where no other copy is good."""
        ...


class AgentCarrier:
    """The agents themselves, each where its GpuNode says."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def bring(self, node: NodeName, one: Checkpoint, sources: tuple[NodeName, ...]) -> Moved:
        """As the port says."""
        with reaching.copies_of(self._kube, node) as copies:
            return copies.bring(one.namespace, one.name, one.signature, sources)

    def remove(self, node: NodeName, one: Checkpoint) -> Moved:
        """As the port says."""
        with reaching.copies_of(self._kube, node) as copies:
            return copies.remove(one.namespace, one.name, one.signature)
