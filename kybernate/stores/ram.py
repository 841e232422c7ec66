"""
Objects in this process's memory: the hottest tier of what is sealed, and the fake of the others.

Called by: pipelines; tests, in place of every other store. Rule: a limit in bytes is kept always.
"""

import threading
from collections.abc import Callable, Iterator

from kybernate.artifacts.chunks import Bytes
from kybernate.stores import port
from kybernate.stores.errors import Absent, NoRoom
from kybernate.stores.port import Listed


class Ram:
    """See `port.Store`. `limit` is in bytes; `now` is seconds since the epoch."""

    def __init__(self, limit: int, now: Callable[[], float]) -> None:
        self._limit, self._now = limit, now
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._used = 0

    def put(self, key: str, content: Bytes) -> None:
        """As the port says."""
        port.checked(key)
        kept = bytes(content)
        with self._lock:
            used = self._used + len(kept) - len(self._objects.get(key, (b"",))[0])
            if used > self._limit:
                raise NoRoom(f"{key}: {len(kept)} bytes, {self._limit - self._used} are left")
            self._objects[key], self._used = (kept, self._now()), used

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says."""
        content, _ = self._found(key)
        begin, end = port.cut(offset, size, len(content))
        return port.placed(memoryview(content)[begin:end], into)

    def stat(self, key: str) -> Listed:
        """As the port says."""
        content, put_at = self._found(key)
        return Listed(key=key, size=len(content), put_at=put_at)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """As the port says."""
        below = port.checked_prefix(prefix)
        with self._lock:
            found = [
                Listed(key=key, size=len(content), put_at=put_at)
                for key, (content, put_at) in self._objects.items()
                if port.is_below(key, below)
            ]
        yield from found

    def delete(self, key: str) -> bool:
        """As the port says."""
        port.checked(key)
        with self._lock:
            found = self._objects.pop(key, None)
            self._used -= len(found[0]) if found else 0
        return found is not None

    def _found(self, key: str) -> tuple[bytes, float]:
        port.checked(key)
        with self._lock:
            try:
                return self._objects[key]
            except KeyError:
                raise Absent(key) from None
