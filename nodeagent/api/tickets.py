"""
Requests that change something, by idempotency key: asked again, answered the same, done once.

A ticket is open until its workload gets where the request wants it, also when the client that asked
has gone away. Bounded: the oldest tickets are forgotten first.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from kybernate.clients.clock import Clock
from kybernate.clients.errors import Refused
from kybernate.model.ids import WorkloadKey
from kybernate.model.verdict import Reason
from kybernate.model.workload import State
from nodeagent.lives.feed import Ended, Update
from nodeagent.lives.phases import PhaseTime

# A client that retries does so within minutes; a node has tens of workloads.
KEPT = 1024
# What ends a request although nothing was done; any other failure is tried again by itself.
FINAL = frozenset({Reason.QUARANTINED, Reason.UNKNOWN_WORKLOAD, Reason.WANTED_PARKED})


class Verb(StrEnum):
    """What is asked, and the state in which it is done."""

    ACTIVATE = State.ACTIVE.value
    PARK = State.PARKED.value
    CHECKPOINT = "Checkpoint"  # no state: whoever makes it says when it is done


class KeyReused(Refused):
    """The idempotency key was used for another request."""


@dataclass(slots=True, kw_only=True)
class Ticket:
    """One request. `ended` is set once."""

    verb: Verb
    workload: WorkloadKey
    began: float  # monotonic
    begun: bool = False
    ended: Ended | None = None
    seconds: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)

    def phases(self) -> tuple[PhaseTime, ...]:
        """The switch's phases, and before them what the request waited for its turn."""
        ran = self.ended.phases if self.ended else ()
        waited = max(0.0, self.seconds - sum(phase.seconds for phase in ran))
        return (PhaseTime(name="wait", seconds=waited), *ran)


class Tickets:
    """Thread safe. Attached to the feed, it closes tickets as their workloads get there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_key: OrderedDict[str, Ticket] = OrderedDict()
        self._open: list[Ticket] = []
        self._lock = threading.Lock()

    def take(self, key: str, verb: Verb, workload: WorkloadKey) -> Ticket:
        """The ticket of this key, or a new one; an empty key is nobody's. Raises KeyReused."""
        with self._lock:
            known = self._by_key.get(key) if key else None
            if known is not None:
                if (known.verb, known.workload) != (verb, workload):
                    raise KeyReused(f"{key!r} was used to {known.verb.name} {known.workload}")
                return known
            ticket = Ticket(verb=verb, workload=workload, began=self._clock.monotonic())
            self._open.append(ticket)
            if key:
                self._by_key[key] = ticket
            while len(self._by_key) > KEPT:
                self._by_key.popitem(last=False)
            self._open = [one for one in self._open if one.ended is None][-KEPT:]
            return ticket

    def begin(self, ticket: Ticket) -> bool:
        """Whether it is ours to do: nobody began before."""
        with self._lock:
            begun, ticket.begun = ticket.begun, True
            return not begun

    def end(self, ticket: Ticket, ended: Ended) -> None:
        """The last word. The first one counts."""
        with self._lock:
            if ticket.ended is None:
                ticket.seconds = self._clock.monotonic() - ticket.began
                ticket.ended = ended
                self._open = [one for one in self._open if one is not ticket]
        ticket.done.set()

    def overtaken(self, workload: WorkloadKey) -> None:
        """Somebody asked for it before it began to be parked: who asked for that is told so."""
        with self._lock:
            there = [t for t in self._open if t.workload == workload and t.verb is Verb.PARK]
        for ticket in there:
            self.end(ticket, Ended(ok=False, message="somebody asked for it meanwhile"))

    def put(self, update: Update) -> None:
        """From the feed."""
        ended = update.ended
        if ended is None:
            return
        with self._lock:
            there = [t for t in self._open if t.workload == update.key]
            there = [t for t in there if t.verb is not Verb.CHECKPOINT]
        for ticket in there:
            if _settles(ticket, update.state, ended):
                self.end(ticket, ended)


def _settles(ticket: Ticket, state: State, ended: Ended) -> bool:
    if ended.ok:
        return state.value == ticket.verb.value
    if ticket.verb is Verb.PARK and ended.reason is Reason.WANTED_PARKED:
        return False  # that is its wish too
    return ended.reason in FINAL or ticket.verb is Verb.PARK
