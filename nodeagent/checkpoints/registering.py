"""
Telling the registry what happens to copies on this node.

Called by: `artifacts`; it listens to the store. Rule: nothing waits for the registry. What cannot
be told yet waits in a bounded queue, each with a key of its own, so telling it twice does no harm;
what does not fit, or was not told before the agent ended, is made up for by an inventory. Rule: a
registry with another epoch than before has forgotten, and is given an inventory.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kybernate.clients.clock import Clock
from kybernate.clients.errors import Retry
from kybernate.clients.outbox import Outbox, Patience
from kybernate.clients.registry import Registry, RegistryRefused, Taken
from kybernate.model.artifact import COMES, Artifact, Inventory, Kind, Occurrence, Place
from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints.changes import Change
from nodeagent.checkpoints.rows import STORED, Elsewhere, Reader, artifact_of, inventories

MOST = 1000  # occurrences that wait; an inventory makes up for those beyond


@dataclass(frozen=True, slots=True)
class _Everything:
    """In the queue: what is here now, all of it."""


_Item = Occurrence | _Everything


@dataclass(slots=True)
class Registering:
    """`start` once, `stop` at the end; `changed` listens to the store, `moved` to the object
    store."""

    node: NodeName
    reader: Reader
    connect: Callable[[], Registry]
    """A connection as it is to be now; asked for each time, closed by whoever makes it."""
    clock: Clock
    objects: Elsewhere | None = None
    _epoch: str = ""
    _owed: threading.Event = field(default_factory=threading.Event)
    _outbox: Outbox[_Item] = field(init=False)

    def __post_init__(self) -> None:
        patience = Patience(size=MOST, seconds=float("inf"))
        self._outbox = Outbox(
            "registry",
            self.clock,
            self._deliver,
            idle=self._look,
            lost=lambda _: self._owed.set(),
            patience=patience,
        )

    def start(self) -> None:
        """Tell of all that is here. Returns at once."""
        self._outbox.put(_Everything())

    def stop(self) -> None:
        """Tell what can be told in two seconds; the next start's inventory tells the rest."""
        self._outbox.stop()

    def flush(self, timeout: float) -> bool:
        """Wait until everything said so far is told. Real seconds."""
        return self._outbox.flush(timeout)

    def changed(self, change: Change) -> None:
        """From the store."""
        if change.sealed is None:
            self._outbox.put(_Everything())
            return
        place = Place(node=self.node, tier=Tier.NVME)
        self._put(place, change.kind, artifact_of(change.sealed), change.detail)

    def moved(self, kind: Kind, artifact: Artifact, detail: str = "") -> None:
        """A copy in the object store came, went, or was compared by us."""
        self._put(STORED, kind, artifact, detail)

    def _put(self, place: Place, kind: Kind, artifact: Artifact, detail: str) -> None:
        self._outbox.put(
            Occurrence(
                key=uuid.uuid4().hex,
                at=self.clock.now(),
                kind=kind,
                identity=artifact.identity,
                place=place,
                artifact=artifact if kind in COMES else None,
                detail=detail,
            )
        )

    def _deliver(self, item: _Item) -> None:
        registry = self.connect()
        if isinstance(item, Occurrence):
            self._heard(self._told(registry, item))
        if isinstance(item, _Everything) or self._owed.is_set():
            self._tell_all(registry)

    def _told(self, registry: Registry, item: Occurrence) -> Taken:
        try:
            return registry.record([item])
        except RegistryRefused:
            self._owed.set()  # what it could not make sense of is told in another way
            raise

    def _tell_all(self, registry: Registry) -> None:
        self._owed.clear()
        try:
            for inventory in self._inventories():
                taken = registry.take_inventory(inventory)
                self._epoch = taken.epoch
                if taken.found or taken.missing:
                    get_logger().info(
                        "registry has caught up", found=taken.found, missing=taken.missing
                    )
        except Retry:
            self._owed.set()
            raise

    def _inventories(self) -> Iterator[Inventory]:
        return inventories(self.node, self.reader, self.clock.now, self.objects)

    def _heard(self, taken: Taken) -> None:
        if taken.epoch != self._epoch:
            self._owed.set()
        self._epoch = taken.epoch

    def _look(self) -> None:
        """While nothing happens: whether it still is the registry that we told."""
        registry = self.connect()
        self._heard(registry.record([]))
        if self._owed.is_set():
            self._tell_all(registry)
