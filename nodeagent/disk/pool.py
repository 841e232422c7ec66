"""
The RAM pool: contents of parked workloads, in files that outlive the agent.

Called by the stories and by recovery. A slot is a folder named by the pod's uid in a host-mounted
tmpfs: one file per part, then `slot.json`, sealed last: a slot without it was never complete.
A mechanism may have its contents elsewhere in the pool, shared and without zeros: its `Bulk`.
Rule: sizes are those of the card (what VRAM they stand for); the limit is checked before anything
starts, and a reservation is on disk, so that it counts after a restart too.
"""

import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import orjson

from kybernate.artifacts.chunks import Bytes
from kybernate.clients.errors import Refused
from kybernate.model.tier import Room
from nodeagent.disk.durable import seal

CHUNK = 1024 * 1024
SEALED = "slot.json"
_RESERVED = "reserved.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_VERSION = 1


class NoRoom(Refused):
    """The pool has no room for it."""


class Damaged(Refused):
    """The copy in the pool is not what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One part in a slot. `size` is the card's bytes, `content` the real ones."""

    name: str
    uuid: str
    size: int
    content: int
    digest: str


class Bulk(Protocol):
    """Contents beside the slots' own files. Thread safe. Names are slots', sizes real bytes."""

    def used(self) -> int:
        """What sealed slots need of it, together."""

    def counts(self, name: str) -> bool:
        """Whether a slot is in `used`, in place of what was reserved for it."""

    def seal(self, name: str) -> None:
        """The slot has been sealed."""

    def retire(self, name: str) -> bool:
        """The slot's workload is active again. Whether its copy was moved away to be kept, as long
        as nobody needs the room."""

    def free(self, name: str, *, spare: bool) -> None:
        """The slot's folder has gone; what was kept by `retire` goes too, if `spare`."""

    def spares(self) -> tuple[str, ...]:
        """Whose copies are kept so."""

    def weight(self, slot: "Slot", part: Kept) -> int:
        """Bytes of `carried`, about."""

    def carried(self, slot: "Slot", part: Kept) -> Iterator[Bytes]:
        """A part's contents as one stream, to be kept elsewhere. Raises Damaged, OSError."""

    def brought(self, slot: "Slot", name: str, content: Iterator[Bytes]) -> tuple[int, str]:
        """A part out of such a stream, in a slot that is not sealed: as `Slot.write`. Raises
        Damaged, NoRoom, OSError."""


class NoBulk:
    """A `Bulk` of mechanisms that write into the slots' files."""

    def used(self) -> int:
        """Nothing."""
        return 0

    def counts(self, name: str) -> bool:  # noqa: ARG002 - the port's
        """Never."""
        return False

    def seal(self, name: str) -> None:
        """Nothing follows."""

    def retire(self, name: str) -> bool:  # noqa: ARG002 - the port's
        """Never."""
        return False

    def free(self, name: str, *, spare: bool) -> None:
        """Nothing was kept."""

    def spares(self) -> tuple[str, ...]:
        """None."""
        return ()

    def weight(self, slot: "Slot", part: Kept) -> int:  # noqa: ARG002 - the port's
        """That of its file."""
        return part.content

    def carried(self, slot: "Slot", part: Kept) -> Iterator[Bytes]:
        """Its file."""
        return slot.checked(part)

    def brought(self, slot: "Slot", name: str, content: Iterator[Bytes]) -> tuple[int, str]:
        """Its file."""
        return slot.write(name, content)


