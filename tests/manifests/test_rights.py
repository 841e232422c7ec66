"""Rights from both sides: every process can do what it needs with its own token, and no more.

Writes are dry runs. Where an object is not there, 404 shows that the right is: authorization comes
first.
"""

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.controlplane

CORE, KYB = "/api/v1", "/apis/kyb.ai/v1alpha1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kyb-system/leases"
SYSTEM = f"{CORE}/namespaces/kyb-system"
WORKLOAD = f"{KYB}/namespaces/default/gpuworkloads/x"
CHECKPOINT = f"{KYB}/namespaces/default/gpucheckpoints/x"
OURS = f"{CORE}/namespaces/kyb-system/secrets"
APPS = "/apis/apps/v1/namespaces/default"
OUR_RECORD = f"{LEASES}?"  # an activator's
RESTORED = f"{CORE}/namespaces/default/pods?"  # a pod that is made for a RestoreRequest

GET, LIST, WATCH = "get", "list", "watch"
CREATE, PATCH, PUT, DELETE = "create", "patch", "update", "delete"


def _seen(*paths: str) -> list[tuple[str, str]]:
    return [(verb, path) for path in paths for verb in (LIST, WATCH)]


CAN = {
    "kyb-extender": [
        *_seen(f"{CORE}/nodes", f"{CORE}/pods"),
        *_seen(f"{KYB}/gpunodes", f"{KYB}/gpuworkloads", f"{KYB}/gpucheckpoints"),
        (PATCH, f"{WORKLOAD}/status"),
        (CREATE, EVENTS),
        (PATCH, f"{EVENTS}/x"),
    ],
    "kyb-webhook": [
        *_seen(f"{KYB}/gpucheckpoints", f"{KYB}/gpuworkloads", f"{CORE}/namespaces"),
        *_seen("/apis/apps/v1/deployments", f"{KYB}/restorerequests"),
    ],
    "kyb-controller": [
        *_seen(f"{CORE}/nodes", f"{CORE}/pods"),
        *_seen(f"{KYB}/gpunodes", f"{KYB}/gpuworkloads", f"{KYB}/gpucheckpoints"),
        *_seen(f"{KYB}/checkpointrequests", f"{KYB}/restorerequests"),
        *_seen(f"{KYB}/checkpointpolicies"),
        (PATCH, f"{KYB}/namespaces/default/checkpointpolicies/x/status"),
        (DELETE, f"{KYB}/namespaces/default/gpucheckpoints/x"),
        *_seen(f"{KYB}/tierplacements"),
        (PATCH, f"{KYB}/namespaces/default/tierplacements/x/status"),
        (CREATE, f"{KYB}/namespaces/default/gpuworkloads"),
        (PATCH, WORKLOAD),
        *[
            (verb, f"{KYB}/namespaces/default/{plural}/x{part}")
            for plural in ("checkpointrequests", "restorerequests")
            for verb, part in ((DELETE, ""), (PATCH, "/status"))
        ],
        (PATCH, f"{KYB}/namespaces/default/gpucheckpoints/x/status"),
        (CREATE, RESTORED),
        *_seen("/apis/apps/v1/deployments"),
        (CREATE, f"{KYB}/namespaces/default/checkpointrequests"),
        (PATCH, f"{APPS}/deployments/x/scale"),
        (PATCH, f"{APPS}/statefulsets/x/scale"),
        (DELETE, f"{KYB}/gpunodes/x"),
        (DELETE, f"{LEASES}/kyb-agent-x"),
        (CREATE, f"{SYSTEM}/configmaps"),
        (PATCH, f"{SYSTEM}/configmaps/kyb-policies-in-force"),
        (DELETE, WORKLOAD),
        (PATCH, f"{WORKLOAD}/status"),
        (PATCH, f"{KYB}/gpunodes/x/status"),
        (PATCH, f"{CORE}/nodes/x"),
        (CREATE, OURS),
        *[
            (PUT, f"{OURS}/kyb-{name}")
            for name in (
                "ca",
                "webhook-tls",
                "registry-tls",
                "nodeagent-client-tls",
                "checkpoint-keys",
            )
        ],
        (PATCH, f"{CHECKPOINT}/status"),
        (WATCH, f"{SYSTEM}/configmaps?fieldSelector=metadata.name%3Dkyb-policies"),
        (PATCH, f"{ADMISSION}/mutatingwebhookconfigurations/kyb-mutating"),
        (PATCH, f"{ADMISSION}/validatingwebhookconfigurations/kyb-validating"),
        (
            LIST,
            f"{ADMISSION}/validatingwebhookconfigurations?fieldSelector=metadata.name%3Dkyb-validating",
        ),
        (LIST, LEASES),
        (CREATE, LEASES),
        (PUT, f"{LEASES}/x"),
        (CREATE, EVENTS),
    ],
    "kyb-nodeagent": [
        *_seen(
            f"{CORE}/pods", f"{CORE}/pods?fieldSelector=spec.nodeName%3Dx", f"{KYB}/gpuworkloads"
        ),
        (GET, f"{CORE}/namespaces/default/pods/x"),
        (GET, f"{APPS}/deployments/x"),
        (GET, CHECKPOINT),
        (GET, f"{KYB}/gpunodes/x"),
        (PATCH, f"{CORE}/namespaces/default/pods/x"),
        (PATCH, f"{KYB}/gpunodes/x/status"),
        (PATCH, f"{WORKLOAD}/status"),
        *_seen(f"{KYB}/gpucheckpoints"),
        (PATCH, f"{CHECKPOINT}/status"),
        (CREATE, EVENTS),
    ],
    "kyb-deviceplugin": [],
    "kyb-activator": [
        *_seen(f"{CORE}/pods", "/apis/apps/v1/deployments"),
        *_seen(f"{KYB}/gpunodes", f"{KYB}/gpuworkloads", f"{KYB}/gpucheckpoints"),
        (CREATE, OUR_RECORD),
        (PATCH, f"{LEASES}/kyb-activator-x"),
    ],
    "kyb-registry": [],
}
CANNOT = {
    "kyb-extender": [
        (PATCH, f"{CORE}/namespaces/default/pods/x"),
        (CREATE, f"{CORE}/namespaces/default/pods/x/binding"),
        (PATCH, WORKLOAD),
        (PATCH, f"{KYB}/gpunodes/x/status"),
        (PATCH, f"{CORE}/nodes/x"),
        (LIST, f"{SYSTEM}/secrets"),
        (LIST, LEASES),
    ],
    "kyb-webhook": [
        (LIST, f"{CORE}/pods"),
        (CREATE, EVENTS),
        (PATCH, f"{WORKLOAD}/status"),
        (PATCH, f"{ADMISSION}/mutatingwebhookconfigurations/kyb-mutating"),
        (LIST, f"{SYSTEM}/secrets"),
    ],
    "kyb-controller": [
        (LIST, f"{SYSTEM}/secrets"),
        (LIST, f"{CORE}/secrets"),
        (PUT, f"{OURS}/somebody-elses"),
        (DELETE, f"{OURS}/kyb-ca"),
        (CREATE, f"{CORE}/namespaces/default/secrets"),
        (PATCH, f"{CORE}/namespaces/default/pods/x"),
        (DELETE, f"{CORE}/namespaces/default/pods/x"),
        (CREATE, f"{CORE}/namespaces/default/pods"),
        (PATCH, f"{APPS}/deployments/x"),
        (PATCH, f"{APPS}/statefulsets/x"),
        (PUT, WORKLOAD),
        (PATCH, f"{KYB}/namespaces/default/checkpointpolicies/x"),
        (PATCH, f"{KYB}/namespaces/default/tierplacements/x"),
        (CREATE, f"{CORE}/namespaces/default/configmaps"),
        (PATCH, f"{CORE}/nodes/x/status"),
        (CREATE, f"{KYB}/namespaces/default/gpucheckpoints"),
        (DELETE, f"{CORE}/nodes/x"),
        (PATCH, f"{ADMISSION}/mutatingwebhookconfigurations/somebody-elses"),
        (CREATE, f"{ADMISSION}/validatingwebhookconfigurations"),
        (PUT, f"{SYSTEM}/configmaps/kyb-policies"),
    ],
    "kyb-nodeagent": [
        (DELETE, f"{CORE}/namespaces/default/pods/x"),
        (PATCH, f"{CORE}/namespaces/default/pods/x/status"),
        (CREATE, f"{CORE}/namespaces/default/pods"),
        (CREATE, f"{KYB}/namespaces/default/gpuworkloads"),
        (PATCH, WORKLOAD),
        (PATCH, CHECKPOINT),
        (LIST, f"{KYB}/tierplacements"),
        (DELETE, CHECKPOINT),
        (DELETE, f"{KYB}/gpunodes/x"),
        (PATCH, f"{KYB}/gpunodes/x"),
        (LIST, f"{KYB}/gpunodes"),
        (LIST, "/apis/apps/v1/deployments"),
        (PATCH, f"{APPS}/deployments/x"),
        (PUT, f"{LEASES}/kyb-agent-x"),
        (PATCH, f"{CORE}/nodes/x"),
        (LIST, LEASES),
        (LIST, f"{SYSTEM}/secrets"),
        (LIST, f"{SYSTEM}/configmaps"),
    ],
    "kyb-deviceplugin": [
        (LIST, f"{CORE}/pods"),
        (LIST, f"{CORE}/nodes"),
        (LIST, f"{KYB}/gpunodes"),
        (CREATE, EVENTS),
    ],
    "kyb-activator": [
        (PATCH, f"{APPS}/deployments/x"),
        (PATCH, f"{APPS}/deployments/x/scale"),
        (PATCH, WORKLOAD),
        (PATCH, f"{CORE}/namespaces/default/pods/x"),
        (LIST, f"{CORE}/nodes"),
        (LIST, LEASES),
        (CREATE, LEASES),
        (LIST, f"{SYSTEM}/secrets"),
        (GET, f"{OURS}/kyb-activator-client-tls"),
        (CREATE, EVENTS),
    ],
    "kyb-registry": [
        (LIST, f"{KYB}/gpucheckpoints"),
        (LIST, f"{CORE}/pods"),
        (LIST, f"{SYSTEM}/secrets"),
        (CREATE, EVENTS),
    ],
}
BODIES = {
    OUR_RECORD: {"metadata": {"name": "kyb-activator-x"}},
    OURS: {"metadata": {"name": "kyb-ca"}},
    LEASES: {"metadata": {"name": "kyb-controller"}},
    f"{CORE}/namespaces/default/secrets": {"metadata": {"name": "kyb-ca"}},
    f"{SYSTEM}/configmaps": {"metadata": {"name": "kyb-policies-in-force"}},
    RESTORED: {
        "metadata": {
            "name": "x",
            "labels": {"kyb.ai/restore-request": "u"},
            "annotations": {"kyb.ai/restore-from": "one"},
        },
        "spec": {"containers": [{"name": "m", "image": "m"}]},
    },
    f"{CORE}/namespaces/default/pods": {
        "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "m", "image": "m"}]},
    },
}


