"""
A store that is asked by so many at once, and for so many bytes a second, and no more.

Called by: whoever shares a disk or a link with others. Rule: bytes are paid for before they move,
so that a burst is at most one object; the fastest who asks waits in line like everybody.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kybernate.artifacts.chunks import Bytes
from kybernate.clients.clock import Clock
from kybernate.stores.port import Listed, Store


class Limited:
    """See `port.Store`. `rate` is in bytes a second, None for any; `ended` ends its pauses."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ended: threading.Event,
        *,
        at_once: int,
        rate: float | None = None,
    ) -> None:
        self._store, self._clock, self._ended, self._rate = store, clock, ended, rate
        self._seats = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._free_at = 0.0  # when the bytes that were promised have moved

    def put(self, key: str, content: Bytes) -> None:
        """As the port says."""
        with self._seat(len(content)):
            self._store.put(key, content)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says. What comes is paid for by whoever asks next."""
        with self._seat(0):
            found = self._store.get(key, offset, size, into)
        self._promise(len(found))
        return found

    def stat(self, key: str) -> Listed:
        """As the port says."""
        with self._seat(0):
            return self._store.stat(key)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """As the port says; a listing holds no seat while it is looked at."""
        return self._store.list(prefix)

    def delete(self, key: str) -> bool:
        """As the port says."""
        with self._seat(0):
            return self._store.delete(key)

    @contextmanager
    def _seat(self, size: int) -> Iterator[None]:
        with self._seats:
            pause = self._promise(size)
            if pause > 0:
                self._clock.wait(self._ended, pause)
            yield

    def _promise(self, size: int) -> float:
        """Seconds until bytes promised before have moved."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = self._clock.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + size / self._rate
            return begin - now
