"""The plan for one workload under a CheckpointPolicy's clock: pure, so each case is a line."""

from dataclasses import replace
from typing import Any

import pytest

from controller import snapshot_plan as plans
from controller.snapshot_plan import Around, Ask, Rest, Running
from kybernate.api.checkpointrequests import CheckpointRequest, CheckpointStatus
from kybernate.api.requests import RequestState, Times
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State

MADE = 1_700_000_000.0
EVERY = 300.0
KEY = WorkloadKey("default", "train-0")
ONE = Running(
    key=KEY, uid="gw", pod_uid=PodUid("u1"), made=MADE, state=State.ACTIVE, since=MADE + 1
)
NOTHING = Around()


def request(number: int, ended: float = 0.0, *, ok: bool = True, **fields: Any) -> Any:
    state = RequestState.SUCCEEDED if ok else RequestState.FAILED
    status = CheckpointStatus(state=state, finished=ended) if ended else CheckpointStatus()
    whole: dict[str, Any] = {
        "key": ("default", f"r{number}"),
        "uid": f"uid-{number}",
        "workload": KEY,
        "times": Times(made=ended - 5),
        "by_clock": True,
        "status": status,
    }
    return CheckpointRequest(**{**whole, **fields})


def step(now: float, around: Around = NOTHING, one: Running = ONE, every: float = EVERY) -> Any:
    return plans.plan(one, every, around, now).step


def test_the_first_is_due_a_while_after_the_workload_came() -> None:
    assert step(MADE + 100) == Rest(again=200.0)
    assert isinstance(step(MADE + 300), Ask)


def test_the_next_counts_from_the_newest_checkpoint_whoever_asked_for_it() -> None:
    around = Around(sealed={"by-hand": MADE + 400, "older": MADE + 50})
    assert step(MADE + 500, around) == Rest(again=200.0)
    assert isinstance(step(MADE + 700, around), Ask)


def test_it_counts_from_the_last_try_too() -> None:
    assert step(MADE + 700, Around(requests=[request(1, MADE + 600)])) == Rest(again=200.0)


def test_while_anybodys_request_is_under_way_none_is_made() -> None:
    around = Around(requests=[request(1, by_clock=False)])
    found = step(MADE + 9999, around)
    assert (found.reason, found.again) == (plans.UNDER_WAY, None)
    assert "r1" in found.message


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"state": State.PARKED}, plans.PARKED, "nothing in it changes"),
        ({"state": State.WAITING}, plans.NOT_RUNNING, "Waiting"),
        ({"state": State.SEALING}, plans.NOT_RUNNING, "Sealing"),
        ({"state": None}, plans.NOT_RUNNING, "does not run"),
        ({"finished": True}, plans.NOT_RUNNING, "does not run"),
        ({"state": State.QUARANTINED}, plans.QUARANTINED, "cannot be trusted"),
        ({"obstacle": "it shares memory"}, plans.NOT_PARKABLE, "it shares memory"),
    ],
)
def test_what_cannot_be_snapshotted_or_needs_not_is_not_and_says_why(
    change: dict[str, Any], reason: str, words: str
) -> None:
    found = step(MADE + 9999, one=replace(ONE, **change))
    assert (found.reason, found.again) == (reason, None)
    assert words in found.message


def test_one_that_has_not_worked_since_its_last_checkpoint_is_what_that_checkpoint_is() -> None:
    around, now = Around(sealed={"last": MADE + 400}), MADE + 2000
    resumed = replace(ONE, since=MADE + 402)
    assert step(now, around, replace(resumed, worked_at=MADE + 399)).reason == plans.UNCHANGED
    assert step(now, around, replace(resumed, worked_at=MADE + 403)).reason == plans.UNCHANGED, (
        "to come back is no work"
    )
    assert isinstance(step(now, around, replace(resumed, worked_at=MADE + 410)), Ask)
    assert isinstance(step(now, around, replace(resumed, worked_at=MADE + 399, busy=True)), Ask)
    assert isinstance(step(now, around, resumed), Ask), "nobody can tell whether it worked"
    assert isinstance(step(now, NOTHING, replace(resumed, worked_at=MADE + 3)), Ask), (
        "there is no checkpoint that it could still be"
    )


def test_after_failures_the_pause_doubles_up_to_an_hour() -> None:
    failed = [request(n, MADE + n, ok=False) for n in range(1, 4)]
    assert step(MADE + 10, Around(requests=failed[:1])) == Rest(again=591.0)
    assert step(MADE + 10, Around(requests=failed)) == Rest(again=2400 - 7.0)
    many = [request(n, MADE + n, ok=False) for n in range(1, 9)]
    assert step(MADE + 10, Around(requests=many)) == Rest(again=3600 - 2.0)
    assert step(MADE + 10, Around(requests=many), every=7200.0) == Rest(again=7200 - 2.0)


def test_a_success_ends_the_doubling() -> None:
    around = Around(requests=[request(1, MADE + 1, ok=False), request(2, MADE + 2)])
    assert step(MADE + 10, around) == Rest(again=292.0)


def test_two_who_see_the_same_make_one_request_and_after_its_end_another() -> None:
    first, second = step(MADE + 300), step(MADE + 400)
    assert first.name == second.name
    assert first.name.startswith("train-0-")
    after = step(MADE + 900, Around(requests=[request(1, MADE + 305)]))
    assert after.name != first.name
    assert step(MADE + 300, one=replace(ONE, pod_uid=PodUid("u2"))).name != first.name


def test_what_a_request_may_take_is_no_longer_than_its_clock_within_reason() -> None:
    assert [step(MADE + 1e6, every=every).within for every in (10.0, 300.0, 7200.0)] == [
        60,
        300,
        900,
    ]


@pytest.mark.parametrize("jump", [-86400.0, 86400.0, 1e8])
def test_a_clock_that_is_set_makes_at_most_one_request_more(jump: float) -> None:
    """Whoever carries it out keeps the pause by a clock that does not jump; here it is seen that
    one more request calms it down, whatever lies ahead of the clock."""
    ahead = Around(requests=[request(1, MADE + 1000)], sealed={"last": MADE + 1000})
    now = MADE + 1001 + jump
    found = step(now, ahead)
    assert isinstance(found, Ask | Rest)
    again = Around(
        requests=[*ahead.requests, request(2, now + 1)], sealed={**ahead.sealed, "new": now + 1}
    )
    assert step(now + 2, again) == Rest(again=EVERY - 1)


def test_finished_ones_are_forgotten_but_for_the_last_success_and_the_failures_since() -> None:
    ended = [request(1, MADE + 1), request(2, MADE + 2), request(3, MADE + 3, ok=False)]
    by_hand = request(9, MADE + 1.5, by_clock=False)
    made = plans.plan(ONE, EVERY, Around(requests=[*ended, by_hand]), MADE + 5)
    assert [found.key[1] for found in made.forget] == ["r1"]
    many = [request(n, MADE + n, ok=False) for n in range(1, 20)]
    kept = plans.plan(ONE, EVERY, Around(requests=many), MADE + 50)
    assert len(many) - len(kept.forget) == plans.FAILURES_KEPT
