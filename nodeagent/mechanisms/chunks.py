"""
Who needs which 2 MiB of the slabs: chunks are taken, shared, held and let go, and counted.

Called by `bulk` and `guestcopy`. A chunk's place is its number over all slabs. All of this is made
again from the copies on disk after a restart; nothing is kept twice.
Rule: a chunk that a finished copy needs is never written again. What changed goes elsewhere.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable

from nodeagent.disk.pool import NoRoom
from nodeagent.gpuworker.driver import GRAIN
from nodeagent.gpuworker.fingerprints import SIZE
from nodeagent.mechanisms.copies import ZERO, Copy
from nodeagent.mechanisms.slabs import Slab, Slabs


class Chunks:
    """All chunks of the pool. Thread safe."""

    def __init__(self, slabs: Slabs, limit: int) -> None:
        """`limit` in bytes: no more slabs are made than it takes."""
        self._slabs = slabs
        self.each = slabs.size // GRAIN  # chunks of a slab
        self._most = -(-limit // slabs.size)
        self.lock = threading.RLock()  # of `bulk` too, which is called while it is held
        self._free: dict[int, list[int]] = {}  # by slab, lowest last
        self._nodes: dict[int, int] = {}
        self._needed: dict[int, int] = {}  # by place: how many need it
        self._known: dict[bytes, dict[bytes, int]] = defaultdict(dict)  # by key and fingerprint
        self._contents: dict[int, tuple[bytes, bytes]] = {}  # of places in `_known`
        for slab in slabs.all():
            self._add(slab)

    @property
    def slabs(self) -> Slabs:
        """Where they stand."""
        return self._slabs

    @property
    def used(self) -> int:
        """How many are needed by anybody."""
        with self.lock:
            return len(self._needed)

    def take(self, count: int, node: int, give_up: Callable[[], bool]) -> list[int]:
        """So many that nobody needs, in order, few slabs, near to a NUMA node. `give_up` is called
        while there are too few, and says whether it gave something up. Raises NoRoom."""
        with self.lock:
            self._grow(count, node)
            while count > self._free_on(self._free):
                if not give_up():
                    short = (count - self._free_on(self._free)) * GRAIN
                    raise NoRoom(f"{short / 2**30:.2f} GiB are missing in the pool's slabs")
            return self._taken(count, node)

    def hold(self, places: Iterable[int]) -> None:
        """One more needs each of these."""
        with self.lock:
            for place in places:
                if place != ZERO:
                    self._needed[place] = self._needed.get(place, 0) + 1

    def let(self, places: Iterable[int]) -> None:
        """One less needs each of these; those that nobody needs are free."""
        with self.lock:
            touched = {self._left(place) for place in places if place != ZERO}
            for slab in touched - {None}:
                self._free[slab or 0].sort(reverse=True)

    def alike(self, key: bytes, print_: bytes) -> int | None:
        """A chunk that may have the same contents, held; its bytes have to be compared."""
        with self.lock:
            place = self._known[key].get(print_)
            if place is not None:
                self._needed[place] += 1
            return place

    def learn(self, copy: Copy) -> None:
        """What a finished copy's chunks contain; others may share them from now on."""
        with self.lock:
            known = self._known[copy.key]
            for number, place in enumerate(copy.places):
                if place == ZERO or place in self._contents:
                    continue
                print_ = copy.prints[number * SIZE : (number + 1) * SIZE]
                if print_ not in known:
                    known[print_] = place
                    self._contents[place] = (copy.key, print_)

    def are_there(self, places: Iterable[int]) -> bool:
        """Whether all of these stand in slabs that exist."""
        with self.lock:
            return {place // self.each for place in places if place != ZERO} <= self._free.keys()

    def begin(self, places: Iterable[int]) -> None:
        """As `hold`, for copies that are found after a restart: they are not free."""
        with self.lock:
            places = [place for place in places if place != ZERO]
            fresh = set(places) - self._needed.keys()
            for slab in {place // self.each for place in fresh}:
                self._free[slab] = [place for place in self._free[slab] if place not in fresh]
            self.hold(places)

    def _grow(self, count: int, node: int) -> None:
        """Slabs near to a NUMA node, as far as the limit and the file system have room."""
        near = [slab for slab in self._free if self._nodes[slab] == node]
        missing = count - self._free_on(near)
        while missing > 0 and len(self._free) < self._most:
            number = next(n for n in range(len(self._free) + 1) if n not in self._free)
            try:
                self._add(self._slabs.make(number, node))
            except NoRoom:
                return  # there may be chunks farther away, or copies to give up
            missing -= self.each

    def _free_on(self, slabs: Iterable[int]) -> int:
        return sum(len(self._free[slab]) for slab in slabs)

    def _add(self, slab: Slab) -> None:
        first = slab.number * self.each
        self._free[slab.number] = list(range(first + self.each - 1, first - 1, -1))
        self._nodes[slab.number] = slab.node

    def _taken(self, count: int, node: int) -> list[int]:
        taken: list[int] = []
        by_nearness = sorted(
            self._free, key=lambda slab: (self._nodes[slab] != node, -len(self._free[slab]), slab)
        )
        for slab in by_nearness:
            free = self._free[slab]
            some = min(count - len(taken), len(free))
            if some:
                taken += reversed(free[-some:])
                del free[-some:]
        self._needed.update(dict.fromkeys(taken, 1))
        return taken

    def _left(self, place: int) -> int | None:
        """The slab, where the chunk is free now."""
        needed = self._needed[place] - 1
        if needed:
            self._needed[place] = needed
            return None
        del self._needed[place]
        if (contents := self._contents.pop(place, None)) is not None:
            del self._known[contents[0]][contents[1]]
        slab = place // self.each
        self._free[slab].append(place)
        return slab
