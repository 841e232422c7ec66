"""
Two controllers on a real control plane: what they make, publish and hand over.

Real: etcd, API server, controller manager, the shipped types, roles, rules and policies, two
controller processes under the ServiceAccount's token, OPA polling the leader's replica over TLS.
Not there: kubelets and agents; their Lease and GpuNode are written by hand.
"""

import base64
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from controller import pki
from controller.carriers import AgentCarrier
from controller.storing import StoreFull, StoreRoom
from kybernate.api import (
    checkpointrequests,
    goldimages,
    gpunodes,
    names,
    policy_files,
    restorerequests,
)
from kybernate.api.checkpoints import read_checkpoint
from kybernate.api.opa_config import BundleTls, opa_config
from kybernate.api.restorerequests import Owner, OwnerKind, Template
from kybernate.clients.agents import AgentAway
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.leases import LeaseHeartbeat
from kybernate.clients.opa import OpaPolicy
from kybernate.clients.resources import (
    CHECKPOINTPOLICIES,
    CHECKPOINTREQUESTS,
    CONFIGMAPS,
    DEPLOYMENTS,
    EVENTS,
    GPUCHECKPOINTS,
    GPUNODES,
    GPUWORKLOADS,
    LEASES,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NODES,
    PODS,
    RESTOREREQUESTS,
    SECRETS,
    VALIDATING_WEBHOOKS,
    Resource,
)
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName, WorkloadKey
from kybernate.model.storelimits import StoreLimits
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_pod
from testbed.controlplane import ControlPlane
from testbed.opa import Opa
from testbed.processes import Processes
from testbed.projection import SecretProjection
from testbed.stack import install, programs
from testbed.stack.programs import Running

pytestmark = pytest.mark.controlplane

SYSTEM = names.SYSTEM_NAMESPACE
NAMESPACE = "models"
SERVERS = ("kyb-extender", "kyb-webhook", "kyb-nodeagent", "kyb-controller")
CLIENTS = ("kyb-client", "kyb-nodeagent-client", "kyb-scheduler")


@dataclass
class Cluster:
    """A control plane with two controllers and an OPA."""

    kube: Kube
    processes: Processes
    running: dict[str, Running]
    opa: Opa
    tls: Path

    def leader(self) -> str:
        """Which of the two says that it leads."""
        leads = [n for n, r in self.running.items() if "kyb_controller_leading 1.0" in _told(r)]
        return leads[0] if len(leads) == 1 else ""

    def find(self, *where: Any) -> dict[str, Any] | None:
        """An object, or None."""
        try:
            return self.kube.get(*where)
        except NotFound:
            return None

    def edit_policies(self, data: dict[str, str | None]) -> None:
        """Change keys of the ConfigMap."""
        self.kube.patch(CONFIGMAPS, "kyb-policies", {"data": data}, SYSTEM)

    def events(self, reason: str) -> list[str]:
        """Notes of this reason."""
        found = self.kube.list(EVENTS, SYSTEM)
        return [event["note"] for event in found if event["reason"] == reason]


def _told(running: Running) -> str:
    try:
        return running.metrics()
    except urllib3.exceptions.HTTPError:
        return ""


def _until(check: Callable[[], Any], within: float = 60.0) -> Any:
    pause, deadline = threading.Event(), time.monotonic() + within
    while not (answer := check()):
        assert time.monotonic() < deadline, f"not within {within:g} s"
        pause.wait(0.05)
    return answer


