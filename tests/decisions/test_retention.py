"""Old checkpoints go when newer ones are sealed, and never what somebody needs."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kybernate.decisions.retention import Keeping, replaced
from kybernate.model.checkpoint import Checkpoint, Claim
from kybernate.model.ids import NodeName, PodUid
from kybernate.testing.builders import a_checkpoint

CLAIM = Claim(pod_uid=PodUid("u1"), node=NodeName("a"), pod="llama-0")


def _one(name: str, at: float, **more: Any) -> Checkpoint:
    return a_checkpoint(name, **{"sealed_at": at, "workload": "statefulset.llama.0", **more})


def _keep(number: int, namespace: str = "default", **labels: str) -> Keeping:
    def selects(one: Checkpoint) -> bool:
        return labels.items() <= one.labels.items()

    return Keeping(namespace=namespace, keep=number, selects=selects)


def _names(found: tuple[Checkpoint, ...]) -> list[str]:
    return [one.name for one in found]


def test_the_newest_stay_and_the_oldest_go_first() -> None:
    ours = [_one(f"c{n}", float(n)) for n in (3, 1, 4, 2)]
    assert _names(replaced(ours, [_keep(2)])) == ["c1", "c2"]


def test_where_no_policy_speaks_of_a_workload_nothing_goes() -> None:
    ours = [_one(f"c{n}", float(n), labels={"app": "llama"}) for n in range(4)]
    assert replaced(ours, []) == ()
    assert replaced(ours, [_keep(1, app="other")]) == ()
    assert replaced(ours, [_keep(1, namespace="elsewhere")]) == ()
    assert len(replaced(ours, [_keep(1, app="llama")])) == 3


def test_of_several_policies_the_one_that_keeps_most_counts() -> None:
    ours = [_one(f"c{n}", float(n)) for n in range(4)]
    assert _names(replaced(ours, [_keep(1), _keep(3)])) == ["c0"]


def test_each_workload_is_counted_by_itself() -> None:
    ours = [_one("a1", 1.0), _one("a2", 2.0), _one("b1", 1.0, workload="deployment.chat")]
    assert _names(replaced(ours, [_keep(1)])) == ["a1"]


def test_the_old_goes_only_after_the_new_is_sealed() -> None:
    ours = [_one("old", 1.0), _one("new", 2.0, ready=False)]
    assert replaced(ours, [_keep(1)]) == ()


def test_what_is_claimed_and_what_is_gold_stays() -> None:
    ours = [
        _one("claimed", 1.0, claim=CLAIM),
        _one("gold", 2.0, gold=True),
        _one("old", 3.0),
        _one("new", 4.0),
    ]
    assert _names(replaced(ours, [_keep(1)])) == ["old"]


SOME = st.builds(
    _one,
    st.uuids().map(str),
    st.floats(0, 10),
    ready=st.booleans(),
    gold=st.booleans(),
    workload=st.sampled_from(["a", "b"]),
    claim=st.sampled_from([None, CLAIM]),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(SOME, max_size=12), st.lists(st.integers(1, 4).map(_keep), max_size=3))
def test_whatever_goes_there_are_enough_newer_ones_that_can_be_woken_from(
    ours: list[Checkpoint], policies: list[Keeping]
) -> None:
    going = replaced(ours, policies)
    for old in going:
        newer = [
            one
            for one in ours
            if one.workload == old.workload
            and one.ready
            and not one.gold
            and one not in going
            and one.sealed_at >= old.sealed_at
        ]
        assert len(newer) >= max(policy.keep for policy in policies)
        assert old.ready
        assert not old.gold
        assert old.claim is None
