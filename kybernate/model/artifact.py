"""What the registry knows: artifacts, where their copies are, and what happened to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier

NOWHERE = NodeName("")  # the node of a copy in object storage


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Identity:
    """One sealed checkpoint: its name may be given anew, its signature never is."""

    namespace: str
    name: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A sealed checkpoint as its own manifest tells of it, whatever its format.

    `format` is `v0`, `v1`. `sealed_at` is seconds since the epoch, `size` bytes. `made_in` is what
    a wake compares, by name, and `fingerprint` the hash of it. Two readers of the same bytes make
    equal artifacts: a registry that was lost is the same one after it was filled again.
    """

    identity: Identity
    format: str
    workload: str
    pod: str
    node: NodeName
    sealed_at: float
    size: int
    gold: bool = False
    boot_bound: bool = False
    fingerprint: str = ""
    made_in: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """Where a copy is; in object storage it is on no node."""

    node: NodeName
    tier: Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """When every byte of a copy was last compared, and what was wrong (empty: nothing)."""

    at: float
    flaw: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An artifact and its copies; `checks` has an entry for each copy that was compared."""

    artifact: Artifact
    copies: tuple[Place, ...]
    checks: Mapping[Place, Check] = field(default_factory=dict)


class Kind(StrEnum):
    """What can happen to a copy. Those in `COMES` bring its artifact along."""

    SEALED = "sealed"
    COPIED = "copied"  # it came from elsewhere
    FOUND = "found"  # an inventory has it, and nobody had told
    REMOVED = "removed"
    MISSING = "missing"  # an inventory has it not, and nobody had told
    VERIFIED = "verified"
    DAMAGED = "damaged"


COMES = frozenset({Kind.SEALED, Kind.COPIED, Kind.FOUND})
GOES = frozenset({Kind.REMOVED, Kind.MISSING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """Something that happened to a copy. `at` is by the clock of its node, seconds since the epoch.

    `key` is made by whoever tells: told twice, it happened once.
    """

    key: str
    at: float
    kind: Kind
    identity: Identity
    place: Place
    artifact: Artifact | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An occurrence in the history; numbers grow and are never given twice."""

    number: int
    occurrence: Occurrence


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All copies in one tier of one node, as they were at `as_of` or later, by that node's clock.

    For object storage the node is NOWHERE.
    """

    place: Place
    as_of: float
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows; what is None or empty does not matter. Times are seconds since the epoch."""

    namespace: str = ""
    name: str = ""
    workload: str = ""
    node: NodeName | None = None
    tier: Tier | None = None
    gold: bool | None = None
    fingerprint: str = ""
    sealed_from: float = 0.0
    sealed_until: float = 0.0
