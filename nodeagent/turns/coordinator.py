"""
The seat coordinator's edge: it keeps the books, asks `decide`, and starts switches.

Called by: containers, the API, the watches (what changed), the switches (what happened).
Rule: one lock guards the books and is never held while policy or a mechanism is asked. Rule: it
wakes when something changes or when `decide` said to ask again; nothing is polled faster.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from kybernate.clients.clock import Clock
from kybernate.decisions import books as bookkeeping
from kybernate.decisions.books import Books
from kybernate.decisions.lifecycle import Happening, IllegalTransition
from kybernate.decisions.questions import Asks
from kybernate.decisions.switching import Decided, SwitchPlan, decide
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.demand import Demand
from kybernate.model.gpu import Health
from kybernate.model.ids import NO_REVISION, PodUid, Revision, WorkloadKey
from kybernate.model.tier import Tier
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import Desired
from kybernate.runtime.logs import get_logger
from nodeagent.gpus.cards import Picture
from nodeagent.lives.life import Life
from nodeagent.lives.telling import Teller
from nodeagent.turns import switching, wishes
from nodeagent.turns.underway import UnderWay
from nodeagent.turns.whys import Whys

# With nothing to decide: how often the cards are looked at for foreign bytes and health.
LOOK_EVERY = 1.0


class Hands(Protocol):
    """Who carries plans out."""

    def carry_out(self, plan: SwitchPlan, books: switching.Books) -> None:
        """The whole switch; ends with `books.switched(plan)`."""


Look = Callable[[], Picture | None]
Changed = Callable[[Books, Books], None]
"""Called after every change with the books before and after, in the changer's thread: be quick."""


