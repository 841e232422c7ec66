"""Checkpoints as placement sees them: size and where the copies are."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A sealed `GpuCheckpoint`. `copies` maps a node to the hottest tier it holds there."""

    namespace: str
    name: str
    size: int
    ready: bool
    gold: bool = False
    workload: str = ""
    copies: Mapping[NodeName, Tier] = field(default_factory=dict)
    in_object_storage: bool = False
