"""
Having a checkpoint back: its manifest believed, its chunks fetched, opened and written in parallel.

Called by: `kyb`, agents. Memory: SPANS buffers of sealed chunks of 32 MiB and one chunk each that
is being opened: about 140 MiB. Rule: every chunk's tag and name are checked before its bytes are
given to anybody. Rule: nothing is written outside the folder: paths were checked by the manifest.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kybernate.artifacts import manifest as manifests
from kybernate.artifacts import names, signing
from kybernate.artifacts.chunks import CHUNK, DomainKey
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import File, Manifest, Zeros
from kybernate.artifacts.signing import Trusted
from kybernate.ladder import spans
from kybernate.ladder.buffers import Buffers
from kybernate.ladder.progress import Course
from kybernate.ladder.spans import Place, Span
from kybernate.model.checkpoint import Flaw
from kybernate.stores.errors import Absent
from kybernate.stores.pages import taken
from kybernate.stores.port import Store

SPANS = 4  # at once


Sink = Callable[[str, int, memoryview], None]
"""Takes a chunk: the file's path, where in it, and the bytes, which are there until it returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A manifest that is believed, and its object as it was signed."""

    manifest: Manifest
    signature: str
    blob: bytes = field(repr=False)


def opened(
    store: Store, namespace: str, name: str, trusted: Trusted, published: str = ""
) -> Opened:
    """`published` is the signature that its GpuCheckpoint names: it has to be that very one.

    Raises Unusable, and what the store raises.
    """
    key = names.manifest_key(namespace, name)
    try:
        blob = bytes(store.get(key, 0, manifests.MAX_MANIFEST + signing.MAX_LINE + 1))
    except Absent:
        raise Unusable(Flaw.ABSENT, f"{namespace}/{name}") from None
    manifest, signature = manifests.read(blob, trusted, namespace, name)
    if published and published != signature:
        raise Unusable(Flaw.NOT_PUBLISHED, f"{namespace}/{name}")
    return Opened(manifest=manifest, signature=signature, blob=blob)


def extract(store: Store, manifest: Manifest, key: DomainKey, folder: Path, course: Course) -> None:
    """Write every file below a folder that is empty, and sync them.

    Raises Unusable, Ended, OSError, and what the store raises; what was written stays then.
    """
    for file in manifest.files:
        _made(folder / file.path, file.size)
    deliver(store, manifest, key, lambda path, at, found: _write(folder / path, found, at), course)
    _sync(folder, manifest)


def deliver(store: Store, manifest: Manifest, key: DomainKey, sink: Sink, course: Course) -> None:
    """Give every chunk of every file to `sink`, in no order and from several threads; zeros are
    not given. Raises Unusable, Ended, and what the store and the sink raise."""
    course.expect(manifest.size)
    for file in manifest.files:
        course.did(sum(piece.size for piece in file.content if isinstance(piece, Zeros)))
    buffers = Buffers(SPANS, CHUNK + spans.ROOM)

    def fetch(span: Span) -> None:
        room = buffers.take(course)
        try:
            content = span.fetched(store, manifest.domain, room[CHUNK:])
            for place in span.places:
                found = span.open(place, content, key, room[:CHUNK])
                sink(place.file, place.at, found)
                course.did(len(found))
        finally:
            buffers.give(room)

    with ThreadPoolExecutor(SPANS, thread_name_prefix="waking") as threads:
        try:
            for _ in threads.map(fetch, list(spans.joined(spans.places(manifest)))):
                pass
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def stream(store: Store, manifest: Manifest, key: DomainKey, file: File) -> Iterator[memoryview]:
    """A file's bytes in order. Raises as `extract` does."""
    for piece in file.content:
        if isinstance(piece, Zeros):
            yield from zeros(piece.size)
            continue
        for number in range(piece.first, piece.first + piece.count):
            yield _chunk(store, manifest, key, piece.pack, number)


def piece(
    store: Store, manifest: Manifest, key: DomainKey, file: File, place: tuple[int, int]
) -> bytes:
    """So many bytes of a file from where they begin (both of `place`), less at its end; only the
    chunks they are in are fetched. Raises as `extract` does."""
    begin, end = place[0], place[0] + place[1]
    found, at = bytearray(), 0
    for part in file.content:
        if isinstance(part, Zeros):
            found += bytes(max(0, min(end, at + part.size) - max(begin, at)))
            at += part.size
            continue
        pack = manifest.packs[part.pack]
        for number in range(part.first, part.first + part.count):
            size = pack.chunks[number].size
            if at < end and at + size > begin:
                opened = _chunk(store, manifest, key, part.pack, number)
                found += opened[max(0, begin - at) : max(0, end - at)]
            at += size
    return bytes(found)