class Coordinator:
    """Thread safe. `start` once; `stop` waits for switches under way."""

    def __init__(
        self, books: Books, asks: Asks, hands: Hands, look: Look, teller: Teller, clock: Clock
    ) -> None:
        self._books = books
        self._asks, self._hands, self._look, self._teller = asks, hands, look, teller
        self._clock = clock
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._whys = Whys(teller)
        self._listeners: list[Changed] = []
        self._picture: Picture | None = None
        self._under_way = UnderWay()
        self.revision: Revision = NO_REVISION
        self.passes = 0
        self.short = 0  # bytes of the pool that the next plan lacks
        self._thread = threading.Thread(target=self._run, name="coordinator", daemon=True)

    # what is known

    @property
    def books(self) -> Books:
        """As of now."""
        with self._lock:
            return self._books

    @property
    def picture(self) -> Picture | None:
        """The cards when they were last looked at."""
        return self._picture

    def why(self, key: WorkloadKey) -> Refusal | None:
        """Why it waits."""
        return self._whys.of(key)

    def on_change(self, listener: Changed) -> None:
        """Tell this one too. To be called before `start`."""
        self._listeners.append(listener)

    # what others say

    def arrive(self, tenancy: Tenancy) -> None:
        """A container is held on a seat."""
        self._change(lambda books: bookkeeping.arrive(books, tenancy, self._clock.now()))

    def waking(self, tenancy: Tenancy) -> None:
        """A container is about to be made from a checkpoint."""
        self._change(lambda books: wishes.waking(books, tenancy, self._clock.now()))

    def restore(self, tenancy: Tenancy) -> None:
        """A workload as a former agent left it."""

        self._change(lambda books: wishes.restored(books, tenancy, self._clock.now()))

    def want(self, key: WorkloadKey) -> Refusal | None:
        """It is to be active. None when it waits from now on, or is active already."""
        refusal = wishes.want_refused(self.books, key)
        if refusal is None:
            now = self._clock.now()
            self._change(lambda books: wishes.asked(books, key, now))
        return refusal

    def heard(self, key: WorkloadKey, life: str, demand: Demand) -> None:
        """What all signals say of a workload now."""
        now, tenancy = self._clock.now(), self.books.tenancies.get(key)
        quiet = tenancy is None or not (
            wishes.asks(tenancy, demand) or wishes.eases(tenancy, demand)
        )
        self._change(lambda books: wishes.heard(books, (key, life), demand, now), quiet=quiet)
        if tenancy is not None and wishes.is_news(tenancy.demand, demand):
            self._wake.set()

    def policy_changed(self, revision: Revision) -> None:
        """What was refused may be allowed now: decide anew."""
        self.revision = revision
        self._wake.set()

    def park(self, key: WorkloadKey) -> Refusal | None:
        """It is to be parked now and stay so until somebody asks for it."""
        books = self.books
        tenancy = books.tenancies.get(key)
        if tenancy is None:
            return Refusal(reason=Reason.UNKNOWN_WORKLOAD, detail=str(key))
        if refusal := wishes.park_refused(tenancy, books.pool_free + books.demotable()):
            return refusal
        self._change(
            lambda books: bookkeeping.unwant(books.change(key, asked_to_park=True), key)
        )  # fmt: skip
        return None

    def desire(self, key: WorkloadKey, uid: PodUid, desired: Desired) -> None:
        """What `GpuWorkload.spec.desired` says of this pod."""

        now = self._clock.now()
        self._change(lambda books: wishes.desired(books, (key, uid), desired, now))

    def gone(self, life: Life) -> None:
        """Its container ended."""
        self.happened(life, Happening.GONE)

    # what switches say (the `switching.Books` port)

    def happened(self, life: Life, happening: Happening) -> bool:
        """As the port says."""
        known = True

        def step(books: Books) -> Books:
            nonlocal known
            tenancy = books.tenancies.get(life.key)
            known = tenancy is not None and tenancy.life == life.id
            if not known:
                return books
            try:
                return bookkeeping.happen(books, life.key, happening, self._clock.now())
            except IllegalTransition:
                known = False
                return books

        self._change(step)
        return known

    def wants(self, key: WorkloadKey) -> bool:
        """As the port says."""
        tenancy = self.books.tenancies.get(key)
        return tenancy is not None and tenancy.waits and tenancy.desired is not Desired.PARKED

    def ask_again(self, key: WorkloadKey) -> None:
        """As the port says."""
        self._change(lambda books: wishes.wanted(books, key, self._clock.now()))

    def stays(self, key: WorkloadKey, size: int) -> None:
        """As the port says."""
        known = self.books.tenancies.get(key)
        if known is not None and known.residue != size:
            self._change(lambda books: books.change(key, residue=size), quiet=True)

    def lies(self, key: WorkloadKey, *, movable: bool, through_ram: bool) -> None:
        """As the port says."""
        known = self.books.tenancies.get(key)
        if known is not None and (known.movable, known.through_ram) != (movable, through_ram):
            self._change(
                lambda books: books.change(key, movable=movable, through_ram=through_ram),
                quiet=True,
            )

    def moved(self, life: Life, tier: Tier) -> None:
        """A parked workload's contents are in this tier now."""

        def step(books: Books) -> Books:
            known = books.tenancies.get(life.key)
            same = known is not None and known.life == life.id
            return books.change(life.key, tier=tier) if same else books

        self._change(step)

    def switched(self, plan: SwitchPlan) -> None:
        """As the port says."""
        self._change(lambda books: bookkeeping.end_switch(books, plan.key))

    def _change(self, step: Callable[[Books], Books], *, quiet: bool = False) -> None:
        with self._lock:
            before = self._books
            self._books = after = step(before)
            self._whys.forget(after)
        if after is before or quiet:
            return
        self._wake.set()
        for listener in self._listeners:
            listener(before, after)

    # the loop

    def start(self) -> None:
        """Begin to decide; returns at once."""
        self._thread.start()

    def stop(self, seconds: float = 30.0) -> None:
        """Begin no more switches, and wait for those under way."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        self._under_way.join(seconds)

    def _run(self) -> None:
        log = get_logger()
        again_at: float | None = self._clock.now()
        while not self._stopping:
            pause = LOOK_EVERY if again_at is None else again_at - self._clock.now()
            woken = self._clock.wait(self._wake, max(0.0, min(LOOK_EVERY, pause)))
            self._wake.clear()
            if self._stopping:
                return
            try:
                changed = self._take_picture()
                if woken or changed or (again_at is not None and again_at <= self._clock.now()):
                    again_at = self._begin_what_may()
            except Exception:  # a fault here must not end all switching on the node
                log.exception("a decision failed")
                again_at = self._clock.now() + LOOK_EVERY

    def decide_now(self) -> float | None:
        """One pass: look, then begin every switch that may begin. When to ask again."""
        self._take_picture()
        return self._begin_what_may()

    def _begin_what_may(self) -> float | None:
        self.passes += 1
        while not self._stopping:
            books = self.books
            decided = decide(books, self._clock.now(), self._asks)
            self._learn(decided)
            if decided.plan is None:
                self._whys.explain(books, decided.waits)
                return decided.again_at
            if not self._begin(decided.plan, books):
                self._take_picture()
        return None

    def _learn(self, decided: Decided) -> None:
        self.short = decided.short
        if decided.revision:
            self.revision = decided.revision
        if decided.terms:
            self._change(lambda b: replace(b, terms={**b.terms, **decided.terms}), quiet=True)

    def _begin(self, plan: SwitchPlan, decided_on: Books) -> bool:
        """Whether what it was decided on still holds, and it was begun."""
        parties = tuple(decided_on.tenancies[k] for k in (*plan.park, *_some(plan.resume)))
        begun = False

        def step(books: Books) -> Books:
            nonlocal begun
            if not all(wishes.holds(plan, party, books) for party in parties):
                return books  # something changed while policy was asked: decide anew
            begun = True
            now = self._clock.now()
            books = bookkeeping.begin_switch(books, plan.key, plan.gpus, now)
            for key in plan.park:
                books = bookkeeping.happen(books, key, Happening.PARK, now)
            if plan.resume is not None and not plan.park:
                books = bookkeeping.happen(books, plan.resume, Happening.GRANTED, now)
            return books

        self._change(step)
        if begun:
            self._teller.planned(plan, parties)
            self._under_way.begin(
                f"switch-{plan.key.name}", lambda: self._hands.carry_out(plan, self)
            )
        return begun

    # the cards

    def _take_picture(self) -> bool:
        """Whether something is seen that may change a decision by itself."""
        picture = self._look()
        if picture is None:
            return False
        before, self._picture = self._picture, picture
        self._change(lambda books: wishes.seen(books, picture, self._clock.now()), quiet=True)
        self._tell_health(before, picture)
        return before is None or picture.matters() != before.matters()

    def _tell_health(self, before: Picture | None, picture: Picture) -> None:
        for name, health in picture.health.items():
            was = before.health.get(name, Health.HEALTHY) if before else Health.HEALTHY
            if health is not was:
                group = self.books.groups[name]
                there = sorted(picture.strangers & set(group.gpus))
                why = f"a process that is not ours holds VRAM of GPU {there}" if there else health
                self._teller.sick(group, "" if health is Health.HEALTHY else str(why))


def _some(key: WorkloadKey | None) -> tuple[WorkloadKey, ...]:
    return () if key is None else (key,)
