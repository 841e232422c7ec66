"""The plan for one CheckpointRequest: pure, so each case is a line."""

from dataclasses import replace
from typing import Any

import pytest

from controller import checkpoint_plan as plans
from controller.checkpoint_plan import Around, Ask, Hold, Target
from controller.steps import TOO_LATE, Fail, Nothing, Remove
from kybernate.api.checkpointrequests import CheckpointRequest, CheckpointStatus
from kybernate.api.requests import RequestState, Times
from kybernate.model.ids import NodeName, PodUid, WorkloadKey
from kybernate.model.workload import State

MADE = 1_700_000_000.0
NOW = MADE + 60.0
ACTIVE = Target(pod_uid=PodUid("u1"), node=NodeName("node-a"), state=State.ACTIVE)
NEW, ALONE = CheckpointStatus(), Around()
FINISHED = CheckpointStatus(state=RequestState.SUCCEEDED, finished=MADE + 5)


def a_request(status: CheckpointStatus = NEW, **fields: Any) -> CheckpointRequest:
    whole: dict[str, Any] = {
        "key": ("default", "one"),
        "uid": "0123456789ab",
        "workload": WorkloadKey("default", "llama"),
        "times": Times(made=MADE, within=900.0, forget_after=3600.0),
    }
    return CheckpointRequest(**{**whole, **fields}, status=status)


def next_step(
    request: CheckpointRequest,
    target: Target | None = ACTIVE,
    around: Around = ALONE,
    now: float = NOW,
) -> plans.Step:
    return plans.plan(request, target, around, now)


def test_the_agent_of_its_node_is_asked_for_a_checkpoint_named_after_workload_and_time() -> None:
    assert next_step(a_request()) == Ask(NodeName("node-a"), PodUid("u1"), "llama-20231114-221320")


def test_a_name_that_is_given_is_taken() -> None:
    assert next_step(a_request(name="before-the-upgrade")) == Ask(
        NodeName("node-a"), PodUid("u1"), "before-the-upgrade"
    )


def test_a_second_checkpoint_of_the_same_second_is_told_apart() -> None:
    taken = Around(checkpoints={"llama-20231114-221320"})
    step = next_step(a_request(), around=taken)
    assert isinstance(step, Ask)
    assert step.checkpoint == "llama-20231114-221320-01234567"


def test_asked_again_it_keeps_the_name_it_has_also_when_the_checkpoint_is_there_by_now() -> None:
    asked = CheckpointStatus(
        state=RequestState.RUNNING, checkpoint="mine", started=NOW, pod_uid="u1"
    )
    step = next_step(a_request(asked, name="mine"), around=Around(checkpoints={"mine"}))
    assert isinstance(step, Ask)
    assert step.checkpoint == "mine"


@pytest.mark.parametrize(
    ("request_", "target", "around", "now", "kind", "reason", "words"),
    [
        pytest.param(
            a_request(), None, Around(), MADE + 1, Hold, plans.NO_WORKLOAD, "'llama'",
            id="its-gpuworkload-may-come-yet",
        ),
        pytest.param(
            a_request(), None, Around(), NOW, Fail, plans.NO_WORKLOAD,
            "spec.workload: 'llama' (expected a GpuWorkload", id="no-such-workload",
        ),
        pytest.param(
            a_request(CheckpointStatus(pod_uid="u1")), None, Around(), NOW, Fail, plans.GONE,
            "pod llama is gone", id="gone-meanwhile",
        ),
        pytest.param(
            a_request(CheckpointStatus(pod_uid="u0")), ACTIVE, Around(), NOW, Fail, plans.GONE,
            "another has its name now", id="another-pod-of-its-name",
        ),
        pytest.param(
            a_request(), replace(ACTIVE, state=State.QUARANTINED), Around(), NOW, Fail,
            plans.QUARANTINED, "cannot be trusted", id="quarantined",
        ),
        pytest.param(
            a_request(), replace(ACTIVE, state=State.ABSENT, finished=True), Around(), NOW, Fail,
            plans.GONE, "has ended", id="its-pod-has-ended",
        ),
        pytest.param(
            a_request(), replace(ACTIVE, node=None, state=None), Around(), NOW, Hold,
            plans.NO_SEAT, "no seat on a node yet", id="pending",
        ),
        pytest.param(
            a_request(), replace(ACTIVE, state=State.WAITING), Around(), NOW, Hold,
            plans.NOT_STARTED, "nothing to seal", id="waits-for-its-gpu",
        ),
        pytest.param(
            a_request(), ACTIVE, Around(ahead="zero"), NOW, Hold, plans.ANOTHER,
            "waits for checkpointrequest zero", id="second-request",
        ),
        pytest.param(
            a_request(name="taken"), ACTIVE, Around(checkpoints={"taken"}), NOW, Fail,
            plans.NAME_TAKEN, "spec.name: 'taken'", id="name-taken",
        ),
        pytest.param(
            a_request(CheckpointStatus(message="it was busy")), ACTIVE, Around(), MADE + 901, Fail,
            TOO_LATE, "not sealed within 15m (spec.within); last: it was busy", id="too-late",
        ),
    ],
)  # fmt: skip
def test_what_keeps_it_from_being_sealed_is_said_in_words(
    request_: CheckpointRequest,
    target: Target | None,
    around: Around,
    now: float,
    kind: type,
    reason: str,
    words: str,
) -> None:
    step = next_step(request_, target, around, now)
    assert isinstance(step, kind)
    assert isinstance(step, Hold | Fail)
    assert step.reason == reason
    assert words in step.message


def test_a_finished_request_is_kept_and_then_removed() -> None:
    assert next_step(a_request(FINISHED), None) == Nothing(3600.0 - 55.0)
    assert next_step(a_request(FINISHED), None, now=MADE + 5 + 3600) == Remove()


def test_whoever_is_being_served_comes_first_then_whoever_asked_first() -> None:
    running = a_request(CheckpointStatus(state=RequestState.RUNNING), uid="c")
    earlier = a_request(uid="b", times=Times(made=MADE - 9))
    later = a_request(uid="a")
    assert sorted([later, earlier, running], key=plans.order) == [running, earlier, later]
