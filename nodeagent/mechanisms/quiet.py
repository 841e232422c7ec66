"""
Contents that move and work that may wait: never both at once.

Called by `guestcopy`, whose copies somebody waits for, and by `pressing`, for whose results nobody
does. What may wait is done in pieces of some milliseconds.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Quiet:
    """Of one agent. Thread safe."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._moving = 0
        self._alone = False

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Contents move meanwhile; waits for a piece of the other that has begun."""
        with self._turn:
            self._turn.wait_for(lambda: not self._alone)
            self._moving += 1
        try:
            yield
        finally:
            with self._turn:
                self._moving -= 1

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nothing moves: then nothing begins to meanwhile."""
        with self._turn:
            mine = not (self._moving or self._alone)
            self._alone = self._alone or mine
        try:
            yield mine
        finally:
            if mine:
                with self._turn:
                    self._alone = False
                    self._turn.notify_all()
