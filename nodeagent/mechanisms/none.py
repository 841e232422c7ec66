"""No mechanism: where there is nothing to park with, workloads take turns only by ending."""

# ruff: noqa: ARG002 - the port's arguments, none of which matters here
from kybernate.model.ids import GpuUuid
from nodeagent.disk.pool import Kept, Slot
from nodeagent.mechanisms import Body, Moved, NotPossible, Part, Stands

_WHY = "this node has no mechanism to park with"


class NoMechanism:
    """A `Mechanism` that refuses."""

    name = "none"

    def stands(self, body: Body) -> Stands:
        """Nothing ever is."""
        return Stands.PROCESS

    def lock(self, body: Body, limit: float) -> None:
        """Never."""
        raise NotPossible(_WHY)

    def unlock(self, body: Body, limit: float) -> None:
        """Nothing is ever locked."""

    def parts(self, body: Body) -> tuple[Part, ...]:
        """None that could be moved."""
        return ()

    def copy_out(self, body: Body, part: Part, slot: Slot, moved: Moved) -> Kept:
        """Never."""
        raise NotPossible(_WHY)

    def release(self, body: Body, part: Part, limit: float) -> None:
        """Never."""
        raise NotPossible(_WHY)

    def copy_in(self, body: Body, kept: Kept, slot: Slot, moved: Moved) -> str:
        """Never."""
        raise NotPossible(_WHY)

    def let_go(self, body: Body, limit: float) -> str:
        """Never."""
        raise NotPossible(_WHY)

    def adopt(self, body: Body, known: str) -> None:
        """Never."""
        raise NotPossible(_WHY)

    def forget(self, body: Body) -> None:
        """Nothing is ever kept."""

    def probe(self, uuid: GpuUuid) -> tuple[int, float] | None:
        """Unknown."""
        return None
