"""
What is asked of a workload and what is seen of it, put into the books or refused. Pure.

Called by the coordinator.
"""

from dataclasses import replace

from kybernate.decisions import books as bookkeeping
from kybernate.decisions import lifecycle
from kybernate.decisions.books import Books
from kybernate.decisions.lifecycle import Happening
from kybernate.decisions.switching import SwitchPlan
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.demand import SILENT, Demand
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import Desired, State
from nodeagent.gpus.cards import Picture


def want_refused(books: Books, key: WorkloadKey) -> Refusal | None:
    """Why a request to activate it is refused at once."""
    tenancy = books.tenancies.get(key)
    if tenancy is None:
        return Refusal(reason=Reason.UNKNOWN_WORKLOAD, detail=str(key))
    if tenancy.state is State.QUARANTINED:
        return Refusal(reason=Reason.QUARANTINED, detail=str(key))
    if tenancy.desired is Desired.PARKED:
        return Refusal(reason=Reason.WANTED_PARKED, detail=str(key))
    return None


def park_refused(tenancy: Tenancy, room: int) -> Refusal | None:
    """Why a request to park it is refused at once. `room` is what the pool has left, or would have
    once it was demoted what can be."""
    key = tenancy.key
    if tenancy.desired is Desired.ACTIVE:
        return Refusal(reason=Reason.PINNED, detail=str(key))
    if tenancy.pinned:
        return Refusal(reason=Reason.PINNED, detail=f"{key} is pinned by its pod")
    if tenancy.state is State.QUARANTINED:
        return Refusal(reason=Reason.QUARANTINED, detail=str(key))
    if not tenancy.parkable:
        return Refusal(reason=Reason.NOT_PARKABLE, detail=str(key))
    if tenancy.state is State.WAITING:
        return Refusal(reason=Reason.NOT_PARKABLE, detail=f"{key} has not started yet")
    if tenancy.state is State.ACTIVE and tenancy.vram > room:
        detail = f"{tenancy.vram / 2**30:.0f} GiB needed, {room / 2**30:.0f} left"
        return Refusal(reason=Reason.NO_HOST_MEMORY, detail=detail)
    return None


def is_held_up(books: Books, key: WorkloadKey) -> bool:
    """Whether it still wants to get somewhere: into VRAM, or out of it."""
    tenancy = books.tenancies.get(key)
    if tenancy is None:
        return False
    leaving = tenancy.asked_to_park or tenancy.desired is Desired.PARKED
    return tenancy.waits or (tenancy.state is State.ACTIVE and leaving)


def heard(books: Books, whom: tuple[WorkloadKey, str], demand: Demand, now: float) -> Books:
    """What all signals say of this life of a workload. What asks for one that is parked makes it
    wanted; what a running one does keeps it from being idle."""
    key, life = whom
    tenancy = books.tenancies.get(key)
    if tenancy is None or tenancy.life != life:
        return books
    quiet = None if demand.idle_for is None else round(now - demand.idle_for, 1)
    if quiet is not None and tenancy.quiet_since is not None:
        quiet = max(quiet, tenancy.quiet_since)
    if (demand, quiet) != (tenancy.demand, tenancy.quiet_since):
        books = books.change(key, demand=demand, quiet_since=quiet)
    if asks(tenancy, demand):
        return wanted(books.change(key, asked_by=demand.why), key, now)
    return books


def is_news(before: Demand | None, now: Demand) -> bool:
    """Whether a decision may turn on it. That time goes by is none: who decides knows the time."""
    was = before or SILENT
    return (was.busy, bool(was.in_flight), was.idle_for is None) != (
        now.busy,
        bool(now.in_flight),
        now.idle_for is None,
    )


def holds(plan: SwitchPlan, party: Tenancy, books: Books) -> bool:
    """Whether the plan, decided on this party, may still be begun. Who works, and is looked at more
    often than policy answers, is never the same twice: what that tells of demand counts where it is
    news, and how long somebody is quiet only where that is the reason for the plan."""
    now = books.tenancies.get(party.key)
    if now is None or is_news(party.demand, now.demand or SILENT):
        return False
    if plan.idle and now.quiet_since != party.quiet_since:
        return False
    return replace(now, demand=party.demand, quiet_since=party.quiet_since) == party


def asks(tenancy: Tenancy, demand: Demand) -> bool:
    """Whether the demand is one for a turn that it neither has nor waits for."""
    asleep = tenancy.state is State.PARKED and not tenancy.waits
    return demand.wanted and asleep and tenancy.desired is not Desired.PARKED


