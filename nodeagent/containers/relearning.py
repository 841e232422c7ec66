"""
Learning of containers on seats from what their runtime left, where nobody told this agent of them.

Called by `process`. `kybernate-runc` marks each container on a seat with a file in runc's folder of
it: the very line it says at `start`. An agent that lost its own folder, or its record of one that
is held, has it said again by that mark.
Rule: a young mark is left alone: its container may not have come to `start` yet.
Rule: one that is frozen and has no record is thawed: nobody would ever do so.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from kybernate.api.errors import Malformed
from kybernate.clients import runtimecalls
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Retry
from kybernate.clients.runtimecalls import Call, Op
from kybernate.runtime.logs import get_logger
from nodeagent.linux import processes
from nodeagent.linux.freezer import Freezing
from nodeagent.looking import Looking

MARK = "kyb-seat.json"
# containerd goes from `create` to `start` in milliseconds; a node without any CPU takes longer.
SETTLED_S = 30.0
_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Marked:
    """A container's mark."""

    line: bytes
    call: Call
    age: float  # seconds

    @property
    def held(self) -> bool:
        """Whether its first process is still at the exec FIFO."""
        return self.call.fifo is not None and self.call.fifo.exists()

    @property
    def lives(self) -> bool:
        """Whether its first process does."""
        return processes.is_same(self.call.pid, self.call.started)


class Relearner:
    """`start` and `stop` once each."""

    def __init__(
        self, root: Path, say: Callable[[bytes], bytes], freezer: Freezing, clock: Clock
    ) -> None:
        """`root` is runc's folder of containers, `say` is what answers the runtime's lines, `clock`
        the wall's, as files have it."""
        self._root, self._say, self._freezer, self._clock = root, say, freezer, clock
        self._looking = Looking("relearning", self._again, clock, _EVERY_S)
        self.start, self.stop = self._looking.start, self._looking.stop

    def thaw_others(self, recorded: Collection[str]) -> None:
        """Those that no record is about. `recorded` are ids of containers, and uids of pods."""
        for one in self._marks():
            call = one.call
            if {call.container_id, call.uid} & set(recorded) or call.restored or not one.lives:
                continue
            if not one.held and self._freezer.frozen(call.pid, call.container_id):
                log = get_logger(workload=str(call.pod), container=call.container_id)
                log.warning("frozen, and no record says so: it is thawed")
                try:
                    self._freezer.thaw(call.pid, call.container_id)
                except Retry as error:
                    log.error("it was not thawed", why=str(error))

    def look(self) -> None:
        """Have every held container's line said again: who knows of it does not mind."""
        for one in self._marks():
            if one.held and one.lives and one.age >= SETTLED_S and not one.call.restored:
                self._say(one.line)

    def _again(self) -> float:
        self.look()
        return _EVERY_S

    def _marks(self) -> Iterator[Marked]:
        """Those that can be read. Containers come and go meanwhile."""
        for file in sorted(self._root.glob(f"*/{MARK}")):
            try:
                line = file.read_bytes()[: runtimecalls.LONGEST]
                age = self._clock.now() - file.stat().st_mtime
                call = runtimecalls.decode(line)
            except FileNotFoundError:
                continue
            except (OSError, Malformed) as error:
                get_logger(path=str(file)).warning("a mark cannot be read", why=str(error))
                continue
            if call.op is Op.HELD:
                yield Marked(line, call, age)
