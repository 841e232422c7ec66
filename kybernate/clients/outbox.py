"""
A bounded queue with one thread that delivers, and keeps trying while the API server is away.

Called by: `events.py`, `decisions.py`.
Rule: putting never blocks; what does not fit is dropped and counted.
Rule: a Retry holds the whole queue up (the server is away), `NotYet` only its own item; both end
when the item has grown too old.
Rule: an API server that has just started forbids everybody everything until it has read its roles,
so a Forbidden item is tried again for some seconds.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from kybernate.clients.backoff import Backoff, Pace
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Forbidden, Refused, Retry

T = TypeVar("T")

_JOIN_S = 5.0
_IDLE_S = 60.0  # how often `idle` is called when nothing comes


class NotYet(Retry):
    """This item cannot be delivered now; others can."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How much is kept, and for how long (seconds) an item is tried."""

    size: int = 1000  # client-go's event queue
    seconds: float = 600.0  # an outage of ten minutes
    again: float = 1.0  # pause of an item that is not yet deliverable
    forbidden: float = 10.0  # seconds after the first Forbidden; roles are read within one or two
    pace: Pace = field(default_factory=lambda: Pace(first=0.5, longest=10.0))


@dataclass(slots=True)
class _Waiting(Generic[T]):
    item: T
    since: float
    not_before: float
    forbidden_since: float | None = None


class Outbox(Generic[T]):
    """`deliver(item)` runs in the outbox's thread; Retry and Refused are its ways to fail.

    `idle` runs there when nothing waits, at least once a minute; `lost` gets what is dropped.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        deliver: Callable[[T], None],
        *,
        idle: Callable[[], None] | None = None,
        lost: Callable[[T], None] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._clock = clock
        self._deliver, self._idle, self._lost = deliver, idle, lost
        self._patience = patience or Patience()
        self._waiting: list[_Waiting[T]] = []
        self._busy = False
        self._changed = threading.Condition()
        self._wake = threading.Event()  # something arrived, or stopping
        self._stopping = threading.Event()
        self._backoff = Backoff(self._patience.pace)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._log = structlog.get_logger(outbox=name)
        self.dropped = 0  # did not fit, was refused, or grew too old
        self.delivered = 0

    def put(self, item: T) -> None:
        """Take it, or count it as dropped. The thread starts at the first item."""
        if self._fits(item):
            self._wake.set()
        else:
            self._drop(item)

    def _fits(self, item: T) -> bool:
        with self._changed:
            if len(self._waiting) >= self._patience.size or self._stopping.is_set():
                return False
            now = self._clock.monotonic()
            self._waiting.append(_Waiting(item, now, now))
            if self._thread.ident is None:
                self._thread.start()
            return True

    def flush(self, timeout: float) -> bool:
        """Wait until everything taken so far is delivered or dropped. Real seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def stop(self, drain: float = 2.0) -> None:
        """Deliver what is there for at most `drain` seconds, then end."""
        started = self._thread.ident is not None
        if started:
            self.flush(drain)
        self._stopping.set()
        self._wake.set()
        if started:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            taken = self._take()
            if taken is not None:
                self._attempt(taken)
                continue
            self._idle_once()
            if not self._stopping.is_set():
                self._clock.wait(self._wake, self._pause())

    def _take(self) -> _Waiting[T] | None:
        with self._changed:
            now = self._clock.monotonic()
            for index, waiting in enumerate(self._waiting):
                if waiting.not_before <= now:
                    self._busy = True
                    return self._waiting.pop(index)
        return None

    def _pause(self) -> float:
        with self._changed:
            if not self._waiting:
                return _IDLE_S
            soonest = min(waiting.not_before for waiting in self._waiting)
            return max(0.0, soonest - self._clock.monotonic())

    def _attempt(self, taken: _Waiting[T]) -> None:
        pause = 0.0
        try:
            self._deliver(taken.item)
            self.delivered += 1
            self._backoff.reset()
            again = False
        except Forbidden as problem:
            again = self._may_be_allowed(taken)
            if not again:
                self._drop(taken.item, problem)
        except Retry as problem:
            again = self._clock.monotonic() - taken.since <= self._patience.seconds
            if not again:
                self._drop(taken.item, problem)
            elif isinstance(problem, NotYet):
                taken.not_before = self._clock.monotonic() + self._patience.again
            else:
                pause = self._backoff.next(problem.after)
        except Exception as problem:
            again = False
            self._drop(taken.item, problem)
        with self._changed:
            if again:
                self._waiting.insert(0, taken)
            self._busy = False
            self._changed.notify_all()
        if pause:
            self._clock.wait(self._stopping, pause)

    def _may_be_allowed(self, taken: _Waiting[T]) -> bool:
        """Whether to try a forbidden item again, after a pause of its own."""
        now = self._clock.monotonic()
        taken.forbidden_since = now if taken.forbidden_since is None else taken.forbidden_since
        taken.not_before = now + self._patience.again
        return now - taken.forbidden_since <= self._patience.forbidden

    def _drop(self, item: T, problem: Exception | None = None) -> None:
        self.dropped += 1
        if problem is not None:  # else the queue is full: one line per item would be a flood
            self._say(problem)
        if self._lost is not None:
            self._lost(item)

    def _say(self, problem: Exception) -> None:
        expected = isinstance(problem, Refused | Retry)
        self._log.warning("not delivered", detail=str(problem), exc_info=not expected)

    def _idle_once(self) -> None:
        if self._idle is None:
            return
        try:
            self._idle()
        except Retry:
            self._log.debug("put off to the next idle moment")
        except Exception as problem:
            self._say(problem)
