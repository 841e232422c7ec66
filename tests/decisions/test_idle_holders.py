"""When a holder leaves its GPU though nobody takes its place, and who never does."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.decisions import books as bookkeeping
from kybernate.decisions.books import Books
from kybernate.decisions.switching import decide
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.demand import Demand
from kybernate.model.gpu import Seat
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.policy import TieringVerdict
from kybernate.model.tier import Tier
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import Desired, State, WorkloadClass
from kybernate.testing.builders import GIB, a_group
from kybernate.testing.policy import FakePolicy

NOW = 1_000_000.0
G0 = a_group(0)
A, B = WorkloadKey("default", "a"), WorkloadKey("default", "b")


def a_holder(key: WorkloadKey = A, **facts: Any) -> Tenancy:
    """Active for ten minutes, idle for one, parked after half a minute by its own wish."""
    whole: dict[str, Any] = {
        "key": key, "uid": PodUid("u"), "group": G0, "seat": Seat(G0.name, 0), "vram": 40 * GIB,
        "state": State.ACTIVE, "active_since": NOW - 600, "idle_since": NOW - 60,
        "idle_after": 30.0,
    }  # fmt: skip
    return Tenancy(**{**whole, **facts})


def the_books(*tenancies: Tenancy, **fields: Any) -> Books:
    """One card."""
    books = Books(memory={0: 80 * GIB}, groups={G0.name: G0}, pool_free=400 * GIB)
    return replace(books, tenancies={one.key: one for one in tenancies}, **fields)


def test_an_idle_holder_leaves_and_the_plan_says_why() -> None:
    plan = decide(the_books(a_holder()), NOW, FakePolicy()).plan
    assert plan is not None
    assert (plan.park, plan.resume, plan.idle) == ((A,), None, True)
    assert "it had no work for 60 s" in str(plan)


@pytest.mark.parametrize(
    "stays",
    [
        pytest.param(a_holder(demand=Demand(busy=True)), id="it works"),
        pytest.param(a_holder(demand=Demand(in_flight=1)), id="it has a request"),
        pytest.param(a_holder(idle_since=None), id="nobody can tell"),
        pytest.param(a_holder(idle_since=NOW - 10), id="not for long enough"),
        pytest.param(a_holder(idle_after=None), id="its pod did not ask for that"),
        pytest.param(a_holder(pinned=True), id="pinned"),
        pytest.param(a_holder(desired=Desired.ACTIVE), id="wanted active"),
        pytest.param(a_holder(parkable=False), id="cannot be parked"),
        pytest.param(a_holder(workload_class=WorkloadClass.TRAINING), id="it would come back"),
        pytest.param(a_holder(not_before=NOW + 9), id="parking it just failed"),
        pytest.param(a_holder(vram=500 * GIB), id="no room in RAM"),
        pytest.param(a_holder(min_runtime=3600.0), id="within its minimum runtime"),
    ],
)
def test_it_stays(stays: Tenancy) -> None:
    assert decide(the_books(stays), NOW, FakePolicy(park_idle="asked")).plan is None


def test_it_is_looked_at_again_when_it_may_leave() -> None:
    decided = decide(the_books(a_holder(idle_since=NOW - 10)), NOW, FakePolicy())
    assert decided.again_at == NOW + 20


def test_without_policy_nobody_leaves() -> None:
    decided = decide(the_books(a_holder()), NOW, FakePolicy(away=True))
    assert decided.plan is None
    assert decided.again_at is not None


@dataclass
class Hostile:
    """Lets everybody go, always."""

    asked: list[WorkloadKey] = field(default_factory=list)

    def tiering(self, question):
        self.asked.append(question.workload.key)
        return TieringVerdict(tier=Tier.RAM, reason="AsItLikes")

    def timeslice(self, question):
        return Refusal(reason=Reason.POLICY_UNAVAILABLE)

    preemption = timeslice


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(a_holder(demand=Demand(busy=True)), id="it works"),
        pytest.param(a_holder(pinned=True), id="pinned"),
        pytest.param(a_holder(desired=Desired.ACTIVE), id="wanted active"),
        pytest.param(a_holder(workload_class=WorkloadClass.BATCH), id="it would come back"),
    ],
)
def test_some_stay_whatever_policy_says(kept: Tenancy) -> None:
    policy = Hostile()
    assert decide(the_books(kept), NOW, policy).plan is None
    assert policy.asked == []


def test_whoever_waits_goes_before_those_who_are_only_idle() -> None:
    waits = a_holder(B, state=State.PARKED, wanted_since=NOW - 1, most_waiting=1)
    plan = decide(the_books(a_holder(), waits), NOW, FakePolicy()).plan
    assert plan is not None
    assert (plan.park, plan.resume) == ((A,), B)


def test_when_everybody_is_pinned_who_waits_is_told_so_and_nothing_is_switched() -> None:
    waits = a_holder(B, state=State.PARKED, wanted_since=NOW - 999, most_waiting=1)
    decided = decide(the_books(a_holder(pinned=True), waits), NOW, Hostile())
    assert decided.plan is None
    assert decided.waits[B] == Refusal(
        reason=Reason.PINNED, detail="default/a is pinned by its pod"
    )


def test_a_pinned_one_wants_its_gpu_by_itself_and_gets_it_in_its_turn() -> None:
    pinned = a_holder(B, state=State.PARKED, pinned=True)
    assert pinned.returns_by_itself
    waits = replace(pinned, wanted_since=NOW - 1, most_waiting=1)
    plan = decide(the_books(a_holder(), waits), NOW, FakePolicy()).plan
    assert plan is not None
    assert (plan.park, plan.resume) == ((A,), B)


def test_a_persons_word_goes_before_a_pods_pin() -> None:
    plan = decide(the_books(a_holder(pinned=True, desired=Desired.PARKED)), NOW, FakePolicy()).plan
    assert plan is not None
    assert plan.park == (A,)


def test_of_two_holders_the_one_whose_reload_costs_least_makes_room() -> None:
    """Two of 40 GiB share the card, and one has to go."""
    group = a_group(0, active=2)
    often = a_holder(A, group=group, asked_every=10.0, idle_since=NOW - 31)
    seldom = a_holder(B, group=group, asked_every=3600.0, idle_since=NOW - 31)
    waits = a_holder(
        WorkloadKey("default", "c"), group=group, state=State.PARKED, wanted_since=NOW - 1,
        most_waiting=1,
    )  # fmt: skip
    books = the_books(often, seldom, waits, groups={group.name: group})
    plan = decide(books, NOW, FakePolicy()).plan
    assert plan is not None
    assert (plan.park, plan.resume) == ((B,), waits.key)


@given(gaps=st.lists(st.floats(0.1, 1e5), min_size=2, max_size=20))
def test_how_often_it_is_asked_for_stays_between_the_shortest_and_the_longest_gap(gaps) -> None:
    books, now = the_books(a_holder(state=State.PARKED)), NOW
    for gap in gaps:
        books = bookkeeping.unwant(bookkeeping.want(books, A, now), A)
        now += gap
    books = bookkeeping.want(books, A, now)
    every = books.tenancies[A].asked_every
    assert every is not None
    assert min(gaps) * 0.999 - 0.001 <= every <= max(gaps) * 1.001 + 0.001


@given(
    idle=st.none() | st.floats(0, 1e4),
    ran=st.floats(0, 1e4),
    in_flight=st.none() | st.integers(0, 3),
    busy=st.booleans(),
    mode=st.sampled_from(["always", "asked", "contested"]),
    wish=st.none() | st.floats(0, 1e4),
)
def test_nobody_with_a_request_and_nobody_too_early_is_parked_for_being_idle(
    idle, ran, in_flight, busy, mode, wish
) -> None:
    holder = a_holder(
        idle_since=None if idle is None else NOW - idle, active_since=NOW - ran, idle_after=wish,
        demand=Demand(busy=busy, in_flight=in_flight),
    )  # fmt: skip
    policy = FakePolicy(park_idle=mode)
    plan = decide(the_books(holder), NOW, policy).plan
    if plan is not None:
        assert not busy
        assert not in_flight
        assert mode == "always" or (mode == "asked" and wish is not None)
        assert idle >= (policy.idle_after_seconds if wish is None else wish) - 0.001
        assert ran >= policy.min_runtime_seconds - 0.001
