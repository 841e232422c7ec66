"""
Whose the chunks are: slots of parked workloads, and spares.

A spare is the copy of a workload that is active again: what did not change since then need not be
copied at its next park. Spares take no room: where it is needed the oldest are given up.
Called by the pool (this is its `Bulk`) and by `guestcopy`. Rule: a slot becomes a spare by one
rename, and an older spare goes only when the new copy is sealed: at each moment one is whole.
"""

import hashlib
import os
import shutil
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from kybernate.artifacts.chunks import Bytes
from kybernate.clients.errors import Retry
from nodeagent.disk.durable import seal
from nodeagent.disk.pool import SEALED, Damaged, Kept, NoRoom, Slot
from nodeagent.gpuworker.driver import GRAIN
from nodeagent.gpuworker.fingerprints import KEY_SIZE, SIZE, new_key
from nodeagent.gpuworker.places import UNIT, pressed, stood
from nodeagent.mechanisms import carrying, copies
from nodeagent.mechanisms.chunks import Chunks
from nodeagent.mechanisms.copies import SUFFIX, Copy, named
from nodeagent.mechanisms.slabs import ANYWHERE

SPARES = ".spares"
_TOGETHER = 48  # pressed chunks of a stream: 64 MiB and less

Copies = dict[str, Copy]
"""A workload's, by the name of the file."""


