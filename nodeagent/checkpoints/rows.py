"""
Artifacts as the registry has them: what a manifest says, whatever its format.

Called by: `registering`, the Copies service. Rule: only what was signed goes in, so that reading
the same bytes again, on any node, gives an equal artifact: one that was carried into a store is
there what it was before.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from kybernate.artifacts import manifest as manifests
from kybernate.artifacts.v0 import VERSION
from kybernate.clients.errors import Refused, Retry
from kybernate.ladder import carrying
from kybernate.ladder.reading import Opened
from kybernate.model.artifact import NOWHERE, Artifact, Identity, Inventory, Place
from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

Reader = Callable[[], Iterator[tuple[Tier, Artifact]]]
"""Everything of one format that is on this node, with the tier it is in."""

TIERS = (Tier.NVME,)  # those whose copies belong to a node
STORED = Place(node=NOWHERE, tier=Tier.OBJECT)


def of_store(store: Store) -> Reader:
    """What is on this node's disk, as far as its manifests are signed."""
    return lambda: ((Tier.NVME, artifact_of(sealed)) for sealed in store.all())


class Described(carrying.Described, Protocol):
    """What manifests of every format say."""

    @property
    def size(self) -> int:
        """Bytes of all files."""


def artifact_of(sealed: Sealed) -> Artifact:
    """One on this node."""
    return of_opened(sealed.opened)


def of_opened(opened: Opened) -> Artifact:
    """One of a store. What was carried over from format v0 is still that checkpoint."""
    version = manifests.VERSION if opened.manifest.origin is None else VERSION
    return described(opened.manifest, carrying.identity(opened), f"v{version}")


def described(manifest: Described, signature: str, version: str) -> Artifact:
    """One of any format, whose signature was checked."""
    facts = manifest.facts
    names = ("image", "mechanism", "product", "driver", "kernel", "architecture")
    return Artifact(
        identity=Identity(namespace=manifest.namespace, name=manifest.name, signature=signature),
        format=version,
        workload=facts.workload,
        pod=facts.pod,
        node=facts.node,
        sealed_at=facts.sealed_at,
        size=manifest.size,
        gold=facts.gold,
        boot_bound=facts.boot_bound,
        fingerprint=facts.fingerprint,
        made_in={name: getattr(facts.made_in, name) for name in names},
        labels=dict(facts.labels),
    )


class Elsewhere(Protocol):
    """The object store, as far as it is known."""

    @property
    def given(self) -> bool:
        """Whether there is one."""

    def artifacts(self) -> Iterator[Artifact]:
        """What is in it. Raises Refused, Retry."""


def inventories(
    node: NodeName,
    reader: Reader,
    now: Callable[[], float],
    objects: Elsewhere | None = None,
) -> Iterator[Inventory]:
    """What is here, one for each tier, and then what is in the object store, where that can be
    told; each as of a moment before it was looked for."""
    as_of = now()
    found = list(reader())
    for tier in TIERS:
        here = {one.identity: one for at, one in found if at is tier}
        place = Place(node=node, tier=tier)
        yield Inventory(place=place, as_of=as_of, artifacts=tuple(here.values()))
    if objects is not None and objects.given:
        as_of = now()
        try:
            stored = tuple(objects.artifacts())
        except (Refused, Retry) as away:
            get_logger().warning("what is in the object store is not told", why=str(away))
            return
        yield Inventory(place=STORED, as_of=as_of, artifacts=stored)
