"""The plan for one RestoreRequest: pure, so each case is a line."""

from typing import Any

import pytest

from controller import restore_plan as plans
from controller.restore_plan import (
    Around,
    Begin,
    CreatePod,
    Hold,
    Scale,
    Succeed,
    Waker,
)
from controller.steps import TOO_LATE, Fail, Nothing, Remove
from kybernate.api.requests import RequestState, Times
from kybernate.api.restorerequests import (
    Owner,
    OwnerKind,
    RestoreRequest,
    RestoreStatus,
    Template,
)
from kybernate.model.checkpoint import Checkpoint, Claim
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.workload import State
from kybernate.testing.builders import a_checkpoint

MADE = 1_700_000_000.0
NOW = MADE + 60.0
CHAT = Owner(OwnerKind.DEPLOYMENT, "chat")
LLAMA = Owner(OwnerKind.STATEFULSET, "llama")
BEGUN = RestoreStatus(state=RequestState.RUNNING, started=MADE + 1, message="asks for a pod")
MADE_POD = RestoreStatus(state=RequestState.RUNNING, started=MADE + 1, pod="again", pod_uid="u1")
CLAIM = Claim(pod_uid=PodUid("u1"), node=NodeName("node-b"), pod="again")


def a_request(status: RestoreStatus | None = None, owner: Owner | None = None) -> RestoreRequest:
    return RestoreRequest(
        key=("default", "one"),
        uid="0123",
        checkpoint="llama-1",
        times=Times(made=MADE, within=900.0, forget_after=3600.0),
        pod=None if owner else Template(name="again", template={"spec": {"containers": []}}),
        owner=owner,
        status=status or RestoreStatus(),
    )


def sealed(**fields: Any) -> Checkpoint:
    return a_checkpoint("llama-1", **{"workload": "statefulset.llama.2", **fields})


def a_waker(state: State | None = None, **fields: Any) -> Waker:
    whole: dict[str, Any] = {"name": "again", "uid": PodUid("u1"), "node": NodeName("node-b")}
    return Waker(**{**whole, **fields}, state=state)


@pytest.mark.parametrize(
    ("owner", "around", "reason", "words"),
    [
        pytest.param(
            None, Around(checkpoint=None), plans.NO_CHECKPOINT,
            "spec.checkpoint: 'llama-1' (expected a GpuCheckpoint", id="missing",
        ),
        pytest.param(
            None, Around(checkpoint=sealed(ready=False)), plans.NOT_READY,
            "spec.checkpoint: 'llama-1' is not ready", id="not-ready",
        ),
        pytest.param(
            None, Around(checkpoint=sealed(claim=CLAIM)), plans.CLAIMED,
            "is claimed by pod again on node-b", id="claimed",
        ),
        pytest.param(
            None, Around(checkpoint=sealed(), has_seat=False), plans.NO_SEAT,
            "spec.pod.template.spec.containers: none asks for a seat", id="template-without-seat",
        ),
        pytest.param(
            None, Around(checkpoint=sealed(), taken=True), plans.POD_EXISTS,
            "spec.pod.name: 'again' (expected a name that no pod", id="pod-exists",
        ),
        pytest.param(
            CHAT, Around(checkpoint=sealed()), plans.NO_OWNER,
            "spec.owner.name: 'chat' (expected a Deployment", id="no-such-deployment",
        ),
        pytest.param(
            CHAT, Around(checkpoint=sealed(), replicas=3), plans.OWNER_RUNS,
            "deployment/chat asks for 3 pods (expected 0", id="deployment-runs",
        ),
        pytest.param(
            CHAT, Around(checkpoint=sealed(gold=True), replicas=0), plans.NOT_FOR_OWNER,
            "gold image", id="gold-for-an-owner",
        ),
        pytest.param(
            LLAMA, Around(checkpoint=sealed(workload="deployment.chat"), replicas=0),
            plans.NOT_FOR_OWNER, "(expected statefulset.llama.N)", id="of-another-workload",
        ),
        pytest.param(
            LLAMA, Around(checkpoint=sealed(), replicas=3), plans.OWNER_RUNS,
            "asks for 3 pods, llama-2 among them", id="that-ordinal-runs",
        ),
    ],
)  # fmt: skip
def test_what_cannot_wake_is_refused_in_words_before_anything_is_done(
    owner: Owner | None, around: Around, reason: str, words: str
) -> None:
    step = plans.plan(a_request(owner=owner), around, NOW)
    assert isinstance(step, Fail)
    assert step.reason == reason
    assert words in step.message


