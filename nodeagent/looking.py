"""
Looking again and again, from a thread of its own.

Used by: whatever nobody tells the agent of: policy's revision, others on the GPUs, the runtime's
marks. Rule: a fault in one look must not end looking.
"""

import threading
from collections.abc import Callable

from kybernate.clients.clock import Clock
from kybernate.runtime.logs import get_logger


class Looking:
    """`look` gives the seconds until its next time, `after_fault` counts where it raises. `start`
    and `stop` once each."""

    def __init__(
        self, name: str, look: Callable[[], float], clock: Clock, after_fault: float
    ) -> None:
        self._name, self._look, self._clock = name, look, clock
        self._after_fault = after_fault
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End, after a look that is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = 0.0
        while not self._clock.wait(self._stopping, pause):
            try:
                pause = self._look()
            except Exception:  # whatever it was, the next look may show more
                get_logger(thread=self._name).exception("a look failed")
                pause = self._after_fault
