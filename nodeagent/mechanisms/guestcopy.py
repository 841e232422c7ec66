"""
One part out of VRAM into the pool, and back: what differs is copied, and all of it is verified.

Called by `guest`. The worker fingerprints and copies; what is copied where is decided here. Rule: a
chunk is let go only when nothing can be copied into it any more: the worker has ended the part, or
is dead.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from nodeagent.disk.pool import NoRoom, Slot
from nodeagent.gpuworker.client import Worker
from nodeagent.gpuworker.driver import GRAIN
from nodeagent.gpuworker.fingerprints import SIZE
from nodeagent.gpuworker.places import is_pressed
from nodeagent.mechanisms import Moved, NotPossible, NotYet, differences
from nodeagent.mechanisms.bulk import BulkOfChunks
from nodeagent.mechanisms.copies import ZERO, Copy, laid_out
from nodeagent.mechanisms.differences import FRESH, Sorted
from nodeagent.mechanisms.guestwire import Verb
from nodeagent.mechanisms.handing import Handing
from nodeagent.mechanisms.holdings import Holding

_RUNS = 2000  # in one request: 80 kB
_Item = TypeVar("_Item")


@dataclass(slots=True)
class Tally:
    """What became of a part's chunks. `wrong` are not what they should be; `copied` counts what
    crossed the bus, `seconds` is from the first segment to the last copy's end."""

    part: str
    chunks: int = 0
    same: int = 0
    zeros: int = 0
    pressed: int = 0
    shared: int = 0
    fresh: int = 0
    wrong: int = 0
    copied: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A part between a card and a slot. `file` is its name there."""

    worker: Worker
    holding: Holding
    bulk: BulkOfChunks
    slot: Slot
    file: str

    def out(self, key: bytes, moved: Moved) -> Tally:
        """Into the pool, kept there where nothing is wrong. Raises the port's errors, NoRoom: then
        nothing is kept. A spare that was there still is, unless its room was needed."""
        way, old = _Out(way=self, key=key, moved=moved), self.bulk.spare(self.slot.name, self.file)
        way.old_places, way.old_prints = laid_out(old, key, self.holding.listed())
        way.old_held = list(old.stored) if old is not None else []
        handing = Handing(worker=self.worker, holding=self.holding, verb=Verb.EXPORT)
        try:
            with self._begun(handing, key, out=True) as way.zero:
                way.node = self.worker.node()
                way.run(handing)
        except BaseException:
            self.bulk.chunks.let(way.held)
            raise
        finally:
            self.bulk.chunks.let(way.old_held)
        return way.kept()

    def back(self, moved: Moved) -> Tally:
        """Out of the pool, compared with what was parked. Raises the port's errors, Damaged."""
        copy = self.bulk.copy(self.slot.name, self.file)
        if copy.segments != self.holding.listed():
            raise NotPossible(f"process {self.holding.guest.pid} has other memory than was parked")
        handing = Handing(worker=self.worker, holding=self.holding, verb=Verb.BACK)
        way = _Back(way=self, copy=copy, moved=moved)
        with self._begun(handing, copy.key, out=False):
            return way.run(handing)

    @property
    def prints(self) -> Path:
        """Where the worker leaves fingerprints: from before the copy, then from after it."""
        return self.slot.folder / f"{self.file}.prints"

    @property
    def prints_size(self) -> int:
        """Of either, in bytes."""
        return self.holding.size // GRAIN * SIZE

    @contextmanager
    def _begun(self, handing: Handing, key: bytes, *, out: bool) -> Iterator[bytes]:
        """The fingerprint of zeros. Afterwards nothing of the part is copied any more."""
        with self.prints.open("wb") as file:
            file.truncate(2 * self.prints_size)
        begin = {
            "out": out,
            "total": self.holding.size,
            "key": key.hex(),
            "prints": str(self.prints),
        }
        try:
            yield bytes.fromhex(handing.ask("begin", begin)["zero"])
        except BaseException:
            with suppress(NotYet):  # then it is dead
                handing.ask("end")
            raise
        else:
            with suppress(NotYet):
                handing.ask("drop")
        finally:
            self.prints.unlink(missing_ok=True)

    def read(self, at: int, size: int) -> bytes:
        """Some of the fingerprints."""
        with self.prints.open("rb") as file:
            file.seek(at)
            return file.read(size)


