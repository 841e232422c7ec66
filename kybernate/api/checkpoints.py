"""
`GpuCheckpoint` to `Checkpoint`: what placement needs of a sealed copy.

Called by: the extender for every watch event of a GpuCheckpoint, the webhook for its candidates.
"""

from collections.abc import Mapping
from typing import Any

from kybernate.api import fields
from kybernate.api.fields import Reader
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName
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
    )


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
