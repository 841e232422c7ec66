"""Questions to policy, put together from the books. Pure; the verdicts are asked for elsewhere."""

import datetime
from typing import Protocol

from kybernate.decisions import estimates
from kybernate.decisions.books import Books
from kybernate.decisions.tenancy import Tenancy
from kybernate.decisions.turns import Line, holders_of
from kybernate.model.policy import (
    Calendar,
    GroupFacts,
    ParkedFacts,
    PreemptionQuestion,
    PreemptionVerdict,
    TenantFacts,
    TieringQuestion,
    TieringVerdict,
    TimesliceQuestion,
    TimesliceVerdict,
)
from kybernate.model.tier import Tier
from kybernate.model.verdict import Refusal
from kybernate.model.workload import State


class Asks(Protocol):
    """The part of the policy port that the coordinator needs. A Refusal means: no verdict."""

    def timeslice(self, question: TimesliceQuestion) -> TimesliceVerdict | Refusal:
        """Who is next on these GPUs?"""

    def preemption(self, question: PreemptionQuestion) -> PreemptionVerdict | Refusal:
        """May the holder be parked for the incoming workload?"""

    def tiering(self, question: TieringQuestion) -> TieringVerdict | Refusal:
        """May a holder leave its GPU though nobody takes its place? Where should a parked one's
        contents be?"""


def rivals(line: Line, waiter: Tenancy) -> tuple[Tenancy, ...]:
    """The waiters that share a GPU with this one, itself included, longest wait first."""
    return tuple(w for w in line.waiters if w == waiter or w.shares_gpu(waiter))


def timeslice_question(line: Line, waiter: Tenancy) -> TimesliceQuestion:
    """Who is next on the waiter's GPUs?"""
    waiting = rivals(line, waiter)
    near = {h.key: h for rival in waiting for h in holders_of(line.books, rival)}
    holders = tuple(h for _, h in sorted(near.items()) if h.state is State.ACTIVE)
    moment = waiting[0].wanted_since
    return TimesliceQuestion(
        group=_group(line, waiter),
        holders=tuple(facts(h, line, moment) for h in holders),
        waiting=tuple(facts(w, line, moment) for w in waiting),
        calendar=calendar(line.now),
    )


def preemption_question(line: Line, incoming: Tenancy, holder: Tenancy) -> PreemptionQuestion:
    """May the holder be parked for the incoming workload?"""
    terms = line.books.terms.get(holder.key)
    moment = rivals(line, incoming)[0].wanted_since
    return PreemptionQuestion(
        incoming=facts(incoming, line, moment),
        holder=facts(holder, line, moment),
        group=_group(line, incoming),
        calendar=calendar(line.now),
        slice_seconds=terms.slice_seconds if terms else 0.0,
        switches_last_minute=_recent(line.books, incoming, line.now),
    )


def _recent(books: Books, tenancy: Tenancy, now: float) -> int:
    """Switches on any of its GPUs within the last minute."""
    gpus = set(tenancy.gpus)
    return sum(1 for when, where in books.switches if now - when < 60.0 and gpus & set(where))


def _group(line: Line, waiter: Tenancy) -> GroupFacts:
    group = waiter.group
    return GroupFacts(
        name=group.name,
        gpus=group.gpus,
        vram=group.vram,
        seats=group.profile.seats_per_group,
        waiting=len(rivals(line, waiter)),
    )


def tiering_question(line: Line, holder: Tenancy) -> TieringQuestion:
    """May the holder leave its GPU though nobody takes its place?"""
    return TieringQuestion(
        workload=facts(holder, line, None),
        waiting=sum(w.shares_gpu(holder) for w in line.waiters),
        ram_free=line.books.pool_free + line.books.demotable(),
        calendar=calendar(line.now),
    )


def parked_question(line: Line, parked: Tenancy, short: int) -> TieringQuestion:
    """In which tier should its contents be? `short`: bytes of the pool that a plan lacks."""
    books = line.books
    ahead = [w.key for w in rivals(line, parked)] if parked.waits else []
    below = Tier.OBJECT if parked.tier is Tier.OBJECT else Tier.NVME
    return TieringQuestion(
        workload=facts(parked, line, None),
        waiting=sum(w.shares_gpu(parked) for w in line.waiters),
        ram_free=books.pool_free,
        calendar=calendar(line.now),
        parked=ParkedFacts(
            tier=parked.tier,
            seconds=max(0.0, line.now - parked.since),
            place=ahead.index(parked.key) if parked.key in ahead else None,
            fetch_seconds=estimates.rate(books.rates(), below).seconds(parked.vram),
            ram_capacity=books.pool_size,
            ram_short=short,
            ram_to_come=to_come(books, parked),
            nvme_free=books.nvme_free,
            nvme_capacity=books.nvme_size,
            nvme_short=books.nvme_short(short),
            object_free=books.object_free,
        ),
    )


def to_come(books: Books, parked: Tenancy) -> int:
    """Bytes of the pool that the holders of its GPUs need once they are parked for it."""
    return sum(holder.vram for holder in holders_of(books, parked))


def facts(tenancy: Tenancy, line: Line, longest_wait_began: float | None) -> TenantFacts:
    """A tenant as policy sees it. Times become durations, never negative."""
    now, bus = line.now, line.books.bus
    return TenantFacts(
        key=tenancy.key,
        workload_class=tenancy.workload_class,
        priority=tenancy.priority,
        vram=tenancy.vram,
        state=tenancy.state,
        desired=tenancy.desired,
        running_seconds=_span(tenancy.active_since, now) or 0.0,
        waiting_seconds=_span(tenancy.wanted_since, now) or 0.0,
        idle_seconds=_span(tenancy.idle_since, now) if tenancy.in_vram else None,
        min_runtime_seconds=tenancy.min_runtime,
        idle_after_seconds=tenancy.idle_after,
        in_flight=tenancy.demand.in_flight if tenancy.demand else None,
        pinned=tenancy.pinned,
        reload_seconds=round(2 * bus.seconds(tenancy.vram), 3) if bus else None,
        asked_every_seconds=tenancy.asked_every,
        gpus=tenancy.gpus,
        ran_since_others_wait=longest_wait_began is not None
        and tenancy.wanted_since != longest_wait_began
        and tenancy.had_a_turn_since(longest_wait_began),
    )


def _span(moment: float | None, now: float) -> float | None:
    return None if moment is None else max(0.0, now - moment)


def calendar(now: float) -> Calendar:
    """The UTC wall clock at `now`, seconds since the epoch."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return Calendar(weekday=moment.weekday(), hour=moment.hour, minute=moment.minute)
