"""What the coordinator decides next: plans, refusals, and when it asks again."""

from dataclasses import dataclass, field, replace
from typing import Any

from kybernate.decisions import books as bookkeeping
from kybernate.decisions.books import Books
from kybernate.decisions.lifecycle import Happening
from kybernate.decisions.switching import Decided, SwitchPlan, decide
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.gpu import Group, Health, Seat
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.policy import (
    HolderTerms,
    PreemptionQuestion,
    PreemptionVerdict,
    TieringQuestion,
    TieringVerdict,
    TimesliceQuestion,
    TimesliceVerdict,
)
from kybernate.model.tier import Bandwidth, Tier
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import Desired, State, WorkloadClass
from kybernate.testing.builders import GIB, a_group
from kybernate.testing.policy import FakePolicy

NOW = 1_000_000.0
G0, G1, G01 = a_group(0), a_group(1), a_group(0, 1, seats=2)


@dataclass
class Says:
    """A policy that names one and allows or not."""

    next: str | None = None
    allow: bool = True
    slice_seconds: float = 20.0
    idle_to: Tier = Tier.VRAM
    idle_after: float | None = None
    asked: list[object] = field(default_factory=list)

    def timeslice(self, question: TimesliceQuestion) -> TimesliceVerdict | Refusal:
        self.asked.append(question)
        terms = HolderTerms(slice_seconds=self.slice_seconds, min_runtime_seconds=5.0)
        everybody = [*question.holders, *question.waiting]
        named = _key(self.next) if self.next else None
        return TimesliceVerdict(
            next=named, reason="AsTold", terms={one.key: terms for one in everybody},
            retry_seconds=3.0,
        )  # fmt: skip

    def preemption(self, question: PreemptionQuestion) -> PreemptionVerdict | Refusal:
        self.asked.append(question)
        return PreemptionVerdict(allow=self.allow, reason="AsTold", retry_seconds=7.0)

    def tiering(self, question: TieringQuestion) -> TieringVerdict | Refusal:
        self.asked.append(question)
        return TieringVerdict(tier=self.idle_to, reason="AsTold", after_seconds=self.idle_after)


def _key(name: str) -> WorkloadKey:
    return WorkloadKey("default", name)


def _tenancy(name: str, group: Group = G0, **fields: Any) -> Tenancy:
    return Tenancy(
        key=_key(name), uid=PodUid(name), group=group, seat=Seat(group.name, 0),
        vram=fields.pop("vram", 60) * GIB, **fields,
    )  # fmt: skip


def _active(name: str, group: Group = G0, *, since: float = 100.0, **fields: Any) -> Tenancy:
    return _tenancy(
        name, group, state=State.ACTIVE, active_since=NOW - since, idle_since=NOW, **fields
    )


def _waits(name: str, group: Group = G0, *, since: float = 1.0, **fields: Any) -> Tenancy:
    state = fields.pop("state", State.PARKED)
    return _tenancy(
        name, group, state=state, wanted_since=NOW - since, most_waiting=fields.pop("among", 1),
        **fields,
    )  # fmt: skip


def _books(*tenancies: Tenancy, **fields: Any) -> Books:
    groups = {group.name: group for group in (G0, G1, G01)}
    groups |= {t.group.name: t.group for t in tenancies}
    return Books(
        memory={0: 80 * GIB, 1: 80 * GIB}, groups=groups,
        tenancies={t.key: t for t in tenancies}, pool_free=1000 * GIB,
        bus=Bandwidth(bytes_per_second=50 * GIB), switch_seconds=2.0, **fields,
    )  # fmt: skip


def _plan(decided: Decided) -> SwitchPlan:
    assert decided.plan is not None, decided.waits
    return decided.plan


def _why(decided: Decided, name: str) -> Refusal:
    assert decided.plan is None
    return decided.waits[_key(name)]


class _Nobody:
    """A policy that must not be asked."""

    def timeslice(self, question: TimesliceQuestion) -> TimesliceVerdict | Refusal:
        raise AssertionError("not needed")

    def preemption(self, question: PreemptionQuestion) -> PreemptionVerdict | Refusal:
        raise AssertionError("not needed")

    def tiering(self, question: TieringQuestion) -> TieringVerdict | Refusal:
        raise AssertionError("not needed")


