"""What the coordinator does next: a plan, and for everybody else why they wait. Pure.

`decide` is called by the agent whenever something changed or `again_at` came. It asks policy
through a port, never more than needed: a GPU that is free by the books and by the inventory is
given without it. The order and the bound on waiting are in `turns`; what fits is in `ledger`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from kybernate.decisions import depth, estimates, questions, turns
from kybernate.decisions.books import Books
from kybernate.decisions.questions import Asks
from kybernate.decisions.tenancy import Tenancy
from kybernate.decisions.turns import Line
from kybernate.model.estimate import Estimate, Item, Step
from kybernate.model.ids import NO_REVISION, GroupName, Revision, WorkloadKey
from kybernate.model.policy import HolderTerms, PreemptionVerdict, TimesliceVerdict
from kybernate.model.tier import BELOW_RAM, Tier
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import Desired, State

# When policy names no time: soon enough for a person, far from a busy loop.
RETRY_SECONDS = 5.0
# VRAM of a process that just died shows for a moment longer.
VRAM_RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchPlan:
    """Park these, then resume (or start) that one. Prints as people read it."""

    park: tuple[WorkloadKey, ...]
    resume: WorkloadKey | None
    gpus: tuple[int, ...]
    why: str
    items: tuple[Item, ...] = ()
    overrides: str = ""  # the verdict that was not followed, and why
    slice_ended: bool = False
    idle: bool = False  # nobody takes its place: it had no work for long enough
    asked_by: str = ""  # who asked for the one that is resumed, in words
    shallow: tuple[WorkloadKey, ...] = ()  # of the parked: their contexts may stay
    revision: Revision = NO_REVISION

    @property
    def key(self) -> WorkloadKey:
        """The workload the switch is for."""
        return self.resume or self.park[0]

    def __str__(self) -> str:
        return f"{Estimate(self.items)} ({self.why})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One plan at most; who waits and why; when to ask again; terms policy gave on the way."""

    plan: SwitchPlan | None = None
    waits: Mapping[WorkloadKey, Refusal] = field(default_factory=dict)
    again_at: float | None = None
    terms: Mapping[WorkloadKey, HolderTerms] = field(default_factory=dict)
    short: int = 0  # bytes of host memory that a plan lacked, and demoting could give
    revision: Revision = NO_REVISION


def decide(books: Books, now: float, asks: Asks) -> Decided:
    """The next switch, if any may begin now. Call again after carrying out a plan."""
    return _Pass(books, now, asks).run()


@dataclass(frozen=True, slots=True)
class _Next:
    """Who goes, whether policy may object, and in which words."""

    waiter: Tenancy
    why: str
    forced: bool = False
    overrides: str = ""


