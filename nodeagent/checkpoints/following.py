"""
Deleting a GpuCheckpoint deletes its copies: this node's part of that.

Called by `artifacts`. Rule: only a deletion that is seen counts. An object that is not there at the
start is written again, because a cluster that was restored from a backup must not cost contents.
"""

from kybernate.api.checkpoints import read_checkpoint
from kybernate.artifacts.faults import Unusable
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import DELETED, Change, Reflector
from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.model.checkpoint import Checkpoint
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints.store import Store


class Following:
    """`start` once; `stop` at the end."""

    def __init__(self, kube: Kube, store: Store) -> None:
        self._store = store
        self._watch = Reflector(
            kube, GPUCHECKPOINTS, project=read_checkpoint, on_change=self._changed
        )

    def start(self) -> None:
        """Begin; returns at once."""
        self._watch.start()

    def stop(self) -> None:
        """End."""
        self._watch.stop()

    def _changed(self, change: Change[Checkpoint]) -> None:
        gone = change.old
        if change.kind != DELETED or gone is None or not gone.signature:
            return
        try:
            here = self._store.peek(gone.namespace, gone.name)
        except Unusable:
            return
        if here.signature == gone.signature:
            self._store.delete(gone.namespace, gone.name)
            get_logger().info("checkpoint deleted", checkpoint=f"{gone.namespace}/{gone.name}")
