"""What every API server does, the fakes included."""

from typing import Any

import pytest

from kybernate.api import gpuworkloads
from kybernate.api.gpuworkloads import Phase, Status
from kybernate.clients import kube as kube_module
from kybernate.clients.errors import AlreadyExists, Conflict, Invalid, NotFound, Refused, Retry
from kybernate.clients.kube import Kube, PatchKind
from kybernate.clients.resources import (
    CONFIGMAPS,
    EVENTS,
    GPUNODES,
    GPUWORKLOADS,
    LEASES,
    NODES,
    PODS,
    Resource,
)
from kybernate.model.tier import Tier
from kybernate.model.verdict import Decision, EventReason
from kybernate.model.workload import State
from kybernate.testing.builders import a_gpunode, a_node, a_pod, a_workload


def a_configmap(name: str = "settings", **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data or {"key": "value"}}


def a_gpuworkload(name: str = "llama-a") -> dict[str, Any]:
    spec = {"desired": "Auto", "podUID": "uid", "resource": "kyb.ai/gpu-1x-seat"}
    return {"metadata": {"name": name}, "spec": {**spec, "class": "batch", "priority": 1}}


def test_what_was_created_is_read_back(kube: Kube, namespace: str) -> None:
    created = kube.create(CONFIGMAPS, a_configmap(key="value"), namespace)
    found = kube.get(CONFIGMAPS, "settings", namespace)
    assert found == created
    assert found["data"] == {"key": "value"}
    assert found["metadata"]["uid"]
    assert found["metadata"]["resourceVersion"]
    assert found["metadata"]["namespace"] == namespace


def test_the_namespace_of_the_object_is_used_where_none_is_given(
    kube: Kube, namespace: str
) -> None:
    obj = a_configmap()
    obj["metadata"]["namespace"] = namespace
    kube.create(CONFIGMAPS, obj)
    assert kube.get(CONFIGMAPS, "settings", namespace)


def test_a_namespaced_object_without_a_namespace_is_a_mistake_of_the_caller(kube: Kube) -> None:
    with pytest.raises(ValueError, match="namespace is needed"):
        kube.create(CONFIGMAPS, a_configmap())
    with pytest.raises(ValueError, match="namespace is needed"):
        kube.get(CONFIGMAPS, "settings")


def test_an_absent_object_is_not_found(kube: Kube, namespace: str) -> None:
    with pytest.raises(NotFound) as caught:
        kube.get(CONFIGMAPS, "absent", namespace)
    assert (caught.value.status, caught.value.reason) == (404, "NotFound")
    assert "absent" in caught.value.message
    assert isinstance(caught.value, Refused)
    assert not isinstance(caught.value, Retry)


def test_an_unknown_resource_is_not_found(kube: Kube) -> None:
    with pytest.raises(NotFound):
        kube.list(Resource("", "v1", "unicorns", "Unicorn"), "default") or kube.get(
            Resource("", "v1", "unicorns", "Unicorn"), "one", "default"
        )


def test_a_name_is_taken_once(kube: Kube, namespace: str) -> None:
    kube.create(CONFIGMAPS, a_configmap(), namespace)
    with pytest.raises(AlreadyExists):
        kube.create(CONFIGMAPS, a_configmap(), namespace)


def test_a_name_can_be_generated(kube: Kube, namespace: str) -> None:
    obj = {"metadata": {"generateName": "settings-"}, "data": {}}
    first, second = (kube.create(CONFIGMAPS, obj, namespace) for _ in range(2))
    names = {one["metadata"]["name"] for one in (first, second)}
    assert len(names) == 2
    assert all(name.startswith("settings-") for name in names)


def test_an_object_without_a_name_is_invalid(kube: Kube, namespace: str) -> None:
    with pytest.raises(Invalid):
        kube.create(CONFIGMAPS, {"metadata": {}, "data": {}}, namespace)


