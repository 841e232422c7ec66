"""Overlapping seats of 1, 2 and 4 GPUs under a hostile policy: the invariants hold all the same.

Real: the books, the turns, the plans. Played: time, policy (any verdict it can think of), switches
(they take up to `SWITCH` seconds and, in the unreliable world, fail).
"""

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kybernate.decisions import books as bk
from kybernate.decisions.books import Books
from kybernate.decisions.lifecycle import Happening
from kybernate.decisions.switching import SwitchPlan, decide
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.gpu import Group, Profile
from kybernate.model.ids import GroupName, PodUid, ResourceName, WorkloadKey
from kybernate.model.policy import (
    HolderTerms,
    PreemptionVerdict,
    TieringVerdict,
    TimesliceVerdict,
)
from kybernate.model.tier import Tier
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import Desired, State, WorkloadClass

GIB = 2**30
SLICE, SWITCH = 10.0, 2.0
AWAY = Refusal(reason=Reason.POLICY_UNAVAILABLE)


def _groups() -> dict[GroupName, Group]:
    found = {}
    for size, seats in ((1, 3), (2, 2), (4, 2)):
        profile = Profile(
            name=f"{size}x", resource=ResourceName(f"kyb.ai/gpu-{size}x-seat"), group_size=size,
            seats_per_group=seats,
        )  # fmt: skip
        for first in range(0, 4, size):
            gpus = tuple(range(first, first + size))
            name = GroupName("G" + "".join(map(str, gpus)))
            found[name] = Group(name=name, gpus=gpus, profile=profile, vram=80 * GIB * size)
    return found


GROUPS = _groups()
SEATS = [seat for group in GROUPS.values() for seat in group.seats()]


@dataclass
class HostilePolicy:
    """Answers from a list of random numbers: anything policy could say, wise or not."""

    draws: list[int] = field(default_factory=lambda: [0])
    may_be_away: bool = False
    _at: int = 0

    def _draw(self, among: int) -> int:
        self._at += 1
        return self.draws[self._at % len(self.draws)] % among

    def timeslice(self, question):
        if self.may_be_away and self._draw(5) == 0:
            return AWAY
        everybody = [*question.waiting, *question.holders]
        terms = {t.key: HolderTerms(slice_seconds=SLICE, min_runtime_seconds=3) for t in everybody}
        choice = self._draw(len(question.waiting) + 2)
        named = question.waiting[choice].key if choice < len(question.waiting) else None
        if choice == len(question.waiting) and question.holders:
            named = question.holders[0].key  # nonsense: it does not wait
        return TimesliceVerdict(next=named, reason="as it likes", terms=terms, retry_seconds=1.0)

    def preemption(self, question):
        if self.may_be_away and self._draw(5) == 0:
            return AWAY
        return PreemptionVerdict(allow=self._draw(3) == 0, reason="as it likes", retry_seconds=1.0)

    def tiering(self, question):
        if self.may_be_away and self._draw(5) == 0:
            return AWAY
        tier = Tier.RAM if self._draw(4) == 0 else Tier.VRAM
        return TieringVerdict(tier=tier, reason="as it likes", after_seconds=1.0)