@pytest.fixture(scope="module")
def cluster(assets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Both controllers ready, OPA with their policies."""
    work = tmp_path_factory.mktemp("controller")
    with ControlPlane.start(work / "plane") as plane, Processes(work / "run") as processes:
        install.components(plane)
        install.webhooks(plane, "https://127.0.0.1:1")
        kube = Kube.from_kubeconfig(plane.admin_kubeconfig)
        kube.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        kube.create(NODES, {"metadata": {"name": "n1"}})
        # nobody answers seat pods here, and pods are what this is about
        kube.delete(VALIDATING_WEBHOOKS, "kyb-validating")
        folder = work / "tls"
        with SecretProjection(plane.api, SYSTEM, "kyb-controller-tls", folder):
            account = plane.service_account_kubeconfig(SYSTEM, "kyb-controller")
            running = {
                name: programs.run(
                    processes,
                    name,
                    "controller",
                    lambda port, name=name: [
                        f"--listen=127.0.0.1:{port}",
                        f"--kubeconfig={account}",
                        f"--tls-dir={folder}",
                        f"--opa={assets['opa']}",
                        f"--bundle-dir={work / name}",
                        "--extra-names=127.0.0.1,localhost",
                        "--policy-settle=2s",
                    ],
                )
                for name in ("one", "two")
            }
            config = work / "opa.yaml"
            tls = BundleTls(ca=str(folder / "ca.crt"))
            url = running["one"].url
            config.write_text(
                yaml.safe_dump(opa_config(url=url, persistence=str(work / "kept"), tls=tls))
            )
            with Opa.start(work / "opa", config=config) as opa:
                _until(opa.has_bundles)
                yield Cluster(kube, processes, running, opa, folder)


def test_one_of_them_leads(cluster: Cluster) -> None:
    assert _until(cluster.leader) in ("one", "two")


@pytest.mark.parametrize("server", SERVERS)
def test_every_server_has_a_certificate_for_its_names(cluster: Cluster, server: str) -> None:
    secret = cluster.kube.get(SECRETS, f"{server}-tls", SYSTEM)
    assert secret["type"] == "kubernetes.io/tls"
    certificate = pki.read(base64.b64decode(secret["data"]["tls.crt"]))
    assert certificate is not None
    assert {f"{server}.{SYSTEM}.svc", "127.0.0.1"} <= certificate.names


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_has_a_certificate_for_its_one_name(cluster: Cluster, client: str) -> None:
    secret = cluster.kube.get(SECRETS, f"{client}-tls", SYSTEM)
    certificate = pki.read(base64.b64decode(secret["data"]["tls.crt"]))
    assert certificate is not None
    assert certificate.names == {client}


def test_webhook_configurations_trust_the_authority(cluster: Cluster) -> None:
    authority = cluster.kube.get(SECRETS, "kyb-webhook-tls", SYSTEM)["data"]["ca.crt"]
    configuration = cluster.kube.get(MUTATING_WEBHOOKS, "kyb-mutating")
    assert configuration["webhooks"][0]["clientConfig"]["caBundle"] == authority


def test_a_configuration_that_is_applied_later_is_trusted_at_once(cluster: Cluster) -> None:
    found = cluster.kube.get(MUTATING_WEBHOOKS, "kyb-mutating")
    del found["webhooks"][0]["clientConfig"]["caBundle"]
    cluster.kube.replace(MUTATING_WEBHOOKS, found)
    _until(
        lambda: cluster.kube.get(MUTATING_WEBHOOKS, "kyb-mutating")["webhooks"][0][
            "clientConfig"
        ].get("caBundle"),
        within=5.0,
    )


def test_the_bundle_is_served_over_tls_by_both(cluster: Cluster) -> None:
    context = ssl.create_default_context(cafile=str(cluster.tls / "ca.crt"))
    with urllib3.PoolManager(ssl_context=context) as pool:
        tags = {
            pool.request("GET", f"{running.url}/bundles/kyb.tar.gz").headers["ETag"]
            for running in cluster.running.values()
        }
    assert len(tags) == 1


def test_a_seat_pod_has_its_gpuworkload_until_it_is_gone(cluster: Cluster) -> None:
    pod = a_pod("llama", namespace=NAMESPACE, annotations={names.VRAM: "40Gi"})
    del pod["status"], pod["metadata"]["uid"]
    uid = cluster.kube.create(PODS, pod)["metadata"]["uid"]
    made = _until(lambda: cluster.find(GPUWORKLOADS, "llama", NAMESPACE))
    assert (made["spec"]["podUID"], made["spec"]["desired"]) == (uid, "Auto")
    cluster.kube.delete(PODS, "llama", NAMESPACE, grace_seconds=0)
    _until(lambda: cluster.find(GPUWORKLOADS, "llama", NAMESPACE) is None)


def test_a_pod_that_comes_again_under_its_name_has_a_new_gpuworkload(cluster: Cluster) -> None:
    uids = []
    for _ in range(2):
        pod = a_pod("again", namespace=NAMESPACE)
        del pod["status"], pod["metadata"]["uid"]
        uids.append(cluster.kube.create(PODS, pod)["metadata"]["uid"])
        _until(
            lambda: (
                (found := cluster.find(GPUWORKLOADS, "again", NAMESPACE))
                and found["spec"]["podUID"] == uids[-1]
            )
        )
        cluster.kube.delete(PODS, "again", NAMESPACE, grace_seconds=0)
    assert uids[0] != uids[1]


def test_a_node_whose_agent_falls_silent_is_unknown_until_it_speaks_again(
    cluster: Cluster,
) -> None:
    clock = SystemClock()
    cluster.kube.create(GPUNODES, gpunodes.new_object(NodeName("n1")))
    ready = {"status": {"conditions": [gpunodes.ready_condition(True, clock.now())]}}
    cluster.kube.patch(GPUNODES, "n1", ready, subresource="status")
    heart = LeaseHeartbeat(cluster.kube, SYSTEM, "kyb-agent-n1", "n1", clock, lease=2.0)

    def condition() -> str:
        return str(cluster.kube.get(GPUNODES, "n1")["status"]["conditions"][0]["status"])

    assert heart.beat()
    _until(lambda: condition() == "Unknown")
    assert heart.beat()
    _until(lambda: condition() == "True")


def test_an_edited_policy_is_in_force_told_and_wakes_refused_pods(cluster: Cluster) -> None:
    policy = OpaPolicy(cluster.opa.url)
    key = "data__classes.json"
    before = cluster.kube.get(CONFIGMAPS, "kyb-policies", SYSTEM)["data"]
    edited = {**before, key: before[key] + "\n"}
    revision = policy_files.revision_of(policy_files.from_keys(edited))
    cluster.edit_policies({key: edited[key]})
    _until(lambda: policy.revision() == revision)
    _until(lambda: any(revision in note for note in cluster.events("PolicyPublished")))
    _until(
        lambda: (
            (cluster.kube.get(NODES, "n1")["metadata"].get("annotations") or {}).get(
                names.POLICY_REVISION
            )
            == revision
        )
    )
    cluster.edit_policies({"kyb__admission__more.rego": "package kyb.admission\n\nbroken {"})
    (note,) = _until(lambda: cluster.events("PolicyRefused"))
    assert "kyb/admission/more.rego:3" in note
    assert policy.revision() == revision, "the last good ones stay in force"
    cluster.edit_policies({"kyb__admission__more.rego": None})


def test_an_edited_limit_of_the_store_is_kept_to(cluster: Cluster) -> None:
    """From the ConfigMap through the bundle and OPA to what is refused."""
    a_checkpoint(cluster, "kept", copies=[{"tier": "object"}])
    a_checkpoint(cluster, "next", copies=[{"node": "n1", "tier": "nvme"}])
    policy = OpaPolicy(cluster.opa.url)

    def known() -> dict[tuple[str, str], Checkpoint]:
        found = map(read_checkpoint, cluster.kube.list(GPUCHECKPOINTS, NAMESPACE))
        return {(one.namespace, one.name): one for one in found}

    room = StoreRoom(AgentCarrier(cluster.kube), policy, known, SystemClock())
    one = known()[NAMESPACE, "next"]
    with pytest.raises(AgentAway):  # it may go, and nobody is there who would take it
        room.demote(NodeName("n1"), one, lambda *_: None)
    before = cluster.kube.get(CONFIGMAPS, "kyb-policies", SYSTEM)["data"]["data__quotas.json"]
    quotas = json.loads(before) | {
        "store_bytes": 100,
        "namespaces": {NAMESPACE: {"store_bytes": 13}},
    }
    cluster.edit_policies({"data__quotas.json": json.dumps(quotas)})
    try:
        _until(lambda: policy.store_limits() == StoreLimits(whole=100, namespaces={NAMESPACE: 13}))
        with pytest.raises(StoreFull, match="quota of object storage is used up"):
            room.demote(NodeName("n1"), one, lambda *_: None)
    finally:
        cluster.edit_policies({"data__quotas.json": before})
        _until(lambda: policy.store_limits() == StoreLimits())
        for name in ("kept", "next"):
            cluster.kube.delete(GPUCHECKPOINTS, name, NAMESPACE)


def a_checkpoint(cluster: Cluster, name: str, **status: Any) -> None:
    """As an agent publishes it."""
    body = {"metadata": {"name": name}, "spec": {"workload": "deployment.chat", "node": "n1"}}
    cluster.kube.create(GPUCHECKPOINTS, body, NAMESPACE)
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Sealed",
        "lastTransitionTime": "2026-01-31T12:00:00Z",
    }
    patch = {"status": {"sizeBytes": 7, "conditions": [ready], **status}}
    cluster.kube.patch(GPUCHECKPOINTS, name, patch, NAMESPACE, subresource="status")


def status_of(cluster: Cluster, resource: Resource, name: str) -> dict[str, Any]:
    return cluster.kube.get(resource, name, NAMESPACE).get("status") or {}


def test_a_checkpoint_request_says_what_it_waits_for_and_why_it_failed(cluster: Cluster) -> None:
    wanted = checkpointrequests.new_object(WorkloadKey(NAMESPACE, "nobody"), within=12.0)
    name = cluster.kube.create(CHECKPOINTREQUESTS, wanted)["metadata"]["name"]
    found = _until(
        lambda: (s := status_of(cluster, CHECKPOINTREQUESTS, name)).get("finishedAt") and s
    )
    assert (found["state"], found["reason"]) == ("Failed", "NoSuchWorkload")
    assert "spec.workload: 'nobody'" in found["message"]


def test_an_agent_that_cannot_be_reached_is_asked_again_and_that_is_said(cluster: Cluster) -> None:
    pod = a_pod("sealed", namespace=NAMESPACE)
    del pod["status"], pod["metadata"]["uid"]
    cluster.kube.create(PODS, pod)
    _until(lambda: cluster.find(GPUWORKLOADS, "sealed", NAMESPACE))
    there = {"status": {"state": "Active", "node": "n9", "since": "2026-01-31T12:00:00Z"}}
    cluster.kube.patch(GPUWORKLOADS, "sealed", there, NAMESPACE, subresource="status")
    wanted = checkpointrequests.new_object(WorkloadKey(NAMESPACE, "sealed"))
    name = cluster.kube.create(CHECKPOINTREQUESTS, wanted)["metadata"]["name"]
    found = _until(
        lambda: (
            (s := status_of(cluster, CHECKPOINTREQUESTS, name)).get("reason") == "AgentAway" and s
        )
    )
    assert "no agent has reported from node n9" in found["message"]
    assert found["checkpoint"].startswith("sealed-")
    cluster.kube.delete(PODS, "sealed", NAMESPACE, grace_seconds=0)
    _until(lambda: status_of(cluster, CHECKPOINTREQUESTS, name).get("reason") == "WorkloadGone", 90)


def test_a_workload_is_snapshotted_by_its_policys_clock_and_who_is_left_out_is_said(
    cluster: Cluster,
) -> None:
    policy = {
        "apiVersion": names.API_VERSION,
        "kind": "CheckpointPolicy",
        "metadata": {"name": "often", "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": {"kind": "training"}}, "every": "10s"},
    }
    cluster.kube.create(CHECKPOINTPOLICIES, policy)
    _until(lambda: status_of(cluster, CHECKPOINTPOLICIES, "often").get("workloads") == 0)
    pod = a_pod("train", namespace=NAMESPACE, labels={"kind": "training"})
    del pod["status"], pod["metadata"]["uid"]
    cluster.kube.create(PODS, pod)
    _until(lambda: cluster.find(GPUWORKLOADS, "train", NAMESPACE))
    there = {"status": {"state": "Parked", "node": "n9", "since": "2026-01-31T12:00:00Z"}}
    cluster.kube.patch(GPUWORKLOADS, "train", there, NAMESPACE, subresource="status")
    said = "train: it is parked: nothing in it changes"

    def message() -> str:
        conditions = status_of(cluster, CHECKPOINTPOLICIES, "often").get("conditions") or [{}]
        return str(conditions[0].get("message", ""))

    _until(lambda: message() == said)
    there["status"]["state"] = "Active"
    cluster.kube.patch(GPUWORKLOADS, "train", there, NAMESPACE, subresource="status")

    def made() -> list[dict[str, Any]]:
        found = cluster.kube.list(CHECKPOINTREQUESTS, NAMESPACE)
        return [one for one in found if names.BY_CLOCK in (one["metadata"].get("labels") or {})]

    (request,) = _until(made)
    assert request["spec"] == {
        "workload": "train", "leave": "Running", "gold": False,
        "within": "1m", "forgetAfter": "24h",
    }  # fmt: skip
    assert status_of(cluster, CHECKPOINTPOLICIES, "often")["workloads"] == 1
    cluster.kube.delete(PODS, "train", NAMESPACE, grace_seconds=0)
    _until(lambda: not made(), 90)
    cluster.kube.delete(CHECKPOINTPOLICIES, "often", NAMESPACE)


def test_a_policy_has_a_gold_image_asked_for_of_the_first_pod_that_is_ready(
    cluster: Cluster,
) -> None:
    policy = {"selector": {"matchLabels": {"app": "gilded"}}, "gold": "gilded"}
    metadata = {"name": "gilded", "namespace": NAMESPACE}
    cluster.kube.create(CHECKPOINTPOLICIES, {"metadata": metadata, "spec": policy})
    pod = a_pod("gilded-0", namespace=NAMESPACE)
    pod["metadata"]["labels"] = {"app": "gilded"}
    del pod["status"], pod["metadata"]["uid"]
    made = cluster.kube.create(PODS, pod)
    seated = goldimages.seated(made)
    assert seated is not None
    name = f"gilded-{seated.version}"
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-31T12:00:00Z"}
    status = {"phase": "Running", "conditions": [ready]}
    cluster.kube.patch(PODS, "gilded-0", {"status": status}, NAMESPACE, subresource="status")
    asked = _until(lambda: cluster.find(CHECKPOINTREQUESTS, f"gold-{name}", NAMESPACE))
    assert (asked["spec"]["workload"], asked["spec"]["name"]) == ("gilded-0", name)
    assert asked["spec"]["gold"] is True
    cluster.kube.delete(PODS, "gilded-0", NAMESPACE, grace_seconds=0)
    cluster.kube.delete(CHECKPOINTPOLICIES, "gilded", NAMESPACE)


def test_a_restore_request_makes_a_pod_that_wakes_and_its_claim_ends_with_it(
    cluster: Cluster,
) -> None:
    a_checkpoint(cluster, "llama-1")
    template = {"spec": a_pod()["spec"]}
    wanted = restorerequests.new_object(
        NAMESPACE, "llama-1", Template(name="again", template=template)
    )
    name = cluster.kube.create(RESTOREREQUESTS, wanted)["metadata"]["name"]
    pod = _until(lambda: cluster.find(PODS, "again", NAMESPACE))
    assert pod["metadata"]["annotations"][names.RESTORE_FROM] == "llama-1"
    claim = {"podUID": pod["metadata"]["uid"], "node": "n1", "pod": "again"}
    patch = {"status": {"claim": claim}}
    cluster.kube.patch(GPUCHECKPOINTS, "llama-1", patch, NAMESPACE, subresource="status")
    _until(lambda: cluster.find(GPUWORKLOADS, "again", NAMESPACE))
    there = {"status": {"state": "Parked", "node": "n1", "since": "2026-01-31T12:00:00Z"}}
    cluster.kube.patch(GPUWORKLOADS, "again", there, NAMESPACE, subresource="status")
    found = _until(lambda: (s := status_of(cluster, RESTOREREQUESTS, name)).get("finishedAt") and s)
    assert (found["state"], found["message"]) == ("Succeeded", "pod again woke on n1")
    cluster.kube.delete(PODS, "again", NAMESPACE, grace_seconds=0)
    _until(lambda: "claim" not in status_of(cluster, GPUCHECKPOINTS, "llama-1"))


def test_a_restore_request_scales_the_deployment_that_was_sealed(cluster: Cluster) -> None:
    a_checkpoint(cluster, "chat-1")
    labels = {"app": "chat"}
    spec = {
        "replicas": 0,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": a_pod()["spec"]},
    }
    cluster.kube.create(DEPLOYMENTS, {"metadata": {"name": "chat"}, "spec": spec}, NAMESPACE)
    wanted = restorerequests.new_object(
        NAMESPACE, "chat-1", Owner(OwnerKind.DEPLOYMENT, "chat"), within=30.0
    )
    name = cluster.kube.create(RESTOREREQUESTS, wanted)["metadata"]["name"]
    _until(lambda: cluster.kube.get(DEPLOYMENTS, "chat", NAMESPACE)["spec"]["replicas"] == 1)
    again = cluster.kube.create(RESTOREREQUESTS, wanted)["metadata"]["name"]
    found = _until(
        lambda: (s := status_of(cluster, RESTOREREQUESTS, again)).get("finishedAt") and s
    )
    assert "deployment/chat asks for 1 pods (expected 0" in found["message"]
    cluster.kube.delete(DEPLOYMENTS, "chat", NAMESPACE)
    found = _until(lambda: (s := status_of(cluster, RESTOREREQUESTS, name)).get("finishedAt") and s)
    assert found["state"] == "Failed"


def test_the_policies_in_force_are_kept_in_the_cluster(cluster: Cluster) -> None:
    assert cluster.find(CONFIGMAPS, "kyb-policies-in-force", SYSTEM)["binaryData"]  # type: ignore[index]


def test_a_deleted_certificate_comes_back(cluster: Cluster) -> None:
    cluster.kube.delete(SECRETS, "kyb-extender-tls", SYSTEM)
    _until(lambda: cluster.find(SECRETS, "kyb-extender-tls", SYSTEM))


def test_work_goes_on_when_the_leader_is_killed(cluster: Cluster) -> None:
    leader = _until(cluster.leader)
    os.kill(cluster.processes.pid(leader), signal.SIGKILL)
    pod = a_pod("after", namespace=NAMESPACE)
    del pod["status"], pod["metadata"]["uid"]
    cluster.kube.create(PODS, pod)
    _until(lambda: cluster.find(GPUWORKLOADS, "after", NAMESPACE))
    assert cluster.leader() not in ("", leader)


def test_a_stopped_leader_gives_its_lease_away_at_once(cluster: Cluster) -> None:
    cluster.processes.stop(_until(cluster.leader))
    lease = cluster.kube.get(LEASES, "kyb-controller", SYSTEM)
    assert lease["spec"]["holderIdentity"] == ""


def test_nothing_was_refused_by_the_api_server(cluster: Cluster) -> None:
    logs = [cluster.processes.log(name).read_text() for name in cluster.running]
    assert not any("403 Forbidden" in log for log in logs)