def _cases(table: dict[str, list[tuple[str, str]]]) -> list[Any]:
    return [
        pytest.param(who, verb, path, id=f"{who}-{verb}-{path.split('/', 3)[-1]}")
        for who, cases in table.items()
        for verb, path in cases
    ]


@pytest.fixture(scope="session")
def allowed(account: Callable[..., Any]) -> Callable[[str, str, str], bool]:
    """Whether this account is let through."""
    callers = {who: account(who) for who in CAN}
    return lambda who, verb, path: bool(_do(callers[who], verb, path).allowed)


def _do(caller: Any, verb: str, path: str) -> Any:
    name = path.rpartition("/")[2]
    match verb:
        case "get" | "list":
            return caller.get(path)
        case "watch":
            return caller.watch(path)
        case "create":
            return caller.create(
                f"{path.rstrip('?')}?dryRun=All", BODIES.get(path, {"metadata": {"name": "x"}})
            )
        case "patch":
            return caller.merge(f"{path}?dryRun=All", {"metadata": {"annotations": {"a": "b"}}})
        case "update":
            return caller.ask("PUT", f"{path}?dryRun=All", {"metadata": {"name": name}})
    return caller.ask("DELETE", f"{path}?dryRun=All")


@pytest.mark.parametrize(("who", "verb", "path"), _cases(CAN))
def test_a_process_can_do_what_it_needs(
    allowed: Callable[[str, str, str], bool], who: str, verb: str, path: str
) -> None:
    assert allowed(who, verb, path)


