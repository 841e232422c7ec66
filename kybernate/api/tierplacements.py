"""
`TierPlacement` to values and back: where copies of a checkpoint should be.

Called by: the controller (`controller/tiers.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kybernate.api import fields, timestamps
from kybernate.api.fields import Reader
from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier

PLACED = "Placed"


class Others(StrEnum):
    """What becomes of copies that nobody asks for."""

    KEEP = "Keep"
    REMOVE = "Remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The condition Placed, and the two counts beside it."""

    holds: bool
    reason: str
    message: str = ""
    wanted: int = 0
    there: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPlacement:
    """One of them. `told` is its condition as it was read; `since` is that condition's."""

    key: tuple[str, str]  # (namespace, name)
    uid: str
    generation: int
    checkpoint: str
    nodes: frozenset[NodeName]
    stored: bool = False  # in object storage, which is on no node
    others: Others = Others.KEEP
    told: Placed | None = None
    since: float = 0.0


def read_placement(obj: Mapping[str, Any]) -> TierPlacement:
    """Raises Malformed with every fault and its path."""
    metadata, status = obj["metadata"], obj.get("status") or {}

    def build(reader: Reader) -> TierPlacement:
        told, since = _told(status)
        return TierPlacement(
            key=(metadata.get("namespace", "default"), metadata["name"]),
            uid=metadata.get("uid", ""),
            generation=int(metadata.get("generation", 0)),
            checkpoint=reader.text("checkpoint"),
            nodes=frozenset(
                NodeName(one.text("node"))
                for one in reader.each("copies")
                if _tier(one) is not Tier.OBJECT
            ),
            stored=any(_tier(one) is Tier.OBJECT for one in reader.each("copies")),
            others=reader.one_of("others", Others, Others.KEEP),
            told=told,
            since=since,
        )

    return fields.read(obj.get("spec") or {}, "spec", build)


def _tier(copy: Reader) -> Tier:
    return copy.one_of("tier", Tier, Tier.NVME)


def write_status(placement: TierPlacement, placed: Placed, now: float) -> dict[str, Any]:
    """For a merge patch. The condition's time stays where only the words change."""
    same = placement.told is not None and placement.told.holds == placed.holds
    condition = {
        "type": PLACED,
        "status": "True" if placed.holds else "False",
        "reason": placed.reason,
        "message": placed.message[:32768],
        "lastTransitionTime": timestamps.rfc3339(placement.since if same else now),
        "observedGeneration": placement.generation,
    }
    return {"wanted": placed.wanted, "there": placed.there, "conditions": [condition]}


def _told(status: Mapping[str, Any]) -> tuple[Placed | None, float]:
    for condition in status.get("conditions") or ():
        if condition["type"] == PLACED:
            told = Placed(
                holds=condition["status"] == "True",
                reason=condition["reason"],
                message=condition.get("message", ""),
                wanted=int(status.get("wanted", 0)),
                there=int(status.get("there", 0)),
            )
            return told, timestamps.parse_rfc3339(condition["lastTransitionTime"])
    return None, 0.0
