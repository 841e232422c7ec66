"""
What contents look like below the pool, on NVMe or in the object store: packs of sealed chunks and a
signed manifest, as sealed checkpoints have, and the keys that open them.

Called by: the cellar and the depot. The keys come from a secret that stands beside the pool, and
from the copy's token, which only the journal has. Rule: what the journal does not name cannot be
read, so an older copy is never taken for the newest.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kybernate.artifacts import names, signing
from kybernate.artifacts.chunks import Bytes, DomainKey, derived
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.manifest import File
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Refused
from kybernate.ladder import copying, reading
from kybernate.ladder.progress import Course
from kybernate.ladder.reading import Opened
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.ids import NodeName, PodUid
from kybernate.stores.port import Store
from nodeagent.disk.pool import Damaged, Kept, Slot

NAMESPACE, NAME = "parked", "contents"  # of the manifest; where it lies says whose it is
_KEPT = "kept"  # the parts as the pool had them, in the manifest
_NOWHERE = Fingerprint(
    kernel="", architecture="", boot="", image="", command=(), mechanism=""
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Keys:
    """Of every copy of a node, by the copy's token."""

    secret: bytes = field(repr=False)

    def domain(self, token: str) -> DomainKey:
        """What its chunks are sealed under."""
        return DomainKey(derived("kybernate parked contents: chunks", self._of(token)))

    def signer(self, token: str) -> Ed25519PrivateKey:
        """Who signs its manifest."""
        seed = derived("kybernate parked contents: manifest", self._of(token))
        return Ed25519PrivateKey.from_private_bytes(seed)

    def lying(self, store: Store, token: str) -> "Lying":
        """The copy that this store has. Raises Unusable, and what the store raises."""
        signer = self.signer(token).public_key()
        trusted = {signing.key_id(signer): signer}
        return Lying(store, reading.opened(store, NAMESPACE, NAME, trusted), self.domain(token))

    def _of(self, token: str) -> bytes:
        return self.secret + token.encode()


@dataclass(frozen=True, slots=True)
class Lying:
    """A copy that was opened: where it lies, its manifest, what its chunks are sealed under."""

    store: Store
    opened: Opened
    key: DomainKey

    def stream(self, file: File, clock: Clock) -> Iterator[memoryview]:
        """Its bytes, with what comes next on its way: about 260 MiB for each that is read."""
        alone = replace(self.opened.manifest, files=(file,))
        for _, chunks in reading.in_order(self.store, alone, self.key, Course(clock)):
            yield from chunks

    def copy_to(self, target: Store, course: Course) -> None:
        """Have it there as it is, each chunk opened on the way, the manifest last. Packs that are
        there are not moved again. Raises Unusable for what is wrong here, Ended, and what the
        stores raise; what was put stays."""
        copying.copy_packs(self.store, target, self.opened.manifest, self.key, course)
        target.put(names.manifest_key(NAMESPACE, NAME), self.opened.blob)

    def verify(self, course: Course) -> None:
        """Open every chunk. Raises Unusable, Ended, and what the store raises."""
        copying.check_packs(self.store, self.opened.manifest, self.key, course)


Told = Callable[[], AbstractContextManager[None]]
"""What artifacts and stores say, in the words of the place where a copy lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How copies are read in one place: how errors are told, and what is held while one is."""

    told: Told
    clock: Clock
    way: Callable[[], AbstractContextManager[None]] = nullcontext


class Lowered(Slot):
    """A copy below the pool, to be read as a slot of the pool is. What a part has is the stream
    that was kept of it."""

    def __init__(self, name: str, opened: Callable[[], Lying], place: Place) -> None:
        super().__init__(Path(name), _never)
        self._open, self._place = opened, place
        self._found: Lying | None = None
        self._waiting = threading.Lock()
        self.waited = 0.0  # seconds that readers waited for the place, of all cards together

    def parts(self) -> tuple[Kept, ...]:
        """As the pool had them. Raises Damaged, Refused, Retry."""
        try:
            told = orjson.loads(self._lying.opened.manifest.facts.more[_KEPT])
            return tuple(Kept(**part) for part in told)
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"the copy does not say what it is of: {error}") from error

    def read(self, name: str) -> Iterator[Bytes]:
        """A part's stream in order. Raises Damaged, Refused, Retry."""
        file = self._file(name)
        with self._place.told(), self._place.way():
            chunks = self._lying.stream(file, self._place.clock)
            while (chunk := self._next(chunks)) is not None:
                yield chunk

    def _next(self, chunks: Iterator[memoryview]) -> memoryview | None:
        began = self._place.clock.monotonic()
        try:
            return next(chunks, None)
        finally:
            with self._waiting:
                self.waited += self._place.clock.monotonic() - began

    def weight(self, part: Kept) -> int:
        """Bytes of its stream. Raises as `read`."""
        return self._file(part.name).size

    def write(self, name: str, chunks: Iterator[Bytes]) -> tuple[int, str]:  # noqa: ARG002
        """Never: what is below the pool is whole."""
        raise Refused(f"part {name} is to be written below the pool")

    def seal(self, parts: tuple[Kept, ...]) -> None:
        """Never."""
        raise Refused(f"{len(parts)} parts are to be sealed below the pool")

    @property
    def _lying(self) -> Lying:
        if self._found is None:
            with self._place.told():
                self._found = self._open()
        return self._found

    def _file(self, name: str) -> File:
        files = {file.path: file for file in self._lying.opened.manifest.files}
        for number, part in enumerate(self.parts()):
            if part.name == name and (file := files.get(f"{number}")) is not None:
                return file
        raise Damaged(f"part {name} is missing below the pool")


def facts_of(name: str, parts: Iterable[Kept]) -> Facts:
    """What a manifest needs, and the parts."""
    return Facts(
        workload=name,
        pod=name,
        pod_uid=PodUid(name),
        container="",
        node=NodeName(""),
        sealed_at=0.0,
        made_in=_NOWHERE,
        boot_bound=True,
        more={_KEPT: orjson.dumps([asdict(part) for part in parts]).decode()},
    )


def _never(name: str) -> None:
    """Nobody is told."""
