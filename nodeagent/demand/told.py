"""
What activators have in flight, as they tell it over the agent's API.

Written by the agent's service, read as a `Signal`. Rule: a report holds for as long as it says;
whoever dies with requests in hand keeps nobody busy after that.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kybernate.clients.clock import Clock
from kybernate.model.demand import SILENT, Demand
from kybernate.model.ids import PodUid, WorkloadKey
from nodeagent.lives.life import Life

USUAL_S, LONGEST_S = 10.0, 60.0
MOST_REPORTERS = 64  # names are the callers' own; more than that are not activators

Counted = Mapping[WorkloadKey, tuple[PodUid | None, int]]


class TooManyReporters(Exception):
    """Nobody reads so many."""


@dataclass(frozen=True, slots=True)
class _Report:
    until: float
    counts: Counted


class Told:
    """A `Signal`. Thread safe."""

    name = "activator"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.on_report: Callable[[Iterable[WorkloadKey]], None] = lambda _: None
        self._reports: dict[str, _Report] = {}
        self._lock = threading.Lock()

    def report(self, reporter: str, counts: Counted, valid_for: float) -> None:
        """Instead of that reporter's last one. Raises TooManyReporters."""
        now = self._clock.monotonic()
        span = min(valid_for, LONGEST_S) if valid_for > 0 else USUAL_S
        with self._lock:
            self._reports = {name: one for name, one in self._reports.items() if one.until > now}
            if reporter not in self._reports and len(self._reports) >= MOST_REPORTERS:
                raise TooManyReporters(f"{MOST_REPORTERS} others report already")
            self._reports[reporter] = _Report(now + span, dict(counts))
        self.on_report(counts)

    def read(self, life: Life) -> Demand:
        """As the port says: silent where nobody counts this workload."""
        now, uid = self._clock.monotonic(), life.record.uid
        with self._lock:
            told = [one.counts.get(life.key) for one in self._reports.values() if one.until > now]
        counts = [count for found in told if found for of, count in [found] if of in (None, uid)]
        if not counts:
            return SILENT
        total = sum(counts)
        if not total:
            return Demand(in_flight=0)
        plural = "" if total == 1 else "s"
        why = f"{total} request{plural} came through an activator"
        return Demand(wanted=True, busy=True, in_flight=total, idle_for=0.0, why=why)