def test_a_free_gpu_is_given_without_asking_policy() -> None:
    plan = _plan(decide(_books(_waits("a", state=State.WAITING)), NOW, _Nobody()))
    assert (plan.park, plan.resume) == ((), _key("a"))


def test_a_plan_prints_its_seconds_item_by_item() -> None:
    plan = _plan(decide(_books(_active("a"), _waits("b", vram=40)), NOW, Says("b")))
    assert str(plan) == "2.0 s = park a 1.2 + resume b 0.8 (AsTold)"
    assert plan.gpus == (0,)
    assert plan.slice_ended


def test_one_holder_that_policy_protects_is_enough_to_refuse() -> None:
    books = _books(_active("a", G0), _active("b", G1), _waits("c", G01, vram=120))
    decided = decide(books, NOW, Says("c", allow=False))
    why = _why(decided, "c")
    assert (why.reason, why.detail) == (Reason.PROTECTED, "default/a: AsTold")
    assert decided.again_at == NOW + 3.0  # the sooner of both answers


def test_a_bigger_group_takes_the_place_of_several_smaller_ones() -> None:
    books = _books(_active("a", G0), _active("b", G1), _waits("c", G01, vram=120))
    plan = _plan(decide(books, NOW, Says("c")))
    assert plan.park == (_key("a"), _key("b"))
    assert plan.gpus == (0, 1)


def test_policy_away_protects_the_holder() -> None:
    books = _books(_active("a"), _waits("b", since=10_000.0))
    why = _why(decide(books, NOW, FakePolicy(away=True)), "b")
    assert why.reason is Reason.POLICY_UNAVAILABLE


def test_a_named_workload_that_does_not_wait_is_not_followed() -> None:
    why = _why(decide(_books(_active("a"), _waits("b")), NOW, Says("z")), "b")
    assert why.reason is Reason.INVARIANT


def test_who_had_its_turn_since_another_waits_goes_behind() -> None:
    eager = _waits("eager", since=2.0, last_active=NOW - 3.0, among=2)
    patient = _waits("patient", since=30.0, among=2)
    plan = _plan(decide(_books(_active("a"), eager, patient), NOW, Says("eager")))
    assert plan.resume == _key("patient")
    assert "had its turn since" in plan.overrides


def test_a_turn_that_would_break_anothers_bound_is_not_given() -> None:
    # Two wait, a turn takes 22 s: the first must have begun after 44 s, so at 30 s there is no
    # time for another whole turn before it.
    first, second = _waits("first", since=30.0, among=2), _waits("second", since=1.0, among=2)
    plan = _plan(decide(_books(_active("a"), first, second), NOW, Says("second")))
    assert plan.resume == _key("first")
    assert "beyond its bound" in plan.overrides


def test_policy_may_reorder_while_nobodys_bound_is_in_danger() -> None:
    first, second = _waits("first", since=5.0, among=3), _waits("second", since=1.0, among=3)
    plan = _plan(decide(_books(_active("a"), first, second), NOW, Says("second")))
    assert (plan.resume, plan.overrides) == (_key("second"), "")


def test_at_the_last_moment_the_longest_waiter_goes_whatever_policy_says() -> None:
    books = _books(_active("a"), _waits("b", since=20.0))
    plan = _plan(decide(books, NOW, Says(None, allow=False)))
    assert plan.resume == _key("b")
    assert "has waited 20 s" in plan.overrides
    assert "AsTold" in plan.overrides


def test_even_then_the_holder_keeps_its_whole_slice() -> None:
    books = _books(_active("a", since=15.0), _waits("b", since=21.0))
    decided = decide(books, NOW, Says(None))
    assert _why(decided, "b").detail == "default/a has 5 s of its slice left"
    assert decided.again_at == NOW + 3.0  # policy's own retry comes first


def test_it_asks_again_when_somebody_becomes_late() -> None:
    books = _books(_active("a"), _waits("b", since=18.5))
    says = Says(None)
    says.slice_seconds = 20.0
    decided = decide(books, NOW, says)
    assert decided.plan is None
    assert decided.again_at == NOW + 1.5  # 22 s of bound, 2 s of switch before it


def test_a_person_pins_a_holder() -> None:
    books = _books(_active("a", desired=Desired.ACTIVE), _waits("b", since=10_000.0))
    assert _why(decide(books, NOW, Says("b")), "b").reason is Reason.PINNED


