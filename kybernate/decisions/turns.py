"""Whose turn it is, and the bound on waiting. Called by `switching`.

The rules, which policy cannot break:
1. Waiters stand in line by when they began to want the GPU.
2. Policy may let a later one pass, but not one that had a turn since an earlier one began to wait.
3. Nobody waits longer than (waiting seats) x (slice + switch). A turn that would make somebody
   wait longer is not given: the GPUs are reserved for whoever waits longest.
4. When the bound is near, the longest waiter's holders go as soon as their own slice is over,
   whatever policy says.

Why this suffices. Call T = slice + switch. With i waiters ahead that compete with it, a waiter
starts within (what is left of the present turn, at most T) + i x T if everybody ahead takes a whole
turn one after the other; side by side is only faster. On arrival i is at most (waiting seats) - 1,
so the bound holds; newcomers stand behind; a turn out of line is given only while everybody passed
still meets the bound (rule 3); and rule 4 acts before the last moment.
Competing means sharing a GPU, directly or through an earlier waiter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kybernate.decisions.books import Books
from kybernate.decisions.ledger import too_many
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.ids import WorkloadKey
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import Desired, State


def held_up(books: Books, waiter: Tenancy, now: float) -> Refusal | None:
    """Why its turn cannot come however long it waits; nothing is reserved for such a waiter."""
    if waiter.barred is not None:
        return waiter.barred
    if waiter.desired is Desired.PARKED:
        return Refusal(reason=Reason.WANTED_PARKED)
    if not books.healthy(waiter.group.name):
        return Refusal(reason=Reason.GROUP_UNHEALTHY, detail=f"group {waiter.group.name}")
    if waiter.not_before > now:
        left = waiter.not_before - now
        return Refusal(reason=Reason.BUSY, detail=f"tried again in {left:.0f} s after a failure")
    return _walled_in(books, waiter, now)


def _walled_in(books: Books, waiter: Tenancy, now: float) -> Refusal | None:
    """Why parking everybody who can be parked would still not let it in."""
    in_its_way = blockers(books, waiter)
    if not in_its_way:
        return None
    movable = [h for h in in_its_way if immovable(h, now) is None]
    if not fits(books, waiter, without=movable):
        stuck = (refusal for h in in_its_way if (refusal := immovable(h, now)))
        return next(stuck, None)
    if min(h.vram for h in movable) > books.pool_free + books.demotable():
        detail = f"{books.pool_free / 2**30:.0f} GiB left"
        return Refusal(reason=Reason.NO_HOST_MEMORY, detail=detail)
    return None


def fits(books: Books, waiter: Tenancy, without: Sequence[Tenancy] = ()) -> bool:
    """Whether the waiter may be in VRAM beside all holders but these: by number and by bytes."""
    stay = [h for h in holders_of(books, waiter) if h not in without]
    ledger = books.ledger().without([h.key for h in without])
    return not too_many(stay, waiter) and ledger.room_for(waiter) is None


def blockers(books: Books, waiter: Tenancy) -> tuple[Tenancy, ...]:
    """Who must be considered for parking; empty when the waiter fits beside everybody."""
    return () if fits(books, waiter) else holders_of(books, waiter)


def immovable(holder: Tenancy, now: float) -> Refusal | None:
    """Why a holder cannot be parked whatever policy says."""
    if holder.state is State.QUARANTINED:
        return Refusal(reason=Reason.QUARANTINED, detail=f"{holder.key} still holds VRAM")
    if holder.desired is Desired.ACTIVE:
        return Refusal(reason=Reason.PINNED, detail=str(holder.key))
    if holder.pinned and holder.desired is not Desired.PARKED:
        return Refusal(reason=Reason.PINNED, detail=f"{holder.key} is pinned by its pod")
    if not holder.parkable:
        return Refusal(reason=Reason.NOT_PARKABLE, detail=str(holder.key))
    if holder.not_before > now:
        return Refusal(reason=Reason.NOT_PARKABLE, detail=f"parking {holder.key} just failed")
    return None


def holders_of(books: Books, waiter: Tenancy) -> tuple[Tenancy, ...]:
    """Who has VRAM on the waiter's GPUs, quarantined remains included."""
    return tuple(
        t
        for _, t in sorted(books.tenancies.items())
        if t.key != waiter.key and t.shares_gpu(waiter) and (t.in_vram or _remains(t))
    )


def _remains(tenancy: Tenancy) -> bool:
    return tenancy.state is State.QUARANTINED and any(tenancy.held.values())


