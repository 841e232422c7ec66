"""
The demand watch: it looks at workloads when there is a reason to, and tells the coordinator.

Told by the coordinator of every change; one thread does the rest. A parked workload is looked at
when a packet came into its network namespace, when an activator reported, and now and then for the
sake of hints that were lost; an active one every second, and sooner while somebody waits for its
cards. Rule: a look that fails is said once and
tried again; it wakes nobody and parks nobody: what should tell and cannot is doubt, and who is in
doubt is not idle.
"""

import os
import select
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from kybernate.clients.clock import Clock
from kybernate.decisions.asking import joined
from kybernate.decisions.books import Books
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.demand import DOUBT, Demand
from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import Desired, State
from kybernate.runtime.logs import get_logger
from nodeagent.demand import Signal, taps
from nodeagent.demand.lines import Lines
from nodeagent.lives.life import Life, Lives

ACTIVE_S = 1.0
AWAITED_S = 0.1  # while somebody waits for its cards, who is there is seen to have ended soon
# A hint comes before the kernel has queued what came: looked at now, and a few times soon after.
AFTER_HINT_S = (0.0, 0.002, 0.01, 0.05, 0.3)
# Parked ones without a hint: one look takes at most this part of the time, all together.
_SHARE = 0.01
_SELDOM_S, _AT_LEAST_S = 0.5, 2.0  # between two of them: a busy machine makes each look long
SHARED_S = 0.05  # on the host's namespace there are no hints: one look for all parked there
_SHARE_OF_LOOKS = 0.2  # of the time at most for each of: those on the host, one that is awaited
_IDLE_S = 60.0


class Listens(Protocol):
    """Whom it is told to: the coordinator."""

    @property
    def books(self) -> Books:
        """As of now."""

    def heard(self, key: WorkloadKey, life: str, demand: Demand) -> None:
        """What all signals say of a workload now."""


@dataclass
class _Watched:
    """A workload that is looked at."""

    life: Life
    parked: bool
    due: list[float] = field(default_factory=list)
    namespace: int = 0
    shared: bool = False


