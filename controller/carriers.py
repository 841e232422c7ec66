"""The agents' part of a TierPlacement, as a port, and its adapter.

Called by: `tiers`. Errors are `AgentAway` and `AgentRefused` of `kybernate.clients.agents`: the
latter says in words why a copy cannot come or go.
"""

from typing import Protocol

from controller.tier_plan import Copies
from kybernate.clients import reaching
from kybernate.clients.copies import Moved, Told
from kybernate.clients.kube import Kube
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName


class Carrier(Protocol):
    """Who moves copies. All raise AgentAway, AgentRefused, ApiError; what is raised by `told` ends
    them."""

    def bring(self, node: NodeName, one: Checkpoint, sources: Copies, told: Told) -> Moved:
        """Have a copy on the node; one that is there already is verified."""
        ...

    def demote(self, node: NodeName, one: Checkpoint, told: Told) -> Moved:
        """Have the object store hold the node's copy; what is there already is not sent again."""
        ...

    def withdraw(self, node: NodeName, one: Checkpoint) -> Moved:
        """Have the object store hold none, by this node's agent; refused where no node's is
        good."""
        ...

    def remove(self, node: NodeName, one: Checkpoint) -> Moved:
        """Have none on the node; refused where no other copy is good."""
        ...


class AgentCarrier:
    """The agents themselves, each where its GpuNode says."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def bring(self, node: NodeName, one: Checkpoint, sources: Copies, told: Told) -> Moved:
        """As the port says."""
        with reaching.copies_of(self._kube, node) as copies:
            return copies.bring(
                one.namespace,
                one.name,
                one.signature,
                sorted(sources.nodes),
                told,
                from_store=sources.stored,
            )

    def demote(self, node: NodeName, one: Checkpoint, told: Told) -> Moved:
        """As the port says."""
        with reaching.copies_of(self._kube, node) as copies:
            return copies.demote(one.namespace, one.name, one.signature, told)

    def withdraw(self, node: NodeName, one: Checkpoint) -> Moved:
        """As the port says."""
        with reaching.copies_of(self._kube, node) as copies:
            return copies.withdraw(one.namespace, one.name, one.signature)

    def remove(self, node: NodeName, one: Checkpoint) -> Moved:
        """As the port says."""
        with reaching.copies_of(self._kube, node) as copies:
            return copies.remove(one.namespace, one.name, one.signature)