@pytest.mark.parametrize(("who", "verb", "path"), _cases(CANNOT))
def test_a_process_can_do_no_more(
    allowed: Callable[[str, str, str], bool], who: str, verb: str, path: str
) -> None:
    assert not allowed(who, verb, path)


def test_who_may_edit_a_namespace_may_ask_a_workload_to_park_there_and_nowhere_else(
    user: Callable[[str], Any], namespace: str
) -> None:
    editor = user("edit")
    assert editor.merge(f"{KYB}/namespaces/{namespace}/gpuworkloads/x", {}).status == 404
    assert not editor.merge(WORKLOAD, {}).allowed
    policies = f"{KYB}/namespaces/{namespace}/checkpointpolicies"
    body = {
        "apiVersion": "kyb.ai/v1alpha1",
        "kind": "CheckpointPolicy",
        "metadata": {"name": "x"},
        "spec": {"selector": {}},
    }
    assert editor.create(policies, body).status == 201
    assert not editor.create(f"{KYB}/namespaces/{namespace}/gpuworkloads", body).allowed


def test_who_may_view_a_namespace_sees_and_changes_nothing(
    user: Callable[[str], Any], namespace: str
) -> None:
    viewer = user("view")
    workloads = f"{KYB}/namespaces/{namespace}/gpuworkloads"
    assert viewer.get(workloads).status == 200
    assert not viewer.merge(f"{workloads}/x", {}).allowed
