"""
A part of a store: the objects below a prefix, as a store of their own.

Called by: agents, whose parked contents lie beside a cluster's checkpoints. Rule: nobody who has it
reaches anything beside it.
"""

from collections.abc import Iterator
from dataclasses import replace

from kybernate.artifacts.chunks import Bytes
from kybernate.stores import port
from kybernate.stores.port import Listed, Store


class Below:
    """See `port.Store`."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Raises BadKey."""
        self._store, self._prefix = store, port.checked(prefix)

    def put(self, key: str, content: Bytes) -> None:
        """As the port says."""
        self._store.put(self._whole(key), content)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says."""
        return self._store.get(self._whole(key), offset, size, into)

    def stat(self, key: str) -> Listed:
        """As the port says."""
        return self._own(self._store.stat(self._whole(key)))

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """As the port says."""
        below = port.checked_prefix(prefix)
        whole = self._whole(below) if below else self._prefix
        return map(self._own, self._store.list(whole))

    def delete(self, key: str) -> bool:
        """As the port says."""
        return self._store.delete(self._whole(key))

    def _whole(self, key: str) -> str:
        return f"{self._prefix}/{port.checked(key)}"

    def _own(self, listed: Listed) -> Listed:
        return replace(listed, key=listed.key.removeprefix(f"{self._prefix}/"))
