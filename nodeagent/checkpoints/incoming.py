"""
A checkpoint that comes from another store: its packs as they are, then its manifest.

Called by: `peers`, `objects`. A record of it (its manifest, in `arriving/`) stays where it is
interrupted, and names the packs that came, so that the next try goes on from there.
Rule: a pack that is here counts once every chunk of it was opened; so a damaged one is replaced.
Rule: only the whole becomes visible.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from kybernate.artifacts import names
from kybernate.artifacts.chunks import DomainKey
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.packs import Pack
from kybernate.ladder import copying, publishing
from kybernate.ladder.progress import Course
from kybernate.ladder.reading import Opened
from kybernate.stores import errors as stores
from nodeagent.checkpoints.faults import NoRoom, NotSealed
from nodeagent.checkpoints.sealed import Sealed, Shelf
from nodeagent.checkpoints.space import Space


class Keeper(Protocol):
    """What it needs of its store."""

    shelf: Shelf
    space: Space

    def make_room(self) -> bool:
        """Let go of what others have left; whether there was something."""

    def coming(self, incoming: "Incoming") -> tuple[int, int]:
        """Its packs stay from now on; bytes that it has for itself, and those that are there."""

    def came(self, incoming: "Incoming") -> Sealed:
        """It is whole."""

    def left(self, incoming: "Incoming", *, forget: bool) -> None:
        """It was interrupted; `forget` what came, too."""


class Incoming:
    """One of them. A context manager; `take` may be called by several threads."""

    def __init__(self, keeper: Keeper, opened: Opened, key: DomainKey) -> None:
        """A manifest that is believed, and the key of its domain."""
        self._keeper, self.opened, self._key = keeper, opened, key
        self._over = False

    @property
    def packs(self) -> frozenset[str]:
        """Keys of its packs."""
        return frozenset(self.opened.manifest.pack_keys)

    def __enter__(self) -> "Incoming":
        """Raises NoRoom, NotSealed."""
        try:
            with _told():
                self._hold(*self._keeper.coming(self))
                manifest = self.opened.manifest
                self._keeper.shelf.keys.ring().lend(
                    self._keeper.shelf.store, manifest.domain, self._key
                )
        except BaseException as error:
            self._end(error)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(error)

    def missing(self, course: Course) -> Sequence[Pack]:
        """Packs that have to come, in order; what is here is read. Raises Ended, NotSealed."""
        listed = self.opened.manifest.packs
        with _told(), ThreadPoolExecutor(copying.AT_ONCE, thread_name_prefix="looking") as threads:
            right = list(threads.map(lambda pack: self._is_here(pack, course), listed))
        return [pack for pack, here in zip(listed, right, strict=True) if not here]

    def take(self, pack: Pack, content: memoryview) -> None:
        """One that came. Raises Unusable where it is not what it should be, NoRoom, NotSealed."""
        copying.check_pack(pack, content, self._key)
        with _told():
            key = names.pack_key(self.opened.manifest.domain, pack.name)
            self._keeper.shelf.store.put(key, content)

    def settle(self) -> Sealed:
        """All came: it is there. Raises Unusable, NoRoom, NotSealed."""
        with _told():
            self._keeper.shelf.check_origin(self.opened, self._key)
            sealed = self._keeper.came(self)
        self._over = True
        self._keeper.space.give_back(self)
        return sealed

    def _hold(self, size: int, there: int) -> None:
        """Room for so many bytes, of which some are there. Raises NoRoom."""
        try:
            self._keeper.space.hold(self, size, min(size, there))
        except NoRoom:
            if not self._keeper.make_room():
                raise
            self._keeper.space.hold(self, size, min(size, there))

    def _is_here(self, pack: Pack, course: Course) -> bool:
        course.check()
        manifest = self.opened.manifest
        if not publishing.has(self._keeper.shelf.store, manifest.domain, pack):
            return False
        try:
            copying.fetched(self._keeper.shelf.store, manifest.domain, pack, self._key)
        except (Unusable, stores.Faulty):
            return False
        course.had(pack.size)
        return True

    def _end(self, error: BaseException | None) -> None:
        if self._over:
            return
        self._over = True
        try:
            self._keeper.left(self, forget=error is None or isinstance(error, NoRoom | NotSealed))
        finally:
            self._keeper.space.give_back(self)


@contextmanager
def _told() -> Iterator[None]:
    """What our own disk says, in our words."""
    try:
        yield
    except stores.NoRoom as error:
        raise NoRoom("the disk is full") from error
    except (stores.Faulty, OSError) as error:
        raise NotSealed(str(error)) from error
