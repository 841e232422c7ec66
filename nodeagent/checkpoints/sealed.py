"""A sealed checkpoint on this node's disk: what it says, and its contents, opened as they are read.

Called by: whoever wakes, demotes, lends or tells of one. Rule: every chunk's tag and name are
checked before its bytes are given to anybody.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from kybernate.artifacts import v0
from kybernate.artifacts.chunks import DomainKey
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import File, Manifest
from kybernate.clients.clock import Clock
from kybernate.ladder import carrying, copying, reading
from kybernate.ladder.progress import Course
from kybernate.ladder.reading import Opened
from kybernate.model.checkpoint import Checkpoint, Flaw
from kybernate.stores import errors as stores
from kybernate.stores.port import Store as Objects
from nodeagent.checkpoints.signing import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """A store, and what opens it."""

    store: Objects
    keys: Keys
    clock: Clock

    def key(self, manifest: Manifest) -> DomainKey:
        """Of a checkpoint's domain. Raises Unusable, BadKeys, and what the store raises."""
        return self.keys.ring().open(self.store, manifest.domain, manifest.key)

    def check(self, opened: Opened, course: Course) -> None:
        """Open every chunk, and what it was made of. Raises Unusable, Ended, BadKeys, and what the
        store raises."""
        key = self.key(opened.manifest)
        with unreadable():
            copying.check_packs(self.store, opened.manifest, key, course)
            self.check_origin(opened, key)

    def check_origin(self, opened: Opened, key: DomainKey) -> None:
        """One that was carried over from format v0 is what it was there, as far as it says itself.
        Raises Unusable."""
        if opened.manifest.origin is None:
            return
        content = reading.origin(self.store, opened.manifest, key)
        self.keys.check(content, opened.manifest.origin.signature)
        before = v0.decode(content)
        ours = (opened.manifest.namespace, opened.manifest.name)
        if (before.namespace, before.name) != ours:
            raise Unusable(Flaw.MISPLACED, f"{before.namespace}/{before.name}")
        same = before.facts == opened.manifest.facts
        if not same or _sizes(before) != _sizes(opened.manifest):
            raise Unusable(Flaw.MALFORMED, "it is not what it was made of")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """It never changes. `signature` is the one it is known by: of the manifest of v0 that it was
    made of, where there is one."""

    opened: Opened
    shelf: Shelf = field(compare=False, repr=False)

    @property
    def manifest(self) -> Manifest:
        """What it says."""
        return self.opened.manifest

    @property
    def signature(self) -> str:
        """As its GpuCheckpoint has it."""
        return carrying.identity(self.opened)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return self.manifest.size

    @property
    def checkpoint(self) -> Checkpoint:
        """As the cluster knows it."""
        return self.manifest.checkpoint(self.signature)

    def file(self, path: str) -> File:
        """One of its files. Raises Unusable where it has none of that name."""
        for file in self.manifest.files:
            if file.path == path:
                return file
        raise Unusable(Flaw.FILE_MISSING, path)

    def read(self, path: str) -> Iterator[memoryview]:
        """A file's bytes in order, with what comes next on its way: about 260 MiB. Raises Unusable,
        BadKeys, and what the store raises."""
        alone = replace(self.manifest, files=(self.file(path),))
        course = Course(self.shelf.clock)
        key = self.shelf.key(self.manifest)
        with unreadable():
            for _, content in reading.in_order(self.shelf.store, alone, key, course):
                yield from content

    def take_out(self, below: str, into: Path) -> int:
        """The files below one of its folders, written into an empty one; how many bytes. Raises as
        `read`, and OSError; what was written stays then."""
        some = tuple(
            replace(file, path=file.path.removeprefix(f"{below}/"))
            for file in self.manifest.files
            if file.path.startswith(f"{below}/")
        )
        part = replace(self.manifest, files=some)
        course = Course(self.shelf.clock)
        with unreadable():
            reading.extract(self.shelf.store, part, self.shelf.key(self.manifest), into, course)
        return part.size


@contextmanager
def unreadable() -> Iterator[None]:
    """What the disk cannot give is damaged: another copy may do."""
    try:
        yield
    except stores.Faulty as problem:
        raise Unusable(Flaw.PACK_ALTERED, f"it cannot be read: {problem}") from problem


def _sizes(manifest: Manifest | v0.Manifest) -> dict[str, int]:
    return {file.path: file.size for file in manifest.files}
