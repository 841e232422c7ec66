"""
What was begun and has not ended: a thread for each switch.

Called by: the coordinator. Rule: begun is begun. Where no thread can be had, it is done here.
"""

import threading
from collections.abc import Callable


class UnderWay:
    """`begin` from one thread at a time; `join` from any."""

    def __init__(self) -> None:
        self._threads: set[threading.Thread] = set()

    def begin(self, name: str, run: Callable[[], None]) -> None:
        """Returns at once, unless there are no more threads."""

        def to_the_end() -> None:
            try:
                run()
            finally:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=to_the_end, name=name, daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._threads.discard(thread)
            run()

    def join(self, seconds: float) -> None:
        """Wait for all of them, each so long."""
        for thread in tuple(self._threads):
            thread.join(seconds)