class _Pass:
    """One walk along the queue. Terms that policy gives on the way count at once."""

    def __init__(self, books: Books, now: float, asks: Asks) -> None:
        self.books = books
        self.now = now
        self.asks = asks
        self.line: Line = Line(books, now)
        self.waits: dict[WorkloadKey, Refusal] = {}
        self.terms: dict[WorkloadKey, HolderTerms] = {}
        self.revision: Revision = NO_REVISION
        self.again: list[float] = []
        self.short = 0

    def run(self) -> Decided:
        plan = self._asked_by_people() or self._along_the_queue() or self._without_work()
        late = self.line.next_late()
        again = [*self.again, *([late] if late is not None else [])]
        again += [t.not_before for t in self.books.tenancies.values() if t.not_before > self.now]
        return Decided(
            plan=plan, waits=self.waits, again_at=min(again, default=None), terms=self.terms,
            short=self.short, revision=self.revision,
        )  # fmt: skip

    def _asked_by_people(self) -> SwitchPlan | None:
        for key, tenancy in sorted(self.books.tenancies.items()):
            asked = tenancy.asked_to_park or tenancy.desired is Desired.PARKED
            if not asked or tenancy.state is not State.ACTIVE or self._busy(tenancy.gpus):
                continue
            refusal = self._cannot_leave((tenancy,))
            if refusal is None:
                return SwitchPlan(
                    park=(key,), resume=None, gpus=tenancy.gpus, why="somebody asked for it",
                    items=self._items((tenancy,), None),
                )  # fmt: skip
            self.waits[key] = refusal
        return None

    def _without_work(self) -> SwitchPlan | None:
        """The first holder that policy lets go though nobody takes its place. One that would
        return by itself is not asked about: it would only go round and round."""
        for key, tenancy in sorted(self.books.tenancies.items()):
            if not _may_be_idle(tenancy) or self._busy(tenancy.gpus):
                continue
            verdict = self.asks.tiering(questions.tiering_question(self.line, tenancy))
            if isinstance(verdict, Refusal):
                self._ask_again(RETRY_SECONDS)
            elif verdict.tier is Tier.VRAM:
                if verdict.after_seconds is not None:
                    self._ask_again(verdict.after_seconds)
            elif self._cannot_leave((tenancy,)) is None:
                idle = self.now - (tenancy.idle_since or self.now)
                return SwitchPlan(
                    park=(key,), resume=None, gpus=tenancy.gpus, idle=True,
                    why=f"it had no work for {idle:.0f} s",
                    items=self._items((tenancy,), None), revision=verdict.revision,
                )  # fmt: skip
        return None

    def _along_the_queue(self) -> SwitchPlan | None:
        for waiter in self.line.waiters:
            answer = self._attempt(waiter)
            if isinstance(answer, SwitchPlan):
                return answer
            self.waits[waiter.key] = answer
        return None

    def _attempt(self, waiter: Tenancy) -> SwitchPlan | Refusal:
        if self._busy(waiter.gpus):
            return Refusal(reason=Reason.BUSY)
        if refusal := self.line.held_up(waiter):
            return refusal
        if turns.blockers(self.books, waiter):
            return self._contest(waiter)
        return self._give_free(waiter)

    def _busy(self, gpus: tuple[int, ...]) -> bool:
        return not self.books.switching.keys().isdisjoint(gpus)

    # GPUs that are free

    def _give_free(self, waiter: Tenancy) -> SwitchPlan | Refusal:
        """Arrival order, or policy's choice among rivals; but an idle GPU helps nobody, so where
        policy's choice cannot have its GPUs yet, the next one in line goes if the rules allow."""
        own = _Next(waiter, "its GPUs are free")
        if len(questions.rivals(self.line, waiter)) == 1:
            return self._plan(own)
        verdict = self._timeslice(waiter)
        if isinstance(verdict, Refusal):
            return self._plan(own)  # nobody is parked now, so a reserved GPU would be waste
        if verdict.next is not None:
            answer = self._choose(waiter, verdict)
            plan = answer if isinstance(answer, Refusal) else self._plan(answer)
            if isinstance(plan, SwitchPlan):
                return plan
        if passing := self.line.passes_over(waiter):
            return Refusal(reason=Reason.BUSY, detail=f"its GPUs are reserved: {passing.why}")
        return self._plan(own)

    # GPUs that somebody holds

    def _contest(self, waiter: Tenancy) -> SwitchPlan | Refusal:
        verdict = self._timeslice(waiter)
        if isinstance(verdict, Refusal):
            return verdict
        chosen = self._choose(waiter, verdict)
        return chosen if isinstance(chosen, Refusal) else self._plan(chosen)

    def _timeslice(self, waiter: Tenancy) -> TimesliceVerdict | Refusal:
        verdict = self.asks.timeslice(questions.timeslice_question(self.line, waiter))
        if isinstance(verdict, Refusal):
            self._ask_again(RETRY_SECONDS)
            return verdict
        self._ask_again(verdict.retry_seconds or RETRY_SECONDS)
        self.revision = verdict.revision
        self.terms.update(verdict.terms)
        known = {**self.books.terms, **verdict.terms}
        if known != self.books.terms:
            self.books = replace(self.books, terms=known)
            self.line = Line(self.books, self.now)
        return verdict

    def _choose(self, waiter: Tenancy, verdict: TimesliceVerdict) -> _Next | Refusal:
        """Policy's choice, unless the rules of `turns` say otherwise."""
        if (late := self.line.must_go(waiter)) is not None:
            why = f"{late.key} has waited {self.now - (late.wanted_since or 0.0):.0f} s"
            if verdict.next == waiter.key:
                return _Next(waiter, verdict.reason, forced=True)
            return _Next(waiter, "bound on waiting", forced=True, overrides=why)
        if verdict.next is None:
            return Refusal(reason=Reason.STICKY, detail=verdict.reason)
        named = next((w for w in self.line.waiters if w.key == verdict.next), None)
        if named is None or (named != waiter and not named.shares_gpu(waiter)):
            detail = f"policy names {verdict.next}, which does not wait for these GPUs"
            return Refusal(reason=Reason.INVARIANT, detail=detail)
        if refusal := self.line.held_up(named):
            return self._instead(waiter, f"policy names {named.key}: {refusal}")
        passing = self.line.passes_over(named)
        if passing is None:
            return _Next(named, verdict.reason)
        return self._instead(waiter, f"policy names {named.key}, but {passing.why}")

    def _instead(self, waiter: Tenancy, why: str) -> _Next | Refusal:
        """The first in line that was asked about, where policy's choice cannot go."""
        passing = self.line.passes_over(waiter)
        if passing is None:
            return _Next(waiter, "longest wait", overrides=why)
        return Refusal(reason=Reason.BUSY, detail=f"its GPUs are reserved: {passing.why}")

    # from a choice to a plan

    def _plan(self, chosen: _Next) -> SwitchPlan | Refusal:
        waiter = chosen.waiter
        if self._busy(waiter.gpus):
            return Refusal(reason=Reason.BUSY)
        leaving = self._leaving(chosen)
        if isinstance(leaving, Refusal):
            return leaving
        parked, overridden = leaving
        if refusal := self._cannot_leave(parked, waiter):
            return refusal
        if refusal := self._still_no_room(waiter, parked):
            return refusal
        gpus = sorted({g for t in (waiter, *parked) for g in t.gpus})
        if self._busy(tuple(gpus)):
            return Refusal(reason=Reason.BUSY)
        return SwitchPlan(
            park=tuple(t.key for t in parked),
            resume=waiter.key,
            gpus=tuple(gpus),
            why=chosen.why,
            items=self._items(parked, waiter),
            overrides="; ".join(text for text in (chosen.overrides, overridden) if text),
            shallow=depth.may_stay(self.books, parked, waiter),
            slice_ended=bool(parked) and not turns.unfinished(self.books, parked, self.now),
            asked_by=waiter.asked_by,
            revision=self.revision,
        )

    def _leaving(self, chosen: _Next) -> tuple[tuple[Tenancy, ...], str] | Refusal:
        """The holders to park, fewest and lowest in order first; and what was overridden."""
        holders = turns.blockers(self.books, chosen.waiter)
        if not holders:
            return (), ""
        holders = tuple(h for h in holders if turns.immovable(h, self.now) is None)
        if chosen.forced and (refusal := turns.unfinished(self.books, holders, self.now)):
            self._ask_again_at_slice_end(holders)
            return refusal
        ordered: list[tuple[float, Tenancy]] = []
        refused: list[str] = []
        for holder in holders:
            answer = self._may_go(chosen, holder)
            if isinstance(answer, Refusal):
                if not chosen.forced:
                    return answer
                refused.append(f"{holder.key}: {answer}")
            order = answer.order if isinstance(answer, PreemptionVerdict) else 0.0
            ordered.append((order, holder))
        ordered.sort(key=lambda pair: (pair[0], pair[1].key))
        why = f"bound on waiting over {', '.join(refused)}" if refused else ""
        return self._fewest(chosen.waiter, [holder for _, holder in ordered]), why

    def _fewest(self, waiter: Tenancy, holders: list[Tenancy]) -> tuple[Tenancy, ...]:
        for count in range(1, len(holders)):
            if turns.fits(self.books, waiter, without=holders[:count]):
                return tuple(holders[:count])
        return tuple(holders)

    def _may_go(self, chosen: _Next, holder: Tenancy) -> PreemptionVerdict | Refusal:
        """Policy's word on one holder. Whatever is not a clear yes protects the holder."""
        question = questions.preemption_question(self.line, chosen.waiter, holder)
        verdict = self.asks.preemption(question)
        if isinstance(verdict, Refusal):
            self._ask_again(RETRY_SECONDS)
            return verdict
        if verdict.allow:
            self.revision = verdict.revision
            return verdict
        self._ask_again(verdict.retry_seconds or RETRY_SECONDS)
        return Refusal(reason=Reason.PROTECTED, detail=f"{holder.key}: {verdict.reason}")

    def _cannot_leave(
        self, parked: tuple[Tenancy, ...], waiter: Tenancy | None = None
    ) -> Refusal | None:
        for holder in parked:
            if holder.state is not State.ACTIVE:
                return Refusal(reason=Reason.BUSY, detail=f"{holder.key} is {holder.state}")
            if not holder.parkable or holder.not_before > self.now:
                return turns.immovable(holder, self.now)
        needed = sum(t.vram for t in parked)
        if waiter is not None and waiter.tier in BELOW_RAM and waiter.through_ram:
            needed += waiter.vram
        lacking = needed - self.books.pool_free
        if lacking <= 0:
            return None
        detail = f"{needed / 2**30:.0f} GiB needed, {self.books.pool_free / 2**30:.0f} left"
        if lacking <= self.books.demotable():
            self.short = max(self.short, lacking)
            detail += "; others are demoted first"
        return Refusal(reason=Reason.NO_HOST_MEMORY, detail=detail)

    def _still_no_room(self, waiter: Tenancy, parked: tuple[Tenancy, ...]) -> Refusal | None:
        if turns.fits(self.books, waiter, without=parked):
            return None
        ledger = self.books.ledger().without([t.key for t in parked])
        self._ask_again(VRAM_RETRY_SECONDS)
        return ledger.room_for(waiter) or Refusal(
            reason=Reason.INVARIANT, detail="more active than the group allows"
        )

    def _items(self, parked: tuple[Tenancy, ...], waiter: Tenancy | None) -> tuple[Item, ...]:
        if self.books.bus is None:
            return ()
        seconds: Callable[[int], float] = self.books.bus.seconds
        items = [Item(Step.PARK, seconds(t.vram), t.key.name) for t in parked]
        if waiter is not None and waiter.state is State.PARKED:
            items += self._fetch(waiter)
            items.append(Item(Step.RESUME, seconds(waiter.vram), waiter.key.name))
        return tuple(items)

    def _fetch(self, waiter: Tenancy) -> list[Item]:
        """Up from where it is. Contents come in while they are fetched, so it takes no longer."""
        if waiter.tier not in BELOW_RAM:
            return []
        rate = estimates.rate(self.books.rates(), waiter.tier)
        what = f"{waiter.tier} {estimates.size_text(waiter.vram)}"
        return [Item(Step.FETCH, rate.seconds(waiter.vram), what)]

    def _ask_again(self, seconds: float) -> None:
        self.again.append(self.now + max(0.1, seconds))

    def _ask_again_at_slice_end(self, holders: tuple[Tenancy, ...]) -> None:
        for holder in holders:
            span = turns.slice_of(self.books, holder.key)
            if span is not None and holder.active_since is not None:
                self._ask_again(holder.active_since + span - self.now)


def _may_be_idle(tenancy: Tenancy) -> bool:
    """Whether policy is asked at all. Whoever has work under way is not idle, whatever it says."""
    if tenancy.state is not State.ACTIVE or tenancy.idle_since is None or not tenancy.parkable:
        return False
    busy = tenancy.demand is not None and tenancy.demand.busy
    return not busy and not tenancy.returns_by_itself


def group_of(books: Books, name: GroupName) -> tuple[Tenancy, ...]:
    """Who sits on a group, by name."""
    return tuple(t for _, t in sorted(books.tenancies.items()) if t.group.name == name)