@pytest.mark.parametrize(
    ("owner", "replicas", "expected"),
    [
        pytest.param(None, None, CreatePod("again"), id="a-pod-of-its-own"),
        pytest.param(CHAT, 0, Scale(CHAT, 1), id="a-deployment-of-one"),
        pytest.param(LLAMA, 1, Scale(LLAMA, 3), id="up-to-the-ordinal-that-was-sealed"),
    ],
)
def test_it_says_so_first_and_asks_for_the_pod_a_moment_later(
    owner: Owner | None, replicas: int | None, expected: plans.Step
) -> None:
    around = Around(checkpoint=sealed(), replicas=replicas)
    assert isinstance(plans.plan(a_request(owner=owner), around, NOW), Begin)
    begun = a_request(BEGUN, owner)
    assert isinstance(plans.plan(begun, around, BEGUN.started + 0.5), Hold)
    assert plans.plan(begun, around, BEGUN.started + plans.SETTLE) == expected


def test_a_pod_that_has_the_claim_and_its_state_back_has_woken() -> None:
    around = Around(checkpoint=sealed(claim=CLAIM), wakers=[a_waker(State.PARKED)])
    step = plans.plan(a_request(MADE_POD), around, NOW)
    assert isinstance(step, Succeed)
    assert step.message == "pod again woke on node-b"


@pytest.mark.parametrize("state", [None, State.WAITING, State.WAKING])
def test_until_then_it_says_how_the_pod_is(state: State | None) -> None:
    around = Around(checkpoint=sealed(claim=CLAIM), wakers=[a_waker(state)])
    step = plans.plan(a_request(MADE_POD), around, NOW)
    assert isinstance(step, Hold)
    assert step.message == f"pod again is {state or 'Pending'}, on node-b"


@pytest.mark.parametrize(
    ("around", "reason", "words"),
    [
        pytest.param(
            Around(checkpoint=sealed(), wakers=[a_waker(State.ACTIVE)]), plans.COLD,
            "did not wake from it", id="started-cold",
        ),
        pytest.param(
            Around(checkpoint=sealed(), wakers=[a_waker(finished=True)]), plans.POD_GONE,
            "ended before it woke", id="ended",
        ),
        pytest.param(
            Around(checkpoint=sealed()), plans.POD_GONE, "pod again is gone", id="deleted",
        ),
    ],
)  # fmt: skip
def test_a_pod_that_did_not_wake_fails_the_request(around: Around, reason: str, words: str) -> None:
    step = plans.plan(a_request(MADE_POD), around, NOW)
    assert isinstance(step, Fail)
    assert step.reason == reason
    assert words in step.message


def test_somebody_who_claims_it_first_fails_the_request() -> None:
    other = Claim(pod_uid=PodUid("u9"), node=NodeName("node-a"), pod="faster")
    step = plans.plan(a_request(BEGUN), Around(checkpoint=sealed(claim=other)), NOW)
    assert isinstance(step, Fail)
    assert step.reason == plans.CLAIMED


def test_what_never_wakes_fails_after_its_time_and_says_what_was_last() -> None:
    step = plans.plan(a_request(BEGUN), Around(checkpoint=sealed()), MADE + 901)
    assert step == Fail(TOO_LATE, "nothing woke within 15m (spec.within); last: asks for a pod")


def test_a_finished_request_is_kept_and_then_removed() -> None:
    done = RestoreStatus(state=RequestState.SUCCEEDED, finished=MADE)
    assert plans.plan(a_request(done), Around(checkpoint=None), NOW) == Nothing(3540.0)
    assert plans.plan(a_request(done), Around(checkpoint=None), MADE + 3600) == Remove()
