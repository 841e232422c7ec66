"""
Sealing into a store: files are cut, named, sealed into packs and put, all at the same time.

Called by: `kyb`, agents. Memory: PACKS buffers of 32 MiB, the contents of as many that are being
sealed, and AHEAD chunks of 2 MiB that are being named: about 280 MiB, whatever the size.
Rule: a pack is durable before the manifest that names it is put. Rule: chunks that manifests of the
same store and key hold are not written again, nor packs that are there by their size, so what was
interrupted goes on; what a collector took meanwhile is noticed before it is named.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from types import TracebackType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kybernate.artifacts import chunks, names, packs, signing
from kybernate.artifacts import manifest as manifests
from kybernate.artifacts.chunks import CHUNK, Bytes, DomainKey
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.manifest import ORIGIN, Chunks, File, Manifest, Origin, Piece, Zeros
from kybernate.artifacts.packs import Pack, Packing
from kybernate.ladder.buffers import Buffers
from kybernate.ladder.progress import Course
from kybernate.ladder.publishing import publish
from kybernate.stores.port import Store

PACKS = 4  # buffers: one that is filled, and three on their way
AHEAD = 8  # chunks that are named before they have a place
NEEDED = 0.5  # of a pack's bytes, for others to share it

Known = Mapping[bytes, tuple[Pack, int]]
"""Chunks a store has: pack, and number in it, by name."""
There = Mapping[str, int]
"""Packs a store has: bytes, by key."""


def there(store: Store, domain: str) -> There:
    """Packs of a domain. Raises what the store raises."""
    return {one.key: one.size for one in store.list(f"{names.DOMAINS}/{domain}/packs")}


def known(held: Iterable[Manifest], key: DomainKey, packs_there: There | None = None) -> Known:
    """What these manifests of one store say is there, of this key's chunks; of packs that are gone
    none, where it is told which are there. A pack of which a manifest needs less than half is not
    among them: what is needed of it is sealed anew, for packs are kept, and listed, whole."""
    return {
        chunk.name: (pack, number)
        for manifest in held
        if manifest.key == key.id
        for pack in manifest.needed_packs(NEEDED)
        if packs_there is None or is_there(manifest.domain, pack, packs_there)
        for number, chunk in enumerate(pack.chunks)
    }


def is_there(domain: str, pack: Pack, packs_there: There) -> bool:
    """As far as its size tells."""
    return packs_there.get(names.pack_key(domain, pack.name)) == pack.size


@dataclass(slots=True)
class _Filling:
    """A pack that is being filled: its number here, and its chunks that are not sealed yet."""

    number: int
    packing: Packing
    buffer: memoryview
    sealing: list[Future[None]]


class Writing:
    """One checkpoint. For one thread; a context manager, which lets go of everything.

    `written` is how many bytes of packs were put: what this checkpoint costs beside the known.
    """

    def __init__(
        self,
        store: Store,
        domain: str,
        key: DomainKey,
        course: Course,
        known: Known | None = None,
        packs_there: There | None = None,
    ) -> None:
        self._store, self._domain, self._key, self._course = store, domain, key, course
        self._reusable, self._there = known or {}, packs_there or {}
        self._origin: Origin | None = None
        self._packs: list[Pack | None] = []
        self._here: dict[bytes, tuple[int, int]] = {}  # pack and chunk, by name
        self._old: dict[str, int] = {}  # numbers of packs that were there, by name
        self._files: list[File] = []
        self._filling: _Filling | None = None
        self._puts: list[Future[None]] = []
        self._buffers = Buffers(PACKS, -(-packs.LARGEST // 4096) * 4096)
        self._work = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="sealing")
        self._sending = ThreadPoolExecutor(PACKS - 1, thread_name_prefix="putting")
        self.written = 0

    def __enter__(self) -> "Writing":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sending.shutdown(cancel_futures=True)
        self._work.shutdown(cancel_futures=True)

    @property
    def files(self) -> tuple[File, ...]:
        """Those that were added."""
        return tuple(self._files)

    def add(self, path: str, contents: Iterable[Bytes]) -> File:
        """A file: its chunks in order, of 2 MiB at most; they must not change any more. What is cut
        where it was cut before is found again.

        Raises Unusable for a path that is not allowed, Ended, and what the store raises.
        """
        names.check_path(path)
        file = self._made(path, contents)
        self._files.append(file)
        return file

    def carried_from(self, signature: str, content: Bytes) -> None:
        """Its manifest of format v0, as it was signed. Raises as `add` does."""
        made = self._made(ORIGIN, _chunks_of(content))
        self._origin = Origin(signature=signature, size=made.size, content=made.content)

    def _made(self, path: str, contents: Iterable[Bytes]) -> File:
        pieces: list[Piece] = []
        size = 0
        waiting: deque[tuple[Bytes, Future[bytes | None]]] = deque()
        for content in contents:
            size += len(content)
            waiting.append((content, self._work.submit(self._named, content)))
            if len(waiting) >= AHEAD:
                self._settle(*waiting.popleft(), pieces)
        while waiting:
            self._settle(*waiting.popleft(), pieces)
        return File(path=path, size=size, content=tuple(pieces))

    def take(self, path: str, source: Path, pieces: Sequence[int] = ()) -> File:
        """A copy of a regular file, which begins with chunks of so many bytes. Raises OSError too,
        for a link as well."""
        return self.add(path, cut(source, pieces))

    def settle(self) -> None:
        """Put what is left of the packs: what they cost is known then. Raises as `add`."""
        self._send()
        for put in self._puts:
            put.result()

    def seal(
        self, namespace: str, name: str, facts: Facts, signer: Ed25519PrivateKey
    ) -> tuple[Manifest, bytes]:
        """Put what is left, then the manifest: the checkpoint is there. Itself and its object.

        Raises Unusable where we would not read it ourselves, and what the store raises.
        """
        self.settle()
        manifest = Manifest(
            namespace=namespace,
            name=name,
            domain=self._domain,
            key=self._key.id,
            facts=facts,
            files=tuple(sorted(self._files, key=lambda file: file.path)),
            packs=tuple(pack for pack in self._packs if pack),
            origin=self._origin,
        )
        content = manifests.encode(manifest)
        manifests.decode(content)  # what we would refuse we do not make
        self._course.check()
        blob = signing.signed(content, signer)
        publish(self._store, manifest, blob, self._course)
        return manifest, blob

    def _named(self, content: Bytes) -> bytes | None:
        return None if chunks.is_zero(content) else self._key.name(content)

    def _settle(self, content: Bytes, named: Future[bytes | None], pieces: list[Piece]) -> None:
        name = named.result()
        if name is None:
            _append(pieces, Zeros(len(content)))
        else:
            _append(pieces, Chunks(*self._placed(name, content), 1))
        self._course.did(len(content))

    def _placed(self, name: bytes, content: Bytes) -> tuple[int, int]:
        """Pack and chunk, by their numbers here: as it is there already, or sealed now."""
        if name in self._here:
            return self._here[name]
        if name in self._reusable:
            pack, chunk = self._reusable[name]
            if pack.name not in self._old:
                self._old[pack.name] = len(self._packs)
                self._packs.append(pack)
            self._here[name] = (self._old[pack.name], chunk)
        else:
            filling = self._room(len(content))
            chunk, into = filling.packing.place(name, len(content))
            filling.sealing.append(self._work.submit(self._key.seal, name, content, into))
            self._here[name] = (filling.number, chunk)
        return self._here[name]

    def _room(self, size: int) -> _Filling:
        """A pack with a place for so many bytes."""
        if self._filling and not self._filling.packing.fits(size):
            self._send()
        if not self._filling:
            buffer = self._buffers.take(self._course)
            for put in self._puts:
                if put.done():
                    put.result()  # what went wrong is told now, not at the end
            self._filling = _Filling(len(self._packs), Packing(buffer), buffer, [])
            self._packs.append(None)
        return self._filling

    def _send(self) -> None:
        if self._filling:
            self._puts.append(self._sending.submit(self._put, self._filling))
            self._filling = None

    def _put(self, filling: _Filling) -> None:
        try:
            for sealed in filling.sealing:
                sealed.result()
            pack, content = filling.packing.finish()
            if not is_there(self._domain, pack, self._there):
                self._store.put(names.pack_key(self._domain, pack.name), content)
                self.written += len(content)
            self._packs[filling.number] = pack
        finally:
            filling.sealing.clear()
            self._buffers.give(filling.buffer)


def _chunks_of(content: Bytes) -> Iterator[Bytes]:
    view = memoryview(content)
    yield from (view[at : at + CHUNK] for at in range(0, len(view), CHUNK))


def cut(source: Path, pieces: Sequence[int] = ()) -> Iterator[bytes]:
    """A regular file's chunks, the first of so many bytes each. Raises OSError, for a link too."""
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb", buffering=0) as file:
        with suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        for size in chain(pieces, repeat(CHUNK)):
            if not (content := _full(file.read, min(size, CHUNK))):
                return
            yield content


def _full(read, size: int) -> bytes:  # type: ignore[no-untyped-def]
    """As many bytes, or less at the end."""
    content = read(size)
    while content and len(content) < size and (more := read(size - len(content))):
        content += more
    return bytes(content)


def _append(pieces: list[Piece], piece: Piece) -> None:
    """Joined with the last one where they are one after the other."""
    last = pieces[-1] if pieces else None
    if isinstance(piece, Zeros) and isinstance(last, Zeros):
        pieces[-1] = Zeros(last.size + piece.size)
    elif (
        isinstance(piece, Chunks)
        and isinstance(last, Chunks)
        and (last.pack, last.first + last.count) == (piece.pack, piece.first)
    ):
        pieces[-1] = Chunks(last.pack, last.first, last.count + piece.count)
    else:
        pieces.append(piece)
