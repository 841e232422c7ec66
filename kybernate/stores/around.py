"""
A store that passes everything on to another one, for decorators that change a part of it.

Called by: `link`, `verified`, agents' own. Rule: what a decorator does not change is here only.
"""

from collections.abc import Iterator

from kybernate.artifacts.chunks import Bytes
from kybernate.stores.port import Listed, Store


class Around:
    """See `port.Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, key: str, content: Bytes) -> None:
        """As the port says."""
        self._store.put(key, content)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says."""
        return self._store.get(key, offset, size, into)

    def stat(self, key: str) -> Listed:
        """As the port says."""
        return self._store.stat(key)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """As the port says."""
        return self._store.list(prefix)

    def delete(self, key: str) -> bool:
        """As the port says."""
        return self._store.delete(key)
