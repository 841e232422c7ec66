"""
The webhook as the real API server calls it.

Real: etcd, API server, controller manager, the shipped types, roles and webhook configurations,
the webhook's process under its ServiceAccount's token, OPA with the shipped policies, certificates
in Secrets that reach the process as files.
Faked: the clock of whoever issues certificates, so that months pass in seconds.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from controller import bundles, secrets
from controller.certificates import DUE, Terms, Want
from controller.issuing import Issuing, Lifetimes
from kybernate.api import goldimages, names
from kybernate.clients.errors import ApiError, Forbidden, Unavailable
from kybernate.clients.kube import Kube
from kybernate.clients.resources import (
    CHECKPOINTPOLICIES,
    GPUCHECKPOINTS,
    NAMESPACES,
    PODS,
    SECRETS,
    Resource,
)
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_pod
from kybernate.testing.clock import FakeClock
from policies import shipped
from testbed.controlplane import ControlPlane
from testbed.kubectl import KubectlFailed
from testbed.opa import Opa
from testbed.processes import Processes
from testbed.projection import SecretProjection
from testbed.stack import install, programs

pytestmark = pytest.mark.controlplane

SYSTEM = names.SYSTEM_NAMESPACE
SECRET = "kyb-webhook-tls"
NAMESPACE = "models"
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
_DAY = 24 * 3600.0
LIFETIME = 60 * _DAY
OVERLAP = 60.0
TERMS = Terms(
    overlap=OVERLAP, wants=(Want(secret=SECRET, names=frozenset({"127.0.0.1", "localhost"})),)
)


@dataclass
class Cluster:
    """A control plane with our webhook, and whoever issues its certificates."""

    plane: ControlPlane
    kube: Kube
    processes: Processes
    tls: Path
    opa: Opa
    clock: FakeClock
    issuing: Issuing
    created: int = 0

    def pod(self, *, dry_run: bool = False, **fields: Any) -> dict[str, Any]:
        """Create a pod and return what the API server made of it."""
        self.created += 1
        pod = a_pod(f"p{self.created}", namespace=NAMESPACE, **fields)
        del pod["status"], pod["metadata"]["uid"]
        if not dry_run:
            return self.kube.create(PODS, pod)
        text = self.plane.kubectl(
            "create", "--dry-run=server", "-o", "json", "-f", "-", stdin=orjson.dumps(pod).decode()
        )
        return dict(orjson.loads(text))

    def refused(self, **fields: Any) -> str:
        """The words with which a pod is refused."""
        with pytest.raises(ApiError) as caught:
            self.pod(**fields)
        return caught.value.message

    def delivered(self) -> bool:
        """Whether the newest certificate has reached the process's folder."""
        secret = self.kube.get(SECRETS, SECRET, SYSTEM)
        files = {name: (self.tls / name).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt")}
        return secrets.decoded(secret) == files


@pytest.fixture(scope="module")
def cluster(assets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Everything ready. Its clock is two thirds of a certificate's life behind ours."""
    work = tmp_path_factory.mktemp("webhook")
    bundle = work / "kyb.tar.gz"
    bundle.write_bytes(bundles.build(shipped.files(), assets["opa"]).content)
    with (
        ControlPlane.start(work / "plane") as plane,
        Processes(work / "run") as processes,
        Opa.start(work / "opa", bundle=bundle) as opa,
    ):
        install.components(plane)
        kube = Kube.from_kubeconfig(plane.admin_kubeconfig)
        kube.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        clock = FakeClock(SystemClock().now() - DUE * LIFETIME - 10 * OVERLAP)
        account = Kube.from_kubeconfig(plane.service_account_kubeconfig(SYSTEM, "kyb-controller"))
        lifetimes = Lifetimes(authority=LIFETIME, leaf=LIFETIME)
        issuing = Issuing(account, clock, SYSTEM, TERMS, lifetimes)
        issuing.look()
        with SecretProjection(plane.api, SYSTEM, SECRET, work / "tls") as projection:
            folder = projection.wait_for()
            started = programs.run(
                processes,
                "webhook",
                "webhook",
                lambda port: [
                    f"--listen=127.0.0.1:{port}",
                    f"--kubeconfig={plane.service_account_kubeconfig(SYSTEM, 'kyb-webhook')}",
                    f"--tls-dir={folder}",
                    f"--opa-url={opa.url}",
                    "--scheduler=kybernate",
                ],
            )
            install.webhooks(plane, started.url)
            issuing.look()  # the caBundle
            found = Cluster(plane, kube, processes, folder, opa, clock, issuing)
            _until(lambda: _answers(found))
            yield found


def _until(check: Callable[[], Any], within: float = 60.0) -> Any:
    pause, deadline = threading.Event(), time.monotonic() + within
    while not (answer := check()):
        assert time.monotonic() < deadline, f"not within {within:g} s"
        pause.wait(0.05)
    return answer


def _answers(cluster: Cluster) -> bool:
    """Whether the API server has taken the configurations up, and trusts the webhook."""
    try:
        return "runtimeClassName" in cluster.pod(dry_run=True)["spec"]
    except Exception:  # kubectl says why; the deadline is ours
        return False


def test_a_bare_pod_is_completed_and_admitted(cluster: Cluster) -> None:
    pod = cluster.pod(annotations={names.VRAM: "40Gi"})
    assert pod["spec"]["runtimeClassName"] == "kybernate"
    assert pod["spec"]["schedulerName"] == "kybernate"


def test_a_bare_pod_with_its_seat_only_in_requests_is_repaired(cluster: Cluster) -> None:
    container = {"name": "m", "image": "m", "resources": {"requests": {"kyb.ai/gpu-1x-seat": "1"}}}
    pod = cluster.pod(spec={"containers": [container]})
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"kyb.ai/gpu-1x-seat": "1"}


def test_a_dry_run_is_answered_alike_and_leaves_nothing(cluster: Cluster) -> None:
    pod = cluster.pod(dry_run=True)
    assert pod["spec"]["runtimeClassName"] == "kybernate"
    assert pod["metadata"]["name"] not in {
        found["metadata"]["name"] for found in cluster.kube.list(PODS, NAMESPACE)
    }


def test_kubectl_shows_the_author_a_warning_where_vram_is_missing(cluster: Cluster) -> None:
    pod = a_pod("warned", namespace=NAMESPACE)
    del pod["status"], pod["metadata"]["uid"]
    text = orjson.dumps(pod).decode()
    with pytest.raises(KubectlFailed, match=names.VRAM):
        cluster.plane.kubectl("create", "-f", "-", "--warnings-as-errors", stdin=text)
    assert cluster.kube.get(PODS, "warned", NAMESPACE), "a warning keeps nothing out"


def test_a_pod_without_a_seat_never_comes_to_us(cluster: Cluster) -> None:
    pod = cluster.pod(resource=None, spec={"schedulerName": "default-scheduler"})
    assert "runtimeClassName" not in pod["spec"]
    assert pod["spec"]["schedulerName"] == "default-scheduler"


def test_every_fault_is_told_to_the_author_at_once(cluster: Cluster) -> None:
    said = cluster.refused(
        annotations={names.VRAM: "much", names.CLASS: "gaming"}, spec={"nodeName": "n1"}
    )
    for part in ("validate.kyb.ai", "much", "gaming", "spec.nodeName"):
        assert part in said


def test_only_the_agent_says_which_seat_a_pod_has(cluster: Cluster) -> None:
    assert names.SEAT in cluster.refused(annotations={names.SEAT: "G0/0"})


def test_probes_and_hooks_are_ours_to_answer_where_pod_security_is_baseline(
    cluster: Cluster,
) -> None:
    strict = {"pod-security.kubernetes.io/enforce": "baseline"}
    cluster.kube.create(NAMESPACES, {"metadata": {"name": "strict", "labels": strict}})
    _until(lambda: _has_account(cluster, "strict"))
    wishes = {names.VRAM: "40Gi", names.ON_DELETE: "checkpoint"}
    pod = a_pod("probed", namespace="strict", annotations=wishes)
    (container,) = pod["spec"]["containers"]
    container["ports"] = [{"name": "web", "containerPort": 8080}]
    container["livenessProbe"] = {"httpGet": {"port": "web", "path": "/live"}, "periodSeconds": 3}
    container["startupProbe"] = {"grpc": {"port": 9090}, "failureThreshold": 60}
    container["lifecycle"] = {"preStop": {"exec": {"command": ["bye"]}}}
    del pod["status"], pod["metadata"]["uid"]
    made = cluster.kube.create(PODS, pod)["spec"]
    (found,) = made["containers"]
    probe = found["livenessProbe"]
    assert probe["exec"]["command"][:2] == ["kyb-probe", "liveness"]
    assert orjson.loads(probe["exec"]["command"][2])["httpGet"] == {"port": 8080, "path": "/live"}
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (3, 3)
    assert found["lifecycle"]["preStop"]["exec"]["command"][3:] == ["--", "bye"]
    assert made["terminationGracePeriodSeconds"] > 30

    again = {**pod, "metadata": {**pod["metadata"], "name": "copied"}, "spec": made}
    copied = cluster.kube.create(PODS, again)["spec"]
    for field in ("livenessProbe", "startupProbe", "lifecycle"):
        assert copied["containers"][0][field] == found[field]
    assert copied["terminationGracePeriodSeconds"] == made["terminationGracePeriodSeconds"]


def _has_account(cluster: Cluster, namespace: str) -> bool:
    listed = cluster.kube.list(Resource("", "v1", "serviceaccounts", "ServiceAccount"), namespace)
    return bool(listed)


def test_two_seats_are_refused(cluster: Cluster) -> None:
    two = {"limits": {"kyb.ai/gpu-1x-seat": "2"}, "requests": {"kyb.ai/gpu-1x-seat": "2"}}
    containers = [{"name": "m", "image": "m", "resources": two}]
    assert "kyb.ai/gpu-1x-seat" in cluster.refused(spec={"containers": containers})


def test_what_the_shipped_policies_deny_is_refused_in_their_words(cluster: Cluster) -> None:
    assert "VramAbsurd" in cluster.refused(annotations={names.VRAM: "1"})


def test_a_gold_image_is_named_to_pods_of_its_version_and_others_are_policys_to_share(
    cluster: Cluster,
) -> None:
    """By the shipped policies nothing is shared."""
    policy = {"selector": {"matchLabels": {"app": "gilded"}}, "gold": "gilded"}
    metadata = {"name": "gilded", "namespace": NAMESPACE}
    cluster.kube.create(CHECKPOINTPOLICIES, {"metadata": metadata, "spec": policy})
    pod = a_pod("gilded-0", annotations={names.VRAM: "40Gi"}, namespace=NAMESPACE)
    pod["metadata"]["labels"] = {"app": "gilded"}
    del pod["status"], pod["metadata"]["uid"]
    seated = goldimages.seated(pod)
    assert seated is not None
    image = f"gilded-{seated.version}"
    metadata = {"name": image, "namespace": NAMESPACE}
    _ready(cluster, {"metadata": metadata, "spec": {"workload": "gilded-0", "gold": True}})

    def named() -> str:
        made = cluster.kube.create(PODS, pod)
        cluster.kube.delete(PODS, "gilded-0", NAMESPACE, grace_seconds=0)
        return str(made["metadata"]["annotations"].get(names.RESTORE_FROM, ""))

    _until(lambda: named() == image)
    foreign = {names.VRAM: "40Gi", names.RESTORE_FROM: "elsewhere/llama"}
    words = cluster.refused(annotations=foreign)
    assert "gold image elsewhere/llama is not shared with namespace" in words


def _ready(cluster: Cluster, checkpoint: dict[str, Any]) -> None:
    cluster.kube.create(GPUCHECKPOINTS, checkpoint)
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Sealed",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {"status": {"sizeBytes": 1, "conditions": [condition]}}
    name = checkpoint["metadata"]["name"]
    cluster.kube.patch(GPUCHECKPOINTS, name, status, NAMESPACE, subresource="status")


def test_a_deployments_pods_are_completed_and_offered_its_checkpoint(cluster: Cluster) -> None:
    checkpoint = {
        "metadata": {"name": "chat-1", "namespace": NAMESPACE},
        "spec": {"workload": "deployment.chat"},
    }
    _ready(cluster, checkpoint)
    template = a_pod("x", annotations={names.VRAM: "40Gi"})
    labels = {"app": "chat"}
    deployment = {
        "metadata": {"name": "chat", "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": template["metadata"]["annotations"]},
                "spec": template["spec"],
            },
        },
    }
    cluster.kube.create(DEPLOYMENTS, deployment)
    (pod,) = _until(lambda: cluster.kube.list(PODS, NAMESPACE, label_selector="app=chat"))
    assert pod["spec"]["runtimeClassName"] == "kybernate"
    assert pod["metadata"]["annotations"][names.RESTORE_FROM] == "chat-1"


