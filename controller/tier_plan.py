"""
The next step towards what a TierPlacement asks for. Pure.

Called by: `tiers`. Rules: one copy at a time; everything asked for is there before anything goes;
what any TierPlacement of the checkpoint asks for stays; the last copy stays, whatever is asked.
"""

from collections.abc import Collection
from dataclasses import dataclass

from kybernate.api.tierplacements import Others, Placed, TierPlacement
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName

AS_ASKED = "AsAsked"
PROMOTING = "Promoting"
DEMOTING = "Demoting"
NO_CHECKPOINT = "NoSuchCheckpoint"
NOT_READY = "NotReady"
NO_COPY = "NoCopy"


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is to be done for now, and why."""

    placed: Placed


@dataclass(frozen=True, slots=True)
class Bring:
    """Have this node's agent fetch a copy from one of the others."""

    node: NodeName
    sources: tuple[NodeName, ...]
    placed: Placed


@dataclass(frozen=True, slots=True)
class Remove:
    """Have this node's agent delete its copy."""

    node: NodeName
    placed: Placed


def plan(
    placement: TierPlacement, checkpoint: Checkpoint | None, wanted_by_all: Collection[NodeName]
) -> Rest | Bring | Remove:
    """`wanted_by_all` are the nodes that any TierPlacement of this checkpoint asks for."""
    wanted, name = placement.nodes, placement.checkpoint
    if checkpoint is None:
        return Rest(_not(placement, NO_CHECKPOINT, f"there is no GpuCheckpoint {name} here"))
    there = frozenset(checkpoint.copies)
    if not checkpoint.ready:
        return Rest(_not(placement, NOT_READY, f"{name} is not ready", there))
    missing = sorted(wanted - there)
    if missing:
        if not there:
            return Rest(_not(placement, NO_COPY, f"no node has a copy of {name}"))
        message = f"{missing[0]} fetches a copy from {', '.join(sorted(there))}"
        placed = _not(placement, PROMOTING, message, there)
        return Bring(missing[0], tuple(sorted(there)), placed)
    extra = sorted(there - frozenset(wanted_by_all) - wanted)
    if placement.others is Others.REMOVE and extra and len(there) > 1:
        message = f"{extra[0]} deletes its copy, which nobody asks for"
        return Remove(extra[0], _not(placement, DEMOTING, message, there))
    return Rest(
        Placed(
            holds=True, reason=AS_ASKED, wanted=len(wanted), there=len(wanted & there),
        )
    )  # fmt: skip


def _not(
    placement: TierPlacement, reason: str, message: str, there: frozenset[NodeName] = frozenset()
) -> Placed:
    return Placed(
        holds=False,
        reason=reason,
        message=message,
        wanted=len(placement.nodes),
        there=len(placement.nodes & there),
    )
