"""
Which chunks of a part have to be copied: those whose fingerprints say that no copy has them yet.

Pure. Called by `guestcopy`, batch by batch. A chunk is unchanged where an older copy of the same
workload has its fingerprint at the same address; zeros are stored nowhere; what another copy of the
same sharing domain seems to have is compared byte by byte before it is shared.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from nodeagent.gpuworker.fingerprints import SIZE
from nodeagent.gpuworker.places import is_pressed, span
from nodeagent.gpuworker.pressing import Pressed
from nodeagent.mechanisms.copies import ZERO

FRESH = -1  # a place that is not known yet: the chunk has to be copied


@dataclass(slots=True)
class Sorted:
    """One batch, chunk by chunk: a place of the pool, ZERO, or FRESH. `alike` pairs a chunk of the
    batch with a place that may have the same contents."""

    places: list[int]
    same: list[int] = field(default_factory=list)
    alike: list[tuple[int, int]] = field(default_factory=list)


def sort(
    prints: bytes,
    old_places: Sequence[int],
    old_prints: bytes,
    zero: bytes,
    alike: Callable[[bytes], int | None],
) -> Sorted:
    """`alike` finds a place by a fingerprint. The old ones are of the same chunks."""
    if prints == old_prints:
        return Sorted(places=list(old_places), same=[one for one in old_places if one != ZERO])
    found = Sorted(places=[])
    for number, old in enumerate(old_places):
        span = slice(number * SIZE, (number + 1) * SIZE)
        print_ = prints[span]
        place = FRESH
        if print_ == zero:
            place = ZERO
        elif print_ == old_prints[span]:
            place = old
            found.same.append(old)
        elif (maybe := alike(print_)) is not None:
            found.alike.append((number, maybe))
        found.places.append(place)
    return found


def runs(places: Sequence[int], first: int) -> Iterator[tuple[int, int, int]]:
    """Chunks that stand one behind the other on both sides: the first of the part (the batch's
    begins at `first`), the first of the pool, how many. Left out: ZERO, FRESH, pressed ones."""
    begin, count = 0, 0
    for number, place in enumerate(places):
        if count and place == places[begin] + count != ZERO:
            count += 1
            continue
        if count:
            yield first + begin, places[begin], count
        begin, count = number, int(place not in (ZERO, FRESH) and not is_pressed(place))
    if count:
        yield first + begin, places[begin], count


def pressed(places: Sequence[int], first: int) -> Iterator[Pressed]:
    """Those that are pressed: the chunk, and where its bytes are."""
    for number, place in enumerate(places):
        if is_pressed(place):
            yield first + number, *span(place)


def zeros(places: Sequence[int], first: int) -> Iterator[tuple[int, int]]:
    """As `runs`, of ZERO alone: the first, and how many."""
    begin = None
    for number in range(len(places) + 1):
        is_zero = number < len(places) and places[number] == ZERO
        if is_zero and begin is None:
            begin = number
        elif not is_zero and begin is not None:
            yield first + begin, number - begin
            begin = None


def differing(one: bytes, other: bytes) -> int:
    """How many chunks' fingerprints differ."""
    if one == other:
        return 0
    places = range(0, max(len(one), len(other)), SIZE)
    return sum(one[place : place + SIZE] != other[place : place + SIZE] for place in places)
