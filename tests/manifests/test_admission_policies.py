"""What RBAC cannot say: each process writes its part, for its node, and nobody else does."""

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]

KYB = "/apis/kyb.ai/v1alpha1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kyb-system/leases"
SEAT = "kyb.ai/seat"
READY = {
    "type": "Ready",
    "status": "Unknown",
    "reason": "AgentAway",
    "message": "its Lease is stale",
    "lastTransitionTime": "2026-01-31T12:00:00Z",
}


def _gpunode(name: str) -> Object:
    return {"apiVersion": "kyb.ai/v1alpha1", "kind": "GpuNode", "metadata": {"name": name}}


def _lease(name: str) -> Object:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 15},
    }


def _annotated(seat: str | None, **more: str) -> Object:
    return {"metadata": {"annotations": {SEAT: seat, **more}}}


@pytest.fixture
def agents(
    account: Callable[..., Any], new_node: Callable[[], str]
) -> tuple[tuple[str, Any], tuple[str, Any]]:
    """Two nodes with an agent each: ((name, caller), (name, caller))."""
    one, other = new_node(), new_node()
    return (
        (one, account("kyb-nodeagent", node=one)),
        (other, account("kyb-nodeagent", node=other)),
    )


@pytest.fixture
def pod_on(admin: Any, namespace: str, new_name: Callable[[str], str]) -> Callable[..., str]:
    """Makes a pod that is bound to a node (or to none), and answers its path."""

    def make(node: str | None = None) -> str:
        path = f"/api/v1/namespaces/{namespace}/pods"
        spec: Object = {"containers": [{"name": "m", "image": "m"}]}
        if node:
            spec["nodeName"] = node
        body = {"metadata": {"name": new_name("pod"), "annotations": {"a": "b"}}, "spec": spec}
        created = admin.create(path, body)
        assert created.status == 201, created.message
        return f"{path}/{created.body['metadata']['name']}"

    return make


@pytest.fixture
def workload(admin: Any, namespace: str, new_name: Callable[[str], str]) -> Callable[..., str]:
    """Makes a GpuWorkload with this status, and answers its path."""

    def make(**status: object) -> str:
        path, name = f"{KYB}/namespaces/{namespace}/gpuworkloads", new_name("workload")
        body = {
            "apiVersion": "kyb.ai/v1alpha1",
            "kind": "GpuWorkload",
            "metadata": {"name": name},
            "spec": {"podUID": "u", "resource": "kyb.ai/gpu-1x-seat"},
        }
        assert admin.create(path, body).status == 201
        assert admin.merge(f"{path}/{name}/status", {"status": status}).status == 200
        return f"{path}/{name}"

    return make


def test_an_agent_makes_and_writes_the_gpunode_of_its_own_node(agents: Any) -> None:
    (mine, agent), _ = agents
    assert agent.create(f"{KYB}/gpunodes", _gpunode(mine)).status == 201
    answer = agent.merge(f"{KYB}/gpunodes/{mine}/status", {"status": {"product": "H100"}})
    assert (answer.status, answer.message) == (200, "")


def test_an_agent_does_not_speak_for_another_node(agents: Any) -> None:
    (mine, agent), (other, its_agent) = agents
    refused = agent.create(f"{KYB}/gpunodes", _gpunode(other))
    assert f"the agent of node {mine} cannot write GpuNode {other}" in refused.message
    assert its_agent.create(f"{KYB}/gpunodes", _gpunode(other)).status == 201
    for path in (f"{KYB}/gpunodes/{other}", f"{KYB}/gpunodes/{other}/status"):
        assert agent.merge(path, {"status": {"product": "none"}}).status == 403


def test_an_agent_keeps_the_lease_of_its_own_node(agents: Any) -> None:
    (mine, agent), (other, _) = agents
    assert agent.create(LEASES, _lease(f"kyb-agent-{mine}")).status == 201
    renewed = agent.merge(f"{LEASES}/kyb-agent-{mine}", {"spec": {"leaseDurationSeconds": 20}})
    assert renewed.status == 200
    refused = agent.create(LEASES, _lease(f"kyb-agent-{other}"))
    assert f"the agent of node {mine} cannot write Lease kyb-agent-{other}" in refused.message
    assert agent.create(LEASES, _lease("kyb-controller")).status == 403


