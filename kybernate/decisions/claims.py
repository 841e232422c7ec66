"""
Whose is a checkpoint? Taking a claim, giving it back, freeing one whose pod is gone.

Called by: the agent at `create` (`take`, `give_back`), which writes what is planned here by
compare-and-swap, and the controller (`orphaned`), which frees. Rule: a claim names one life of a
pod; only an empty one is filled, so two pods never wake from one state. Rule: a gold image is
shared and never claimed, and nothing else is anything to pods of other namespaces.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kybernate.model.checkpoint import Checkpoint, Claim
from kybernate.model.verdict import Reason, Refusal


@dataclass(frozen=True, slots=True)
class Write:
    """Write this claim, on the condition that the object is as it was read. None empties it."""

    claim: Claim | None


@dataclass(frozen=True, slots=True)
class Nothing:
    """It is as it should be already: ours, gold, or empty."""


def take(checkpoint: Checkpoint, claim: Claim, *, afar: bool = False) -> Write | Nothing | Refusal:
    """What to do so that this pod may wake from it; `afar`: a pod of another namespace."""
    if not checkpoint.ready:
        return Refusal(reason=Reason.CHECKPOINT_NOT_READY, detail=_named(checkpoint))
    if checkpoint.gold:
        return Nothing()
    if afar:
        return Refusal(
            reason=Reason.CHECKPOINT_NOT_SHARED, detail=f"{_named(checkpoint)} is not gold"
        )
    if checkpoint.claim is None:
        return Write(claim)
    if (checkpoint.claim.pod_uid, checkpoint.claim.node) == (claim.pod_uid, claim.node):
        return Nothing()
    holder = checkpoint.claim.pod or checkpoint.claim.pod_uid
    return Refusal(
        reason=Reason.CHECKPOINT_CLAIMED,
        detail=f"{_named(checkpoint)} by pod {holder} on {checkpoint.claim.node}",
    )


def give_back(checkpoint: Checkpoint, claim: Claim) -> Write | Nothing:
    """What to do when this pod did not wake from it after all."""
    held = checkpoint.claim
    ours = held is not None and (held.pod_uid, held.node) == (claim.pod_uid, claim.node)
    return Write(None) if ours else Nothing()


def orphaned(checkpoint: Checkpoint, pod: Mapping[str, Any] | None) -> bool:
    """Whether its claim is to be freed.

    `pod` is what the API server, not a watch, has under the claim's pod name now; None: nothing.
    A pod that has completed still counts: it is gone when its object is. A claim without a pod's
    name cannot be looked up and is never free.
    """
    claim = checkpoint.claim
    if claim is None or not claim.pod:
        return False
    return pod is None or pod["metadata"]["uid"] != claim.pod_uid


def _named(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.namespace}/{checkpoint.name}"
