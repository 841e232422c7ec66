"""
Time as an argument: the port. `runtime/clock.py` has the real one, `testing/clock.py` the fake.

It stands here because the clients are the lowest layer that waits.
"""

import threading
from typing import Protocol


class Clock(Protocol):
    """Wall time for timestamps, monotonic time for measuring, and a wait that can be ended."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump; only differences mean something."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Until the event is set (True) or the seconds are over (False)."""
        ...