class DemandWatch:
    """`start` and `stop` once; `changed` listens to the coordinator."""

    def __init__(
        self, lives: Lives, listens: Listens, signals: Iterable[Signal], lines: Lines, clock: Clock
    ) -> None:
        self._lives, self._listens, self._lines, self._clock = lives, listens, lines, clock
        self._signals = tuple(signals)
        self._nudged = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self._watched: dict[WorkloadKey, _Watched] = {}
        self._taps: dict[int, int] = {}  # descriptor to namespace
        self._poll = select.epoll()
        self._poll.register(self._nudged, select.EPOLLIN)
        self._sweep: list[WorkloadKey] = []
        self._sweep_at = self._shared_at = 0.0
        self._stale = True
        self._asked_for: set[WorkloadKey] = set()
        self._lock = threading.Lock()
        self._failing: set[tuple[str, str]] = set()
        self.on_forget: Callable[[set[str]], None] = lambda _: None
        self._thread = threading.Thread(target=self._run, name="demand", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End. What is queued at parked workloads stays queued in the kernel."""
        self._stopping = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        self._lines.close()
        os.close(self._nudged)

    def look_at(self, keys: Iterable[WorkloadKey]) -> None:
        """Soon: somebody reported something of them."""
        with self._lock:
            self._asked_for.update(keys)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):
            os.eventfd_write(self._nudged, 1)

    def changed(self, before: Books, after: Books) -> None:
        """From the coordinator, in whichever thread: be quick."""
        if any(
            _kind(one) != _kind(before.tenancies.get(key)) for key, one in after.tenancies.items()
        ) or len(before.tenancies) != len(after.tenancies):
            self._stale = True
            self._wake()

    # the loop

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._step()
            except Exception:  # a fault over one must not leave all others asleep
                get_logger().exception("demand was not looked at")
                self._clock.wait(threading.Event(), ACTIVE_S)

    def _step(self) -> None:
        events = self._poll.poll(max(0.0, self._next() - self._clock.monotonic()))
        now = self._clock.monotonic()
        for descriptor, _ in events:
            if descriptor == self._nudged:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._nudged)
            else:
                self._hinted(descriptor, now)
        if self._stale:
            self._stale = False
            self._follow_the_books(now)
        self._take_asked_for(now)
        self._look_at_due(now)
        self._sweep_one(now)

    def _take_asked_for(self, now: float) -> None:
        with self._lock:
            keys, self._asked_for = self._asked_for, set()
        for one in (self._watched[key] for key in keys & self._watched.keys()):
            one.due = sorted({now, *one.due})

    def _next(self) -> float:
        now = self._clock.monotonic()
        if self._stale:
            return now
        dues = [one.due[0] for one in self._watched.values() if one.due]
        if self._on_the_host():
            dues.append(self._shared_at)
        if any(one.parked for one in self._watched.values()):
            dues.append(self._sweep_at)
        return min(dues, default=now + _IDLE_S)

    def _hinted(self, descriptor: int, now: float) -> None:
        namespace = self._taps.get(descriptor)
        for one in self._watched.values():
            if one.parked and one.namespace == namespace:
                tap = self._lines.line(one.life).tap
                if tap is not None:
                    taps.drained(tap)
                one.due = sorted({*one.due, *(now + after for after in AFTER_HINT_S)})[:16]

    # who is looked at

    def _follow_the_books(self, now: float) -> None:
        books = self._listens.books
        wished = {key: _kind(one) for key, one in books.tenancies.items()}
        lives = {life.key: life for life in self._lives.all() if wished.get(life.key) is not None}
        for key in [k for k, one in self._watched.items() if lives.get(k) is not one.life]:
            del self._watched[key]
        for key, life in lives.items():
            parked = wished[key] == "parked"
            there = self._watched.get(key)
            if there is None or there.parked != parked:
                self._watched[key] = self._begin(life, parked)
                self._watched[key].due = [now]
            elif not parked and self._awaited(key):
                there.due = [now]
        self.on_forget({life.id for life in self._lives.all()})
        self._keep_lines()

    def _begin(self, life: Life, parked: bool) -> _Watched:
        one = _Watched(life=life, parked=parked)
        try:
            one.namespace = self._lines.namespace_of(life)
            one.shared = self._lines.line(life).shared
            tap = self._lines.tap(life) if parked else None
        except OSError as error:
            self._failed("namespace", life, error)
            return one
        if tap is not None and tap.fileno() not in self._taps:
            self._taps[tap.fileno()] = one.namespace
            self._poll.register(tap, select.EPOLLIN)
        return one

    def _keep_lines(self) -> None:
        all_ = {one.namespace for one in self._watched.values()}
        tapped = {one.namespace for one in self._watched.values() if one.parked}
        for descriptor in [fd for fd, of in self._taps.items() if of not in tapped]:
            with suppress(OSError):
                self._poll.unregister(descriptor)
            del self._taps[descriptor]
        self._lines.keep(tapped, all_)

    # looking

    def _look_at_due(self, now: float) -> None:
        everybody = self._on_the_host() if self._shared_at <= now else []
        for one in everybody:
            one.due = [now]
        due = [one for one in self._watched.values() if one.due and one.due[0] <= now]
        self._lines.look_together(one.life.id for one in due if one.parked)
        for one in due:
            self._look(one, now)
        if everybody:
            took = self._clock.monotonic() - now
            self._shared_at = now + max(SHARED_S, took / _SHARE_OF_LOOKS)

    def _on_the_host(self) -> list[_Watched]:
        return [one for one in self._watched.values() if one.parked and one.shared]

    def _look(self, one: _Watched, now: float) -> None:
        one.due = [due for due in one.due if due > now]
        demand = joined(self._read(signal, one.life) for signal in self._signals)
        if not one.parked:
            took = self._clock.monotonic() - now
            soon = max(AWAITED_S, took / _SHARE_OF_LOOKS)
            one.due = [now + (soon if self._awaited(one.life.key) else ACTIVE_S)]
        self._listens.heard(one.life.key, one.life.id, demand)

    def _awaited(self, key: WorkloadKey) -> bool:
        """Whether somebody waits for cards that it is on."""
        tenancies = self._listens.books.tenancies
        there = tenancies.get(key)
        if there is None:
            return False
        cards = set(there.gpus)
        return any(one.waits and not cards.isdisjoint(one.gpus) for one in tenancies.values())

    def _sweep_one(self, now: float) -> None:
        if now < self._sweep_at:
            return
        if not self._sweep:
            self._sweep = [key for key, one in self._watched.items() if one.parked]
        took = 0.0
        if self._sweep:
            one = self._watched.get(self._sweep.pop())
            if one is not None and one.parked and not one.shared:
                self._look(one, now)
                took = self._clock.monotonic() - now
        self._sweep_at = now + min(_AT_LEAST_S, max(_SELDOM_S, took / _SHARE))

    def _read(self, signal: Signal, life: Life) -> Demand:
        said = (signal.name, life.id)
        try:
            demand = signal.read(life)
        except Exception as error:
            self._failed(signal.name, life, error)
            return DOUBT
        self._failing.discard(said)
        return demand

    def _failed(self, what: str, life: Life, error: Exception) -> None:
        if (what, life.id) not in self._failing and not life.gone:
            self._failing.add((what, life.id))
            log = get_logger(workload=str(life.key), signal=what)
            log.warning("a signal cannot be read", why=f"{type(error).__name__}: {error}")


def _kind(tenancy: Tenancy | None) -> str | None:
    """How it is to be looked at; None: not at all."""
    if tenancy is None:
        return None
    if tenancy.state is State.ACTIVE:
        return "active"
    asleep = tenancy.state is State.PARKED and not tenancy.waits
    return "parked" if asleep and tenancy.desired is not Desired.PARKED else None
