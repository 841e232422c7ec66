"""Giving up a call from another thread. Called by: whoever follows an agent's progress."""

import threading
from typing import Protocol


class Cancellable(Protocol):
    """A call under way."""

    def cancel(self) -> object:
        """End it."""


class End:
    """Lets any thread stop following a call: whoever follows it gets AgentAway."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._call: Cancellable | None = None
        self._ended = False

    def __call__(self) -> None:
        """Stop, also where it has not begun."""
        with self._lock:
            self._ended = True
            if self._call is not None:
                self._call.cancel()

    def of(self, call: Cancellable) -> None:
        """The call it is about."""
        with self._lock:
            self._call = call
            if self._ended:
                call.cancel()
