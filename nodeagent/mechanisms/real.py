"""
Parking on real GPUs: with the guest library where it is in a workload's processes, else by the
driver.

Made by `sources`; a `Mechanism`. Chosen anew at each lock: a process may load the driver late, and
what is parked has its processes as they were, so another agent chooses the same.
Some processes with the library and some without is refused by name.
"""

from kybernate.model.ids import GpuUuid
from nodeagent.disk.pool import Kept, Slot
from nodeagent.eligibility import facts
from nodeagent.eligibility.judging import Facts, obstacles
from nodeagent.linux import processes
from nodeagent.mechanisms import Body, Mechanism, Moved, NotPossible, Part, Stands
from nodeagent.mechanisms.deep import Deep
from nodeagent.mechanisms.driver import DriverMechanism, has_the_library, uses_the_driver


class Real:
    """Delegates, method by method, as the port says."""

    name = "guest"

    def __init__(self, guest: Deep, driver: DriverMechanism) -> None:
        self.guest, self.driver = guest, driver
        self._chosen: dict[int, Mechanism] = {}  # by workload's pid, from lock to unlock

    def of(self, body: Body) -> Mechanism:
        """Which one. Raises NotPossible where it would need both."""
        return self._chosen.get(body.pid) or self._choice(body)

    def _choice(self, body: Body) -> Mechanism:
        users = [pid for pid in processes.tree(body.pid) if uses_the_driver(pid)]
        without = [pid for pid in users if not has_the_library(pid)]
        if without and len(without) < len(users):
            raise NotPossible(
                f"process {without[0]} uses the driver without the guest library, others have it"
            )
        return self.driver if without else self.guest

    def stands(self, body: Body) -> Stands:
        """Of the chosen one."""
        return self.of(body).stands(body)

    def lock(self, body: Body, limit: float) -> None:
        """Of the chosen one. NotPossible, in words, where something must not be parked."""
        chosen = self._choice(body)
        seen = Facts(
            processes=facts.of(processes.tree(body.pid)),
            left=self.guest.left(body) if chosen is self.guest else (),
            cards=len(body.gpus),
        )
        if against := [one.words for one in obstacles(seen) if one.forbids]:
            raise NotPossible("; ".join(against))
        chosen.lock(body, limit)
        self._chosen[body.pid] = chosen

    def unlock(self, body: Body, limit: float) -> None:
        """Of the chosen one."""
        self.of(body).unlock(body, limit)
        self._chosen.pop(body.pid, None)

    def parts(self, body: Body) -> tuple[Part, ...]:
        """Of the chosen one."""
        return self.of(body).parts(body)

    def copy_out(self, body: Body, part: Part, slot: Slot, moved: Moved) -> Kept:
        """Of the chosen one."""
        return self.of(body).copy_out(body, part, slot, moved)

    def release(self, body: Body, part: Part, limit: float) -> None:
        """Of the chosen one."""
        self.of(body).release(body, part, limit)

    def copy_in(self, body: Body, kept: Kept, slot: Slot, moved: Moved) -> str:
        """Of the chosen one."""
        return self.of(body).copy_in(body, kept, slot, moved)

    def let_go(self, body: Body, limit: float) -> str:
        """Of the chosen one."""
        return self.of(body).let_go(body, limit)

    def adopt(self, body: Body, known: str) -> None:
        """Of the chosen one."""
        self.of(body).adopt(body, known)

    def forget(self, body: Body) -> None:
        """By both: its processes are gone."""
        self._chosen.pop(body.pid, None)
        self.guest.forget(body)
        self.driver.forget(body)

    def left(self, body: Body) -> tuple[str, ...]:
        """What stays on the card while it is parked, as its guests say; none without guests."""
        return self.guest.left(body) if self.of(body) is self.guest else ()

    def probe(self, uuid: GpuUuid) -> tuple[int, float] | None:
        """The guest's: the driver's own is never the first choice."""
        return self.guest.probe(uuid)