class World(RuleBasedStateMachine):
    """A node with four GPUs, played event by event."""

    @initialize(
        reliable=st.booleans(), pool=st.sampled_from([1000, 100]), eager=st.booleans(),
        seats=st.lists(st.sampled_from(SEATS), max_size=12, unique=True),
    )  # fmt: skip
    def begin(self, reliable, pool, eager, seats):
        self.eager = eager  # whoever was parked is asked for again at once
        self.reliable = reliable
        self.now = 1000.0
        self.policy = HostilePolicy(may_be_away=not reliable)
        self.pool = (10_000 if reliable else pool) * GIB
        self.books = Books(
            memory=dict.fromkeys(range(4), 80 * GIB), groups=GROUPS, switch_seconds=SWITCH
        )
        self.under_way: list[tuple[float, SwitchPlan, bool]] = []
        self.lives = 0
        # Since when each waits, and with how many at once at the most: counted here, not by them.
        self.seen: dict[WorkloadKey, tuple[float, int]] = {}
        self.again_at: float | None = None
        for seat in seats:
            self.a_pod_starts(seat, WorkloadClass.TRAINING, small=False)

    # what happens outside

    @rule(seat=st.sampled_from(SEATS), cls=st.sampled_from(WorkloadClass), small=st.booleans())
    def a_pod_starts(self, seat, cls, small):
        if any(t.seat == seat for t in self.books.tenancies.values()):
            return
        self.lives += 1
        group = GROUPS[seat.group]
        tenancy = Tenancy(
            key=WorkloadKey("default", f"w{self.lives}"), uid=PodUid(f"u{self.lives}"),
            group=group, seat=seat, vram=group.vram // 4 if small else group.vram,
            workload_class=cls, parkable=self.reliable or self.lives % 7 != 0,
        )  # fmt: skip
        self.books = bk.arrive(self.books, tenancy, self.now)
        self._count_waiting()
        self._settle()

    @rule(pick=st.integers(0, 30))
    def a_parked_model_is_asked_for(self, pick):
        parked = [t for t in self.books.tenancies.values() if t.state is State.PARKED]
        if parked:
            self.books = bk.want(self.books, parked[pick % len(parked)].key, self.now)
            self._count_waiting()
            self._settle()

    @rule(pick=st.integers(0, 30))
    def a_pod_ends(self, pick):
        here = sorted(self.books.tenancies)
        if here:
            self.books = bk.happen(self.books, here[pick % len(here)], Happening.GONE, self.now)
            self._settle()

    @precondition(lambda self: not self.reliable)
    @rule(pick=st.integers(0, 30), desired=st.sampled_from(Desired))
    def somebody_pins_or_parks(self, pick, desired):
        here = sorted(self.books.tenancies)
        if here:
            self.books = self.books.change(here[pick % len(here)], desired=desired)
            self._settle()

    @rule(draws=st.lists(st.integers(0, 99), min_size=1, max_size=12))
    def policy_is_edited(self, draws):
        self.policy.draws = draws

    @rule(seconds=st.sampled_from([0.3, 1.0, 4.0, 15.0, 60.0]), takes=st.floats(0.1, SWITCH))
    def time_passes(self, seconds, takes):
        self.takes = takes
        end = self.now + seconds
        while (moment := self._next_event()) is not None and moment <= end:
            self.now = max(self.now, moment)
            self._finish_switches()
            self._settle()
        self.now = end

    takes = 1.0

    # what the agent does

    def _next_event(self):
        return min([*(s[0] for s in self.under_way), *([self.again_at] if self.again_at else [])],
                   default=None)  # fmt: skip

    def _pool_free(self):
        parked = (State.PARKED, State.PARKING)
        return self.pool - sum(
            t.vram for t in self.books.tenancies.values() if t.state in parked
        )  # fmt: skip

    def _count_waiting(self):
        queue = self.books.queue()
        for waiter in queue:
            since, most = self.seen.get(waiter.key, (None, 0))
            most = most if since == waiter.wanted_since else 0
            self.seen[waiter.key] = waiter.wanted_since, max(most, len(queue))

    def _settle(self):
        for _ in range(100):
            self.books = replace(self.books, pool_free=self._pool_free())
            decided = decide(self.books, self.now, self.policy)
            self.books = replace(self.books, terms={**self.books.terms, **decided.terms})
            if decided.plan is None:
                self.again_at = decided.again_at
                assert self.again_at is None or self.again_at > self.now
                return
            self._begin(decided.plan)
        raise AssertionError("plans without end")

    def _begin(self, plan):
        assert not set(plan.gpus) & set(self.books.switching), "two switches on one GPU"
        self.books = bk.begin_switch(self.books, plan.key, plan.gpus, self.now)
        for key in plan.park:
            assert self.books.tenancies[key].desired is not Desired.ACTIVE
            self.books = bk.happen(self.books, key, Happening.PARK, self.now)
        if plan.resume is not None and not plan.park:
            self.books = bk.happen(self.books, plan.resume, Happening.GRANTED, self.now)
        fails = not self.reliable and self.policy._draw(4) == 0
        self.under_way.append((self.now + self.takes, plan, fails))

    def _finish_switches(self):
        for item in [s for s in self.under_way if s[0] <= self.now]:
            self.under_way.remove(item)
            _, plan, fails = item
            parked = [k for k in plan.park if k in self.books.tenancies]
            for key in parked:
                self.books = bk.happen(
                    self.books, key, Happening.PARK_FAILED if fails else Happening.PARKED, self.now
                )
                self._count_waiting()
            if not fails and plan.resume in self.books.tenancies:
                self._resume(plan)
            self.books = bk.end_switch(self.books, plan.key)

            self._ask_again(parked)

    def _ask_again(self, parked):
        for key in parked if self.eager else ():
            if self.books.tenancies[key].state is State.PARKED:
                self.books = bk.want(self.books, key, self.now)
                self._count_waiting()

    def _resume(self, plan):
        if plan.park:
            self.books = bk.happen(self.books, plan.resume, Happening.GRANTED, self.now)
        self.books = bk.happen(self.books, plan.resume, Happening.RUNS, self.now)

    # what always holds

    @invariant()
    def at_most_one_active_on_a_gpu(self):
        for gpu in range(4):
            there = [t for t in self.books.tenancies.values() if t.in_vram and gpu in t.gpus]
            assert len(there) <= 1

    @invariant()
    def never_bytes_beyond_the_card(self):
        ledger = self.books.ledger()
        assert all(ledger.free(gpu) >= 0 for gpu in range(4))

    @invariant()
    def parked_contents_fit_the_pool(self):
        assert self._pool_free() >= 0

    @invariant()
    def nobody_waits_beyond_the_bound(self):
        if not self.reliable:
            return
        for waiter in self.books.queue():
            _, seats = self.seen[waiter.key]
            assert 1 <= waiter.most_waiting <= seats
            bound = waiter.most_waiting * (SLICE + SWITCH)
            waited = self.now - waiter.wanted_since
            assert waited <= bound + 0.01, (waiter.key, waited, waiter.most_waiting)

    def teardown(self):
        """Whoever waits is served in the end."""
        if getattr(self, "reliable", False):
            for _ in range(40):
                self.time_passes(10.0, SWITCH)
                self.nobody_waits_beyond_the_bound()


World.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
test_overlapping_seats_under_a_hostile_policy = World.TestCase


@pytest.mark.parametrize("seed", range(4))
def test_a_full_house_under_a_hostile_policy(seed: int) -> None:
    """Hypothesis finds odd corners; the bound is strained where everybody always wants."""
    dice = random.Random(seed)
    world = World()
    world.begin(True, 1000, True, dice.sample(SEATS, dice.randint(6, 14)))
    for _ in range(60):
        _something_happens(world, dice)
        world.at_most_one_active_on_a_gpu()
        world.never_bytes_beyond_the_card()
        world.nobody_waits_beyond_the_bound()
    world.teardown()


def _something_happens(world: World, dice: random.Random) -> None:
    kind = dice.random()
    if kind < 0.15:
        chosen = dice.choice(list(WorkloadClass))
        world.a_pod_starts(dice.choice(SEATS), chosen, dice.random() < 0.5)
    elif kind < 0.25:
        world.a_pod_ends(dice.randint(0, 30))
    elif kind < 0.45:
        world.policy_is_edited([dice.randint(0, 99) for _ in range(dice.randint(1, 12))])
    else:
        world.time_passes(dice.choice([0.3, 1.0, 4.0, 15.0]), dice.uniform(0.1, SWITCH))
