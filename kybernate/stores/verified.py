"""
A store whose whole objects are looked at before anybody gets or keeps them.

Called by: whoever copies between stores, and whoever reads from one that is not trusted. Rule: what
does not pass is never given out. Pieces of objects cannot be looked at; whoever asks for them
checks their chunks.
"""

from collections.abc import Callable

from kybernate.artifacts import names, packs
from kybernate.artifacts.chunks import Bytes
from kybernate.stores.around import Around
from kybernate.stores.port import Store

Check = Callable[[str, Bytes], None]
"""Of a key and all bytes of its object. Raises Unusable."""


def form(key: str, content: Bytes) -> None:
    """What can be told without a domain's key: that a pack is the one its key names. Raises
    Unusable."""
    if names.is_pack(key):
        packs.check(key.rpartition("/")[2], content)


class Verified(Around):
    """See `port.Store`."""

    def __init__(self, store: Store, check: Check = form) -> None:
        super().__init__(store)
        self._check = check

    def put(self, key: str, content: Bytes) -> None:
        """As the port says. Raises Unusable."""
        self._check(key, content)
        self._store.put(key, content)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says. Raises Unusable."""
        found = self._store.get(key, offset, size, into)
        if offset == 0 and size is None:
            self._check(key, found)
        return found
