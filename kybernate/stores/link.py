"""
A way to a store that several share, and that those who hurry have first.

Called by: agents: a wake that somebody waits for goes before a copy that is made in the background.
Rule: who yields does so between two objects; what has begun to move is moved.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kybernate.artifacts.chunks import Bytes
from kybernate.stores.around import Around
from kybernate.stores.port import Store

_LOOK_S = 0.2  # between two looks at whether to go on waiting


class Link:
    """Who hurries on it. Thread safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._hurrying = 0

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Meanwhile nobody begins to move an object who yields."""
        with self._changed:
            self._hurrying += 1
        try:
            yield
        finally:
            with self._changed:
                self._hurrying -= 1
                self._changed.notify_all()

    def give_way(self, check: Callable[[], None]) -> None:
        """Until nobody hurries. Raises what `check` raises, which is looked at meanwhile."""
        with self._changed:
            while self._hurrying:
                check()
                self._changed.wait(_LOOK_S)


class Yielding(Around):
    """See `port.Store`; what moves no object gives no way. `check` raises where nobody wants to go
    on waiting."""

    def __init__(self, store: Store, link: Link, check: Callable[[], None] = lambda: None) -> None:
        super().__init__(store)
        self._link, self._check = link, check

    def put(self, key: str, content: Bytes) -> None:
        """As the port says."""
        self._link.give_way(self._check)
        self._store.put(key, content)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says."""
        self._link.give_way(self._check)
        return self._store.get(key, offset, size, into)
