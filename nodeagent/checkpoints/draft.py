"""
A checkpoint that is being made: nobody sees it until it is sealed.

Called by: whoever seals. GPU contents go straight into packs of sealed chunks; what others write
as files (CRIU) goes into a plain folder, in memory where that has the room, and is sealed and
removed at the end. Rule: whatever goes wrong, the draft is gone and its room is free again.
Rule: packs are on the disk, then the manifest, which is the checkpoint.
"""

import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from kybernate.artifacts import chunks, names
from kybernate.artifacts.chunks import Bytes
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import File
from kybernate.clients.errors import Refused, Retry
from kybernate.ladder.writing import Writing
from kybernate.stores import errors as stores
from kybernate.stores.around import Around
from kybernate.stores.port import Store
from nodeagent.checkpoints import surveying
from nodeagent.checkpoints.faults import AlreadySealed, NoRoom, NotSealed
from nodeagent.checkpoints.plainly import DRAFT, Plainly
from nodeagent.checkpoints.sealed import Sealed, Shelf
from nodeagent.checkpoints.space import FULL, Space

Cuts = Mapping[str, Sequence[int]]
"""Bytes of the first chunks of files, by path."""


class Keeper(Protocol):
    """What a draft needs of its store."""

    shelf: Shelf
    space: Space
    plainly: Plainly

    def writing(self, draft: "Draft", into: Store) -> Writing:
        """Begin to write its packs, which share with those that are here."""

    def adopt(self, draft: "Draft", made: Writing, facts: Facts) -> Sealed:
        """Give it its name. Raises AlreadySealed, and as `Writing.seal`."""

    def given_up(self, draft: "Draft") -> None:
        """Away with packs that nobody else names."""


class Draft:
    """One of them. For one thread. As a context: discarded unless it was sealed."""

    def __init__(self, keeper: Keeper, namespace: str, name: str, like: Facts | None) -> None:
        """`like`: whose chunks it shares is found by these."""
        self._keeper, self._label = keeper, f"{DRAFT}-{uuid.uuid4().hex}"
        self.namespace, self.name, self.like = namespace, name, like
        self._writing: Writing | None = None
        self._into = _Counted(keeper.shelf.store, self._room)
        self._over = False
        self.folder = Path()
        """Where files go. Whoever writes here directly keeps to regular files and folders."""

    def __enter__(self) -> "Draft":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    @property
    def packs(self) -> frozenset[str]:
        """Keys of those that it has put."""
        return frozenset(self._into.put_here)

    def begin(self, need: int, plain: int) -> None:
        """Have room for `need` bytes, `plain` of which are files in `folder`. Raises NoRoom,
        OSError."""
        self.folder = self._keeper.plainly.folder(self._label, plain)
        on_disk = self._keeper.plainly.is_on_disk(self.folder)
        self._keeper.space.hold(self, need + (plain if on_disk else 0))  # and what is sealed of it

    def write(self, path: str, pieces: Iterable[Bytes]) -> File:
        """A file of these bytes, sealed on the way; where they are cut (at 2 MiB at the latest),
        they are looked for among what is there.

        Raises Unusable for a path that is not allowed, NoRoom, NotSealed; then the draft is gone.
        """
        with self._whole_or_gone():
            return self._pipeline().add(path, chunks.cut(pieces))

    def take(self, path: str, source: Path) -> File:
        """A copy of a file, likewise."""
        with self._whole_or_gone():
            return self._pipeline().take(path, source)

    def seal(self, facts: Facts, cuts: Cuts | None = None) -> Sealed:
        """Make it a checkpoint: whole and visible, or an error and nothing. What it cost is in its
        facts then. `cuts`: how files of `folder` are cut where they are not at every 2 MiB.

        Raises NoRoom, NotSealed (something in it is not allowed, or the disk failed),
        AlreadySealed.
        """
        with self._whole_or_gone():
            try:
                return self._sealed(facts, cuts or {})
            except Unusable as problem:
                raise NotSealed(str(problem)) from problem

    def discard(self) -> None:
        """Leave nothing of it. Twice is fine; after sealing only what was not sealed goes."""
        if self._over:
            return
        self._over = True
        try:
            if self._writing is not None:
                self._writing.__exit__(None, None, None)
            self._keeper.plainly.remove(self._label)
            self._keeper.given_up(self)
        finally:
            self._keeper.space.give_back(self)

    def _sealed(self, facts: Facts, cuts: Cuts) -> Sealed:
        found = surveying.survey(self.folder)
        writing = self._pipeline()
        on_disk = found.size if self._keeper.plainly.is_on_disk(self.folder) else 0
        for path in sorted(found.files, key=lambda path: -found.files[path]):
            writing.take(path, self.folder / path, cuts.get(path, ()))
        if not writing.files:
            raise NotSealed("there is nothing in it")
        writing.settle()
        added = self._into.size
        whole = replace(facts, written=added + on_disk, added=added)
        sealed = self._keeper.adopt(self, writing, whole)
        self.discard()
        return sealed

    def _pipeline(self) -> Writing:
        if self._over:
            raise NotSealed("the draft is gone")
        if self._writing is None:
            self._writing = self._keeper.writing(self, self._into)
        return self._writing

    def _room(self, more: int) -> None:
        """Before so many bytes are put. Raises NoRoom."""
        size = self._on_disk() + more
        self._keeper.space.hold(self, max(size, self._keeper.space.held(self)), size - more)

    def _on_disk(self) -> int:
        plain = 0
        if self._keeper.plainly.is_on_disk(self.folder):
            plain = surveying.weight(self.folder)
        return plain + self._into.size

    @contextmanager
    def _whole_or_gone(self) -> Iterator[None]:
        try:
            yield
        except stores.NoRoom as error:
            self.discard()
            raise NoRoom("the disk is full") from error
        except OSError as error:
            self.discard()
            if error.errno in FULL:
                raise NoRoom("the disk is full") from error
            raise NotSealed(str(error)) from error
        except (Unusable, NoRoom, NotSealed, AlreadySealed):
            self.discard()
            raise
        except (Refused, Retry) as error:
            self.discard()
            raise NotSealed(str(error)) from error
        except BaseException:
            self.discard()
            raise


class _Counted(Around):
    """A node's store, of which is known which packs were put. Thread safe."""

    def __init__(self, store: Store, room: "_Room") -> None:
        super().__init__(store)
        self._room = room
        self._lock = threading.Lock()
        self.put_here: set[str] = set()
        self.size = 0

    def put(self, key: str, content: Bytes) -> None:
        """As the port says, and raises the store's NoRoom."""
        if names.is_pack(key):
            with self._lock:
                self._room(len(content))
                self.put_here.add(key)
                self.size += len(content)
        self._store.put(key, content)


class _Room(Protocol):
    def __call__(self, more: int, /) -> None: ...
