"""
The GPUs as they are now: asked for again and again, told to everybody who waits for a change.

Called by: `process` to run it, `server` to read and to wait.
Rule: health goes both ways. A source that does not answer for some looks makes every GPU unknown,
and unknown is unhealthy; one missed answer is not yet news.
"""

import threading
from collections.abc import Callable, Mapping

from deviceplugin import offer
from deviceplugin.offer import Offer
from kybernate.clients.clock import Clock
from kybernate.clients.gpus import Inventory, InventoryAway
from kybernate.model.gpu import Gpu, Group
from kybernate.model.ids import ResourceName
from kybernate.runtime.logs import get_logger

_MISSES = 3  # looks in a row without an answer: a driver under load may skip one


class Seats:
    """All offers of the node. Thread safe."""

    def __init__(self, groups: tuple[Group, ...], gpus: tuple[Gpu, ...]) -> None:
        self._groups = groups
        self._gpus = gpus
        self._changed = threading.Condition()
        self._version = 0
        self._ended = False
        self._offers = offer.offers(groups, gpus)

    def resources(self) -> tuple[ResourceName, ...]:
        """Every resource that has a seat here."""
        return tuple(self._offers)

    def offer(self, resource: ResourceName) -> Offer:
        """The offer as of the last look."""
        with self._changed:
            return self._offers[resource]

    def see(self, gpus: tuple[Gpu, ...]) -> None:
        """Take in a look at the GPUs."""
        with self._changed:
            if gpus == self._gpus:
                return
            self._gpus = gpus
            self._offers = offer.offers(self._groups, gpus)
            self._version += 1
            self._changed.notify_all()

    def doubt(self) -> None:
        """Nobody can say how the GPUs are."""
        with self._changed:
            known = self._gpus
        self.see(offer.unknown(known))

    def next(self, seen: int | None, alive: Callable[[], bool]) -> int | None:
        """Wait for a version other than `seen`; None when it is over for this caller."""
        with self._changed:
            while self._version == seen and not self._ended and alive():
                self._changed.wait()
            return None if self._ended or not alive() else self._version

    def nudge(self) -> None:
        """Have everybody who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def end(self) -> None:
        """It is over for everybody who waits."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def healthy(self) -> Mapping[ResourceName, int]:
        """How many seats of each resource can be had."""
        with self._changed:
            found = dict(self._offers)
        return {name: sum(d.healthy for d in one.devices()) for name, one in found.items()}


class Watch:
    """Looks at the inventory every so often and tells `Seats`."""

    def __init__(self, inventory: Inventory, seats: Seats, clock: Clock, every: float) -> None:
        self._inventory = inventory
        self._seats = seats
        self._clock = clock
        self._every = every
        self._missed = 0

    def run(self, stop: threading.Event) -> None:
        """Until stopped."""
        while not self._clock.wait(stop, self._every):
            self.look()

    def look(self) -> None:
        """One look."""
        try:
            gpus = self._inventory.gpus()
        except InventoryAway as away:
            self._missed += 1
            if self._missed == _MISSES:
                get_logger().warning("GPUs do not answer, their seats are withdrawn", why=str(away))
                self._seats.doubt()
            return
        if self._missed >= _MISSES:
            get_logger().info("GPUs answer again")
        self._missed = 0
        self._seats.see(gpus)

    def fault(self) -> str | None:
        """For readiness: what is wrong with the source."""
        return "the GPUs do not answer" if self._missed >= _MISSES else None
