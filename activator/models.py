"""
A model as the activator sees it: the pods that serve it, its Deployment, and what to do next.

Values and pure functions. Made by `catalog`; `next_step` is asked by `wakes` after every change, so
nothing here waits and nothing is remembered.
"""

from dataclasses import dataclass
from typing import NamedTuple

from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.workload import State


class ModelId(NamedTuple):
    """`name` is what clients call it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A pod that serves a model. `address` is empty before it has one; `running` says that its
    container runs (held before its first instruction included)."""

    key: WorkloadKey
    uid: PodUid
    node: str = ""
    address: str = ""
    port: int = 0
    running: bool = False
    state: State = State.ABSENT
    tier: Tier | None = None
    why: str = ""
    group: str = ""  # of GPUs, of its seat
    vram: int = 0  # bytes; 0: the whole group's

    @property
    def serves(self) -> bool:
        """Whether a request may be sent to it now."""
        return self.state is State.ACTIVE and self.running and bool(self.address)


@dataclass(frozen=True, slots=True)
class Owner:
    """The Deployment of a model. `wakes`: the controller brings it back from zero."""

    name: str
    replicas: int
    wakes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What clients ask for by one name. `sealed`: a checkpoint of it is ready."""

    id: ModelId
    places: tuple[Place, ...] = ()
    owner: Owner | None = None
    sealed: bool = False

    @property
    def serving(self) -> tuple[Place, ...]:
        """The places a request may be sent to now."""
        return tuple(place for place in self.places if place.serves)

    @property
    def tier(self) -> str:
        """Where it would come from if it were asked now: the hottest of its places, else from its
        checkpoint, else cold."""
        if self.serving:
            return Tier.VRAM.value
        tiers = {place.tier for place in self.places if place.state is State.PARKED}
        for tier in (Tier.RAM, Tier.NVME, Tier.OBJECT):
            if tier in tiers:
                return tier.value
        return CHECKPOINT if self.sealed else COLD


CHECKPOINT = "checkpoint"
COLD = "cold"
TIERS = (Tier.VRAM.value, Tier.RAM.value, Tier.NVME.value, Tier.OBJECT.value, CHECKPOINT, COLD)


@dataclass(frozen=True, slots=True)
class Serve:
    """Send requests to it."""

    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Activate:
    """Have this pod's agent bring it in."""

    place: Place


@dataclass(frozen=True, slots=True)
class Ask:
    """Have the controller bring its Deployment back from zero."""

    owner: Owner


@dataclass(frozen=True, slots=True)
class Await:
    """Others are at it; look again when something changed."""

    why: str


@dataclass(frozen=True, slots=True)
class Never:
    """Nobody will bring it in as things are."""

    why: str


Step = Serve | Activate | Ask | Await | Never

# What an agent can bring in: asked of one that waits or is on its way, it goes on and tells.
_COMES = frozenset(
    {State.PARKED, State.WAITING, State.ACTIVATING, State.PARKING, State.SEALING, State.WAKING}
)
# The closest first: what is on its way in, then what is parked, then what has not started yet.
_ORDER = (
    State.ACTIVATING, State.PARKED, State.PARKING, State.SEALING, State.WAITING, State.WAKING,
)  # fmt: skip


def next_step(model: Model) -> Step:
    """What brings requests of this model forward, as things are."""
    serving = model.serving
    if serving:
        return Serve(serving)
    coming = [place for place in model.places if place.node and place.state in _COMES]
    if coming:
        return Activate(min(coming, key=lambda place: _ORDER.index(place.state)))
    broken = [place for place in model.places if place.state is State.QUARANTINED]
    others = [place for place in model.places if place.state is not State.QUARANTINED]
    owner = model.owner
    if others:
        place = others[0]
        return Await(f"pod {place.key.name} has {'no GPU' if place.node else 'no node'} yet")
    if owner is not None and owner.wakes:
        return Ask(owner)
    if broken:
        return Never(f"pod {broken[0].key.name} cannot be brought back: {broken[0].why}")
    if owner is not None and owner.replicas == 0:
        return Never(f"Deployment {owner.name} has no replicas, and is not scaled to zero by us")
    return Await("its pod is not there yet")
