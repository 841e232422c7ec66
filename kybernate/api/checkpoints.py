"""
`GpuCheckpoint` to `Checkpoint` and back: what placement, claims and retention need of it.

Called by: the extender for every watch event of a GpuCheckpoint, the webhook for its candidates,
the agent that seals, claims and fetches, the controller that frees and retires.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kybernate.api import fields, timestamps
from kybernate.api.fields import Reader
from kybernate.model.checkpoint import Checkpoint, Claim, Pause
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.tier import Tier

_HOTTEST_FIRST = tuple(Tier)


def read_checkpoint(obj: Mapping[str, Any]) -> Checkpoint:
    """Raises Malformed with every fault and its path."""
    metadata = obj["metadata"]
    ready = fields.condition(obj, "Ready") == "True"
    whole = {"spec": obj.get("spec") or {}, "status": obj.get("status") or {}}
    return fields.read(whole, "", lambda reader: _checkpoint(reader, metadata, ready))


def _checkpoint(reader: Reader, metadata: Mapping[str, Any], ready: bool) -> Checkpoint:
    spec, status = reader.below("spec"), reader.below("status")
    copies, in_object_storage = _copies(status)
    return Checkpoint(
        namespace=metadata.get("namespace", "default"),
        name=metadata["name"],
        size=status.integer("sizeBytes", 0),
        ready=ready,
        gold=spec.flag("gold"),
        workload=spec.text("workload", ""),
        copies=copies,
        in_object_storage=in_object_storage,
        claim=_claim(status),
        sealed_at=status.time("sealedAt"),
        labels=metadata.get("labels") or {},
        signature=status.text("signature", ""),
    )


def _claim(status: Reader) -> Claim | None:
    if not status.value.get("claim"):
        return None
    claim = status.below("claim")
    return Claim(
        pod_uid=PodUid(claim.text("podUID")),
        node=NodeName(claim.text("node")),
        pod=claim.text("pod", ""),
    )


def write_claim(claim: Claim | None) -> dict[str, str] | None:
    """As `status.claim`; None empties it in a merge patch."""
    if claim is None:
        return None
    return {"pod": claim.pod, "podUID": claim.pod_uid, "node": claim.node}


def new_object(checkpoint: Checkpoint, node: NodeName) -> dict[str, Any]:
    """The object to create, without its status. `node` is the one that sealed it."""
    metadata: dict[str, Any] = {"namespace": checkpoint.namespace, "name": checkpoint.name}
    if checkpoint.labels:
        metadata["labels"] = dict(checkpoint.labels)
    return {
        "metadata": metadata,
        "spec": {"workload": checkpoint.workload, "gold": checkpoint.gold, "node": node},
    }


def write_sealed(checkpoint: Checkpoint, fingerprint: str, now: float) -> dict[str, Any]:
    """The part of `status` that is written once, when it is published."""
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Sealed",
        "message": "",
        "lastTransitionTime": timestamps.rfc3339(now),
    }
    cost = {
        "writtenBytes": checkpoint.written,
        "addedBytes": checkpoint.added,
        "added": size_text(checkpoint.added),
    }
    return {
        "sizeBytes": checkpoint.size,
        "size": f"{checkpoint.size / 2**30:.1f} GiB",
        **(cost if checkpoint.written else {}),
        "fingerprint": fingerprint,
        "signature": checkpoint.signature,
        "sealedAt": timestamps.rfc3339(checkpoint.sealed_at),
        "conditions": [ready],
    }


def size_text(size: int) -> str:
    """For people: `1.2 GiB`, `310 MiB`."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def write_pause(pause: Pause) -> dict[str, Any]:
    """As `status.pause`."""
    phases = [{"name": name, "seconds": round(seconds, 3)} for name, seconds in pause.phases]
    text = f"{pause.seconds:.2f}s"
    return {"seconds": round(pause.seconds, 3), "text": text, "phases": phases}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The condition Kept: whether the checkpoint stays, why, and since when that is so (seconds
    since the epoch; whole ones, as the API server has them)."""

    holds: bool
    reason: str
    message: str = ""
    since: float = 0.0


KEPT = "Kept"


def read_kept(obj: Mapping[str, Any]) -> Kept | None:
    """None before anybody judged it."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition["type"] == KEPT:
            return Kept(
                holds=condition["status"] != "False",
                reason=condition["reason"],
                message=condition.get("message", ""),
                since=timestamps.parse_rfc3339(condition["lastTransitionTime"]),
            )
    return None


def with_kept(obj: Mapping[str, Any], kept: Kept) -> list[dict[str, Any]]:
    """The object's conditions with this one. Its time stays where only the words change."""
    before = read_kept(obj)
    same = before is not None and before.holds == kept.holds
    since = before.since if same and before is not None else kept.since
    others = [
        dict(condition)
        for condition in (obj.get("status") or {}).get("conditions") or ()
        if condition["type"] != KEPT
    ]
    written = {
        "type": KEPT,
        "status": "True" if kept.holds else "False",
        "reason": kept.reason,
        "message": kept.message,
        "lastTransitionTime": timestamps.rfc3339(since),
    }
    return [*others, written]


def _copies(status: Reader) -> tuple[dict[NodeName, Tier], bool]:
    hottest: dict[NodeName, Tier] = {}
    in_object_storage = False
    for copy in status.each("copies"):
        tier = copy.one_of("tier", Tier)
        if tier is Tier.OBJECT:
            in_object_storage = True
            continue
        node = NodeName(copy.text("node"))
        hottest[node] = min(tier, hottest.get(node, tier), key=_HOTTEST_FIRST.index)
    return hottest, in_object_storage
