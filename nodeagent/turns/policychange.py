"""Whether policy has changed: a waiter that was refused under the old one is decided about anew.

Called by `process`. Policy may say that nothing changes for an hour; then nothing else would make
the coordinator ask before that hour is over.
"""

from collections.abc import Callable

from kybernate.clients.clock import Clock
from kybernate.model.ids import NO_REVISION, Revision
from nodeagent.looking import Looking

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
        self._revision, self._told = revision, told
        self._known: Revision = NO_REVISION
        self._looking = Looking("policy", self.look, clock, LOOK_S)
        self.start, self.stop = self._looking.start, self._looking.stop

    def look(self) -> float:
        """One look; seconds until the next."""
        revision = self._revision()
        if revision is not None and revision != self._known:
            self._known = revision
            self._told(revision)
        return LOOK_S
