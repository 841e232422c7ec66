"""
The cellar: contents of parked workloads that left the RAM pool, on the node's NVMe.

Called by the stories (demote, promote, resume, seal) and by recovery. A folder for each pod's uid;
in it a store with what sealed checkpoints have: packs of sealed chunks, then a signed manifest.
The keys come from a secret that stands beside the pool, and from the copy's token, which only the
journal has. Rule: what the journal does not name cannot be read, so an older copy is never taken
for the newest. Rule: sizes and the limit are the card's, as the pool's; the disk's own room counts
too.
"""

import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kybernate.artifacts import signing
from kybernate.artifacts.chunks import CHUNK, DomainKey, derived
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import File, Manifest
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Refused
from kybernate.ladder import reading
from kybernate.ladder.progress import Course
from kybernate.ladder.writing import Writing
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.tier import Room
from kybernate.runtime.logs import get_logger
from kybernate.stores import errors as stores
from kybernate.stores.disk import Disk
from kybernate.stores.nvme import Nvme
from nodeagent.disk.durable import seal, sync_folder
from nodeagent.disk.pool import Damaged, Kept, NoRoom, Slot

KEY_FILE = "cellar.key"  # beside the pool: it ends with the boot, as all that is parked does
_SECRET_BYTES = 32
_RESERVED = "reserved.json"
_VERSION = 1
_NAMESPACE, _NAME = "parked", "contents"  # of the manifest; the folder says whose it is
_KEPT = "kept"  # the parts as the pool had them, in the manifest
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_NOWHERE = Fingerprint(
    kernel="", architecture="", boot="", image="", command=(), mechanism=""
)  # fmt: skip

SPARE = 2**30  # bytes left to others, at least: the journal must never find the disk full

Spared = Callable[[Path], int]
"""Bytes of a folder's disk that we may take."""


def sparing(percent: float) -> Spared:
    """What the disk has left, but for so much of the whole."""

    def spared(folder: Path) -> int:
        usage = shutil.disk_usage(folder)
        return usage.free - max(SPARE, int(usage.total * percent / 100))

    return spared


@dataclass(frozen=True, slots=True)
class Content:
    """A part, the bytes of its stream about, and the stream."""

    part: Kept
    weight: int
    stream: Iterator[bytes]


