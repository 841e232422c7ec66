"""The next step for a Deployment that may go to zero, and its steps on an API server in memory.

Faked: the API server. Real: watches, queue, threads. A test speaks for kubelet, agent, activators.
"""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from controller import zero_plan
from controller.zero_plan import Around, Nothing, Pod, Scale, Seal, Sealed
from controller.zero_seen import request_name
from controller.zeroing import Zeroing
from kybernate.api import names, timestamps
from kybernate.api.requests import RequestState
from kybernate.clients.errors import NotFound
from kybernate.clients.events import EventRecorder
from kybernate.clients.resources import (
    CHECKPOINTREQUESTS,
    DEPLOYMENTS,
    EVENTS,
    GPUWORKLOADS,
    PODS,
)
from kybernate.model.ids import PodUid
from kybernate.model.workload import State
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_pod
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube

Wait = Callable[..., Any]
NOW, AFTER = 10_000.0, 600.0
UID = PodUid("uid-1")
PARKED = Pod(name="llama-1", uid=UID, state=State.PARKED, since=NOW - AFTER - 1)
DONE = Sealed(
    pod_uid=UID, state=RequestState.SUCCEEDED, at=PARKED.since - 1, checkpoint="llama-sealed"
)


def plan(replicas: int = 1, wanted: bool = False, **around: Any) -> zero_plan.Step:
    whole: dict[str, Any] = {"pods": (PARKED,) if replicas else (), **around}
    return zero_plan.plan(Around(replicas=replicas, wanted=wanted, **whole), NOW, AFTER)


def pod(**changes: Any) -> tuple[Pod]:
    shown = {"name": PARKED.name, "uid": UID, "state": PARKED.state, "since": PARKED.since}
    return (Pod(**{**shown, **changes}),)


def test_what_is_parked_for_long_is_sealed_and_then_goes_to_zero() -> None:
    assert plan() == Seal(PARKED)
    going = plan(sealed=DONE)
    assert isinstance(going, Scale)
    assert (going.replicas, "llama-sealed" in going.why) == (0, True)


def test_it_is_looked_at_again_when_its_time_comes() -> None:
    assert plan(pods=pod(since=NOW - 100)) == Nothing(AFTER - 100)


@pytest.mark.parametrize(
    "around",
    [
        {"wanted": True},
        {"replicas": 2},
        {"pods": ()},
        {"pods": (PARKED, PARKED)},
        {"pods": pod(stays=True)},
        {"pods": pod(state=State.ACTIVE)},
        {"pods": pod(state=State.SEALING)},
        {"sealed": Sealed(pod_uid=UID, state=RequestState.RUNNING)},
        {"sealed": Sealed(pod_uid=UID, state=RequestState.FAILED)},
    ],
)
def test_nothing_goes_that_is_wanted_used_or_cannot_be_sealed(around: dict[str, Any]) -> None:
    assert plan(**around) == Nothing()


def test_a_checkpoint_from_before_it_was_active_again_is_made_anew() -> None:
    old = Sealed(pod_uid=UID, state=RequestState.SUCCEEDED, at=PARKED.since - 60, checkpoint="x")
    assert plan(sealed=old) == Seal(PARKED, instead=True)
    of_another = Sealed(pod_uid=PodUid("0"), state=RequestState.SUCCEEDED, at=PARKED.since)
    assert plan(sealed=of_another) == Seal(PARKED, instead=True)


def test_nothing_is_sealed_twice_while_its_agent_has_not_told_how_it_stands() -> None:
    just_now = Sealed(pod_uid=UID, state=RequestState.SUCCEEDED, at=NOW - 1, checkpoint="x")
    assert isinstance(plan(sealed=just_now), Nothing)
    long_ago = Sealed(pod_uid=UID, state=RequestState.SUCCEEDED, at=NOW - 100, checkpoint="x")
    assert plan(sealed=long_ago) == Seal(PARKED, instead=True)


def test_it_comes_back_when_somebody_asks_once_its_last_pod_is_gone() -> None:
    assert plan(replicas=0) == Nothing()
    back = plan(replicas=0, wanted=True, candidate="llama-sealed")
    assert isinstance(back, Scale)
    assert (back.replicas, "checkpoint llama-sealed" in back.why) == (1, True)
    cold = plan(replicas=0, wanted=True)
    assert isinstance(cold, Scale)
    assert "cold start" in cold.why
    assert isinstance(plan(replicas=0, wanted=True, leaving=1), Nothing)


def test_one_that_cannot_be_brought_back_is_replaced_only_for_somebody() -> None:
    broken = pod(state=State.QUARANTINED)
    assert plan(pods=broken) == Nothing()
    replaced = plan(pods=broken, wanted=True)
    assert isinstance(replaced, Scale)
    assert replaced.replicas == 0


