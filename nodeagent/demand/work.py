"""
The signal of work on the cards: how long ago a workload's processes last had some there.

Read from the coordinator's picture of the cards, so it is as old as that (a second at most). On
real cards it is what the driver's library tells of processes; where that tells nothing, so does
this.
"""

from collections.abc import Callable

from kybernate.model.demand import SILENT, Demand
from nodeagent.gpus.cards import Picture
from nodeagent.lives.life import Life

# The picture is a second old, and work comes in pieces.
_JUST_NOW_S = 1.0


class Work:
    """A `Signal`."""

    name = "work"

    def __init__(self, picture: Callable[[], Picture | None]) -> None:
        self._picture = picture

    def read(self, life: Life) -> Demand:
        """As the port says."""
        picture = self._picture()
        idle = picture.idle.get(life.key) if picture else None
        if idle is None:
            return SILENT
        busy = idle <= 0.0
        return Demand(busy=busy, idle_for=idle, why="its card works" if busy else "")

    def works(self, life: Life) -> bool | None:
        """Whether it was seen at work just now; None where nobody can tell."""
        idle = self.read(life).idle_for
        return None if idle is None else idle < _JUST_NOW_S
