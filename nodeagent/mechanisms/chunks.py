"""
Who needs which 2 MiB of the slabs: chunks are taken, shared, held and let go, and counted.

Called by `bulk`, `pressing` and `guestcopy`. What places are: `gpuworker.places`. All of
this is made again from the copies on disk after a restart; nothing is kept twice.
Rule: a chunk that a finished copy needs is never written again. What changed goes elsewhere.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from nodeagent.disk.pool import NoRoom
from nodeagent.gpuworker.driver import GRAIN
from nodeagent.gpuworker.fingerprints import SIZE
from nodeagent.gpuworker.places import begins, grains, is_pressed
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
        """How many 2 MiB of the slabs are needed by anybody."""
        with self.lock:
            return sum(not is_pressed(place) for place in self._needed)

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

    def take_together(self, count: int) -> int | None:
        """The first of so many that nobody needs, one behind the other in a slab; None where there
        are none. No slab is made, and nothing given up, for this."""
        with self.lock:
            for slab, free in self._free.items():
                first = _together(free, count)
                if first is not None:
                    taken = range(first, first + count)
                    self._free[slab] = [place for place in free if place not in taken]
                    self._needed.update(dict.fromkeys(taken, 1))
                    return first
            return None

    def hold(self, places: Iterable[int]) -> None:
        """One more needs each of these. Of pressed ones, the 2 MiB they stand in are needed."""
        with self.lock:
            for place in places:
                if place != ZERO:
                    held = self._needed.get(place, 0)
                    self._needed[place] = held + 1
                    if not held and is_pressed(place):
                        self.hold(grains(place))

    def let(self, places: Iterable[int]) -> None:
        """One less needs each of these; those that nobody needs are free."""
        with self.lock:
            touched: set[int] = set()
            for place in places:
                if place != ZERO:
                    self._leave(place, touched)
            for slab in touched:
                self._free[slab].sort(reverse=True)

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
            known, contents = self._known[copy.key], self._contents
            fresh: dict[bytes, int] = {}
            for number, place in enumerate(copy.places):  # of most it is known: it is a hot path
                if place not in contents and place != ZERO:
                    print_ = copy.prints[number * SIZE : (number + 1) * SIZE]
                    if print_ not in known:
                        fresh[print_] = place
            known.update(fresh)
            contents.update((place, (copy.key, print_)) for print_, place in fresh.items())

    def become(self, key: bytes, print_: bytes, place: int) -> None:
        """From now on these contents are shared in this place."""
        with self.lock:
            former = self._known[key].get(print_)
            if former is not None:
                del self._contents[former]
            self._known[key][print_] = place
            self._contents[place] = (key, print_)

    def contains(self, place: int, key: bytes, print_: bytes) -> bool:
        """Whether a chunk that somebody needs is known to have these contents."""
        with self.lock:
            return self._contents.get(place) == (key, print_)

    def are_there(self, places: Iterable[int]) -> bool:
        """Whether all of these stand in slabs that exist."""
        with self.lock:
            size = self._slabs.size
            slabs = {begins(place) // size for place in set(places) if place != ZERO}
            return slabs <= self._free.keys()

    def begin(self, places: Iterable[int]) -> None:
        """As `hold`, for copies that are found after a restart: they are not free."""
        with self.lock:
            places = [place for place in places if place != ZERO]
            fresh = {one for place in set(places) for one in grains(place)} - self._needed.keys()
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

    def _leave(self, place: int, touched: set[int]) -> None:
        """One less needs it; slabs that have more free chunks by that are added to `touched`."""
        needed = self._needed[place] - 1
        if needed:
            self._needed[place] = needed
            return
        del self._needed[place]
        if (contents := self._contents.pop(place, None)) is not None:
            del self._known[contents[0]][contents[1]]
        if is_pressed(place):
            for one in grains(place):
                self._leave(one, touched)
            return
        slab = place // self.each
        self._free[slab].append(place)
        touched.add(slab)


def _together(free: Sequence[int], count: int) -> int | None:
    """The first of `count` neighbours; `free` has the lowest last."""
    for end in range(len(free) - 1, count - 2, -1):
        if free[end - count + 1] == free[end] + count - 1:
            return free[end]
    return None