def _chunk(store: Store, manifest: Manifest, key: DomainKey, pack: int, number: int) -> memoryview:
    """One, fetched for itself."""
    place = Place(number, "", 0)
    span = Span(manifest.packs[pack], [place])
    content = span.fetched(store, manifest.domain)
    return span.open(place, content, key, taken(span.size(place)))


def origin(store: Store, manifest: Manifest, key: DomainKey) -> bytes:
    """The manifest of v0 that it was made of, not checked. Raises as `extract` does."""
    if manifest.origin is None:
        raise Unusable(Flaw.VERSION, "it does not say which checkpoint of an agent it was made of")
    return b"".join(stream(store, manifest, key, manifest.origin.file))


def in_order(
    store: Store, manifest: Manifest, key: DomainKey, course: Course
) -> Iterator[tuple[File, Iterator[memoryview]]]:
    """Every file, and its bytes in order, to be taken before the next file is asked for.

    What comes next is fetched and opened meanwhile: SPANS of 32 MiB, sealed and opened, about 260
    MiB. Raises as `extract` does.
    """
    course.expect(manifest.size)
    with ThreadPoolExecutor(SPANS, thread_name_prefix="waking") as threads:
        ahead = _Ahead(threads, store, manifest, key, course)
        try:
            for file in manifest.files:
                yield file, ahead.bytes_of(file)
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


class _Ahead:
    """Chunks in order, fetched before they are asked for. For one thread."""

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        store: Store,
        manifest: Manifest,
        key: DomainKey,
        course: Course,
    ) -> None:
        self._threads, self._store, self._manifest = threads, store, manifest
        self._key, self._course = key, course
        self._spans = spans.joined(spans.places(manifest))
        self._buffers = Buffers(SPANS, spans.ROOM)
        self._coming: deque[Future[list[memoryview]]] = deque()
        self._ready: deque[memoryview] = deque()

    def bytes_of(self, file: File) -> Iterator[memoryview]:
        """Of a file, in the manifest's order."""
        for size, is_zero in _rows(self._manifest, file):
            for piece in zeros(size) if is_zero else [self._next()]:
                self._course.did(len(piece))
                yield piece

    def _next(self) -> memoryview:
        if not self._ready:
            self._fetch_ahead()
            self._ready.extend(self._coming.popleft().result())
            self._fetch_ahead()
        return self._ready.popleft()

    def _fetch_ahead(self) -> None:
        while len(self._coming) < SPANS and (span := next(self._spans, None)):
            self._coming.append(self._threads.submit(self._fetch, span))

    def _fetch(self, span: Span) -> list[memoryview]:
        sealed = self._buffers.take(self._course)
        try:
            content = span.fetched(self._store, self._manifest.domain, sealed)
            room, found = taken(sum(span.size(place) for place in span.places)), []
            for place in span.places:
                found.append(span.open(place, content, self._key, room))
                room = room[span.size(place) :]
            return found
        finally:
            self._buffers.give(sealed)


def _rows(manifest: Manifest, file: File) -> Iterator[tuple[int, bool]]:
    """Bytes of each chunk of a file, or of each row of zeros, and whether it is one."""
    for piece in file.content:
        if isinstance(piece, Zeros):
            yield piece.size, True
        else:
            chunks = manifest.packs[piece.pack].chunks
            for chunk in chunks[piece.first : piece.first + piece.count]:
                yield chunk.size, False


def zeros(size: int) -> Iterator[memoryview]:
    """So many, by chunks."""
    row = memoryview(bytes(min(size, CHUNK)))
    for at in range(0, size, CHUNK):
        yield row[: size - at]


def _made(path: Path, size: int) -> None:
    """A new file of so many zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.truncate(size)


def _write(path: Path, content: memoryview, at: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while content:
            count = os.pwrite(fd, content, at)
            content, at = content[count:], at + count
    finally:
        os.close(fd)


def _sync(folder: Path, manifest: Manifest) -> None:
    """Files, then the folders they are in."""
    above = {up for file in manifest.files for up in names.above(file.path)}
    for path in (*(file.path for file in manifest.files), *sorted(above, reverse=True), "."):
        sync(folder / path)


def sync(path: Path) -> None:
    """Have a file, or a folder's names, survive a loss of power. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
