"""
A Deployment's or Job's next pod wakes from the one whose place it takes, sealed by then or not.

Faked: the API server, by a dictionary of objects.
"""

import pytest

from kybernate.clients.errors import NotFound, Unavailable
from kybernate.clients.resources import DEPLOYMENTS, GPUCHECKPOINTS, PODS
from kybernate.model.ids import PodUid, ResourceName, WorkloadKey
from kybernate.model.workload import OnDelete, Wishes, Workload
from nodeagent.waking.heritage import Heritage, NotYet

OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "chat-abc", "uid": "rs",
         "controller": True}  # fmt: skip
MADE = "2026-05-01T12:00:00Z"


def a_pod(name, going=False, phase="Running"):
    metadata = {
        "namespace": "default", "name": name, "uid": f"uid-{name}", "creationTimestamp": MADE,
        "labels": {"pod-template-hash": "abc"}, "ownerReferences": [OWNER],
    }  # fmt: skip
    if going:
        metadata["deletionTimestamp"] = MADE
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase}}


def a_checkpoint(name, sealed_at="2026-05-01T12:00:05Z", claim=None, workload="deployment.chat"):
    status = {"sealedAt": sealed_at, "conditions": [{"type": "Ready", "status": "True"}]}
    if claim:
        status["claim"] = {"podUID": claim, "node": "n", "pod": "p"}
    metadata = {"namespace": "default", "name": name}
    return {"metadata": metadata, "spec": {"workload": workload}, "status": status}


class Api:
    """Objects by resource."""

    def __init__(self):
        self.pods, self.checkpoints, self.replicas = [a_pod("new")], [], 1
        self.away = False
        self.selector = "pod-template-hash=abc"

    def get(self, resource, name, namespace=None):
        self._answer()
        if resource is DEPLOYMENTS:
            return {"spec": {"replicas": self.replicas}}
        assert resource is PODS
        for one in self.pods:
            if one["metadata"]["name"] == name:
                return one
        raise NotFound(404, "NotFound", name)

    def list(self, resource, namespace=None, *, label_selector=None):
        self._answer()
        assert label_selector == (self.selector if resource is PODS else None)
        assert resource in (PODS, GPUCHECKPOINTS)
        return self.pods if resource is PODS else self.checkpoints

    def _answer(self):
        if self.away:
            raise Unavailable(503, "away", "away")


def a_workload(*named, on_delete=OnDelete.CHECKPOINT):
    return Workload(
        key=WorkloadKey("default", "new"), uid=PodUid("uid-new"),
        resource=ResourceName("kyb.ai/gpu-1x-seat"), seat_container="model",
        wishes=Wishes(restore_from=named, on_delete=on_delete),
    )  # fmt: skip


@pytest.fixture
def api():
    return Api()


def names(api, *named, **more):
    return Heritage(api=api).names(a_workload(*named, **more))


def test_what_is_being_sealed_is_waited_for(api):
    api.pods.append(a_pod("old", going=True))
    with pytest.raises(NotYet, match="old is being sealed"):
        names(api)
    api.checkpoints = [a_checkpoint("older", sealed_at="2026-04-30T12:00:00Z")]
    with pytest.raises(NotYet):
        names(api, "older")  # of the same workload, by the webhook's word


def test_then_it_is_the_first_to_wake_from(api):
    api.pods.append(a_pod("old", going=True, phase="Succeeded"))
    api.checkpoints = [
        a_checkpoint("older", sealed_at="2026-04-30T12:00:00Z"),
        a_checkpoint("fresh"),
        a_checkpoint("other", workload="deployment.other"),
        a_checkpoint("claimed", claim="somebody"),
    ]
    assert names(api, "older") == ("fresh", "older")
    assert names(api) == ("fresh",)


def of_index(pod, index):
    """The same as a pod of a Job."""
    pod["metadata"] |= {
        "labels": {"batch.kubernetes.io/controller-uid": "job"},
        "annotations": {"batch.kubernetes.io/job-completion-index": index},
        "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "t", "uid": "job", "controller": True}
        ],
    }
    return pod


def test_a_jobs_next_pod_waits_for_the_one_of_its_own_index(api):
    api.selector = "batch.kubernetes.io/controller-uid=job"
    other = of_index(a_pod("other", going=True), "4")
    api.pods = [of_index(a_pod("new"), "3"), other]
    api.checkpoints = [a_checkpoint("fresh", workload="job.t.3")]
    assert names(api) == ("fresh",)
    api.pods.append(of_index(a_pod("old", going=True), "3"))
    with pytest.raises(NotYet, match="old is being sealed"):
        names(api)


def test_who_names_another_workloads_checkpoint_wakes_from_that(api):
    api.pods.append(a_pod("old", going=True))
    assert names(api, "gold") == ("gold",)


@pytest.mark.parametrize("replicas", [0, 2])
def test_a_pod_that_is_not_alone_inherits_nothing(api, replicas):
    api.pods.append(a_pod("old", going=True))
    api.replicas = replicas
    assert names(api) == ()


def test_who_is_not_sealed_when_it_goes_asks_nobody(api):
    api.away = True
    assert names(api, "first", on_delete=OnDelete.DISCARD) == ("first",)
    assert not Heritage(api=api).may(a_workload(on_delete=None))


def test_what_is_made_anew_in_a_pod_inherits_nothing(api):
    api.pods.append(a_pod("old", going=True))
    heritage = Heritage(api=api)
    heritage.made(PodUid("uid-new"))
    assert heritage.names(a_workload("first")) == ("first",)


@pytest.mark.parametrize(
    ("status", "inherits"),
    [
        ({"state": {"running": {}}}, False),
        ({"state": {"waiting": {}}, "lastState": {"terminated": {"reason": "Error"}}}, False),
        ({"state": {"waiting": {}}, "lastState": {"terminated": {"reason": "StartError"}}}, True),
        ({"name": "sidecar", "state": {"running": {}}}, True),
    ],
)
def test_a_pod_that_has_run_inherits_nothing_also_by_an_agent_that_knows_nothing(
    api, status, inherits
):
    api.pods[0]["status"]["containerStatuses"] = [{"name": "model", **status}]
    api.checkpoints = [a_checkpoint("own")]
    assert names(api) == (("own",) if inherits else ())


def test_without_the_api_server_only_who_names_a_checkpoint_waits(api):
    api.away = True
    assert names(api) == ()
    with pytest.raises(Unavailable):
        names(api, "first")


def test_a_claim_of_its_own_is_no_obstacle(api):
    api.checkpoints = [a_checkpoint("mine", claim="uid-new")]
    assert names(api) == ("mine",)
