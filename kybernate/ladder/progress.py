"""How far something long is, and whether it should go on. Called by: the pipelines here."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from kybernate.clients.clock import Clock
from kybernate.clients.errors import Refused


class Ended(Refused):
    """Somebody asked that it ends. Done again it goes on from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Bytes of the whole, bytes that are done, and seconds since it began; `had` bytes of the done
    ones were there before."""

    total: int
    done: int
    seconds: float
    had: int = 0

    @property
    def rate(self) -> float:
        """Bytes a second; 0 at the beginning."""
        return (self.done - self.had) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At this rate; None where there is none yet."""
        return (self.total - self.done) / self.rate if self.rate else None


Told = Callable[[Progress], None]


class Course:
    """Counts what is done, in whichever thread. `told` is called with every step, one at a time;
    `ended` is what ends it."""

    def __init__(
        self,
        clock: Clock,
        told: Told = lambda _: None,
        ended: threading.Event | None = None,
        total: int = 0,
    ) -> None:
        self._clock, self._told = clock, told
        self.ended = ended or threading.Event()
        self._lock = threading.Lock()
        self._total, self._done, self._had = total, 0, 0
        self._began = clock.monotonic()

    def apart(self) -> "Course":
        """For work that may be left behind: told alike, and ended by itself."""
        return Course(self._clock, self._told, total=self._total)

    def expect(self, total: int) -> None:
        """How many bytes it will be, once that is known."""
        with self._lock:
            self._total = total

    def had(self, size: int) -> None:
        """So many bytes were there already."""
        with self._lock:
            self._had += size
            self._done += size

    def did(self, size: int) -> None:
        """So many bytes more. Raises Ended."""
        with self._lock:
            self._done += size
            seconds = self._clock.monotonic() - self._began
            self._told(Progress(total=self._total, done=self._done, seconds=seconds, had=self._had))
        self.check()

    def pause(self, seconds: float) -> None:
        """Wait. Raises Ended."""
        self._clock.wait(self.ended, seconds)
        self.check()

    def check(self) -> None:
        """Raises Ended where it should go on no more."""
        if self.ended.is_set():
            raise Ended("it was called off")
