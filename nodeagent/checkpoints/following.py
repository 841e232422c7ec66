"""
Deleting a GpuCheckpoint deletes its copies: this node's part of that.

Called by `artifacts`. Rule: only a deletion that is seen counts, for the object store's copy too,
which the first agent that sees it deletes. An object that is not there at the start is written
again, because a cluster that was restored from a backup must not cost contents.
"""

from kybernate.api.checkpoints import read_checkpoint
from kybernate.artifacts.faults import Unusable
from kybernate.clients.clock import Clock
from kybernate.clients.kube import Kube
from kybernate.clients.outbox import Outbox
from kybernate.clients.reflector import DELETED, Change, Reflector
from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.model.checkpoint import Checkpoint
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints.fetching import Wanted
from nodeagent.checkpoints.objects import Objects
from nodeagent.checkpoints.store import Store


class Following:
    """`start` once; `stop` at the end."""

    def __init__(self, kube: Kube, store: Store, objects: Objects, clock: Clock) -> None:
        self._store, self._objects = store, objects
        self._withdrawing: Outbox[Checkpoint] = Outbox("withdrawn", clock, self._withdraw)
        self._watch = Reflector(
            kube, GPUCHECKPOINTS, project=read_checkpoint, on_change=self._changed
        )

    def start(self) -> None:
        """Begin; returns at once."""
        self._watch.start()

    def stop(self) -> None:
        """End."""
        self._watch.stop()
        self._withdrawing.stop()

    def _changed(self, change: Change[Checkpoint]) -> None:
        gone = change.old
        if change.kind != DELETED or gone is None or not gone.signature:
            return
        self._store.forget(gone.namespace, gone.name, gone.signature)
        self._objects.call_off(gone.namespace, gone.name)
        if gone.in_object_storage and self._objects.given:
            self._withdrawing.put(gone)
        try:
            here = self._store.peek(gone.namespace, gone.name)
        except Unusable:
            return
        if here.signature == gone.signature:
            self._store.delete(gone.namespace, gone.name)
            get_logger().info("checkpoint deleted", checkpoint=f"{gone.namespace}/{gone.name}")

    def _withdraw(self, gone: Checkpoint) -> None:
        """From the object store; whichever agent is the first."""
        asked = Wanted(namespace=gone.namespace, name=gone.name, signature=gone.signature)
        if self._objects.remove(asked) is not None:
            name = f"{gone.namespace}/{gone.name}"
            get_logger().info("checkpoint deleted from the object store", checkpoint=name)
