"""Whether policy has changed: a waiter that was refused under the old one is decided about anew.

Called by `process`. Policy may say that nothing changes for an hour; then nothing else would make
the coordinator ask before that hour is over.
"""

import threading
from collections.abc import Callable

from kybernate.clients.clock import Clock
from kybernate.model.ids import NO_REVISION, Revision

# OPA takes a new bundle over every 1 to 2 s; asking for its revision takes it a fraction of a ms.
LOOK_S = 1.0


class PolicyChange:
    """Looks from a thread of its own, and tells each new revision once. None is no news."""

    def __init__(
        self,
        revision: Callable[[], Revision | None],
        told: Callable[[Revision], None],
        clock: Clock,
    ) -> None:
        self._revision, self._told, self._clock = revision, told, clock
        self._known: Revision = NO_REVISION
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """One look."""
        revision = self._revision()
        if revision is not None and revision != self._known:
            self._known = revision
            self._told(revision)

    def _run(self) -> None:
        self.look()
        while not self._clock.wait(self._stop, LOOK_S):
            self.look()
