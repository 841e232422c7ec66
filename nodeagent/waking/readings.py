"""
Checkpoints whose files are being read for a pod: they are not deleted meanwhile.

Called by: the attempts (from when contents are taken out of one), the wakings (until the container
that was made from it stands, or never will).
Rule: a pod reads one at a time; beginning another ends the one before.
"""

import threading
from contextlib import ExitStack

from kybernate.model.ids import PodUid
from nodeagent.checkpoints.store import Store


class Readings:
    """Thread safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[PodUid, ExitStack] = {}
        self._lock = threading.Lock()

    def begin(self, uid: PodUid, namespace: str, name: str) -> None:
        """From now on a deletion of it waits."""
        reading = ExitStack()
        reading.enter_context(self._store.using(namespace, name))
        with self._lock:
            before = self._open.pop(uid, None)
            self._open[uid] = reading
        if before is not None:
            before.close()

    def end(self, uid: PodUid) -> None:
        """What was to be deleted goes now. Twice is fine. Raises OSError."""
        with self._lock:
            reading = self._open.pop(uid, None)
        if reading is not None:
            reading.close()
