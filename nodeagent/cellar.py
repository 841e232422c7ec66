"""
The cellar: contents of parked workloads that left the RAM pool, on the node's NVMe.

Called by the stories (demote, promote, store, fetch, resume, seal) and by recovery. A folder for
each pod's uid; in it a store with what `lowered` says, under keys that a secret beside the pool and
the copy's token give. Rule: sizes and the limit are the card's, as the pool's; the disk's own room
counts too.
"""

import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from kybernate.artifacts import chunks, names
from kybernate.artifacts.chunks import Bytes
from kybernate.artifacts.faults import Unusable
from kybernate.clients.clock import Clock
from kybernate.ladder.progress import Course
from kybernate.ladder.writing import Writing
from kybernate.model.tier import Room
from kybernate.runtime.logs import get_logger
from kybernate.stores import errors as stores
from kybernate.stores.disk import Disk
from kybernate.stores.nvme import Nvme
from nodeagent.disk.durable import seal, sync_folder
from nodeagent.disk.pool import Damaged, Kept, NoRoom
from nodeagent.lowered import NAME, NAMESPACE, Keys, Lowered, Lying, Place, facts_of

KEY_FILE = "cellar.key"  # beside the pool: it ends with the boot, as all that is parked does
_SECRET_BYTES = 32
_RESERVED = "reserved.json"
_VERSION = 1
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")

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
    stream: Iterator[Bytes]


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
        self._folder, self._limit, self._keys = folder, limit, Keys(secret)
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
        size = sum(one.part.size for one in contents)
        with self._coming(name, size, sum(one.weight for one in contents)) as store:
            key = self._keys.domain(token)
            with _told(), Writing(store, NAMESPACE, key, course) as made:
                for number, one in enumerate(contents):
                    made.add(f"{number}", chunks.cut(one.stream))
                facts = facts_of(name, [one.part for one in contents])
                made.seal(NAMESPACE, NAME, facts, self._keys.signer(token))

    def take(self, name: str, size: int, lying: Lying, course: Course) -> None:
        """A copy that lies elsewhere, of so many card bytes, as it is; durable when it returns.

        Raises as `keep` does, and what reading it there raises: then nothing of it stays.
        """
        with self._coming(name, size, lying.opened.manifest.packed) as store:
            lying.copy_to(store, course)

    def verify(self, name: str, token: str, course: Course) -> None:
        """Read every byte back from the disk. Raises Damaged, Ended, Refused, Retry."""
        with _told():
            self.lying(name, token).verify(course)

    def lying(self, name: str, token: str) -> Lying:
        """The copy, its manifest read. Raises Damaged, Refused, Retry."""
        with _told():
            return self._keys.lying(self._store(name), token)

    def slot(self, name: str, token: str) -> Lowered:
        """The copy as it is; nothing is read yet."""
        self._path(name)  # raises for what is no uid
        return Lowered(name, lambda: self.lying(name, token), Place(told=_told, clock=self._clock))

    def drop(self, name: str) -> None:
        """Nothing of this workload's is needed here any more. Twice is fine. Never raises: what
        cannot be removed is unreadable without its token, and is tried again. Its manifest goes
        first: half of a copy must never look whole to an agent that starts then."""
        path = self._path(name)
        with suppress(OSError):
            (path / names.manifest_key(NAMESPACE, NAME)).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            get_logger(cellar=str(path)).error("a copy cannot be removed")
            return
        with self._lock:
            known = self._held.pop(name, None)
        if known is not None:
            with suppress(OSError):
                sync_folder(self._folder)

    @contextmanager
    def _coming(self, name: str, size: int, weight: int) -> Iterator[Nvme]:
        """Where a copy is to be put. Nothing of it stays where that fails."""
        self._reserve(name, size, weight)
        try:
            yield self._store(name)
        except BaseException as error:
            self.drop(name)
            full = isinstance(error, NoRoom | stores.NoRoom)
            self._lacked = weight if full else 0
            raise
        self._lacked = 0

    def _reserve(self, name: str, size: int, weight: int) -> None:
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

    def _store(self, name: str) -> Nvme:
        path = self._path(name)
        if not path.is_dir():
            raise Damaged("the copy in the cellar is not there")
        return Nvme(path, self._disk)

    def _path(self, name: str) -> Path:
        if not _UID.fullmatch(name):
            raise ValueError(f"not a pod's uid: {name!r}")
        return self._folder / name


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


def _gib(size: int) -> str:
    return f"{max(0, size) / 2**30:.2f} GiB"