def test_a_person_parks_a_holder_without_policy() -> None:
    plan = _plan(decide(_books(_active("a", desired=Desired.PARKED)), NOW, _Nobody()))
    assert (plan.park, plan.resume) == ((_key("a"),), None)


def test_who_is_wanted_parked_waits_however_free_the_gpu_is() -> None:
    books = _books(_waits("a", desired=Desired.PARKED))
    assert _why(decide(books, NOW, _Nobody()), "a").reason is Reason.WANTED_PARKED


def test_a_holder_that_cannot_be_parked_stays() -> None:
    books = _books(_active("a", parkable=False), _waits("b"))
    assert _why(decide(books, NOW, Says("b")), "b").reason is Reason.NOT_PARKABLE


def test_an_unhealthy_group_is_not_given_out() -> None:
    books = _books(_waits("a"), health={G0.name: Health.UNHEALTHY})
    assert _why(decide(books, NOW, _Nobody()), "a").reason is Reason.GROUP_UNHEALTHY


def test_a_full_pool_is_said_before_anything_starts() -> None:
    books = replace(_books(_active("a"), _waits("b")), pool_free=10 * GIB)
    assert _why(decide(books, NOW, Says("b")), "b").reason is Reason.NO_HOST_MEMORY


def test_foreign_bytes_keep_a_free_gpu_from_being_given() -> None:
    books = _books(_waits("a"), foreign={0: 40 * GIB})
    decided = decide(books, NOW, Says("a"))
    assert _why(decided, "a").reason is Reason.VRAM_NOT_FREE
    assert decided.again_at == NOW + 0.5


def test_a_gpu_in_a_switch_is_left_alone() -> None:
    books = bookkeeping.begin_switch(_books(_waits("a")), _key("z"), (0,), NOW)
    assert _why(decide(books, NOW, _Nobody()), "a").reason is Reason.BUSY


def test_an_idle_gpu_goes_to_the_next_in_line_when_policys_choice_cannot_have_its_own() -> None:
    # c needs both cards, and b keeps one of them: card 0 would stand idle for it.
    books = _books(
        _active("b", G1, since=1.0), _waits("a", G0, since=1.0, among=2),
        _waits("c", G01, vram=120, since=2.0, among=2),
    )  # fmt: skip
    plan = _plan(decide(books, NOW, Says("c", allow=False)))
    assert (plan.park, plan.resume) == ((), _key("a"))


def test_where_more_may_be_active_only_as_many_go_as_must() -> None:
    shared = a_group(0, active=2)
    books = _books(
        _active("a", shared, vram=30), _active("b", shared, vram=30), _waits("c", shared, vram=30)
    )
    plan = _plan(decide(books, NOW, Says("c")))
    assert plan.park == (_key("a"),)


def test_a_failure_is_not_tried_again_at_once() -> None:
    books = _books(_waits("a", state=State.ACTIVATING))
    books = bookkeeping.happen(books, _key("a"), Happening.ACTIVATION_FAILED, NOW)
    decided = decide(books, NOW, _Nobody())
    assert _why(decided, "a").reason is Reason.BUSY
    assert decided.again_at == NOW + 1.0


def test_training_wants_its_gpu_back_by_itself_and_inference_when_it_is_asked() -> None:
    for kind, waits in ((WorkloadClass.TRAINING, True), (WorkloadClass.INFERENCE, False)):
        books = _books(_tenancy("a", state=State.PARKING, workload_class=kind))
        books = bookkeeping.happen(books, _key("a"), Happening.PARKED, NOW)
        assert books.tenancies[_key("a")].waits is waits


def test_what_is_asked_for_while_it_is_parked_away_comes_back() -> None:
    books = _books(_tenancy("a", state=State.PARKING))
    books = bookkeeping.want(books, _key("a"), NOW)
    books = bookkeeping.happen(books, _key("a"), Happening.PARKED, NOW + 1.0)
    assert books.tenancies[_key("a")].wanted_since == NOW


def test_under_the_shipped_rules_a_burst_parks_training_which_then_returns() -> None:
    training = _active("train", since=60.0, workload_class=WorkloadClass.TRAINING)
    burst = _waits("burst", priority=1000)
    plan = _plan(decide(_books(training, burst), NOW, FakePolicy()))
    assert (plan.park, plan.resume) == ((_key("train"),), _key("burst"))
