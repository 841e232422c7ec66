"""
Signals that take time to read: a thread of their own asks, the demand watch reads what it knows.

Made by `wiring`. Rules: only who runs is asked, for who is parked cannot answer; what is older than
`_STALE_S`, or was never heard of somebody who should tell, is doubt, and doubt protects.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from kybernate.clients.clock import Clock
from kybernate.model.demand import DOUBT, SILENT, Demand
from kybernate.model.workload import State
from nodeagent.demand import Signal
from nodeagent.disk.records import STATES
from nodeagent.lives.life import Life, Lives
from nodeagent.looking import Looking

EVERY_S = 1.0
_STALE_S = 5.0


class Slow(Signal, Protocol):
    """A signal that may take a second or two."""

    def concerns(self, life: Life) -> bool:
        """Whether it should know something of this one. Quick."""

    def forget(self, life_ids: set[str]) -> None:
        """Keep only of these lives what is remembered."""


@dataclass(frozen=True, slots=True)
class _Word:
    at: float
    demand: Demand | None
    error: Exception | None = None


class Gathered:
    """A `Signal` of what a slow one said. `start` and `stop` once each."""

    def __init__(self, slow: Slow, lives: Lives, clock: Clock) -> None:
        self.name = slow.name
        self._slow, self._lives, self._clock = slow, lives, clock
        self._words: dict[str, _Word] = {}  # replaced whole: another thread reads it
        self._looking = Looking(f"signal {slow.name}", self.gather, clock, EVERY_S)

    def start(self) -> None:
        """Begin; returns at once."""
        self._looking.start()

    def stop(self) -> None:
        """End, after an answer that is under way."""
        self._looking.stop()

    def read(self, life: Life) -> Demand:
        """As the port says. Raises what the slow one raised."""
        if not _runs(life) or not self._slow.concerns(life):
            return SILENT
        word, now = self._words.get(life.id), self._clock.monotonic()
        if word is None or now - word.at > _STALE_S:
            return DOUBT
        if word.error is not None:
            raise word.error
        assert word.demand is not None
        if word.demand.idle_for is None or word.demand.busy:
            return word.demand
        return replace(word.demand, idle_for=word.demand.idle_for + now - word.at)

    def gather(self) -> float:
        """Ask about all that run, one after the other; the seconds until the next time."""
        lives = [one for one in self._lives.all() if _runs(one) and self._slow.concerns(one)]
        self._words = {one.id: word for one in lives if (word := self._words.get(one.id))}
        for life in lives:
            word = self._ask(life)
            if _runs(life):  # else it was parked meanwhile, and what it said is of before
                self._words = {**self._words, life.id: word}
        self._slow.forget({one.id for one in self._lives.all()})
        return EVERY_S

    def _ask(self, life: Life) -> _Word:
        try:
            return _Word(self._clock.monotonic(), self._slow.read(life))
        except Exception as error:  # told by whoever reads it, once
            return _Word(self._clock.monotonic(), None, error)


def _runs(life: Life) -> bool:
    return STATES[life.record.mark] is State.ACTIVE and not life.gone
