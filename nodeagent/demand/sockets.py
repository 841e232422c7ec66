"""
The signal of a workload's own sockets: who connected, what is not read, who has no answer yet.

Read by `watch`, from its thread only. Rule: only of inference; what trains goes on by itself, and
its connections are between its own parts. Rule: a socket is the workload's if one of its processes
has it open; in one namespace there may be others too (a sidecar's; on a light node the host's).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kybernate.clients.clock import Clock
from kybernate.decisions.tenancy import RETURNING
from kybernate.model.callers import Callers
from kybernate.model.demand import SILENT, Demand
from kybernate.model.workload import State
from nodeagent.demand import conversations
from nodeagent.demand.conversations import Ask, Own, Patience
from nodeagent.demand.sockdiag import Socket
from nodeagent.disk.records import STATES
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups, NoCgroup
from nodeagent.lives.life import Life

_MARK = "socket:["
_SHOWN = 3  # asking sockets told in words


@dataclass
class _Memory:
    """Of one life."""

    ports: frozenset[int] = frozenset()  # where it ever listened
    patience: Patience = field(default_factory=Patience)
    inodes: frozenset[int] | None = None  # while it is frozen they stay
    active_at: float = 0.0
    looked_at: float | None = None  # while it ran


class Sockets:
    """A `Signal`."""

    name = "sockets"

    def __init__(
        self,
        look: Callable[[Life], tuple[Socket, ...]],
        ignored: Callable[[], Callers],
        works: Callable[[Life], bool | None],
        cgroups: Cgroups,
        clock: Clock,
        asked_to_park: Callable[[Life], bool] = lambda _: False,
    ) -> None:
        """`look` shows the sockets of its network namespace, raising OSError; `works` tells
        whether it was seen working on its card just now, None where nobody can tell."""
        self._look, self._ignored, self._works = look, ignored, works
        self._cgroups, self._clock = cgroups, clock
        self._asked_to_park = asked_to_park
        self._memories: dict[str, _Memory] = {}

    def read(self, life: Life) -> Demand:
        """As the port says. Raises OSError where its namespace is gone."""
        if life.record.terms.workload_class in RETURNING or life.record.pid <= 0:
            return SILENT
        memory = self._memories.setdefault(life.id, _Memory(active_at=self._clock.monotonic()))
        runs = STATES[life.record.mark] is State.ACTIVE
        if runs or memory.inodes is None:
            memory.inodes = self._inodes(life)
        own = conversations.own(self._look(life), memory.inodes, memory.ports)
        memory.ports |= {one.port for one in own.listeners}
        asking = [
            one for one in conversations.asks(own, self._ignored()) if self._counts(one, life)
        ]
        if runs:
            return self._running(life, memory, own, asking)
        memory.looked_at = None
        asking = [one for one in asking if not memory.patience.over(one)]
        return Demand(wanted=bool(asking), why=_words([one.why for one in asking]))

    def forget(self, life_ids: set[str]) -> None:
        """Keep only of these lives what is remembered."""
        self._memories = {one: kept for one, kept in self._memories.items() if one in life_ids}

    def _counts(self, ask: Ask, life: Life) -> bool:
        """Where its card shows whether it works, nobody need guess whether it owes an answer; and
        who was parked by somebody's wish waits for something new."""
        if ask.doubt and self._works(life) is not None:
            return False
        return not (ask.owed and self._asked_to_park(life))

    def _running(self, life: Life, memory: _Memory, own: Own, asking: list[Ask]) -> Demand:
        now = self._clock.monotonic()
        could = 0.0 if memory.looked_at is None or self._works(life) else now - memory.looked_at
        memory.looked_at, memory.inodes = now, None
        memory.patience = memory.patience.after(asking, could)
        busy = [one for one in asking if not memory.patience.over(one)]
        quiet = conversations.quiet_for(own, self._ignored())
        if busy or quiet is not None:
            memory.active_at = max(memory.active_at, now if busy else now - (quiet or 0.0))
        if not memory.ports:
            return SILENT  # it serves nobody: its sockets say nothing
        return Demand(
            busy=bool(busy),
            in_flight=len(busy),
            idle_for=max(0.0, now - memory.active_at),
            why=_words([one.why for one in busy]),
        )

    def _inodes(self, life: Life) -> frozenset[int]:
        try:
            pids = self._cgroups.of(life.record.pid, life.id).processes()
        except NoCgroup:
            pids = processes.tree(life.record.pid)
        return frozenset(inode for pid in pids for inode in _sockets_of(pid))


def _sockets_of(pid: int) -> set[int]:
    """Inodes of the sockets a process has open; none of one that ends meanwhile."""
    found = set()
    try:
        for entry in (processes.PROC / str(pid) / "fd").iterdir():
            target = _target(entry)
            if target.startswith(_MARK):
                found.add(int(target[len(_MARK) : -1]))
    except OSError:
        return found
    return found


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:
        return ""


def _words(whys: list[str]) -> str:
    more = f" and {len(whys) - _SHOWN} more" if len(whys) > _SHOWN else ""
    return ", ".join(whys[:_SHOWN]) + more