@dataclass(slots=True, kw_only=True)
class _Out:
    """Batch by batch out of the card. `held` are chunks of the pool we answer for, `old_held` those
    of the older copy."""

    way: Way
    key: bytes
    moved: Moved
    zero: bytes = b""
    node: int = -1
    old_places: list[int] = field(default_factory=list)
    old_prints: bytes = b""
    old_held: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    tally: Tally = field(init=False)
    prints: bytes = b""

    def __post_init__(self) -> None:
        self.tally = Tally(self.way.holding.name)

    def run(self, handing: Handing) -> None:
        """All of it; what is wrong is in the tally."""
        handing.each(lambda first, count: self._batch(handing, first, count))
        told, size = handing.ask("finish"), self.way.prints_size
        self.prints = self.way.read(0, size)
        self.tally.wrong = differences.differing(self.prints, self.way.read(size, size))
        self.tally.copied, self.tally.seconds = told["copied"], told["seconds"]

    def kept(self) -> Tally:
        """Once the worker has ended it."""
        bulk, slot = self.way.bulk, self.way.slot
        if self.tally.wrong:
            bulk.chunks.let(self.held)
            return self.tally
        listed = self.way.holding.listed()
        copy = Copy(listed, self.key, array("Q", self.places), self.prints)
        try:
            bulk.keep(slot.name, self.way.file, copy)
        except BaseException:
            bulk.chunks.let(self.held)
            raise
        return self.tally

    def _batch(self, handing: Handing, first: int, count: int) -> None:
        span = slice(first * SIZE, (first + count) * SIZE)
        prints = self.way.read(span.start, count * SIZE)
        chunks = self.way.bulk.chunks
        found = differences.sort(
            prints,
            self.old_places[first : first + count],
            self.old_prints[span],
            self.zero,
            self._alike,
        )
        chunks.hold(found.same)
        self.held += found.same
        shared = self._compared(handing, first, found)
        fresh = self._taken(found, first + count)
        crossed = [place if place in fresh else ZERO for place in found.places] if fresh else []
        _moved(handing, {"runs": differences.runs(crossed, first)}, (first, count))
        self.places += found.places
        self._count(found, shared, len(fresh))
        self.moved((len(found.alike) + len(fresh)) * GRAIN)

    def _alike(self, print_: bytes) -> int | None:
        place = self.way.bulk.chunks.alike(self.key, print_)
        if place is not None:
            self.held.append(place)
        return place

    def _compared(self, handing: Handing, first: int, found: Sorted) -> int:
        """Put in the places of those that are alike byte by byte; how many."""
        wrong: set[int] = set()
        for some in _some([[first + number, place] for number, place in found.alike]):
            wrong.update(handing.ask("compare", {"pairs": some})["differing"])
        for number, place in found.alike:
            if first + number in wrong:
                self.held.remove(place)
                self.way.bulk.chunks.let([place])
            else:
                found.places[number] = place
        return len(found.alike) - len(wrong)

    def _taken(self, found: Sorted, done: int) -> set[int]:
        """Put in free places for what has to be copied. `done` chunks were looked at."""
        count = found.places.count(FRESH)
        taken = self._room(count, done) if count else []
        self.held += taken
        free = iter(taken)
        found.places = [next(free) if place == FRESH else place for place in found.places]
        return set(taken)

    def _room(self, count: int, done: int) -> list[int]:
        """Free chunks; where there is no room for both, without the older copy: first without what
        of it was looked at, which is of no more use. VRAM is whole meanwhile. Raises NoRoom."""
        bulk = self.way.bulk
        with suppress(NoRoom):
            return bulk.take(count, self.node)
        bulk.give_up(self.way.slot.name)
        self._keep_old(self.old_places[done:])
        with suppress(NoRoom):
            return bulk.take(count, self.node)
        self._keep_old([])
        self.old_prints = b"\xff" * len(self.old_prints)
        return bulk.take(count, self.node)

    def _keep_old(self, kept: list[int]) -> None:
        """Of the older copy nothing but these."""
        kept = [place for place in kept if place != ZERO]
        over = Counter(self.old_held) - Counter(kept)
        self.way.bulk.chunks.let(over.elements())
        self.old_held = list((Counter(self.old_held) - over).elements())

    def _count(self, found: Sorted, shared: int, fresh: int) -> None:
        tally = self.tally
        tally.chunks += len(found.places)
        tally.zeros += found.places.count(ZERO)
        tally.same += len(found.same)
        tally.shared += shared
        tally.fresh += fresh


@dataclass(slots=True, kw_only=True)
class _Back:
    """Batch by batch into the card."""

    way: Way
    copy: Copy
    moved: Moved

    def run(self, handing: Handing) -> Tally:
        """All of it, and what of it did not arrive right."""
        handing.each(lambda first, count: self._batch(handing, first, count))
        told, size = handing.ask("finish"), self.way.prints_size
        return Tally(
            self.way.holding.name,
            chunks=len(self.copy.places),
            zeros=self.copy.places.count(ZERO),
            pressed=sum(map(is_pressed, self.copy.places)),
            wrong=differences.differing(self.copy.prints, self.way.read(size, size)),
            copied=told["copied"],
            seconds=told["seconds"],
        )

    def _batch(self, handing: Handing, first: int, count: int) -> None:
        places = self.copy.places[first : first + count]
        asked = {
            "runs": differences.runs(places, first),
            "pressed": differences.pressed(places, first),
            "zeros": differences.zeros(places, first),
        }
        _moved(handing, asked, (first, count))
        self.moved((count - places.count(ZERO)) * GRAIN)


def _moved(
    handing: Handing, asked: Mapping[str, Iterator[Sequence[int]]], arrived: tuple[int, int]
) -> None:
    """Have all of this copied and cleared, and then fingerprinted. Mostly it is one request."""
    whole = {kind: list(some) for kind, some in asked.items()}
    if sum(map(len, whole.values())) <= _RUNS:
        handing.ask("move", {**whole, "arrived": arrived})
        return
    for kind, one in whole.items():
        for some in _some(one):
            handing.ask("move", {kind: some})
    handing.ask("move", {"arrived": arrived})


def _some(of: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """As many as fit into one request."""
    return (of[first : first + _RUNS] for first in range(0, len(of), _RUNS))
