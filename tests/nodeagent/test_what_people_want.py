"""Wishes and what is told of them: a coordinator without threads; switches are only noted down."""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kybernate.decisions.books import Books
from kybernate.decisions.switching import SwitchPlan
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.demand import Demand
from kybernate.model.gpu import Group, Seat
from kybernate.model.ids import NO_REVISION, PodUid, WorkloadKey
from kybernate.model.policy import PreemptionVerdict, TimesliceQuestion, TimesliceVerdict
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import Desired, State, WorkloadClass
from kybernate.testing.builders import GIB, a_group
from kybernate.testing.clock import FakeClock
from nodeagent.turns.coordinator import Coordinator

GROUP = a_group(0)
A, B = WorkloadKey("default", "a"), WorkloadKey("default", "b")
UID = PodUid("u")


class Policy:
    """Everybody keeps what they have."""

    def timeslice(self, question: TimesliceQuestion) -> TimesliceVerdict | Refusal:
        return Refusal(reason=Reason.STICKY)

    def preemption(self, question: Any) -> Refusal:
        return Refusal(reason=Reason.PROTECTED)

    tiering = preemption


class Teller:
    """Keeps what waiters are told."""

    def __init__(self) -> None:
        self.waiting: list[tuple[WorkloadKey, Refusal]] = []

    def waits(self, waiter: Tenancy, why: Refusal) -> None:
        self.waiting.append((waiter.key, why))

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


class Hands:
    """Begins switches and never ends them."""

    def __init__(self) -> None:
        self.begun: list[SwitchPlan] = []

    def carry_out(self, plan: SwitchPlan, books: Any) -> None:
        self.begun.append(plan)


def _tenancy(key: WorkloadKey = A, **fields: Any) -> Tenancy:
    whole = {
        "key": key, "uid": UID, "life": key.name, "group": GROUP, "seat": Seat(GROUP.name, 0),
        "vram": 60 * GIB,
    }  # fmt: skip
    return Tenancy(**whole | fields)


def _coordinator(
    teller: Teller | None = None, hands: Hands | None = None, policy: Policy | None = None
) -> Coordinator:
    groups: dict[Any, Group] = {GROUP.name: GROUP}
    books = Books(memory={0: 80 * GIB}, groups=groups, pool_free=400 * GIB)
    return Coordinator(
        books, policy or Policy(), hands or Hands(), lambda: None, teller or Teller(), FakeClock()  # type: ignore[arg-type]
    )  # fmt: skip


def test_what_was_held_back_before_its_first_turn_wants_it_when_people_let_it_go() -> None:
    coordinator = _coordinator()
    coordinator.arrive(_tenancy())
    coordinator.desire(A, UID, Desired.PARKED)
    assert not coordinator.books.tenancies[A].waits
    coordinator.desire(A, UID, Desired.AUTO)
    assert coordinator.books.tenancies[A].waits


def test_training_that_people_parked_returns_when_they_let_it_go_models_do_not() -> None:
    coordinator = _coordinator()
    for key, kind in ((A, WorkloadClass.TRAINING), (B, WorkloadClass.INFERENCE)):
        parked = _tenancy(
            key, state=State.PARKED, workload_class=kind, desired=Desired.PARKED
        )  # fmt: skip
        coordinator.restore(parked)
        coordinator.desire(key, UID, Desired.AUTO)
    waits = {key: one.waits for key, one in coordinator.books.tenancies.items()}
    assert waits == {A: True, B: False}


def test_a_wish_to_be_active_takes_back_an_earlier_one_to_park() -> None:
    coordinator = _coordinator()
    coordinator.restore(_tenancy(state=State.ACTIVE))
    assert coordinator.park(A) is None
    coordinator.desire(A, UID, Desired.ACTIVE)
    assert not coordinator.books.tenancies[A].asked_to_park


def test_who_asks_for_an_active_workload_does_not_lose_it_to_an_earlier_wish_to_park() -> None:
    coordinator = _coordinator()
    coordinator.restore(_tenancy(state=State.ACTIVE))
    assert coordinator.park(A) is None
    assert coordinator.want(A) is None
    assert not coordinator.books.tenancies[A].asked_to_park


def test_a_switch_under_way_is_a_why_and_no_event() -> None:
    teller = Teller()
    coordinator = _coordinator(teller)
    coordinator.arrive(_tenancy(A))
    coordinator.decide_now()
    coordinator.arrive(_tenancy(B))
    coordinator.decide_now()
    assert coordinator.books.tenancies[A].state is State.ACTIVATING
    assert coordinator.why(B) == Refusal(reason=Reason.BUSY)
    assert teller.waiting == []


def test_a_switch_that_gets_no_thread_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    hands = Hands()
    coordinator = _coordinator(hands=hands)
    coordinator.arrive(_tenancy(A))
    monkeypatch.setattr(threading.Thread, "start", no_more)
    coordinator.decide_now()
    assert [plan.resume for plan in hands.begun] == [A]


class _Looking(Policy):
    """While it is asked, signals tell something of the holder again and again."""

    def __init__(self, looks: Iterator[Demand]) -> None:
        self._looks = looks
        self.coordinator: Coordinator | None = None
        self.answered = 0

    def timeslice(self, question: TimesliceQuestion) -> TimesliceVerdict:
        return TimesliceVerdict(next=B, reason="LongestWait", revision=NO_REVISION, terms={})

    def preemption(self, question: Any) -> PreemptionVerdict | Refusal:
        assert self.coordinator is not None
        self.answered += 1
        seen = next(self._looks, None)
        if seen is not None:
            self.coordinator.heard(A, "a", seen)
        return PreemptionVerdict(allow=True, reason="SliceEnded", revision=NO_REVISION)


def _contested(looks: Iterator[Demand]) -> tuple[_Looking, Hands]:
    policy, hands = _Looking(looks), Hands()
    coordinator = _coordinator(hands=hands, policy=policy)
    policy.coordinator = coordinator
    coordinator.restore(_tenancy(A, state=State.ACTIVE, demand=Demand(busy=True, idle_for=0.0)))
    coordinator.arrive(_tenancy(B))
    coordinator.decide_now()
    return policy, hands


def test_a_holder_at_work_that_is_looked_at_faster_than_policy_answers_is_parked_all_the_same() -> (
    None
):
    ages = itertools.count()
    policy, hands = _contested(
        Demand(busy=True, idle_for=0.0, why=f"look {age}") for age in itertools.islice(ages, 50)
    )
    assert [plan.park for plan in hands.begun] == [(A,)]
    assert policy.answered == 1


def test_what_becomes_of_a_holder_while_policy_is_asked_makes_it_asked_again() -> None:
    policy, hands = _contested(iter([Demand(busy=True, in_flight=1, idle_for=0.0)]))
    assert [plan.park for plan in hands.begun] == [(A,)]
    assert policy.answered == 2
