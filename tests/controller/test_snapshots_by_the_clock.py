"""A CheckpointPolicy's `every`: what is due is asked for, on an API server in memory.

Faked: the API server, the clock, whoever carries requests out (`sealed`). Real: watches, queues,
threads. The plan itself is in test_when_a_snapshot_is_due.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from controller import snapshot_plan as plans
from controller.snapshotting import Snapshotting
from kybernate.api import checkpointpolicies, checkpointrequests, gpuworkloads, names, timestamps
from kybernate.api.checkpointrequests import CheckpointRequest
from kybernate.clients.events import EventRecorder
from kybernate.clients.resources import (
    CHECKPOINTPOLICIES,
    CHECKPOINTREQUESTS,
    EVENTS,
    GPUWORKLOADS,
)
from kybernate.model.workload import State
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_pod, a_workload
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube

Wait = Callable[..., Any]
MADE = 1_700_000_000


def policy(every: str | None = "5m", name: str = "often", app: str = "train") -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "CheckpointPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": app}}, **({"every": every} if every else {})},
    }


def running(name: str = "train-0", state: State = State.ACTIVE, **more: Any) -> Mapping[str, Any]:
    status = gpuworkloads.Status(state=state, since=MADE + 1.0, node="node-a", seat="G0/0")
    made = gpuworkloads.new_object(a_workload(name))
    metadata = {**made["metadata"], "creationTimestamp": timestamps.rfc3339(MADE)}
    return {
        **made,
        "metadata": metadata,
        "status": {**gpuworkloads.write_status(status), **more},
    }


def pod(name: str = "train-0", app: str = "train") -> dict[str, Any]:
    return a_pod(name, labels={"app": app})


def asked(kube: FakeKube) -> list[CheckpointRequest]:
    return [checkpointrequests.read_request(one) for one in kube.list(CHECKPOINTREQUESTS)]


def said(kube: FakeKube, name: str = "often") -> tuple[int, str] | None:
    found = checkpointpolicies.read_policy(kube.get(CHECKPOINTPOLICIES, name, "default"))
    return (found.standing.workloads, found.standing.message) if found.standing else None


def end(kube: FakeKube, request: CheckpointRequest, at: float, state: str = "Succeeded") -> None:
    """What `checkpointing` writes."""
    status = {"state": state, "reason": "Sealed", "finishedAt": timestamps.rfc3339(at)}
    kube.patch(
        CHECKPOINTREQUESTS, request.key[1], {"status": status}, "default", subresource="status"
    )


@pytest.fixture
def leading(running: Wait) -> Callable[..., Any]:
    """`with leading(kube, clock) as part: ...`: a leader at work."""

    @contextmanager
    def run(kube: FakeKube, clock: FakeClock) -> Iterator[Snapshotting]:
        events = EventRecorder(kube, "kyb.ai/controller", "test", SystemClock())
        with running(Snapshotting(kube, clock, events)) as part:
            yield part
            assert events.flush(30)
        events.stop()

    return run


KEY = ("default", "train-0")


def test_what_is_due_is_asked_for_and_goes_on_running(leading: Wait, eventually: Wait) -> None:
    clock = FakeClock(MADE + 400.0)
    kube = FakeKube(policy(), pod(), running(), pod("other", "web"), running("other"))
    with leading(kube, clock):
        (made,) = eventually(lambda: asked(kube))
        eventually(lambda: said(kube) == (1, ""))
    assert (made.workload.name, made.leave, made.by_clock) == ("train-0", "Running", True)
    assert made.times.within == 300.0
    (obj,) = kube.list(CHECKPOINTREQUESTS)
    (owner,) = obj["metadata"]["ownerReferences"]
    there = kube.get(GPUWORKLOADS, "train-0", "default")["metadata"]["uid"]
    assert (owner["kind"], owner["uid"]) == ("GpuWorkload", there), "it goes with its workload"


def test_one_after_the_other_at_the_policys_pace_and_old_ones_are_forgotten(
    leading: Wait, eventually: Wait
) -> None:
    clock = FakeClock(MADE + 300.0)
    kube = FakeKube(policy(), pod(), running())
    with leading(kube, clock) as part:
        seen: list[str] = []
        for _ in range(4):
            (new,) = eventually(
                lambda: [r for r in asked(kube) if not r.status.is_finished] or None
            )
            assert new.key[1] not in seen
            seen.append(new.key[1])
            clock.advance(7.0)
            end(kube, new, clock.now())
            eventually(lambda: part.look(KEY) == 300.0)
            clock.advance(299.0)
            assert part.look(KEY) == 1.0, "not before its time"
            clock.advance(1.0)
            part.duty.touch(KEY)
        eventually(lambda: len(asked(kube)) == 2), "the last one that ended, and the next"


def test_of_several_policies_the_shortest_counts_and_without_every_none_is_made(
    leading: Wait, eventually: Wait
) -> None:
    clock = FakeClock(MADE + 100.0)
    kube = FakeKube(policy("1h"), policy(None, name="quiet"), pod(), running())
    with leading(kube, clock) as part:
        eventually(lambda: said(kube, "quiet") == (1, ""))
        assert part.look(KEY) == 3500.0
        kube.create(CHECKPOINTPOLICIES, policy("1m", name="soon"), "default")
        eventually(lambda: asked(kube))


def test_two_leaders_at_once_make_one_request(leading: Wait, eventually: Wait) -> None:
    clock = FakeClock(MADE + 400.0)
    kube = FakeKube(policy(), pod(), running())
    with leading(kube, clock) as one, leading(kube, clock) as other:
        eventually(lambda: asked(kube))
        for part in (one, other):
            part.look(KEY)
        assert len(asked(kube)) == 1


def test_a_clock_that_is_set_makes_no_storm(leading: Wait, eventually: Wait) -> None:
    clock = FakeClock(MADE + 400.0)
    kube = FakeKube(policy(), pod(), running())
    with leading(kube, clock) as part:
        count = 0
        for skew in (0.0, 86400.0, -86400.0, 3600.0, -7200.0):
            clock.skew = skew
            for _ in range(3):
                part.look(KEY)
                for request in asked(kube):
                    if not request.status.is_finished:
                        count += 1
                        end(kube, request, clock.now())
                        eventually(
                            lambda: all(
                                r.status.is_finished for r in part._requests.items().values()
                            )
                        )
        assert count == 1, "time has not passed, whatever the clock on the wall says"


def test_what_cannot_be_parked_is_said_once_in_an_event_and_stands_in_the_policy(
    leading: Wait, eventually: Wait
) -> None:
    clock = FakeClock(MADE + 400.0)
    condition = gpuworkloads.parkable_condition(False, "Ipc", "it shares memory by IPC", MADE)
    kube = FakeKube(policy(), pod(), running(conditions=[condition]))
    with leading(kube, clock) as part:
        eventually(
            lambda: said(kube) == (1, "train-0: it cannot be parked: it shares memory by IPC")
        )
        for _ in range(5):
            part.look(KEY)
        assert not asked(kube)
    (event,) = kube.list(EVENTS)
    assert (event["reason"], event["regarding"]["kind"]) == ("CheckpointSkipped", "GpuWorkload")
    assert event["note"] == "it cannot be parked: it shares memory by IPC"


def test_one_that_is_parked_is_left_alone_without_an_event_and_taken_up_when_it_is_back(
    leading: Wait, eventually: Wait
) -> None:
    clock = FakeClock(MADE + 400.0)
    kube = FakeKube(policy(), pod(), running(state=State.PARKED))
    with leading(kube, clock):
        eventually(lambda: said(kube) == (1, "train-0: it is parked: nothing in it changes"))
        kube.patch(
            GPUWORKLOADS, "train-0", {"status": {"state": "Active"}}, "default",
            subresource="status",
        )  # fmt: skip
        eventually(lambda: asked(kube))
        eventually(lambda: said(kube) == (1, ""))
    assert not kube.list(EVENTS)


def test_failures_stay_to_tell_how_long_the_pause_is(leading: Wait, eventually: Wait) -> None:
    clock = FakeClock(MADE + 300.0)
    kube = FakeKube(policy(), pod(), running())
    with leading(kube, clock) as part:
        (new,) = eventually(lambda: asked(kube))
        end(kube, new, clock.now(), "Failed")
        eventually(lambda: part.look(KEY) == 600.0)
        assert plans.LONGEST == 3600.0
