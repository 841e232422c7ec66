"""
A clock that moves only when told. Threads that wait on it are woken by `advance`.
"""

import threading

START = 1_700_000_000.0  # 2023-11-14T22:13:20Z: round, and far from zero


class FakeClock:
    """A `Clock`. Wall and monotonic time move together; `skew` sets the wall clock apart."""

    def __init__(self, now: float = START, *, skew: float = 0.0) -> None:
        self._elapsed = 0.0
        self._start = now
        self.skew = skew
        self._moved = threading.Condition()
        self._waiting: list[float] = []

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._start + self._elapsed + self.skew

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass; whoever waited that long goes on."""
        with self._moved:
            self._elapsed += seconds
            self._moved.notify_all()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Until the event is set (True) or `advance` has passed the seconds (False)."""
        with self._moved:
            until = self._elapsed + seconds
            self._waiting.append(until)
            self._moved.notify_all()
            try:
                # The event is set without our condition, so it is looked at again and again.
                while not event.is_set() and self._elapsed < until:
                    self._moved.wait(0.005)
                return event.is_set()
            finally:
                self._waiting.remove(until)

    def wait_for_waiters(self, count: int = 1, timeout: float = 10.0) -> None:
        """Until that many threads wait on this clock. Raises TimeoutError (real seconds)."""
        with self._moved:
            if not self._moved.wait_for(lambda: len(self._waiting) >= count, timeout):
                raise TimeoutError(f"{len(self._waiting)} of {count} threads wait on the clock")