def eases(tenancy: Tenancy, demand: Demand) -> bool:
    """Whether a holder has just answered its last request: policy may let it go sooner now."""
    before = tenancy.demand
    had = before is not None and bool(before.in_flight)
    return tenancy.state is State.ACTIVE and had and not demand.in_flight


def asked(books: Books, key: WorkloadKey, now: float) -> Books:
    """Somebody asks for it. Of one that is active already that means: it is not idle, and it is not
    to be parked any more, where that did not begin yet."""
    tenancy = books.tenancies.get(key)
    if tenancy is not None and tenancy.state is State.ACTIVE:
        return books.change(key, idle_since=now, asked_to_park=False)
    return wanted(books.change(key, asked_by=""), key, now)


def wanted(books: Books, key: WorkloadKey, now: float) -> Books:
    """Wanted from now on, also while it is on its way in or out."""
    return bookkeeping.want(books, key, now) if key in books.tenancies else books


def desired(books: Books, whom: tuple[WorkloadKey, PodUid], desired: Desired, now: float) -> Books:
    """What `GpuWorkload.spec.desired` says of this pod."""
    key, uid = whom
    tenancy = books.tenancies.get(key)
    if tenancy is None or tenancy.uid != uid or tenancy.desired is desired:
        return books
    books = books.change(key, desired=desired)
    if desired is Desired.PARKED:
        return bookkeeping.unwant(books, key)
    if desired is Desired.ACTIVE:
        books = books.change(key, asked_to_park=False)  # the last word counts
    return _goes_on(books, key, now)


def restored(books: Books, tenancy: Tenancy, now: float) -> Books:
    """With a workload as a former agent left it."""
    books = books.having(replace(tenancy, wanted_since=None))
    if tenancy.in_vram or tenancy.state is State.QUARANTINED:
        return books
    if tenancy.wanted_since is not None:
        return bookkeeping.want(books, tenancy.key, tenancy.wanted_since)
    return _goes_on(books, tenancy.key, now)


def waking(books: Books, tenancy: Tenancy, now: float) -> Books:
    """With a workload that is about to be made from a checkpoint."""
    state = lifecycle.after(State.ABSENT, Happening.WAKE)
    return books.having(replace(tenancy, state=state, since=now))


def _goes_on(books: Books, key: WorkloadKey, now: float) -> Books:
    """With nobody in its way: what never ran, and what returns by itself, wants its GPU."""
    tenancy = books.tenancies[key]
    by_itself = tenancy.state is State.WAITING or tenancy.returns_by_itself
    if tenancy.in_vram or tenancy.state is State.QUARANTINED or not by_itself:
        return books
    return bookkeeping.want(books, key, now)


# Bytes that a picture shows of one that was parked since then may be those of before.
_SETTLED_S = 2.0


def seen(books: Books, picture: Picture, now: float) -> Books:
    """The books with what the cards show. Unchanged tenancies stay the same objects."""
    for key, tenancy in books.tenancies.items():
        leaving = tenancy.state is State.PARKED and now - tenancy.since < _SETTLED_S
        held = {} if leaving else dict(picture.held.get(key, {}))
        idle = picture.idle.get(key)
        signs = [round(now - idle, 1)] if idle is not None else []
        signs += [tenancy.quiet_since] if tenancy.quiet_since is not None else []
        since = None if _in_doubt(tenancy) else max(signs, default=None)
        if tenancy.active_since is not None and since is not None:
            since = max(since, tenancy.active_since)  # signs of before it was parked are old
        if tenancy.idle_since is not None and since is not None:
            since = max(since, tenancy.idle_since)
        if held != tenancy.held or (tenancy.in_vram and since != tenancy.idle_since):
            books = books.change(key, held=held, idle_since=since)
    return replace(
        books,
        foreign=dict(picture.foreign),
        health=dict(picture.health),
        pool_free=picture.below.pool_free,
        nvme_size=picture.below.nvme_size,
        nvme_free=picture.below.nvme_free,
        object_free=picture.below.object_free,
        bus=picture.below.rates.get(Tier.RAM),
        nvme=picture.below.rates.get(Tier.NVME),
        store=picture.below.rates.get(Tier.OBJECT),
    )


def _in_doubt(tenancy: Tenancy) -> bool:
    """Whether somebody who should know if it works cannot be asked: then the cards' word, that it
    does not, is not enough."""
    return tenancy.demand is not None and tenancy.demand.doubt and not tenancy.demand.busy
