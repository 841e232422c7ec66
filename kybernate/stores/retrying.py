"""
A store that tries again what may work later.

Called by: whoever stands before a network. Rule: only `Retry` is tried again; what returns in
pieces (a listing) is tried until its first piece came.
"""

import threading
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TypeVar

from kybernate.artifacts.chunks import Bytes
from kybernate.clients.backoff import Backoff, Pace
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Retry
from kybernate.stores.port import Listed, Store

T = TypeVar("T")


class Retrying:
    """See `port.Store`. `tries` in all; `ended` ends its pauses: then the last error is told."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ended: threading.Event,
        *,
        tries: int = 6,
        pace: Pace = Pace(),  # noqa: B008 - frozen
    ) -> None:
        self._store, self._clock, self._ended = store, clock, ended
        self._tries, self._pace = tries, pace

    def put(self, key: str, content: Bytes) -> None:
        """As the port says."""
        self._again(lambda: self._store.put(key, content))

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says."""
        return self._again(lambda: self._store.get(key, offset, size, into))

    def stat(self, key: str) -> Listed:
        """As the port says."""
        return self._again(lambda: self._store.stat(key))

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """As the port says."""
        return self._again(lambda: _begun(self._store.list(prefix)))

    def delete(self, key: str) -> bool:
        """As the port says; after a lost answer it may say that nothing was there."""
        return self._again(lambda: self._store.delete(key))

    def _again(self, work: Callable[[], T]) -> T:
        backoff = Backoff(self._pace)
        for left in range(self._tries - 1, -1, -1):
            try:
                return work()
            except Retry as problem:
                pause = backoff.next(problem.after)
                if not left or self._clock.wait(self._ended, pause):
                    raise
        raise AssertionError


def _begun(pieces: Iterator[Listed]) -> Iterator[Listed]:
    first = next(pieces, None)
    return chain([first], pieces) if first else iter(())