class Slot:
    """One workload's place in the pool. Parts are written, sealed together, read back."""

    def __init__(self, folder: Path, sealed: Callable[[str], None]) -> None:
        """`sealed` is told the slot's name."""
        self._folder, self._sealed = folder, sealed

    @property
    def name(self) -> str:
        """The pod's uid."""
        return self._folder.name

    @property
    def folder(self) -> Path:
        """Where it stands, for a mechanism that has files of its own beside the parts."""
        return self._folder

    def write(self, name: str, chunks: Iterator[Bytes]) -> tuple[int, str]:
        """Store a part. Real bytes and their BLAKE2b-256."""
        digest = hashlib.blake2b(digest_size=32)
        count = 0
        with self._part(name).open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                count += len(chunk)
                file.write(chunk)
        return count, digest.hexdigest()

    def read(self, name: str) -> Iterator[Bytes]:
        """A part's contents in order. Raises Damaged when it is not there."""
        try:
            with self._part(name).open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except FileNotFoundError:
            raise Damaged(f"part {name} is missing") from None

    def seal(self, parts: tuple[Kept, ...]) -> None:
        """Say that the slot is complete."""
        manifest = {"version": _VERSION, "parts": [asdict(part) for part in parts]}
        seal(self._folder / SEALED, orjson.dumps(manifest))
        self._sealed(self.name)

    def parts(self) -> tuple[Kept, ...]:
        """What the sealed slot holds. Raises Damaged where it was never sealed or does not fit."""
        try:
            manifest = orjson.loads((self._folder / SEALED).read_bytes())
            kept = tuple(Kept(**part) for part in manifest["parts"])
            short = [p.name for p in kept if self._part(p.name).stat().st_size != p.content]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(f"the copy is incomplete: {error}") from error
        if short:
            raise Damaged(f"parts {', '.join(short)} are cut short")
        return kept

    def checked(self, part: Kept) -> Iterator[Bytes]:
        """As `read`. Raises Damaged at the end where it is not what was written."""
        digest = hashlib.blake2b(digest_size=32)
        for chunk in self.read(part.name):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != part.digest:
            raise Damaged(f"part {part.name} was changed in the pool")

    def check(self, part: Kept) -> None:
        """Read a part and compare. Raises Damaged."""
        for _ in self.checked(part):
            pass

    def _part(self, name: str) -> Path:
        # Names come from a mechanism, which may take them from a workload: never a path.
        return self._folder / (hashlib.blake2b(name.encode(), digest_size=16).hexdigest() + ".part")


@dataclass
class Pool:
    """All slots. Thread safe. `limit` is in card bytes."""

    folder: Path
    limit: int
    bulk: Bulk = field(default_factory=NoBulk)
    _reserved: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._reserved = dict(self._found())

    def room(self) -> Room:
        """Capacity and use, reservations included."""
        with self._lock:
            return Room(capacity=self.limit, used=self._used())

    def slots(self) -> Mapping[str, int]:
        """Every slot with its size; what is kept of active workloads has none."""
        with self._lock:
            return {**dict.fromkeys(self.bulk.spares(), 0), **self._reserved}

    def reserve(self, name: str, size: int) -> Slot:
        """An empty slot. Raises NoRoom before anything is written, OSError: nothing is kept."""
        with self._lock:
            others = self._used(but=name)
            if others + size > self.limit:
                left = max(0, self.limit - others)
                raise NoRoom(f"{size / 2**30:.1f} GiB needed, {left / 2**30:.1f} GiB left")
            self._reserved[name] = size
        try:
            return self._emptied(name, size)
        except BaseException:
            self.free(name)
            raise

    def _emptied(self, name: str, size: int) -> Slot:
        folder = self._path(name)
        shutil.rmtree(folder, ignore_errors=True)
        self.bulk.free(name, spare=False)
        folder.mkdir()
        seal(folder / _RESERVED, orjson.dumps({"version": _VERSION, "size": size}))
        return Slot(folder, self.bulk.seal)

    def slot(self, name: str) -> Slot:
        """The slot as it is."""
        return Slot(self._path(name), self.bulk.seal)

    def retire(self, name: str) -> None:
        """The slot's workload is active, again or still: give its room back. Its copy, or an older
        one where this was never sealed, may stay as long as nobody needs the room, and is of use
        when the workload is parked again."""
        if self.bulk.retire(name):
            with self._lock:
                self._reserved.pop(name, None)
        else:
            self._clear(name, spare=False)

    def free(self, name: str) -> None:
        """Nothing of this workload is needed any more. Freeing twice is fine."""
        self._clear(name, spare=True)

    def _clear(self, name: str, *, spare: bool) -> None:
        shutil.rmtree(self._path(name), ignore_errors=True)
        self.bulk.free(name, spare=spare)
        with self._lock:
            self._reserved.pop(name, None)

    def _used(self, but: str = "") -> int:
        reserved = sum(
            size
            for name, size in self._reserved.items()
            if name != but and not self.bulk.counts(name)
        )
        return reserved + self.bulk.used()

    def _found(self) -> Iterator[tuple[str, int]]:
        for folder in self.folder.iterdir():
            if folder.is_dir() and _NAME.fullmatch(folder.name):
                yield folder.name, _reserved_size(folder)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a slot's name: {name!r}")
        return self.folder / name


def _reserved_size(folder: Path) -> int:
    try:
        return int(orjson.loads((folder / _RESERVED).read_bytes())["size"])
    except (OSError, ValueError, KeyError, TypeError):
        return sum(path.stat().st_size for path in folder.iterdir())