def test_an_activator_writes_no_lease_but_activators_records(account: Any, admin: Any) -> None:
    """The controller's Lease says which of its replicas leads."""
    activator = account("kyb-activator")
    assert activator.create(LEASES, _lease("kyb-activator-one")).status == 201
    assert activator.merge(f"{LEASES}/kyb-activator-one", {"spec": {}}).status == 200
    assert admin.create(LEASES, _lease("kyb-led-by")).status == 201
    refused = activator.merge(f"{LEASES}/kyb-led-by", {"spec": {"holderIdentity": "me"}})
    assert "an activator writes no Lease but its own" in refused.message
    assert activator.create(LEASES, _lease("kyb-controller")).status == 403


def test_a_token_that_names_no_node_speaks_for_none(account: Any, new_node: Any) -> None:
    refused = account("kyb-nodeagent").create(f"{KYB}/gpunodes", _gpunode(new_node()))
    assert "token names no node" in refused.message


def test_an_agent_writes_the_seat_of_a_pod_on_its_node_once(agents: Any, pod_on: Any) -> None:
    (mine, agent), _ = agents
    pod = pod_on(mine)
    assert agent.merge(pod, _annotated("G01/2")).status == 200
    assert agent.merge(pod, _annotated("G01/2")).status == 200
    for changed in ("G01/3", "anything"):
        assert "written once" in agent.merge(pod, _annotated(changed)).message


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_annotated("G0/0", a="c"), id="another-annotation"),
        pytest.param({"metadata": {"annotations": {"a": None}}}, id="an-annotation-removed"),
        pytest.param({"metadata": {"labels": {"app": "other"}}}, id="a-label"),
        pytest.param({"metadata": {"finalizers": ["a.example/b"]}}, id="a-finalizer"),
        pytest.param({"spec": {"activeDeadlineSeconds": 5}}, id="the-spec"),
        pytest.param(
            [{"op": "replace", "path": "/spec/containers/0/image", "value": "evil"}], id="the-image"
        ),
    ],
)
def test_an_agent_changes_nothing_else_of_a_pod(agents: Any, pod_on: Any, change: object) -> None:
    (mine, agent), _ = agents
    patch = "json" if isinstance(change, list) else "merge"
    refused = agent.ask("PATCH", pod_on(mine), change, patch)
    assert (refused.status, "no more of a pod than its annotation" in refused.message) == (
        403,
        True,
    )


def test_an_agent_touches_no_pod_of_another_node(agents: Any, pod_on: Any) -> None:
    (_, agent), (other, _) = agents
    for pod in (pod_on(other), pod_on(None)):
        assert "pods of its own node" in agent.merge(pod, _annotated("G0/0")).message


