"""
A store that tells what moved, and how long it took.

Called by: whoever estimates, shows progress or counts. Rule: the meter is told once for each call,
also of one that failed; it must not raise.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from kybernate.artifacts.chunks import Bytes
from kybernate.clients.clock import Clock
from kybernate.stores.port import Listed, Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One call: `put`, `get`, `stat` or `delete`, the bytes it moved, seconds, and whether it
    went well."""

    call: str
    size: int
    seconds: float
    well: bool


Meter = Callable[[Moved], None]


class Metered:
    """See `port.Store`."""

    def __init__(self, store: Store, clock: Clock, meter: Meter) -> None:
        self._store, self._clock, self._meter = store, clock, meter

    def put(self, key: str, content: Bytes) -> None:
        """As the port says."""
        self._timed("put", lambda: self._store.put(key, content), lambda _: len(content))

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says."""
        return self._timed("get", lambda: self._store.get(key, offset, size, into), len)

    def stat(self, key: str) -> Listed:
        """As the port says."""
        return self._timed("stat", lambda: self._store.stat(key), lambda _: 0)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """As the port says; not told, for it takes as long as whoever looks at it."""
        return self._store.list(prefix)

    def delete(self, key: str) -> bool:
        """As the port says."""
        return self._timed("delete", lambda: self._store.delete(key), lambda _: 0)

    def _timed(self, call: str, work: Callable[[], T], size: Callable[[T], int]) -> T:
        began, moved, well = self._clock.monotonic(), 0, False
        try:
            done = work()
            moved, well = size(done), True
            return done
        finally:
            seconds = self._clock.monotonic() - began
            self._meter(Moved(call=call, size=moved, seconds=seconds, well=well))
