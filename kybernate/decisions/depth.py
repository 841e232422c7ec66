"""How deep a workload is parked: pure, asked by whoever plans a switch.

Deep leaves nothing on the card and takes half a second more each way; shallow keeps the context
there. Deep is the rule; who is the next in line may stay shallow, where its context has room.
"""

from collections.abc import Iterable
from dataclasses import replace

from kybernate.decisions.books import Books
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.ids import WorkloadKey

CONTEXT = 3 * 2**29
"""Bytes a parked context takes on each card, at most: 0.8 GiB were measured of a plain one, 1.5 of
one with communicators."""


def may_stay(
    books: Books, parked: Iterable[Tenancy], incoming: Tenancy | None
) -> tuple[WorkloadKey, ...]:
    """Those of the parked that come back next on their GPUs, and fit beside who comes in."""
    leaving = tuple(parked)
    if incoming is None:
        return ()
    staying = tuple(t for t in leaving if _is_next(books, t, incoming))
    return tuple(t.key for t in staying) if _fit(books, leaving, staying, incoming) else ()


def _is_next(books: Books, parked: Tenancy, incoming: Tenancy) -> bool:
    """Whether it wants its turn as soon as this switch is over, and nobody is before it."""
    if not (parked.returns_by_itself or parked.wanted_since is not None):
        return False
    others = (t for t in books.queue() if t.key not in (parked.key, incoming.key))
    return not any(t.shares_gpu(parked) for t in others)


def _fit(
    books: Books, leaving: tuple[Tenancy, ...], staying: tuple[Tenancy, ...], incoming: Tenancy
) -> bool:
    for tenancy in staying:
        left = replace(tenancy, residue=max(tenancy.residue, CONTEXT * len(tenancy.gpus)))
        books = books.having(left)
    return books.ledger().without([t.key for t in leaving]).room_for(incoming) is None
