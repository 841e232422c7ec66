"""
Which free seats to offer the kubelet: the best group for the pods that are bound and not yet given
one. Pure; called by the agent when the device plugin is asked for its preference.

Allocate does not say which pod it is for, so the wishes of all pods that may be meant are heard
together: who requires a group comes before who prefers one, and among the rest the least contended
group is the best.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from kybernate.decisions.books import Books
from kybernate.model.gpu import Seat
from kybernate.model.ids import GroupName
from kybernate.model.workload import Wishes


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the kubelet asks: choose `size` of `available`, these included."""

    available: tuple[Seat, ...]
    must_include: tuple[Seat, ...] = ()
    size: int = 1


def prefer(books: Books, offer: Offer, wishes: Iterable[Wishes]) -> tuple[Seat, ...]:
    """`size` seats, best first after those that must be included; fewer where there are fewer."""
    heard = tuple(wishes)
    required = {w.require_group for w in heard if w.require_group}
    preferred = {w.prefer_group for w in heard if w.prefer_group}
    rest = [seat for seat in offer.available if seat not in offer.must_include]
    rest.sort(key=lambda seat: _rank(books, seat, required, preferred))
    return _first((*offer.must_include, *rest), offer.size)


def _first(seats: Sequence[Seat], count: int) -> tuple[Seat, ...]:
    return tuple(seats[: max(0, count)])


def _rank(
    books: Books, seat: Seat, required: Collection[GroupName], preferred: Collection[GroupName]
) -> tuple[bool, bool, bool, tuple[int, int], Seat]:
    """Lower is better."""
    return (
        seat.group not in required,
        not books.healthy(seat.group),
        seat.group not in preferred,
        contention(books, seat.group),
        seat,
    )


def contention(books: Books, name: GroupName) -> tuple[int, int]:
    """How many workloads share a GPU with the group, and their bytes."""
    group = books.groups.get(name)
    if group is None:
        return (0, 0)
    there = [t for t in books.tenancies.values() if t.group.overlaps(group)]
    return (len(there), sum(t.vram for t in there))