class Cellar:
    """Copies by pod uid. Thread safe for different workloads. `limit` is in card bytes; with 0
    nothing is ever kept."""

    def __init__(
        self,
        folder: Path,
        limit: int,
        secret: bytes,
        clock: Clock,
        *,
        free: Spared,
        disk: Disk | None = None,
    ) -> None:
        """Finds what is there. Raises OSError."""
        self._folder, self._limit, self._secret = folder, limit, secret
        self._clock, self._free, self._disk = clock, free, disk
        self._lock = threading.Lock()
        if limit:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held = dict(_found(folder))
        self._lacked = 0  # real bytes for which the disk had no room

    def room(self) -> Room:
        """The limit and what is held; full where the disk had no room for the last one that came,
        and has none now. What others will need on the disk is not known before."""
        with self._lock:
            used, lacked = sum(self._held.values()), self._lacked
        full = not self._limit or (lacked and self._free(self._folder) < lacked)
        return Room(capacity=used if full else self._limit, used=used)

    def names(self) -> tuple[str, ...]:
        """Whose contents, whole or not, are here."""
        with self._lock:
            return tuple(self._held)

    def keep(self, name: str, token: str, contents: Sequence[Content], course: Course) -> None:
        """All parts, durable when it returns, under keys that the token gives.

        Raises NoRoom, Ended, what the streams raise, and Refused, Retry, OSError of the disk: then
        nothing of it stays.
        """
        self._reserve(name, contents)
        try:
            with _told(), Writing(self._store(name), _NAMESPACE, self._key(token), course) as made:
                for number, one in enumerate(contents):
                    made.add(f"{number}", _cut(one.stream))
                facts = _facts(name, [one.part for one in contents])
                made.seal(_NAMESPACE, _NAME, facts, self._signer(token))
        except BaseException as error:
            self.drop(name)
            full = isinstance(error, NoRoom)
            self._lacked = sum(one.weight for one in contents) if full else 0
            raise
        self._lacked = 0

    def verify(self, name: str, token: str, course: Course) -> None:
        """Read every byte back from the disk. Raises Damaged, Ended, Refused, Retry."""
        with _told():
            store = self._store(name)
            manifest = self._opened(store, token)
            reading.deliver(store, manifest, self._key(token), _nowhere, course)

    def slot(self, name: str, token: str) -> "Lowered":
        """The copy as it is; nothing is read yet."""
        return Lowered(self._path(name), lambda: self._copy(name, token), self._clock)

    def drop(self, name: str) -> None:
        """Nothing of this workload's is needed here any more. Twice is fine. Never raises: what
        cannot be removed is unreadable without its token, and is tried again."""
        path = self._path(name)
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            get_logger(cellar=str(path)).error("a copy cannot be removed")
            return
        with self._lock:
            known = self._held.pop(name, None)
        if known is not None:
            with suppress(OSError):
                sync_folder(self._folder)

    def _reserve(self, name: str, contents: Sequence[Content]) -> None:
        size = sum(one.part.size for one in contents)
        weight = sum(one.weight for one in contents)
        self.drop(name)
        with self._lock:
            left = self._limit - sum(self._held.values())
            if size > left:
                raise NoRoom(f"{_gib(size)} needed, {_gib(left)} left of the limit")
            if weight > (free := self._free(self._folder)):
                self._lacked = weight
                raise NoRoom(f"{_gib(weight)} needed, {_gib(free)} left on the disk")
            self._held[name] = size
        path = self._path(name)
        try:
            path.mkdir(mode=0o700)
            seal(path / _RESERVED, orjson.dumps({"version": _VERSION, "size": size}))
        except BaseException:
            self.drop(name)
            raise

    def _copy(self, name: str, token: str) -> "_Copy":
        with _told():
            store = self._store(name)
            manifest = self._opened(store, token)
        return _Copy(store, manifest, self._key(token), self._clock)

    def _opened(self, store: Nvme, token: str) -> Manifest:
        signer = self._signer(token).public_key()
        trusted = {signing.key_id(signer): signer}
        return reading.opened(store, _NAMESPACE, _NAME, trusted).manifest

    def _store(self, name: str) -> Nvme:
        path = self._path(name)
        if not path.is_dir():
            raise Damaged("the copy in the cellar is not there")
        return Nvme(path, self._disk)

    def _key(self, token: str) -> DomainKey:
        return DomainKey(derived("kybernate parked contents: chunks", self._of(token)))

    def _signer(self, token: str) -> Ed25519PrivateKey:
        seed = derived("kybernate parked contents: manifest", self._of(token))
        return Ed25519PrivateKey.from_private_bytes(seed)

    def _of(self, token: str) -> bytes:
        return self._secret + token.encode()

    def _path(self, name: str) -> Path:
        if not _UID.fullmatch(name):
            raise ValueError(f"not a pod's uid: {name!r}")
        return self._folder / name


@dataclass(frozen=True, slots=True)
class _Copy:
    """One that was opened."""

    store: Nvme
    manifest: Manifest
    key: DomainKey
    clock: Clock

    def stream(self, file: File) -> Iterator[memoryview]:
        """Its bytes, with what comes next on its way: about 260 MiB for each that is read."""
        alone = replace(self.manifest, files=(file,))
        for _, chunks in reading.in_order(self.store, alone, self.key, Course(self.clock)):
            yield from chunks