def test_certificates_and_their_authority_change_without_a_dropped_admission(
    cluster: Cluster,
) -> None:
    """Pods are created all the while, and every one is completed and judged."""
    faults: list[str] = []
    admitted = 0
    stop = threading.Event()

    def create() -> None:
        nonlocal admitted
        while not stop.is_set():
            try:
                spec = cluster.pod()["spec"]
                if spec.get("runtimeClassName") != "kybernate":
                    faults.append("a pod slipped past /mutate")
                admitted += 1
            except ApiError as problem:
                faults.append(str(problem))

    thread = threading.Thread(target=create)
    thread.start()
    try:
        signers = set()
        cluster.clock.advance(DUE * LIFETIME)
        for _ in range(8):
            cluster.issuing.look()
            signers.add(cluster.kube.get(SECRETS, secrets.CA, SYSTEM)["data"]["ca.crt"])
            _until(cluster.delivered)
            before = admitted
            _until(lambda before=before: admitted > before + 3 or faults)
            cluster.clock.advance(OVERLAP)
    finally:
        stop.set()
        thread.join()
    assert faults == []
    assert len(signers) == 2
    data = cluster.kube.get(SECRETS, secrets.CA, SYSTEM)["data"]
    assert not {"next.crt", "previous.crt"} & data.keys(), "the rotation came to its end"


def test_without_opa_seat_pods_are_refused_with_the_reason_and_others_are_not(
    cluster: Cluster,
) -> None:
    cluster.opa.stop()
    assert "policy gives no verdict" in cluster.refused()
    assert cluster.pod(resource=None)


def test_without_the_webhook_seat_pods_are_refused_and_others_are_not(cluster: Cluster) -> None:
    cluster.processes.stop("webhook")
    with pytest.raises((Forbidden, Unavailable)) as caught:
        cluster.pod()
    assert "validate.kyb.ai" in caught.value.message
    assert cluster.pod(resource=None)