class Cluster:
    """A Deployment of one, its pod parked for long."""

    def __init__(self, kube: FakeKube) -> None:
        self.kube = kube
        template = a_pod("llama", annotations={names.SCALE_TO_ZERO: "checkpoint"})
        kube.seed(
            {
                "kind": "Deployment",
                "metadata": {"name": "llama", "namespace": "default", "uid": "uid-d"},
                "spec": {"replicas": 1, "template": template},
            }
        )
        self.pod("llama-h-1", "uid-1")

    def pod(self, name: str, uid: str) -> None:
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llama-h", "uid": "r"}
        labels = {"pod-template-hash": "h"}
        owners = [owner | {"controller": True}]
        self.kube.seed(a_pod(name, uid=uid, labels=labels, ownerReferences=owners))

    def stands(self, name: str, uid: str, since: float, **status: Any) -> None:
        self.kube.seed(
            {
                "kind": "GpuWorkload",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"podUID": uid, "resource": "kyb.ai/gpu-1x-seat"},
                "status": {
                    "state": "Parked",
                    "since": timestamps.rfc3339(since),
                    "node": "node-a",
                    **status,
                },
            }
        )

    def sealed(self, at: float) -> None:
        """As the checkpointing duty and the agent do."""
        ready = {"type": "Ready", "status": "True", "reason": "Sealed"}
        self.kube.seed(
            {
                "kind": "GpuCheckpoint",
                "metadata": {"name": "saved", "namespace": "default"},
                "spec": {"workload": "deployment.llama"},
                "status": {
                    "sizeBytes": 7,
                    "sealedAt": timestamps.rfc3339(at),
                    "conditions": [ready],
                },
            }
        )
        status = {"state": "Succeeded", "podUID": "uid-1", "checkpoint": "saved"}
        self.kube.patch(
            CHECKPOINTREQUESTS,
            request_name("llama"),
            {"status": status},
            "default",
            subresource="status",
        )

    def wanted(self, activator: str, *deployments: str) -> None:
        text = orjson.dumps([("default", name) for name in deployments]).decode()
        metadata = {
            "name": f"{names.ACTIVATOR_LEASE_PREFIX}{activator}",
            "namespace": names.SYSTEM_NAMESPACE,
            "annotations": {names.WANTED: text},
        }
        self.kube.seed(
            {"kind": "Lease", "metadata": metadata, "spec": {"leaseDurationSeconds": 15}}
        )

    @property
    def replicas(self) -> int:
        return int(self.kube.get(DEPLOYMENTS, "llama", "default")["spec"]["replicas"])

    def asked_to_seal(self) -> bool:
        try:
            self.kube.get(CHECKPOINTREQUESTS, request_name("llama"), "default")
        except NotFound:
            return False
        return True

    def events(self) -> set[str]:
        return {event["reason"] for event in self.kube.list(EVENTS)}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(FakeKube(clock=SystemClock()))


def a_part(kube: FakeKube) -> Zeroing:
    clock = SystemClock()
    return Zeroing(kube, clock, EventRecorder(kube, "kyb.ai/controller", "c", clock), AFTER)


def test_an_idle_deployment_is_sealed_goes_to_zero_and_comes_back_for_whoever_asks(
    cluster: Cluster, running: Wait, eventually: Wait
) -> None:
    now = SystemClock().now()
    cluster.stands("llama-h-1", "uid-1", now - AFTER - 60)
    with running(a_part(cluster.kube)):
        eventually(cluster.asked_to_seal)
        made = cluster.kube.get(CHECKPOINTREQUESTS, request_name("llama"), "default")
        assert made["spec"] == {"workload": "llama-h-1", "leave": "Parked"}
        assert cluster.replicas == 1  # for there is no checkpoint yet
        cluster.sealed(now)
        cluster.stands("llama-h-1", "uid-1", now + 1)  # parked again, right after it
        eventually(lambda: cluster.replicas == 0)
        eventually(lambda: "ScaledToZero" in cluster.events())

        cluster.wanted("one", "llama")
        cluster.wanted("two", "llama")  # both hold requests: it is scaled once all the same
        cluster.kube.delete(PODS, "llama-h-1", "default")
        cluster.kube.delete(GPUWORKLOADS, "llama-h-1", "default")
        eventually(lambda: cluster.replicas == 1)
        eventually(lambda: "ScaledFromZero" in cluster.events())
    scaled = [asked for asked in cluster.kube.asked_of("PATCH") if "deployments" in asked]
    assert len(scaled) == 2


def test_what_somebody_waits_for_is_not_taken_away(
    cluster: Cluster, running: Wait, eventually: Wait
) -> None:
    cluster.wanted("one", "llama")
    now = SystemClock().now()
    cluster.stands("llama-h-1", "uid-1", now - AFTER - 60)
    part = a_part(cluster.kube)
    with running(part):
        eventually(lambda: part.duty.started)
        assert part.look(("default", "llama")) is not None  # it is looked at again, though
        assert not cluster.asked_to_seal()
        cluster.wanted("one")  # nobody any more
        eventually(cluster.asked_to_seal)


def test_a_wish_that_is_not_renewed_counts_no_more(cluster: Cluster) -> None:
    clock = FakeClock()
    cluster.kube.patch(DEPLOYMENTS, "llama", {"spec": {"replicas": 0}}, "default")
    cluster.kube.delete(PODS, "llama-h-1", "default")
    cluster.wanted("one", "llama")
    part = Zeroing(
        cluster.kube, clock, EventRecorder(cluster.kube, "kyb.ai/controller", "c", clock), AFTER
    )
    for watch in part.watches:
        watch.start()
    assert all(watch.wait_synced(10) for watch in part.watches)
    clock.advance(16)
    part.look(("default", "llama"))
    assert cluster.replicas == 0
    for watch in part.watches:
        watch.stop()
