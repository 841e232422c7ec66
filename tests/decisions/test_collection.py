"""What is collected, what stays, and why; and that nothing goes that anybody needs."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kybernate.decisions.collection import Doing, Held, Keeping, Plan, plan
from kybernate.model.checkpoint import Checkpoint, Claim
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.policy import RetentionQuestion, RetentionVerdict
from kybernate.model.verdict import Reason, Refusal
from kybernate.testing.builders import GIB, a_checkpoint
from kybernate.testing.policy import FakePolicy

CLAIM = Claim(pod_uid=PodUid("u1"), node=NodeName("a"), pod="llama-0")
NOW, GRACE = 10_000.0, 600.0


def _one(name: str, at: float, **more: Any) -> Checkpoint:
    return a_checkpoint(name, **{"sealed_at": at, "workload": "statefulset.llama.0", **more})


def _keep(number: int, namespace: str = "default", **labels: str) -> Keeping:
    def selects(one: Checkpoint) -> bool:
        return labels.items() <= one.labels.items()

    return Keeping(namespace=namespace, keep=number, selects=selects)


def _plan(
    held: list[Held | Checkpoint],
    policies: list[Keeping],
    policy: FakePolicy | None = None,
    now: float = NOW,
) -> Plan:
    whole = [one if isinstance(one, Held) else Held(checkpoint=one) for one in held]
    return plan(whole, policies, (policy or FakePolicy()).retention, now)


def _told(made: Plan) -> dict[str, tuple[Doing, str]]:
    return {step.checkpoint.name: (step.doing, step.reason) for step in made.steps}


def _going(made: Plan, *doings: Doing) -> list[str]:
    wanted = doings or (Doing.WAIT, Doing.COLLECT)
    return [step.checkpoint.name for step in made.steps if step.doing in wanted]


def _released(name: str, at: float, since: float = NOW - GRACE, **more: Any) -> Held:
    return Held(checkpoint=_one(name, at, **more), released=since)


def test_the_newest_stay_and_the_others_wait_for_their_grace_time() -> None:
    made = _plan([_one(f"c{n}", float(n)) for n in (3, 1, 4, 2)], [_keep(2)])
    assert _told(made) == {
        "c1": (Doing.WAIT, "Replaced"),
        "c2": (Doing.WAIT, "Replaced"),
        "c3": (Doing.KEEP, "Newest"),
        "c4": (Doing.KEEP, "Newest"),
    }
    assert {step.left for step in made.steps if step.doing is Doing.WAIT} == {GRACE}


def test_they_go_when_it_is_over() -> None:
    held = [_released("c1", 1.0), _released("c2", 2.0, NOW - GRACE + 5), _one("c3", 3.0)]
    made = _plan(held, [_keep(1)])
    assert _told(made) == {
        "c1": (Doing.COLLECT, "Replaced"),
        "c2": (Doing.WAIT, "Replaced"),
        "c3": (Doing.KEEP, "Newest"),
    }
    assert made.steps[1].left == 5.0


def test_one_that_nobody_told_to_go_before_waits_even_without_a_grace_time() -> None:
    made = _plan([_one("c1", 1.0), _one("c2", 2.0)], [_keep(1)], FakePolicy(grace_seconds=0.0))
    assert _going(made, Doing.WAIT) == ["c1"]
    again = _plan(
        [_released("c1", 1.0, NOW), _one("c2", 2.0)], [_keep(1)], FakePolicy(grace_seconds=0.0)
    )
    assert _going(again, Doing.COLLECT) == ["c1"]


def test_a_clock_that_was_set_back_makes_nobody_wait_for_ever() -> None:
    made = _plan([_released("c1", 1.0, NOW + 10**6), _one("c2", 2.0)], [_keep(1)])
    assert made.steps[0].left == GRACE


def test_where_no_policy_speaks_of_a_workload_nothing_goes() -> None:
    ours: list[Held | Checkpoint] = [
        _one(f"c{n}", float(n), labels={"app": "llama"}) for n in range(4)
    ]
    assert _going(_plan(ours, [])) == []
    assert _going(_plan(ours, [_keep(1, app="other")])) == []
    assert _going(_plan(ours, [_keep(1, namespace="elsewhere")])) == []
    assert len(_going(_plan(ours, [_keep(1, app="llama")]))) == 3


def test_of_several_policies_the_one_that_keeps_most_counts() -> None:
    ours: list[Held | Checkpoint] = [_one(f"c{n}", float(n)) for n in range(4)]
    assert _going(_plan(ours, [_keep(1), _keep(3)])) == ["c0"]


def test_each_workload_is_counted_by_itself() -> None:
    made = _plan(
        [_one("a1", 1.0), _one("a2", 2.0), _one("b1", 1.0, workload="deployment.chat")], [_keep(1)]
    )
    assert _going(made) == ["a1"]


def test_the_old_goes_only_after_the_new_is_sealed() -> None:
    assert _going(_plan([_one("old", 1.0), _one("new", 2.0, ready=False)], [_keep(1)])) == []


def test_without_a_verdict_everything_stays() -> None:
    made = _plan([_released("c1", 1.0), _one("c2", 2.0)], [_keep(1)], FakePolicy(away=True))
    assert {step.reason for step in made.steps} == {"NoVerdict"}
    assert _going(made) == []


def test_what_somebody_needs_stays_and_says_who() -> None:
    needed = Held(
        checkpoint=_one("c1", 1.0), references=("pod llama-1",), released=NOW - 10 * GRACE
    )
    made = _plan([needed, _one("c2", 2.0)], [_keep(1)])
    assert (made.steps[0].reason, made.steps[0].detail) == ("Referenced", "pod llama-1")


def test_whatever_policy_says_the_last_of_a_workload_stays() -> None:
    policy = FakePolicy()
    policy.say(RetentionVerdict, RetentionVerdict(keep={}, grace_seconds=0.0, quota_bytes=0))
    made = _plan([_released("c1", 1.0), _released("c2", 2.0)], [], policy)
    assert _told(made) == {
        "c1": (Doing.COLLECT, "Replaced"),
        "c2": (Doing.KEEP, "LastOfItsWorkload"),
    }
    assert made.over == {"default": 40 * GIB}


def test_over_its_quota_a_namespace_loses_the_oldest_that_wait_and_no_more_than_needed() -> None:
    ours: list[Held | Checkpoint] = [_one(f"c{n}", float(n)) for n in range(5)]
    made = _plan(ours, [_keep(2)], FakePolicy(quota_bytes=4 * 40 * GIB))
    assert _told(made)["c0"] == (Doing.COLLECT, "OverQuota")
    assert _going(made, Doing.WAIT) == ["c1", "c2"]
    assert made.over == {}
    tight = _plan(ours, [_keep(2)], FakePolicy(quota_bytes=40 * GIB))
    assert _going(tight, Doing.COLLECT) == ["c0", "c1", "c2"]
    assert tight.over == {"default": 40 * GIB}


def test_another_namespaces_are_not_counted() -> None:
    ours: list[Held | Checkpoint] = [
        _one("a", 1.0, namespace="team-a"),
        _one("b", 2.0),
        _one("c", 3.0),
    ]
    made = _plan(ours, [_keep(1)], FakePolicy(quota_bytes=2 * 40 * GIB))
    assert _going(made, Doing.COLLECT) == []


HELD = st.builds(
    Held,
    checkpoint=st.builds(
        _one,
        st.uuids().map(str),
        st.floats(0, 10),
        ready=st.booleans(),
        gold=st.booleans(),
        workload=st.sampled_from(["a", "b", ""]),
        namespace=st.sampled_from(["default", "team-a"]),
        claim=st.sampled_from([None, CLAIM]),
    ),
    references=st.sampled_from([(), ("pod x",)]),
    released=st.none() | st.floats(0, 2 * NOW),
)


def _any_verdict(names: st.SearchStrategy[str]) -> st.SearchStrategy[RetentionVerdict | Refusal]:
    verdict = st.builds(
        RetentionVerdict,
        keep=st.dictionaries(names, st.just("Said"), max_size=6),
        grace_seconds=st.floats(0, 1000),
        quota_bytes=st.none() | st.integers(0, 10 * 40 * GIB),
    )
    return verdict | st.just(Refusal(reason=Reason.POLICY_UNAVAILABLE))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_whatever_policy_says_nothing_goes_that_anybody_needs(data: st.DataObject) -> None:
    held = data.draw(st.lists(HELD, max_size=10))
    names = st.sampled_from([one.checkpoint.name for one in held] or ["x"])
    said: dict[tuple[str, str], RetentionVerdict | Refusal] = {}

    def asks(question: RetentionQuestion) -> RetentionVerdict | Refusal:
        key = (question.namespace, question.workload)
        said[key] = data.draw(_any_verdict(names))
        return said[key]

    made = plan(held, [], asks, NOW)
    assert sorted(s.checkpoint.name for s in made.steps) == sorted(
        one.checkpoint.name for one in held
    )
    by_name = {one.checkpoint.name: one for one in held}
    for step in made.steps:
        if step.doing is Doing.KEEP:
            continue
        one = by_name[step.checkpoint.name]
        checkpoint = one.checkpoint
        verdict = said[checkpoint.namespace, checkpoint.workload]
        assert isinstance(verdict, RetentionVerdict)
        assert checkpoint.name not in verdict.keep
        assert checkpoint.ready
        assert not checkpoint.gold
        assert checkpoint.claim is None
        assert not one.references
        stays = [
            other.checkpoint
            for other in made.steps
            if other.doing is Doing.KEEP
            and (other.checkpoint.namespace, other.checkpoint.workload)
            == (checkpoint.namespace, checkpoint.workload)
        ]
        assert any(other.ready and not other.gold for other in stays)
        if step.doing is Doing.COLLECT and step.reason != "OverQuota":
            assert one.released is not None
            released = min(one.released, NOW)  # a clock that was set back: as if just now
            assert released + verdict.grace_seconds <= NOW
