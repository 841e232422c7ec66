"""
The next step towards what a TierPlacement asks for. Pure.

Called by: `tiers`. Rules: one copy at a time; everything asked for is there before anything goes;
what any TierPlacement of the checkpoint asks for stays; the last copy stays, whatever is asked.
"""

from dataclasses import dataclass, field

from kybernate.api.tierplacements import Others, Placed, TierPlacement
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName

AS_ASKED = "AsAsked"
PROMOTING = "Promoting"
DEMOTING = "Demoting"
NO_CHECKPOINT = "NoSuchCheckpoint"
NOT_READY = "NotReady"
NO_COPY = "NoCopy"
_STORE = "object storage"


@dataclass(frozen=True, slots=True)
class Copies:
    """Where some are: on nodes, and whether in object storage."""

    nodes: frozenset[NodeName] = field(default_factory=frozenset)
    stored: bool = False

    def __len__(self) -> int:
        return len(self.nodes) + self.stored

    def both(self, other: "Copies") -> "Copies":
        """Those that are in both."""
        return Copies(self.nodes & other.nodes, self.stored and other.stored)

    def without(self, other: "Copies") -> "Copies":
        """Those that the other has not."""
        return Copies(self.nodes - other.nodes, self.stored and not other.stored)

    def words(self) -> str:
        """For people."""
        return ", ".join([*sorted(self.nodes), *([_STORE] if self.stored else [])])


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is to be done for now, and why."""

    placed: Placed


@dataclass(frozen=True, slots=True)
class Bring:
    """Have this node's agent fetch a copy from one of the others."""

    node: NodeName
    sources: Copies
    placed: Placed


@dataclass(frozen=True, slots=True)
class Demote:
    """Have one of these nodes' agents put its copy into the object store."""

    nodes: tuple[NodeName, ...]
    placed: Placed


@dataclass(frozen=True, slots=True)
class Remove:
    """Have this node's agent delete its copy."""

    node: NodeName
    placed: Placed


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Have one of these nodes' agents delete the object store's."""

    nodes: tuple[NodeName, ...]
    placed: Placed


Step = Rest | Bring | Demote | Remove | Withdraw


def wanted_by(placement: TierPlacement) -> Copies:
    """What it asks for."""
    return Copies(placement.nodes, placement.stored)


def there_of(checkpoint: Checkpoint) -> Copies:
    """What there is."""
    return Copies(frozenset(checkpoint.copies), checkpoint.in_object_storage)


def plan(placement: TierPlacement, checkpoint: Checkpoint | None, wanted_by_all: Copies) -> Step:
    """`wanted_by_all` is what all TierPlacements of this checkpoint ask for."""
    wanted, name = wanted_by(placement), placement.checkpoint
    if checkpoint is None:
        return Rest(_not(wanted, NO_CHECKPOINT, f"there is no GpuCheckpoint {name} here"))
    there = there_of(checkpoint)
    if not checkpoint.ready:
        return Rest(_not(wanted, NOT_READY, f"{name} is not ready", there))
    missing = wanted.without(there)
    if len(missing):
        if not len(there):
            return Rest(_not(wanted, NO_COPY, f"there is no copy of {name}"))
        return _come(wanted, missing, there)
    extra = there.without(wanted_by_all).without(wanted)
    if placement.others is Others.REMOVE and len(extra) and len(there) > 1:
        return _go(wanted, extra, there)
    count = len(wanted)
    return Rest(Placed(holds=True, reason=AS_ASKED, wanted=count, there=count))


def _come(wanted: Copies, missing: Copies, there: Copies) -> Step:
    if missing.stored:  # first what outlives the loss of a node
        said = f"one of {', '.join(sorted(there.nodes))} puts a copy into {_STORE}"
        return Demote(tuple(sorted(there.nodes)), _not(wanted, DEMOTING, said, there))
    node = min(missing.nodes)
    message = f"{node} fetches a copy from {there.words()}"
    return Bring(node, there, _not(wanted, PROMOTING, message, there))


def _go(wanted: Copies, extra: Copies, there: Copies) -> Step:
    if extra.nodes:
        node = min(extra.nodes)
        message = f"{node} deletes its copy, which nobody asks for"
        return Remove(node, _not(wanted, DEMOTING, message, there))
    nodes = tuple(sorted(there.nodes))
    message = f"{nodes[0]} deletes the copy in {_STORE}, which nobody asks for"
    return Withdraw(nodes, _not(wanted, DEMOTING, message, there))


def _not(wanted: Copies, reason: str, message: str, there: Copies = Copies()) -> Placed:
    return Placed(
        holds=False,
        reason=reason,
        message=message,
        wanted=len(wanted),
        there=len(wanted.both(there)),
    )