def test_replacing_writes_the_whole_object(kube: Kube, namespace: str) -> None:
    obj = kube.create(CONFIGMAPS, a_configmap(one="1", two="2"), namespace)
    obj["data"] = {"three": "3"}
    written = kube.replace(CONFIGMAPS, obj)
    assert written["data"] == {"three": "3"}
    assert written["metadata"]["uid"] == obj["metadata"]["uid"]
    assert written["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]


def test_replacing_an_outdated_object_is_a_conflict(kube: Kube, namespace: str) -> None:
    old = kube.create(CONFIGMAPS, a_configmap(), namespace)
    kube.replace(CONFIGMAPS, old | {"data": {"key": "newer"}})
    with pytest.raises(Conflict):
        kube.replace(CONFIGMAPS, old | {"data": {"key": "mine"}})
    assert kube.get(CONFIGMAPS, "settings", namespace)["data"] == {"key": "newer"}


def test_replacing_without_a_version_overwrites_where_the_kind_allows_it(
    kube: Kube, namespace: str
) -> None:
    obj = kube.create(CONFIGMAPS, a_configmap(), namespace)
    del obj["metadata"]["resourceVersion"]
    assert kube.replace(CONFIGMAPS, obj | {"data": {}})
    workload = kube.create(GPUWORKLOADS, a_gpuworkload(), namespace)
    del workload["metadata"]["resourceVersion"]
    with pytest.raises(Invalid):
        kube.replace(GPUWORKLOADS, workload)


def test_a_write_that_changes_nothing_makes_no_new_version(kube: Kube, namespace: str) -> None:
    obj = kube.create(CONFIGMAPS, a_configmap(), namespace)
    assert kube.replace(CONFIGMAPS, obj)["metadata"]["resourceVersion"] == version_of(obj)
    merged = kube.patch(CONFIGMAPS, "settings", {"data": {"key": "value"}}, namespace)
    assert version_of(merged) == version_of(obj)


def test_a_merge_patch_changes_what_it_names_and_removes_what_is_null(
    kube: Kube, namespace: str
) -> None:
    kube.create(CONFIGMAPS, a_configmap(kept="1", changed="1", removed="1"), namespace)
    patch = {"data": {"changed": "2", "removed": None, "added": "3"}}
    assert kube.patch(CONFIGMAPS, "settings", patch, namespace)["data"] == {
        "kept": "1",
        "changed": "2",
        "added": "3",
    }


def test_a_merge_patch_with_an_outdated_version_is_a_conflict(kube: Kube, namespace: str) -> None:
    old = kube.create(CONFIGMAPS, a_configmap(), namespace)
    kube.patch(CONFIGMAPS, "settings", {"data": {"key": "newer"}}, namespace)
    patch = {"metadata": {"resourceVersion": version_of(old)}, "data": {"key": "mine"}}
    with pytest.raises(Conflict):
        kube.patch(CONFIGMAPS, "settings", patch, namespace)


def test_a_json_patch_tests_before_it_writes(kube: Kube, namespace: str) -> None:
    kube.create(CONFIGMAPS, a_configmap(**{"a.b": "1"}), namespace)
    steps = [
        {"op": "test", "path": "/data/a.b", "value": "1"},
        {"op": "replace", "path": "/data/a.b", "value": "2"},
        {"op": "add", "path": "/metadata/annotations", "value": {"kyb.ai/x": "1"}},
    ]
    kind = PatchKind.JSON
    written = kube.patch(CONFIGMAPS, "settings", steps, namespace, kind=kind)
    assert written["data"] == {"a.b": "2"}
    assert written["metadata"]["annotations"] == {"kyb.ai/x": "1"}
    with pytest.raises(Invalid):
        kube.patch(CONFIGMAPS, "settings", steps, namespace, kind=kind)


def test_a_patch_of_an_absent_object_is_not_found(kube: Kube, namespace: str) -> None:
    with pytest.raises(NotFound):
        kube.patch(CONFIGMAPS, "absent", {"data": {}}, namespace)


def test_applying_makes_what_is_not_there_and_takes_back_what_is_no_longer_named(
    kube: Kube, namespace: str
) -> None:
    def apply(data: dict[str, str], manager: str) -> dict[str, Any]:
        return kube.patch(
            CONFIGMAPS,
            "settings",
            {"metadata": {"name": "settings", "namespace": namespace}, "data": data},
            namespace,
            kind=PatchKind.APPLY,
            field_manager=manager,
        )

    assert apply({"one": "1", "two": "2"}, "first")["data"] == {"one": "1", "two": "2"}
    assert apply({"three": "3"}, "second")["data"] == {"one": "1", "two": "2", "three": "3"}
    assert apply({"one": "1b"}, "first")["data"] == {"one": "1b", "three": "3"}


def test_status_is_written_apart_from_the_rest(kube: Kube, namespace: str) -> None:
    made = kube.create(GPUWORKLOADS, a_gpuworkload() | {"status": {"state": "Active"}}, namespace)
    unwritten = {"state": "Absent"}  # the schema's default, where there is a schema
    assert made.get("status", unwritten) == unwritten
    status = {"status": {"state": "Waiting"}, "spec": {"desired": "Parked"}}
    written = kube.patch(GPUWORKLOADS, "llama-a", status, namespace, subresource="status")
    assert written["status"]["state"] == "Waiting"
    assert written["spec"]["desired"] == "Auto"
    assert written["metadata"]["generation"] == 1
    changed = kube.patch(GPUWORKLOADS, "llama-a", {**status, "status": {}}, namespace)
    assert changed["status"]["state"] == "Waiting"
    assert changed["spec"]["desired"] == "Parked"
    assert changed["metadata"]["generation"] == 2


def test_the_status_an_agent_writes_is_accepted_whole(
    request: pytest.FixtureRequest, kube: Kube
) -> None:
    name = f"node-{abs(hash(request.node.name))}"
    obj = a_gpunode(a_node(name))
    kube.create(GPUNODES, {key: obj[key] for key in ("metadata",)})
    written = kube.patch(GPUNODES, name, {"status": obj["status"]}, subresource="status")
    assert written["status"] == obj["status"]
    kube.delete(GPUNODES, name)


def test_the_status_of_a_workload_and_its_decisions_are_accepted_whole(
    kube: Kube, namespace: str
) -> None:
    status = Status(
        state=State.PARKED,
        since=1_700_000_000.0,
        node="node-a",
        group="G0",
        seat="G0/1",
        tier=Tier.RAM,
        mechanism="simulated",
        why="its turn comes in 12 s",
        seconds_in={State.ACTIVE: 12.345},
        last_switch=(Phase(name="park", seconds=1.2, size=40),),
        last_switch_seconds=1.25,
    )
    decision = Decision(
        time="2026-01-31T12:00:00Z",
        reason=EventReason.PARKED,
        message="parked in 1.2 s",
        revision="sha256:0123456789ab",
        seconds=1.2,
    )
    made = gpuworkloads.new_object(a_workload("llama-a"))
    made["metadata"]["namespace"] = namespace
    kube.create(GPUWORKLOADS, made)
    body = gpuworkloads.write_status(status)
    body["decisions"] = gpuworkloads.write_decisions([decision])
    kube.patch(GPUWORKLOADS, "llama-a", {"status": body}, namespace, subresource="status")
    found = kube.get(GPUWORKLOADS, "llama-a", namespace)
    assert found["spec"] == made["spec"]
    assert gpuworkloads.read_status(found) == status
    assert gpuworkloads.read_decisions(found) == (decision,)
    waiting = Status(state=State.WAITING, since=1.0, seconds_in={State.ACTIVE: 12.345})
    body = gpuworkloads.write_status(waiting)
    kube.patch(GPUWORKLOADS, "llama-a", {"status": body}, namespace, subresource="status")
    found = kube.get(GPUWORKLOADS, "llama-a", namespace)
    assert gpuworkloads.read_status(found) == waiting, "what is no longer so is taken back"
    assert gpuworkloads.read_decisions(found) == (decision,)


def test_cluster_scoped_objects_need_no_namespace(
    request: pytest.FixtureRequest, kube: Kube
) -> None:
    name = f"node-{abs(hash(request.node.name))}"
    kube.create(NODES, {"metadata": {"name": name}})
    assert name in {node["metadata"]["name"] for node in kube.list(NODES)}
    kube.delete(NODES, name)
    with pytest.raises(NotFound):
        kube.get(NODES, name)


def test_deleting_takes_what_was_read_as_a_condition(kube: Kube, namespace: str) -> None:
    made = {"metadata": {"name": "settings"}, "data": {"a": "1"}}
    read = kube.create(CONFIGMAPS, made, namespace)["metadata"]["resourceVersion"]
    kube.patch(CONFIGMAPS, "settings", {"data": {"a": "2"}}, namespace)
    with pytest.raises(Conflict):
        kube.delete(CONFIGMAPS, "settings", namespace, resource_version=read)
    assert kube.get(CONFIGMAPS, "settings", namespace)["data"] == {"a": "2"}


def test_deleting_takes_the_uid_as_a_condition(kube: Kube, namespace: str) -> None:
    obj = kube.create(CONFIGMAPS, a_configmap(), namespace)
    with pytest.raises(Conflict):
        kube.delete(CONFIGMAPS, "settings", namespace, uid="of-another-life")
    kube.delete(CONFIGMAPS, "settings", namespace, uid=obj["metadata"]["uid"])
    with pytest.raises(NotFound):
        kube.delete(CONFIGMAPS, "settings", namespace)


def test_a_finalizer_keeps_an_object_until_it_is_taken_off(kube: Kube, namespace: str) -> None:
    obj = a_configmap()
    obj["metadata"]["finalizers"] = ["kyb.ai/test"]
    kube.create(CONFIGMAPS, obj, namespace)
    kube.delete(CONFIGMAPS, "settings", namespace)
    assert kube.get(CONFIGMAPS, "settings", namespace)["metadata"]["deletionTimestamp"]
    kube.patch(CONFIGMAPS, "settings", {"metadata": {"finalizers": None}}, namespace)
    with pytest.raises(NotFound):
        kube.get(CONFIGMAPS, "settings", namespace)


def test_a_pod_on_a_node_ends_gracefully_unless_told_to_go_at_once(
    kube: Kube, namespace: str
) -> None:
    kube.create(PODS, a_pod("idle", namespace=namespace, resource=None))
    on_a_node = a_pod("busy", namespace=namespace, resource=None, spec={"nodeName": "node-a"})
    kube.create(PODS, on_a_node)
    kube.delete(PODS, "idle", namespace)
    kube.delete(PODS, "busy", namespace)
    assert [pod["metadata"]["name"] for pod in kube.list(PODS, namespace)] == ["busy"]
    assert kube.get(PODS, "busy", namespace)["metadata"]["deletionGracePeriodSeconds"] == 30
    kube.delete(PODS, "busy", namespace, grace_seconds=0)
    assert kube.list(PODS, namespace) == []


def test_lists_are_selected_by_labels_and_fields(kube: Kube, namespace: str) -> None:
    for name, tier, node in (("a", "hot", "n1"), ("b", "hot", "n2"), ("c", "cold", "n1")):
        pod = a_pod(name, namespace=namespace, resource=None, labels={"tier": tier})
        kube.create(PODS, pod | {"spec": pod["spec"] | {"nodeName": node}})

    def names(**selectors: Any) -> list[str]:
        return [pod["metadata"]["name"] for pod in kube.list(PODS, namespace, **selectors)]

    assert names() == ["a", "b", "c"]
    assert names(label_selector="tier=hot") == ["a", "b"]
    assert names(label_selector="tier in (cold, warm)") == ["c"]
    assert names(label_selector="tier!=cold,tier") == ["a", "b"]
    assert names(label_selector="!tier") == []
    assert names(field_selector="spec.nodeName=n1") == ["a", "c"]
    assert names(field_selector="spec.nodeName!=n1,metadata.name!=c") == ["b"]
    assert names(label_selector="tier=hot", field_selector="spec.nodeName=n1") == ["a"]


def test_long_lists_come_in_pages(
    kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_module, "PAGE", 3)
    for index in range(7):
        kube.create(CONFIGMAPS, a_configmap(f"settings-{index}"), namespace)
    label = {"field_selector": "metadata.name!=kube-root-ca.crt"}
    pages = list(kube.pages(CONFIGMAPS, namespace, **label))  # type: ignore[arg-type]
    assert [len(page.items) for page in pages][:2] == [3, 3]
    assert len({page.resource_version for page in pages}) == 1
    assert len(kube.list(CONFIGMAPS, namespace, **label)) == 7  # type: ignore[arg-type]


def test_a_lease_is_an_object_like_any_other(kube: Kube, namespace: str) -> None:
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15}
    kube.create(LEASES, {"metadata": {"name": "lead"}, "spec": spec}, namespace)
    assert kube.get(LEASES, "lead", namespace)["spec"] == spec
    assert kube.list(EVENTS, namespace) == []


def version_of(obj: dict[str, Any]) -> str:
    return str(obj["metadata"]["resourceVersion"])