class Lowered(Slot):
    """A copy in the cellar, to be read as a slot of the pool is. What a part has is the stream that
    was kept of it."""

    def __init__(self, folder: Path, opened: Callable[[], _Copy], clock: Clock) -> None:
        super().__init__(folder, _never)
        self._open, self._clock = opened, clock
        self._found: _Copy | None = None
        self._waiting = threading.Lock()
        self.waited = 0.0  # seconds that readers waited for the disk, of all cards together

    def parts(self) -> tuple[Kept, ...]:
        """As the pool had them. Raises Damaged, Refused, Retry."""
        try:
            told = orjson.loads(self._copy.manifest.facts.more[_KEPT])
            return tuple(Kept(**part) for part in told)
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"the copy in the cellar does not say what it is of: {error}") from error

    def read(self, name: str) -> Iterator[bytes]:
        """A part's stream in order. Raises Damaged, Refused, Retry."""
        file = self._file(name)
        with _told():
            chunks = self._copy.stream(file)
            while (chunk := self._next(chunks)) is not None:
                yield bytes(chunk)

    def _next(self, chunks: Iterator[memoryview]) -> memoryview | None:
        began = self._clock.monotonic()
        try:
            return next(chunks, None)
        finally:
            with self._waiting:
                self.waited += self._clock.monotonic() - began

    def weight(self, part: Kept) -> int:
        """Bytes of its stream. Raises as `read`."""
        return self._file(part.name).size

    def write(self, name: str, chunks: Iterator[bytes]) -> tuple[int, str]:  # noqa: ARG002
        """Never: what is in the cellar is whole."""
        raise Refused(f"part {name} is to be written into the cellar")

    def seal(self, parts: tuple[Kept, ...]) -> None:
        """Never."""
        raise Refused(f"{len(parts)} parts are to be sealed in the cellar")

    @property
    def _copy(self) -> _Copy:
        if self._found is None:
            self._found = self._open()
        return self._found

    def _file(self, name: str) -> File:
        files = {file.path: file for file in self._copy.manifest.files}
        for number, part in enumerate(self.parts()):
            if part.name == name and (file := files.get(f"{number}")) is not None:
                return file
        raise Damaged(f"part {name} is missing in the cellar")


def secret_in(folder: Path) -> bytes:
    """The cellar's, made where there is none. Raises OSError; one that is not whole is replaced,
    and what was kept under it is lost."""
    path = folder / KEY_FILE
    try:
        if len(found := path.read_bytes()) == _SECRET_BYTES:
            return found
        get_logger(path=str(path)).error("the cellar's key is not whole: a new one is made")
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
    made = secrets.token_bytes(_SECRET_BYTES)
    seal(path, made)
    path.chmod(0o600)
    return made


def _facts(name: str, parts: Iterable[Kept]) -> Facts:
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


def _cut(stream: Iterable[bytes]) -> Iterator[bytearray]:
    """In chunks of the format's size."""
    chunk = bytearray()
    for piece in stream:
        left = memoryview(piece)
        while left:
            count = min(len(left), CHUNK - len(chunk))
            chunk += left[:count]
            left = left[count:]
            if len(chunk) == CHUNK:
                yield chunk
                chunk = bytearray()
    if chunk:
        yield chunk


def _found(folder: Path) -> Iterator[tuple[str, int]]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_dir() and _UID.fullmatch(path.name):
            size = 0
            with suppress(OSError, ValueError, KeyError, TypeError):
                size = int(orjson.loads((path / _RESERVED).read_bytes())["size"])
            yield path.name, size


@contextmanager
def _told() -> Iterator[None]:
    """What artifacts and stores say, in the pool's words."""
    try:
        yield
    except Unusable as error:
        raise Damaged(f"the copy in the cellar: {error}") from error
    except stores.NoRoom as error:
        raise NoRoom(str(error)) from error


def _nowhere(path: str, at: int, chunk: memoryview) -> None:
    """For bytes that are only to be right."""


def _never(name: str) -> None:
    """Nobody is told."""


def _gib(size: int) -> str:
    return f"{max(0, size) / 2**30:.2f} GiB"
