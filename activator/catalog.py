"""
Which models there are, from what watches tell. One thread (the loop's) writes and reads it.

Called by: `watching` and `agents` through the loop (changes), `routing` and `queues` (questions).
Rule: what an agent says of its pods counts before what the API server says, which is older; when an
agent falls silent its last published word counts again.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from activator.models import Model, ModelId, Owner, Place
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.workload import State


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSeen:
    """A seat pod. `deployment` is its owner's name, or empty."""

    model: ModelId
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSeen:
    """A Deployment whose pods take a seat."""

    model: ModelId
    owner: Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """How a workload stands, by its agent, or by its GpuWorkload."""

    uid: PodUid
    state: State
    tier: Tier | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No model of this name; `known` are all there are."""

    name: str
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Several namespaces have a model of this name."""

    name: str
    among: tuple[str, ...]


@dataclass
class Catalog:
    """`on_change` is called with the id of a model after each change of it."""

    on_change: Callable[[ModelId], None] = lambda _: None
    models: dict[ModelId, Model] = field(default_factory=dict)
    _pods: dict[WorkloadKey, PodSeen] = field(default_factory=dict)
    _deployments: dict[WorkloadKey, DeploymentSeen] = field(default_factory=dict)
    _published: dict[WorkloadKey, Word] = field(default_factory=dict)
    _told: dict[WorkloadKey, Word] = field(default_factory=dict)
    _sealed: dict[tuple[str, str], str] = field(default_factory=dict)  # checkpoint -> identity
    _members: dict[ModelId, set[WorkloadKey]] = field(default_factory=lambda: defaultdict(set))
    _owned: dict[ModelId, set[WorkloadKey]] = field(default_factory=lambda: defaultdict(set))
    _named: dict[str, set[ModelId]] = field(default_factory=lambda: defaultdict(set))

    def find(self, name: str) -> Model | Unknown | Ambiguous:
        """By the name clients use, or `namespace/name`. The latter comes first: what a pod calls
        itself (it may contain a slash) never takes the place of a model of another namespace."""
        namespace, _, rest = name.partition("/")
        whole = self.models.get(ModelId(namespace, rest))
        if whole is not None:
            return whole
        found = self._named.get(name)
        if found is None:
            return Unknown(name, tuple(self.names()))
        if len(found) > 1:
            return Ambiguous(name, tuple(sorted(map(str, found))))
        return self.models[next(iter(found))]

    def names(self) -> list[str]:
        """What clients may ask for."""
        return sorted(
            name if len(ids) == 1 else str(one) for name, ids in self._named.items() for one in ids
        )

    def nodes(self) -> set[str]:
        """Where models have pods."""
        return {seen.place.node for seen in self._pods.values() if seen.place.node}

    def pod(self, key: WorkloadKey, seen: PodSeen | None) -> None:
        """A pod is as told, or gone."""
        old = self._pods.pop(key, None)
        if seen is not None:
            self._pods[key] = seen
            self._members[seen.model].add(key)
        if old is not None and (seen is None or old.model != seen.model):
            self._members[old.model].discard(key)
            self._rebuild(old.model)
        if seen is None:
            self._told.pop(key, None)
        else:
            self._rebuild(seen.model)

    def deployment(self, key: WorkloadKey, seen: DeploymentSeen | None) -> None:
        """A Deployment is as told, or gone."""
        old = self._deployments.pop(key, None)
        if seen is not None:
            self._deployments[key] = seen
            self._owned[seen.model].add(key)
        if old is not None and (seen is None or old.model != seen.model):
            self._owned[old.model].discard(key)
            self._rebuild(old.model)
        if seen is not None:
            self._rebuild(seen.model)

    def published(self, key: WorkloadKey, word: Word | None) -> None:
        """What the GpuWorkload says."""
        if word is None:
            self._published.pop(key, None)
        else:
            self._published[key] = word
        self._touched(key)

    def told(self, key: WorkloadKey, word: Word) -> None:
        """What its agent says, now."""
        self._told[key] = word
        self._touched(key)

    def silent(self, node: str) -> None:
        """The agent of this node is not heard any more."""
        for key, seen in list(self._pods.items()):
            if seen.place.node == node and self._told.pop(key, None) is not None:
                self._rebuild(seen.model)

    def checkpoint(self, key: tuple[str, str], identity: str | None) -> None:
        """A checkpoint (namespace, name) of this identity is ready; or none any more."""
        old = self._sealed.pop(key, None)
        if identity is not None:
            self._sealed[key] = identity
        for one in {old or "", identity or ""}:
            deployment = WorkloadKey(key[0], one.removeprefix("deployment."))
            if deployment in self._deployments:
                self._rebuild(self._deployments[deployment].model)

    def _touched(self, key: WorkloadKey) -> None:
        seen = self._pods.get(key)
        if seen is not None:
            self._rebuild(seen.model)

    def _rebuild(self, model: ModelId) -> None:
        members, owned = self._members.get(model), self._owned.get(model)
        if not members and not owned:
            self._forget(model)
        else:
            owner = self._deployments[min(owned)] if owned else None
            built = Model(
                id=model,
                places=tuple(self._place(key) for key in sorted(members or ())),
                owner=owner.owner if owner else None,
                sealed=bool(owner and self._has_checkpoint(model.namespace, owner.owner.name)),
            )
            if self.models.get(model) == built:
                return
            self.models[model] = built
            self._named[model.name].add(model)
        self.on_change(model)

    def _forget(self, model: ModelId) -> None:
        self.models.pop(model, None)
        self._members.pop(model, None)
        self._owned.pop(model, None)
        names = self._named.get(model.name)
        if names is not None:
            names.discard(model)
            if not names:
                del self._named[model.name]

    def _place(self, key: WorkloadKey) -> Place:
        place = self._pods[key].place
        told, published = (
            word if word is not None and word.uid == place.uid else None
            for word in (self._told.get(key), self._published.get(key))
        )
        newest = told or published
        if newest is None:
            return place
        tier = published.tier if published else None  # agents tell states, not tiers
        if newest.state is State.PARKED and tier in (None, Tier.VRAM):
            tier = Tier.RAM  # where contents go first
        return replace(place, state=newest.state, tier=tier, why=newest.why)

    def _has_checkpoint(self, namespace: str, deployment: str) -> bool:
        identity = f"deployment.{deployment}"
        return any(
            space == namespace and found == identity for (space, _), found in self._sealed.items()
        )
