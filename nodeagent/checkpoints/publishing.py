"""
Telling the cluster which checkpoints are on this node; waits while the API server is away.

Called by: whoever sealed or fetched one, and at the start of an agent. Rule: what waits is bounded
by what is on the disk: a name waits once, and what is not told before the agent ends is told after
its next start.
"""

import threading
from collections.abc import Callable

from kybernate.artifacts.faults import Unusable
from kybernate.clients.checkpoints import Checkpoints, Taken
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Retry
from kybernate.clients.outbox import Outbox, Patience
from kybernate.model.checkpoint import Checkpoint, Flaw, Pause
from kybernate.model.tier import Tier
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

Key = tuple[str, str]

_AT_MOST = 100_000  # names; a disk has no room for as many checkpoints


class Publisher:
    """`publish` never blocks. `told` hears of each that is known to the cluster, in our thread."""

    def __init__(
        self,
        store: Store,
        checkpoints: Checkpoints,
        clock: Clock,
        told: Callable[[Checkpoint], None] = lambda _: None,
    ) -> None:
        self._store, self._checkpoints, self._clock = store, checkpoints, clock
        self._told = told
        self._waiting: set[Key] = set()
        self._pauses: dict[Key, Pause] = {}
        self._lock = threading.Lock()
        self._outbox: Outbox[Key] = Outbox(
            "checkpoints",
            clock,
            self._deliver,
            lost=self._forget,
            patience=Patience(size=_AT_MOST, seconds=float("inf")),
        )

    def start(self) -> None:
        """Tell of all that are here."""
        for sealed in self._store.all():
            self.publish(sealed)

    def stop(self) -> None:
        """Tell what can be told in two seconds."""
        self._outbox.stop()

    def publish(self, sealed: Sealed) -> None:
        """Have the cluster know of it, and of the copy here."""
        self._put((sealed.manifest.namespace, sealed.manifest.name))

    def paused(self, sealed: Sealed, pause: Pause) -> None:
        """Have the cluster know what sealing it cost the workload; an agent that ends before
        forgets it."""
        key = (sealed.manifest.namespace, sealed.manifest.name)
        with self._lock:
            self._pauses[key] = pause
        self._put(key)

    def withdraw(self, namespace: str, name: str) -> None:
        """The copy here is gone."""
        self._put((namespace, name))

    def flush(self, timeout: float) -> bool:
        """Wait until everything said so far is told. Real seconds."""
        return self._outbox.flush(timeout)

    def _put(self, key: Key) -> None:
        with self._lock:
            if key in self._waiting:
                return
            self._waiting.add(key)
        self._outbox.put(key)

    def _forget(self, key: Key) -> None:
        with self._lock:
            self._waiting.discard(key)

    def _deliver(self, key: Key) -> None:
        """What is on the disk now is what is told. Raises ApiError."""
        self._forget(key)  # before we look: what changes from here on is told again
        try:
            self._say(key)
        except Retry:
            with self._lock:
                self._waiting.add(key)
            raise

    def _say(self, key: Key) -> None:
        try:
            self._tell(self._store.peek(*key))
        except Unusable as problem:
            if problem.reason is not Flaw.ABSENT:
                get_logger().warning("not published", checkpoint="/".join(key), why=str(problem))
            self._checkpoints.copied(*key, None)

    def _tell(self, sealed: Sealed) -> None:
        one = sealed.checkpoint
        try:
            self._checkpoints.publish(
                one, sealed.manifest.facts.fingerprint, Tier.NVME, self._clock.now()
            )
        except Taken as problem:
            get_logger().error("not published", checkpoint=one.name, why=str(problem))
            return
        with self._lock:
            pause = self._pauses.get((one.namespace, one.name))
        if pause is not None:
            self._checkpoints.paused(one.namespace, one.name, one.signature, pause)
            with self._lock:
                self._pauses.pop((one.namespace, one.name), None)
        self._told(one)