class BulkOfChunks:
    """A `Bulk` of the pool in `folder`. Thread safe, by the lock of its chunks."""

    def __init__(self, folder: Path, chunks: Chunks) -> None:
        """Finds what is there. Raises OSError."""
        self.chunks = chunks
        self._folder, self._spare_folder = folder, folder / SPARES
        self._slots: dict[str, Copies] = {}
        self._spares: dict[str, Copies] = {}  # the oldest first
        self._sealed: set[str] = set()
        self._parked: Counter[int] = Counter()  # by 2 MiB of the slabs: how many slots need it
        self._plain: deque[tuple[str, str]] = deque()  # copies that may have chunks to press
        self._spare_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._find()

    # for the pool

    def used(self) -> int:
        """Bytes that parked workloads need."""
        with self.chunks.lock:
            return len(self._parked) * GRAIN

    def counts(self, name: str) -> bool:
        """Whether `used` has all of this slot."""
        with self.chunks.lock:
            return name in self._sealed

    def seal(self, name: str) -> None:
        """The slot is sealed: an older copy is of no more use."""
        with self.chunks.lock:
            if name in self._slots:
                self._sealed.add(name)
                self._drop_spare(name)

    def retire(self, name: str) -> bool:
        """The slot's workload is active again. Whether the slot is a spare now."""
        with self.chunks.lock:
            held = self._slots.get(name)
            if held is None or name not in self._sealed:
                return False
            self._drop_spare(name)
            try:
                (self._folder / name).rename(self._spare_folder / name)
            except OSError:
                return False
            del self._slots[name]
            self._sealed.discard(name)
            self._count(held, -1)
            self._spares[name] = held
            return True

    def free(self, name: str, *, spare: bool) -> None:
        """The slot's folder is gone. `spare`: the workload, too."""
        with self.chunks.lock:
            self._sealed.discard(name)
            if (held := self._slots.pop(name, None)) is not None:
                self._count(held, -1)
                self._let(held)
            if spare:
                self._drop_spare(name)

    def spares(self) -> tuple[str, ...]:
        """Whose there are."""
        with self.chunks.lock:
            return tuple(self._spares)

    # for checkpoints

    def weight(self, slot: Slot, part: Kept) -> int:
        """As the port says."""
        return carrying.size(part.content, self._listed(slot.name, part.name))

    def carried(self, slot: Slot, part: Kept) -> Iterator[Bytes]:
        """As the port says. Of every part, also where its file is all there is."""
        with self.chunks.lock:
            copy = self._listed(slot.name, part.name)
            held = list(copy.stored) if copy is not None else []
            self.chunks.hold(held)  # while it is read some may be pressed, and stand elsewhere then
        try:
            index = b"".join(slot.checked(part))
            yield from carrying.stream(index, copy, self.chunks.slabs)
        finally:
            self.chunks.let(held)

    def brought(self, slot: Slot, name: str, content: Iterator[Bytes]) -> tuple[int, str]:
        """As the port says."""
        found = carrying.opened(content)
        if found.copy is not None:
            self._bring(slot.name, named(name), found.copy, found.chunks)
        for _ in found.chunks:
            raise Damaged(f"there is more of part {name} than it has chunks")
        return slot.write(name, iter([found.index]))

    def _bring(self, name: str, file: str, copy: Copy, chunks: Iterator[Bytes]) -> None:
        """Into fresh chunks, kept as a copy."""
        places: list[int] = []
        try:
            self._make_room(copy, places)
            carrying.write(self.chunks.slabs, places, chunks)
            ours = carrying.placed(copy, places)
            again = list((Counter(ours.stored) - Counter(places)).elements())
            self.chunks.hold(again)
            places += again
            self.keep(name, file, ours)
        except BaseException:
            self.chunks.let(places)
            raise

    def _make_room(self, copy: Copy, places: list[int]) -> None:
        """Add fresh places for the chunks of a stream, by their number. Raises NoRoom, Damaged."""
        sizes = carrying.numbered(copy)
        plain = [number for number, size in enumerate(sizes) if size == GRAIN]
        smaller = [number for number, size in enumerate(sizes) if size != GRAIN]
        found: dict[int, int] = {}
        try:
            if plain:
                found.update(zip(plain, self.take(len(plain), ANYWHERE), strict=True))
            for first in range(0, len(smaller), _TOGETHER):
                some = smaller[first : first + _TOGETHER]
                units = [sizes[number] // UNIT for number in some]
                found.update(zip(some, self._take_pressed(units), strict=True))
        finally:
            places += [found[number] for number in sorted(found)]

    def _take_pressed(self, sizes: Sequence[int]) -> list[int]:
        """Places for pressed chunks of so many units. Raises NoRoom."""
        count = -(-sum(sizes) * UNIT // GRAIN)
        strip = self.take_together(count, count, urgent=True)
        ends = accumulate(sizes, initial=strip.start * GRAIN // UNIT)
        places = [pressed(at, size) for at, size in zip(ends, sizes, strict=False)]
        self.chunks.hold(places)
        self.chunks.let(strip)
        return places

    def _listed(self, name: str, part: str) -> Copy | None:
        """Raises Damaged. None: its file is all there is."""
        path = self._folder / name / f"{named(part)}{SUFFIX}"
        return self.copy(name, named(part)) if path.exists() else None

    # for copies

    def take(self, count: int, node: int) -> list[int]:
        """Free chunks; spares are given up for them. Raises NoRoom."""
        return self.chunks.take(count, node, self._give_up_oldest)

    def take_together(self, most: int, least: int, *, urgent: bool = False) -> range:
        """Chunks one behind the other that nobody needs, held for the caller: `most` of them, or
        half as many, ... `urgent`: spares are given up for it. Raises NoRoom."""
        give_up = self._give_up_oldest if urgent else _nothing
        for anew in (False, True):
            count = most
            while count >= least:
                if anew:  # where the limit allows a slab it is made
                    self.chunks.let(self.chunks.take(count, ANYWHERE, give_up))
                if (first := self.chunks.take_together(count)) is not None:
                    return range(first, first + count)
                count //= 2
        raise NoRoom(f"no {least} chunks of the pool are free one behind the other")

    def spare(self, name: str, file: str) -> Copy | None:
        """An older copy of a part; its chunks are held for the caller, who lets them go."""
        with self.chunks.lock:
            found = self._spares.get(name, {}).get(file)
            if found is not None:
                self.chunks.hold(found.places)
            return found

    def give_up(self, name: str) -> None:
        """Do without a workload's spare."""
        with self.chunks.lock:
            self._drop_spare(name)

    def keep(self, name: str, file: str, copy: Copy) -> None:
        """A part's copy is finished: its chunks, held until now by the caller, are the slot's, and
        others may share them. Raises OSError: nothing is kept, and they are the caller's still."""
        with self.chunks.lock:
            copies.write(self._folder / name / f"{file}{SUFFIX}", copy)
            held = self._slots.setdefault(name, {})
            if (old := held.pop(file, None)) is not None:
                self._count({file: old}, -1)
                self._let({file: old})
            held[file] = copy
            self._count({file: copy}, 1)
            self.chunks.learn(copy)
            self._plain.append((name, file))

    # for pressing

    def to_press(self) -> tuple[str, str, Copy] | None:
        """A finished copy that may have chunks to press: its slot or spare, its file, the list."""
        with self.chunks.lock:
            while self._plain:
                name, file = self._plain[0]
                if (copy := self._finished(name).get(file)) is not None:
                    return name, file, copy
                self._plain.popleft()
            return None

    def pressed(self, name: str, file: str) -> None:
        """This one has none any more."""
        with self.chunks.lock, suppress(ValueError):
            self._plain.remove((name, file))

    def swap(self, name: str, file: str, copy: Copy, made: Mapping[int, int]) -> None:
        """Other places for chunks of a copy, which the caller holds once each until now. Raises
        OSError, and Retry where the copy is another one by now: nothing is changed."""
        with self.chunks.lock:
            held = self._finished(name)
            if held.get(file) is not copy:
                raise Retry("the copy that was pressed is not there any more")
            ours = array("Q", (made.get(place, place) for place in copy.places))
            swapped = replace(copy, places=ours)
            above = self._folder if held is self._slots.get(name) else self._spare_folder
            copies.write(above / name / f"{file}{SUFFIX}", swapped)
            for number, place in enumerate(copy.places):
                if place in made:
                    print_ = copy.prints[number * SIZE : (number + 1) * SIZE]
                    self.chunks.become(copy.key, print_, made[place])
            left = [place for place in copy.places if place in made]
            self.chunks.hold(made[place] for place in left)
            self.chunks.let(made.values())
            if above == self._folder:
                self._count({file: copy}, -1)
                self._count({file: swapped}, 1)
            held[file] = swapped
            self.chunks.let(left)

    def _finished(self, name: str) -> Copies:
        return self._slots.get(name) or self._spares.get(name) or {}

    def copy(self, name: str, file: str) -> Copy:
        """A part's, from the disk. Raises Damaged."""
        found = copies.read(self._folder / name / f"{file}{SUFFIX}")
        if not self.chunks.are_there(found.places):
            raise Damaged("slabs of the pool are missing")
        return found

    def key(self, domain: str) -> bytes:
        """The key of a sharing domain's fingerprints: random, and known to this node alone."""
        name = hashlib.blake2b(domain.encode(), digest_size=16).hexdigest()
        path = self.chunks.slabs.folder / f"{name}.key"
        with self.chunks.lock:
            with suppress(OSError):
                if len(found := path.read_bytes()) == KEY_SIZE:
                    return found
            seal(path, made := new_key())
            path.chmod(0o600)
            return made

    def _give_up_oldest(self) -> bool:
        for name in self._spares:
            self.give_up(name)
            return True
        return False

    def _drop_spare(self, name: str) -> None:
        held = self._spares.pop(name, {})
        shutil.rmtree(self._spare_folder / name, ignore_errors=True)
        self._let(held)

    def _count(self, held: Copies, by: int) -> None:
        for copy in held.values():
            stands = stood(copy.stored)
            if by > 0:
                self._parked.update(stands)
                continue
            for one in stands:
                self._parked[one] -= 1
                if not self._parked[one]:
                    del self._parked[one]

    def _let(self, held: Copies) -> None:
        for copy in held.values():
            self.chunks.let(copy.places)

    # after a restart

    def _find(self) -> None:
        for folder in _folders(self._folder):
            self._slots[folder.name] = self._found(folder)
            self._count(self._slots[folder.name], 1)
            if (folder / SEALED).exists():
                self._sealed.add(folder.name)
        self._slots = {name: held for name, held in self._slots.items() if held}
        self._sealed &= self._slots.keys()
        for folder in sorted(_folders(self._spare_folder), key=os.path.getmtime):
            if (folder / SEALED).exists():
                self._spares[folder.name] = self._found(folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)  # an agent died while it gave it up

    def _found(self, folder: Path) -> Copies:
        """Its copies that are whole; those that are not are found when they are needed."""
        held: Copies = {}
        for path in folder.glob(f"*{SUFFIX}"):
            with suppress(Damaged):
                copy = copies.read(path)
                if self.chunks.are_there(copy.places):
                    self.chunks.begin(copy.places)
                    self.chunks.learn(copy)
                    self._plain.append((folder.name, path.name.removesuffix(SUFFIX)))
                    held[path.name.removesuffix(SUFFIX)] = copy
        return held


def _nothing() -> bool:
    return False


def _folders(above: Path) -> Iterator[Path]:
    for path in above.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            yield path
