"""
One mechanism for each workload: the one its pod asks for, else the node's usual one.

Made by `sources`; a `Mechanism` itself. A wish that is not in `by_wish` is the usual one's to meet.
"""

from collections.abc import Mapping

from kybernate.model.ids import GpuUuid
from kybernate.model.workload import ParkMechanism
from nodeagent.disk.pool import Kept, Slot
from nodeagent.mechanisms import Body, Mechanism, Moved, Part, Stands


class Chosen:
    """Delegates, method by method, as the port says."""

    def __init__(self, usual: Mechanism, by_wish: Mapping[ParkMechanism, Mechanism]) -> None:
        self.name = usual.name
        self._usual, self._by_wish = usual, by_wish

    def of(self, body: Body) -> Mechanism:
        """Which one."""
        return self._by_wish.get(body.park, self._usual)

    def stands(self, body: Body) -> Stands:
        """Of the chosen one."""
        return self.of(body).stands(body)

    def lock(self, body: Body, limit: float) -> None:
        """Of the chosen one."""
        self.of(body).lock(body, limit)

    def unlock(self, body: Body, limit: float) -> None:
        """Of the chosen one."""
        self.of(body).unlock(body, limit)

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
        """By all of them: a pod whose record was lost is nobody's by wish."""
        for one in (self._usual, *self._by_wish.values()):
            one.forget(body)

    def probe(self, uuid: GpuUuid) -> tuple[int, float] | None:
        """The usual one's."""
        return self._usual.probe(uuid)