def test_nobody_else_writes_a_seat(admin: Any, user: Any, pod_on: Any, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    new = {
        "metadata": {"name": "x", "annotations": {SEAT: "G0/0"}},
        "spec": {"containers": [{"name": "m", "image": "m"}]},
    }
    for somebody in (user("edit"), user("cluster-admin"), admin):
        for answer in (
            somebody.create(f"{pods}?dryRun=All", new),
            somebody.merge(pod_on(), _annotated("G0/0")),
        ):
            assert answer.status == 403
            assert "annotation kyb.ai/seat is written by the node agent only" in answer.message


def test_a_seat_is_not_smuggled_in_through_a_status_or_a_binding(
    admin: Any, pod_on: Any, new_node: Any
) -> None:
    """The API server copies annotations of a Binding to the pod, and takes a status patch's."""
    pod = pod_on()
    binding = {
        "metadata": {"name": pod.split("/")[-1], "annotations": {SEAT: "G0/0"}},
        "target": {"kind": "Node", "name": new_node()},
    }
    assert "node agent only" in admin.create(f"{pod}/binding", binding).message
    assert "node agent only" in admin.merge(f"{pod}/status", _annotated("G0/0")).message
    del binding["metadata"]["annotations"]  # type: ignore[index]
    assert admin.create(f"{pod}/binding", binding).status == 201


@pytest.mark.parametrize(
    "wishes",
    [
        pytest.param({"kyb.ai/class": "inference"}, id="another-value"),
        pytest.param({"kyb.ai/min-runtime": "1000h"}, id="a-new-wish"),
        pytest.param({"kyb.ai/typo": "x"}, id="an-unreadable-one"),
        pytest.param({"kyb.ai/class": None}, id="none-any-more"),
    ],
)
def test_a_pod_keeps_the_wishes_that_policy_judged(
    user: Any, admin: Any, namespace: str, new_name: Any, new_node: Any, wishes: Object
) -> None:
    somebody, pods = user("edit"), f"/api/v1/namespaces/{namespace}/pods"
    metadata = {"name": new_name("pod"), "annotations": {"kyb.ai/class": "batch"}}
    spec = {"containers": [{"name": "m", "image": "m"}]}
    assert admin.create(pods, {"metadata": metadata, "spec": spec}).status == 201
    pod = f"{pods}/{metadata['name']}"
    answer = somebody.merge(pod, {"metadata": {"annotations": wishes}})
    assert answer.status == 403
    assert "were judged by policy when it was created" in answer.message
    assert somebody.merge(pod, {"metadata": {"annotations": {"other": "x"}}}).status == 200
    scheduler, binding = user("cluster-admin"), {"target": {"kind": "Node", "name": new_node()}}
    hidden = {"name": metadata["name"], "annotations": {"kyb.ai/min-runtime": "1000h"}}
    assert scheduler.create(f"{pod}/binding", {**binding, "metadata": hidden}).status == 403
    plain = {**binding, "metadata": {"name": metadata["name"]}}
    assert scheduler.create(f"{pod}/binding", plain).status == 201
    assert somebody.ask("DELETE", pod).status == 200


def test_a_pod_with_a_seat_is_otherwise_an_ordinary_pod(
    agents: Any, admin: Any, pod_on: Any
) -> None:
    """Others go on changing it, the kubelet its status; nobody removes the seat."""
    (mine, agent), _ = agents
    pod = pod_on(mine)
    assert agent.merge(pod, _annotated("G0/1")).status == 200
    assert admin.merge(pod, {"metadata": {"labels": {"app": "other"}}}).status == 200
    assert admin.merge(f"{pod}/status", {"status": {"message": "fine"}}).status == 200
    assert admin.merge(pod, _annotated(None)).status == 403
    assert admin.ask("DELETE", f"{pod}?gracePeriodSeconds=0").status == 200


def test_an_agent_writes_the_status_of_workloads_of_its_own_node(
    agents: Any, workload: Any
) -> None:
    (mine, agent), (other, _) = agents
    fresh = f"{workload()}/status"
    assert agent.merge(fresh, {"status": {"node": mine, "state": "Waiting"}}).status == 200
    assert agent.merge(fresh, {"status": {"state": "Active"}}).status == 200
    for path, status in (
        (workload(node=other, state="Active"), {"state": "Parked"}),
        (workload(node=other, state="Active"), {"node": mine}),
        (workload(), {"node": other}),
    ):
        refused = agent.merge(f"{path}/status", {"status": status})
        assert "workloads of its own node only" in refused.message


@pytest.mark.parametrize("who", ["kyb-extender", "kyb-controller"])
def test_who_decides_writes_decisions_and_nothing_an_agent_saw(
    account: Any, workload: Any, who: str
) -> None:
    somebody, path = account(who), f"{workload(node='n', state='Active', seat='G0/0')}/status"
    decision = {"time": "2026-01-31T12:00:00Z", "reason": "Placed", "message": "4.1 s"}
    added = {"decisions": [decision], "placement": {"estimateSeconds": 4.1, "text": "4.1 s"}}
    assert somebody.merge(path, {"status": added}).status == 200
    for claimed in ({"state": "Parked"}, {"seat": "G0/1"}, {"node": None}, {"why": "because"}):
        refused = somebody.merge(path, {"status": claimed})
        assert "decisions, placement and conditions of a GpuWorkload only" in refused.message


def test_no_user_writes_a_status(user: Any, admin: Any, workload: Any, agents: Any) -> None:
    (mine, agent), _ = agents
    assert agent.create(f"{KYB}/gpunodes", _gpunode(mine)).status == 201
    owner, path = user("cluster-admin"), workload()
    refused = owner.merge(f"{path}/status", {"status": {"state": "Active"}})
    assert "status of a GpuWorkload is written by the agent" in refused.message
    refused = owner.merge(f"{KYB}/gpunodes/{mine}/status", {"status": {"product": "x"}})
    assert "status of a GpuNode is written by the agent" in refused.message
    assert admin.merge(f"{path}/status", {"status": {"state": "Active"}}).status == 200


def test_of_a_gpunode_the_controller_writes_conditions_only(account: Any, agents: Any) -> None:
    (mine, agent), _ = agents
    agent.create(f"{KYB}/gpunodes", _gpunode(mine))
    path = f"{KYB}/gpunodes/{mine}/status"
    assert agent.merge(path, {"status": {"product": "H100", "tenants": []}}).status == 200
    controller = account("kyb-controller")
    assert controller.merge(path, {"status": {"conditions": [READY]}}).status == 200
    for status in ({"product": "A100"}, {"tenants": None}, {"summary": {"waiting": 0}}):
        refused = controller.merge(path, {"status": status})
        assert "of a GpuNode the controller writes conditions only" in refused.message


def test_of_a_workload_people_change_what_they_desire_and_nothing_else(
    user: Any, account: Any, workload: Any
) -> None:
    editor, path = user("edit"), workload()
    assert editor.merge(path, {"spec": {"desired": "Parked"}}).status == 200
    for spec in ({"priority": 1000000}, {"class": "batch"}, {"vramBytes": 1}):
        refused = editor.merge(path, {"spec": spec})
        assert "only spec.desired is for people" in refused.message
    assert account("kyb-controller").merge(path, {"spec": {"priority": 7}}).status == 200


def test_of_a_node_the_controller_changes_two_annotations(account: Any, new_node: Any) -> None:
    controller, node = account("kyb-controller"), f"/api/v1/nodes/{new_node()}"
    for name in ("kyb.ai/policy-revision", "kyb.ai/opened"):
        for value in ("one", "another", None):
            change = {"metadata": {"annotations": {name: value}}}
            assert controller.merge(node, change).status == 200
    for change in (
        {"metadata": {"annotations": {"other": "x"}}},
        {"metadata": {"labels": {"kyb.ai/managed": "true"}}},
        {"spec": {"unschedulable": True}},
        {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}},
    ):
        refused = controller.merge(node, change)
        assert "no more of a Node than its annotation" in refused.message


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        pytest.param("kyb-ca", "Opaque", 201, id="ours"),
        pytest.param("kyb-client-tls", "kubernetes.io/tls", 201, id="ours-for-tls"),
        pytest.param("kyb-checkpoint-keys", "Opaque", 201, id="that-of-checkpoints"),
        pytest.param("somebody-elses", "Opaque", 403, id="another-name"),
        pytest.param("kyb-ca", "kubernetes.io/service-account-token", 403, id="a-token"),
    ],
)
def test_the_controller_creates_its_certificates_and_no_tokens(
    account: Any, name: str, kind: str, status: int
) -> None:
    body = {
        "metadata": {
            "name": name,
            "annotations": {"kubernetes.io/service-account.name": "kyb-nodeagent"},
        },
        "type": kind,
        "data": {"tls.crt": "", "tls.key": ""},
    }
    path = "/api/v1/namespaces/kyb-system/secrets?dryRun=All"
    assert account("kyb-controller").create(path, body).status == status


def test_in_our_namespace_only_what_lives_on_the_node_may_use_the_host(admin: Any) -> None:
    path = "/api/v1/namespaces/kyb-system/pods?dryRun=All"
    container = {"name": "m", "image": "m"}
    on_host: list[Object] = [
        {"containers": [container], "hostPID": True},
        {"containers": [container], "hostNetwork": True},
        {"containers": [container], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
        {"containers": [{**container, "securityContext": {"privileged": True}}]},
        {"containers": [container], "initContainers": [
            {**container, "name": "i", "securityContext": {"privileged": True}}]},
        {"containers": [
            {**container, "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]},
    ]  # fmt: skip
    for spec in on_host:
        for who, status in (("kyb-extender", 403), ("kyb-nodeagent", 201)):
            body = {"metadata": {"name": "x"}, "spec": {**spec, "serviceAccountName": who}}
            answer = admin.create(path, body)
            assert answer.status == status, (who, spec, answer.message)
