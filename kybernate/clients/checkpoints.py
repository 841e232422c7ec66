"""
GpuCheckpoint objects: published, claimed, given back, their copies written down.

Called by: the agent, for its own node. Rule: every write is a
compare-and-swap by resourceVersion, decided anew from what is there after each Conflict; what to
write is decided in `decisions/claims`. Raises ApiError.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kybernate.api import checkpoints as codec
from kybernate.clients.errors import AlreadyExists, Conflict, NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.decisions import claims
from kybernate.decisions.claims import Nothing, Write
from kybernate.model.checkpoint import Checkpoint, Claim, Pause
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.tier import Tier
from kybernate.model.verdict import Reason, Refusal

_TRIES = 8  # as many agents may write at once; each Conflict means that one of them got through

Obj = Mapping[str, Any]
Change = Callable[[Obj], Obj | None]
"""From the object as it is to the `status` to merge; None: nothing is to be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """This pod, and no other, wakes from it (a gold image: others too)."""

    checkpoint: Checkpoint
    claim: Claim


class Taken(Conflict):
    """The name is another checkpoint's."""


class LastCopy(Conflict):
    """There is no other copy, so this one stays."""


class Checkpoints:
    """For one node. Thread safe."""

    def __init__(self, kube: Kube, node: NodeName) -> None:
        self._kube, self._node = kube, node

    def take(
        self, namespace: str, name: str, pod: str, uid: PodUid, *, afar: bool = False
    ) -> Claimed | Refusal:
        """Claim it for a pod of this node, or say why not. A pod that has it already, has it.
        `afar`: for one of another namespace, which wakes from gold images only."""
        claim = Claim(pod_uid=uid, node=self._node, pod=pod)
        for _ in range(_TRIES):
            try:
                obj = self._kube.get(GPUCHECKPOINTS, name, namespace)
            except NotFound:
                detail = f"{namespace}/{name}"
                return Refusal(reason=Reason.CHECKPOINT_ABSENT, detail=detail)
            checkpoint = codec.read_checkpoint(obj)
            step = claims.take(checkpoint, claim, afar=afar)
            if isinstance(step, Refusal):
                return step
            try:
                self._carry_out(obj, step)
            except (Conflict, NotFound):
                continue
            return Claimed(checkpoint=checkpoint, claim=claim)
        return Refusal(reason=Reason.CHECKPOINT_CLAIMED, detail=f"{namespace}/{name} is contended")

    def give_back(self, claimed: Claimed) -> None:
        """The pod did not wake from it: the next one may. Twice is fine."""
        one = claimed.checkpoint

        def change(obj: Obj) -> Obj | None:
            step = claims.give_back(codec.read_checkpoint(obj), claimed.claim)
            return {"claim": None} if isinstance(step, Write) else None

        self._change(one.namespace, one.name, change)

    def publish(self, checkpoint: Checkpoint, fingerprint: str, tier: Tier, now: float) -> None:
        """Have it known, with the copy here. Again is fine. Raises Taken."""
        with suppress(AlreadyExists):
            self._kube.create(GPUCHECKPOINTS, codec.new_object(checkpoint, self._node))

        def change(obj: Obj) -> Obj | None:
            there = (obj.get("status") or {}).get("signature")
            if there and there != checkpoint.signature:
                words = f"{checkpoint.namespace}/{checkpoint.name} is another checkpoint"
                raise Taken(409, "Conflict", words)
            status = {} if there else codec.write_sealed(checkpoint, fingerprint, now)
            return {**status, "copies": self._copies(obj, tier)}

        self._change(checkpoint.namespace, checkpoint.name, change)

    def paused(self, namespace: str, name: str, signature: str, pause: Pause) -> None:
        """What it cost its workload. One without an object is nobody's. Raises Taken."""

        def change(obj: Obj) -> Obj | None:
            _same(obj, signature)
            return {"pause": codec.write_pause(pause)}

        with suppress(NotFound):
            self._change(namespace, name, change)

    def copied(self, namespace: str, name: str, tier: Tier | None) -> None:
        """A copy is here now, in this tier; None: none is. One without an object is nobody's."""

        def change(obj: Obj) -> Obj | None:
            copies = self._copies(obj, tier)
            return None if copies == (obj.get("status") or {}).get("copies") else {"copies": copies}

        with suppress(NotFound):
            self._change(namespace, name, change)

    def leave(self, namespace: str, name: str, signature: str) -> tuple[NodeName, ...]:
        """No copy is here any more; the nodes that have one. Raises LastCopy where neither one of
        them nor the object store has.

        To be called before it is deleted: of two nodes that leave at once, one is refused.
        """
        left: list[NodeName] = []

        def change(obj: Obj) -> Obj | None:
            _same(obj, signature)
            one = codec.read_checkpoint(obj)
            left[:] = [node for node in one.copies if node != self._node]
            if not left and not one.in_object_storage:
                raise LastCopy(409, "Conflict", f"{namespace}/{name} has no other copy")
            return {"copies": self._copies(obj, None)}

        self._change(namespace, name, change)
        return tuple(left)

    def stored(self, namespace: str, name: str, signature: str) -> bool:
        """The object store has a copy. False where there is no object of it (any more): it is
        nobody's then. Raises Taken."""

        def change(obj: Obj) -> Obj | None:
            _same(obj, signature)
            if codec.read_checkpoint(obj).in_object_storage:
                return None
            return {"copies": [*_copies_of(obj), {"tier": Tier.OBJECT.value}]}

        try:
            self._change(namespace, name, change)
        except NotFound:
            return False
        return True

    def unstored(self, namespace: str, name: str, signature: str) -> None:
        """The object store has none any more, to be said before it is deleted. Raises LastCopy
        where no node has one, Taken."""

        def change(obj: Obj) -> Obj | None:
            _same(obj, signature)
            if not codec.read_checkpoint(obj).copies:
                raise LastCopy(409, "Conflict", f"{namespace}/{name} has no other copy")
            return {"copies": [copy for copy in _copies_of(obj) if copy.get("node")]}

        self._change(namespace, name, change)

    def in_store(self, namespace: str, name: str) -> bool:
        """Whether the object store is said to have a copy."""
        obj = self._kube.get(GPUCHECKPOINTS, name, namespace)
        return codec.read_checkpoint(obj).in_object_storage

    def others(self, namespace: str, name: str) -> tuple[NodeName, ...]:
        """Other nodes that say they have a copy."""
        one = codec.read_checkpoint(self._kube.get(GPUCHECKPOINTS, name, namespace))
        return tuple(node for node in one.copies if node != self._node)

    def _copies(self, obj: Obj, tier: Tier | None) -> list[Obj]:
        others = [copy for copy in _copies_of(obj) if copy.get("node") != self._node]
        return [*others, {"node": self._node, "tier": tier.value}] if tier else others

    def _carry_out(self, obj: Obj, step: Write | Nothing) -> None:
        if isinstance(step, Write):
            self._write(obj, {"claim": codec.write_claim(step.claim)})

    def _change(self, namespace: str, name: str, change: Change) -> None:
        for left in range(_TRIES, 0, -1):
            obj = self._kube.get(GPUCHECKPOINTS, name, namespace)
            status = change(obj)
            if status is None:
                return
            try:
                self._write(obj, status)
            except Conflict:
                if left == 1:
                    raise
            else:
                return

    def _write(self, obj: Obj, status: Obj) -> None:
        metadata = obj["metadata"]
        # The uid too: a name that was given anew is another checkpoint's.
        named = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        self._kube.patch(
            GPUCHECKPOINTS,
            metadata["name"],
            {"metadata": named, "status": status},
            metadata["namespace"],
            subresource="status",
        )


def _copies_of(obj: Obj) -> list[Obj]:
    return list((obj.get("status") or {}).get("copies") or [])


def _same(obj: Obj, signature: str) -> None:
    """Raises Taken where it is another checkpoint."""
    if codec.read_checkpoint(obj).signature != signature:
        metadata = obj["metadata"]
        words = f"{metadata.get('namespace')}/{metadata['name']} is another checkpoint"
        raise Taken(409, "Conflict", words)
