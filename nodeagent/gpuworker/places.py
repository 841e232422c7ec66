"""
What names a chunk's contents in the pool: one number, its place.

A plain chunk's is the number of its 2 MiB over all slabs. A pressed one's (`pressing.cu`) says
where its bytes begin and how many they are, in units of 256. Pure; called by both ends of a worker.
"""

from collections.abc import Sequence

from nodeagent.gpuworker.driver import GRAIN

UNIT = 256
_GRAIN = GRAIN // UNIT
_SIZE_BITS = 14
_PRESSED = 1  # above all the rest
_KIND = 62


def pressed(at: int, size: int) -> int:
    """The place of a chunk whose bytes are pressed: both in units."""
    return _PRESSED << _KIND | at << _SIZE_BITS | size


def is_pressed(place: int) -> bool:
    """Whether it is one of these."""
    return place >> _KIND == _PRESSED


def span(place: int) -> tuple[int, int]:
    """Where a pressed chunk begins, and how much it is, in units."""
    return (place ^ _PRESSED << _KIND) >> _SIZE_BITS, place & (1 << _SIZE_BITS) - 1


def grains(place: int) -> range:
    """The 2 MiB of the slabs that a chunk stands in: its own, or those its pressed bytes touch."""
    if not is_pressed(place):
        return range(place, place + 1)
    at, size = span(place)
    return range(at // _GRAIN, -(-(at + size) // _GRAIN))


def stood(places: Sequence[int]) -> list[int]:
    """All 2 MiB of the slabs that chunks stand in, for each of them."""
    found = [place for place in places if not place >> _KIND]
    if len(found) < len(places):
        found += [one for place in places if place >> _KIND for one in grains(place)]
    return found


def begins(place: int) -> int:
    """The first byte of its contents, over all slabs."""
    return span(place)[0] * UNIT if is_pressed(place) else place * GRAIN


def size(place: int) -> int:
    """Its bytes in the pool."""
    return span(place)[1] * UNIT if is_pressed(place) else GRAIN
