"""
The real clock. The only file that reads the time; everybody else takes a `Clock`.
"""

import threading
import time

from kybernate.clients.clock import Clock

__all__ = ["Clock", "SystemClock"]


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Until the event is set (True) or the seconds are over (False)."""
        return event.wait(seconds)
