"""
A checkpoint that is being made: a folder that nobody else sees until it is sealed.

Called by: whoever seals, and by `peers` for one that comes from another node. Rule: whatever goes
wrong, the draft is gone and its room is free again. Rule: files and folders are on the disk, then
the manifest, then its signature, then the name.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from kybernate.artifacts import names
from kybernate.artifacts import v0 as manifests
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.v0 import File, Manifest
from kybernate.model.artifact import Kind
from nodeagent.checkpoints import streams, verifying
from nodeagent.checkpoints.faults import AlreadySealed, NoRoom, NotSealed
from nodeagent.checkpoints.sealed import FILES, MANIFEST, SIGNATURE, Sealed
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.space import FULL, Space
from nodeagent.checkpoints.verifying import Survey
from nodeagent.disk.durable import seal, sync_folder

_NO_LINK = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP})
_SPOILT = (Unusable, NoRoom, NotSealed, AlreadySealed)  # what another try does not mend


class Keeper(Protocol):
    """What a draft needs of its store."""

    keys: Keys
    space: Space

    def left(self, root: Path) -> None:
        """What was interrupted stays for the next time."""

    def adopt(self, root: Path, manifest: Manifest, kind: Kind = Kind.SEALED) -> None:
        """Give it its name. Raises AlreadySealed."""

    def folder(self, namespace: str, name: str) -> Path:
        """Where the files of a sealed one are."""


class Draft:
    """One of them. For one thread. As a context: discarded unless it was sealed."""

    def __init__(
        self, keeper: Keeper, root: Path, namespace: str, name: str, *, stays: bool = False
    ) -> None:
        """`stays`: what is in it when somebody is interrupted is there at the next try."""
        self._keeper, self._root, self._stays = keeper, root, stays
        self._before = 0  # bytes that were there from the last try
        self._key = (namespace, name)
        self._written: dict[str, File] = {}
        self._shared: dict[str, File] = {}  # with another checkpoint: on the disk once
        self._over = False
        self.folder = root / FILES
        """Where files go. Whoever writes here directly keeps to regular files and folders."""

    def __enter__(self) -> "Draft":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(error)

    def begin(self, need: int) -> None:
        """Have room for `need` bytes, with what is there from the last try. Raises NoRoom,
        OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._before = verifying.survey(self.folder).size
        self._keeper.space.hold(self, max(need, self._before), self._before)

    def write(self, path: str, chunks: Iterable[bytes | memoryview], after: int = 0) -> File:
        """A file of these bytes, hashed on the way and on the disk afterwards; in one that stays
        they come after the first `after` bytes, which are there.

        Raises Unusable for a path that is not allowed, NoRoom, NotSealed; then the draft is gone.
        """
        names.check_path(path)
        target = self.folder / path
        before = self.size - self.shared
        with self._whole_or_gone():
            target.parent.mkdir(parents=True, exist_ok=True)
            with _opened(target, anew=not self._stays) as file:
                there = max(before, self._before)
                size, sha256 = streams.pour(
                    chunks, file, lambda count: self.hold(before + count, there), after
                )
                file.flush()
                os.fsync(file.fileno())
        self._written[path] = File(path=path, size=size, sha256=sha256)
        return self._written[path]

    def take(self, path: str, source: Path) -> File:
        """A copy of a file, likewise."""
        return self.write(path, streams.blocks(source))

    def share(self, source: Path, file: File) -> None:
        """A sealed checkpoint's file, which is in this one too, under the same path: a hard link,
        and where the disk allows no more of them a copy. One of these bytes that is here goes.

        Raises as `write` does; then the draft is gone.
        """
        names.check_path(file.path)
        target = self.folder / file.path
        with self._whole_or_gone():
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f"{target.name}.shared")
            try:
                os.link(source, beside, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
            else:
                beside.replace(target)
                self._written[file.path] = self._shared[file.path] = file
                return
        if file.path not in self._written:
            copied = self.take(file.path, source)
            verifying.same_or_unusable(file, copied.size, copied.sha256)

    def share_equals(self, folder: Path, files: Iterable[File]) -> None:
        """Every file that is byte for byte what a sealed checkpoint has under the same path. What
        is here is on the disk afterwards, and hashed. Raises as `seal` does."""
        theirs = {file.path: file for file in files}
        with self._whole_or_gone():
            try:
                ours = self._hashed(self._surveyed())
            except Unusable as problem:
                raise NotSealed(str(problem)) from problem
        for file in ours:
            self._written[file.path] = file
            if theirs.get(file.path) == file and file.size and file.path not in self._shared:
                self.share(folder / file.path, file)

    @property
    def size(self) -> int:
        """Bytes of the files that are known so far."""
        return sum(file.size for file in self._written.values())

    @property
    def shared(self) -> int:
        """Those of them that are another checkpoint's, too."""
        return sum(file.size for file in self._shared.values())

    def hold(self, size: int, written: int | None = None) -> None:
        """See that `size` bytes in all have room; more than was asked for at first is fine.

        For whoever lets others write into `folder`: call it now and then. Raises NoRoom.
        """
        if written is None:
            written = verifying.survey(self.folder).size - self.shared
        self._keeper.space.hold(self, max(size, self._keeper.space.held(self)), written)

    def seal(self, facts: Facts, linked: int = 0) -> Sealed:
        """Make it a checkpoint: whole and visible, or an error and nothing. `linked` bytes of it
        were never written, for another checkpoint had them.

        Raises NoRoom, NotSealed (something in it is not allowed, or the disk failed),
        AlreadySealed.
        """
        with self._whole_or_gone():
            manifest, content = self._described(facts, linked)
            return self._install(content, manifest, self._keeper.keys.sign(content))

    def install(self, content: bytes, manifest: Manifest, signature: str) -> Sealed:
        """Seal what was sealed elsewhere: every file was written here and has been compared."""
        with self._whole_or_gone():
            if set(self._written.values()) != set(manifest.files):
                raise NotSealed("not every file of its manifest was written")
            return self._install(content, manifest, signature, Kind.COPIED)

    def discard(self) -> None:
        """Leave nothing of it. Twice is fine; after sealing it does nothing."""
        if not self._over:
            self._over = True
            shutil.rmtree(self._root, ignore_errors=True)
            self._keeper.space.give_back(self)

    def _end(self, error: BaseException | None) -> None:
        """Discarded, unless it stays and nothing is wrong with what is in it."""
        if self._over or not self._stays or error is None or isinstance(error, _SPOILT):
            self.discard()
            return
        self._over = True
        self._keeper.space.give_back(self)
        self._keeper.left(self._root)

    def _described(self, facts: Facts, linked: int) -> tuple[Manifest, bytes]:
        try:
            files = self._hashed(self._surveyed())
            namespace, name = self._key
            size = sum(file.size for file in files)
            facts = replace(facts, written=size - linked, added=size - self.shared)
            manifest = Manifest(namespace=namespace, name=name, facts=facts, files=files)
            content = manifests.encode(manifest)
            manifests.decode(content)  # what we would refuse we do not make
        except Unusable as problem:
            raise NotSealed(str(problem)) from problem
        return manifest, content

    def _surveyed(self) -> Survey:
        _prune(self.folder)
        found = verifying.survey(self.folder)
        if not found.files:
            raise NotSealed("there is nothing in it")
        own = found.size - self.shared
        self._keeper.space.hold(self, own, own)
        return found

    def _hashed(self, found: Survey) -> tuple[File, ...]:
        known = {p: f for p, f in self._written.items() if found.files.get(p) == f.size}
        fresh = sorted(found.files.keys() - known.keys(), key=lambda path: -found.files[path])

        def hashed(path: str) -> File:
            size, sha256 = streams.digest_of(self.folder / path, durable=True)
            return File(path=path, size=size, sha256=sha256)

        with ThreadPoolExecutor(streams.SIDE_BY_SIDE) as threads:
            known |= {file.path: file for file in threads.map(hashed, fresh)}
        return tuple(known[path] for path in sorted(known))

    def _install(
        self, content: bytes, manifest: Manifest, signature: str, kind: Kind = Kind.SEALED
    ) -> Sealed:
        for folder in sorted(manifests.folders_of(manifest.files)):
            sync_folder(self.folder / folder)
        sync_folder(self.folder)
        seal(self._root / MANIFEST, content)
        seal(self._root / SIGNATURE, f"{signature}\n".encode())
        self._keeper.adopt(self._root, manifest, kind)
        self._over = True
        self._keeper.space.give_back(self)
        files = self._keeper.folder(*self._key)
        return Sealed(folder=files, manifest=manifest, content=content, signature=signature)

    @contextmanager
    def _whole_or_gone(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.discard()
            if error.errno in FULL:
                raise NoRoom("the disk is full") from error
            raise NotSealed(str(error)) from error
        except BaseException as error:
            self._end(error)
            raise


def _opened(path: Path, *, anew: bool) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_EXCL if anew else 0)
    return os.fdopen(os.open(path, flags, 0o600), "r+b")


def _prune(folder: Path) -> None:
    """Remove empty folders below: a manifest knows folders by what lies in them."""
    for path, _, _ in os.walk(folder, topdown=False):
        if Path(path) != folder and not os.listdir(path):  # noqa: PTH208 - only whether any
            Path(path).rmdir()