class Line:
    """The queue of a node at a moment. `turn` is the length of one in seconds, None: not known."""

    def __init__(self, books: Books, now: float) -> None:
        self.books = books
        self.now = now
        self.waiters = books.queue()
        self.turn = turn_seconds(books)
        # worked out once: every rule asks for them again and again
        self._ahead = {w.key: self._reach(w) for w in self.waiters}
        self._held_up = {w.key: held_up(books, w, now) for w in self.waiters}

    def _reach(self, waiter: Tenancy) -> tuple[Tenancy, ...]:
        earlier = [w for w in self.waiters if w.queue_order() < waiter.queue_order()]
        reached = [waiter]
        for known in reached:
            reached.extend(w for w in earlier if w.shares_gpu(known))
            earlier = [w for w in earlier if not w.shares_gpu(known)]
        return tuple(sorted(reached[1:], key=Tenancy.queue_order))

    def held_up(self, waiter: Tenancy) -> Refusal | None:
        """Why its turn cannot come however long it waits."""
        return self._held_up[waiter.key]

    def ahead(self, waiter: Tenancy) -> tuple[Tenancy, ...]:
        """Earlier waiters that compete with it, directly or through one another."""
        return self._ahead[waiter.key]

    def movable_ahead(self, waiter: Tenancy) -> tuple[Tenancy, ...]:
        """Those of them whose turn can come."""
        return tuple(w for w in self.ahead(waiter) if self.held_up(w) is None)

    def last_moment(self, waiter: Tenancy) -> float | None:
        """When the first of its line must have begun, or the waiter's bound breaks."""
        if self.turn is None:
            return None
        bound = max(1, waiter.most_waiting) * self.turn
        return (waiter.wanted_since or 0.0) + bound - len(self.ahead(waiter)) * self.turn

    def is_late(self, waiter: Tenancy) -> bool:
        """Whether its line has to move now: a switch takes its time too."""
        moment = self.last_moment(waiter)
        return moment is not None and self.now + self.books.switch_seconds >= moment

    def must_go(self, waiter: Tenancy) -> Tenancy | None:
        """The late waiter for whose sake this first in line goes whatever policy says, if any."""
        if self.movable_ahead(waiter):
            return None
        behind = [w for w in self.waiters if w == waiter or waiter in self.ahead(w)]
        movable = (w for w in behind if self.held_up(w) is None)
        return next((w for w in movable if self.is_late(w)), None)

    def passes_over(self, waiter: Tenancy) -> "Passing | None":
        """Whom it may not pass, or None when it may go first."""
        for earlier in self.movable_ahead(waiter):
            if waiter.had_a_turn_since(earlier.wanted_since or 0.0):
                return Passing(earlier, f"{waiter.key} had its turn since {earlier.key} waits")
            moment = self.last_moment(earlier)
            if moment is not None and self.turn is not None and self.now + self.turn > moment:
                return Passing(earlier, f"{earlier.key} would wait beyond its bound")
        return None

    def next_late(self) -> float | None:
        """When somebody will become late, if nothing happens before."""
        moments = [
            moment - self.books.switch_seconds
            for waiter in self.waiters
            if (moment := self.last_moment(waiter)) is not None
        ]
        return min((m for m in moments if m > self.now), default=None)


@dataclass(frozen=True, slots=True)
class Passing:
    """A turn that may not be given because `earlier` comes first."""

    earlier: Tenancy
    why: str


def turn_seconds(books: Books) -> float | None:
    """A whole turn: the longest slice or minimum runtime that policy gave, and the switch."""
    spans = [slice_of(books, key) for key in books.terms if key in books.tenancies]
    known = [span for span in spans if span is not None]
    return max(known) + books.switch_seconds if known else None


def slice_of(books: Books, key: WorkloadKey) -> float | None:
    """Seconds a holder may stay undisturbed; None while policy has not said."""
    terms = books.terms.get(key)
    return None if terms is None else max(terms.slice_seconds, terms.min_runtime_seconds)


def unfinished(books: Books, holders: Sequence[Tenancy], now: float) -> Refusal | None:
    """None when each holder had its whole slice; else who has not."""
    for holder in holders:
        span = slice_of(books, holder.key)
        ran = now - (holder.active_since if holder.active_since is not None else now)
        if span is None or ran < span:
            left = "unknown" if span is None else f"{span - ran:.0f} s"
            detail = f"{holder.key} has {left} of its slice left"
            return Refusal(reason=Reason.STICKY, detail=detail)
    return None
