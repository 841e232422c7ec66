"""
The signal of work on the cards: how long ago a workload's processes last had some there.

Read from the coordinator's picture of the cards. Rule: who did not work then is taken for idle
since, so that how long that was neither stands still nor goes back while a picture is kept. On real
cards it is what the driver's library tells of processes; where that tells nothing, so does this.
"""

from collections.abc import Callable

from kybernate.clients.clock import Clock
from kybernate.model.demand import SILENT, Demand
from nodeagent.gpus.cards import Picture
from nodeagent.lives.life import Life

# The picture is a second old, and work comes in pieces.
_JUST_NOW_S = 1.0


class Work:
    """A `Signal`."""

    name = "work"

    def __init__(self, picture: Callable[[], Picture | None], clock: Clock) -> None:
        self._picture, self._clock = picture, clock

    def read(self, life: Life) -> Demand:
        """As the port says."""
        seen = self._seen(life)
        if seen is None:
            return SILENT
        idle, at = seen
        if idle <= 0.0:
            return Demand(busy=True, idle_for=0.0, why="its card works")
        return Demand(idle_for=idle + self._clock.monotonic() - at)

    def works(self, life: Life) -> bool | None:
        """Whether the picture shows it at work; None where nobody can tell."""
        seen = self._seen(life)
        return None if seen is None else seen[0] < _JUST_NOW_S

    def _seen(self, life: Life) -> tuple[float, float] | None:
        """Seconds without work, and when that was."""
        picture = self._picture()
        idle = picture.idle.get(life.key) if picture else None
        return None if picture is None or idle is None else (idle, picture.at)
