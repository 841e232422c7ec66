"""
A switch that opens while somebody is away, so that nobody waits for them again and again.

Used by: `clients/opa.py`. Rule: while it is open one caller per pause is let through to try.
"""

import threading
from collections.abc import Callable


class Circuit:
    """Closed at first. Thread safe."""

    def __init__(self, pause_s: float, monotonic: Callable[[], float]) -> None:
        self._pause_s = pause_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._next_try: float | None = None  # None while closed

    def admits(self) -> bool:
        """Whether this caller may try now."""
        with self._lock:
            now = self._monotonic()
            if self._next_try is None:
                return True
            if now < self._next_try:
                return False
            self._next_try = now + self._pause_s
            return True

    def open(self) -> None:
        """They did not answer."""
        with self._lock:
            self._next_try = self._monotonic() + self._pause_s

    def close(self) -> None:
        """They answered."""
        with self._lock:
            self._next_try = None
