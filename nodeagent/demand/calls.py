"""
The signal of calls into the driver, as the guest library counts them in every process it is in.

Read through `gathering`. A call that is under way is work; so are calls since the last look. A
workload without the library is not concerned, and one of whose processes an older library is says
nothing of this kind.
"""

from collections.abc import Callable, Iterable

from kybernate.clients.clock import Clock
from kybernate.model.demand import SILENT, Demand
from nodeagent.demand.lately import Counts
from nodeagent.lives.life import Life
from nodeagent.mechanisms.guestwire import Calls

_JUST_NOW_S = 1.5  # guests are asked every second


class Submitted:
    """A slow signal. `calls` are those of a workload's guests, raising GuestAway; None where one of
    them cannot tell."""

    name = "guest"

    def __init__(
        self,
        concerns: Callable[[Life], bool],
        calls: Callable[[Life], Iterable[Calls] | None],
        clock: Clock,
    ) -> None:
        self._concerns, self._calls, self._clock = concerns, calls, clock
        self._counts = Counts()

    def concerns(self, life: Life) -> bool:
        """As the port says."""
        return self._concerns(life)

    def read(self, life: Life) -> Demand:
        """As the port says."""
        told = self._calls(life)
        if told is None:
            return SILENT
        calls, now = tuple(told), self._clock.monotonic()
        if not calls:
            return SILENT
        ever, inside = sum(one.ever for one in calls), sum(one.inside for one in calls)
        still = self._counts.seen(life.id, ever, now).still_for(now)
        if inside or still < _JUST_NOW_S:
            return Demand(busy=True, idle_for=0.0, why="its programs call the driver")
        return Demand(idle_for=still)

    def forget(self, life_ids: set[str]) -> None:
        """As the port says."""
        self._counts.forget(life_ids)
