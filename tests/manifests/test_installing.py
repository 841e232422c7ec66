"""What a user applies is accepted whole, strictly, and again; and every part stands alone."""

import base64
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from kybernate.api.opa_config import BundleTls, opa_config
from testbed.controlplane import ControlPlane

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]
Build = Callable[[str], list[Object]]

MANIFESTS = Path(__file__).parents[2] / "manifests"
COMPONENTS = sorted(
    path.parent.name
    for path in (MANIFESTS / "components").glob("*/kustomization.yaml")
    if "kind: Component" not in path.read_text()
)
WORKLOADS = {"Deployment", "DaemonSet"}
# Those that live on the host, which `restricted` is not meant for.
ON_THE_HOST = {"kyb-nodeagent", "kyb-deviceplugin"}


def _pods(objects: list[Object]) -> dict[str, Object]:
    return {
        one["metadata"]["name"]: one["spec"]["template"]
        for one in objects
        if one["kind"] in WORKLOADS
    }


def _containers(objects: list[Object]) -> list[Object]:
    return [container for pod in _pods(objects).values() for container in pod["spec"]["containers"]]


def _stdin(objects: list[Object]) -> str:
    return yaml.safe_dump_all(objects)


@pytest.mark.parametrize("path", ["default", "overlays/scheduler", "overlays/registry-postgresql"])
def test_the_api_server_accepts_everything_strictly(
    cluster: ControlPlane, built: Build, path: str
) -> None:
    """A dry run before anything is applied: what a careful user does first."""
    answer = cluster.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=_stdin(built(path))
    )
    assert answer.count("(server dry run)") == len(built(path))


@pytest.mark.parametrize(
    ("distribution", "folders"),
    [
        ("k3s", {"/run/k3s/containerd"}),
        (
            "microk8s",
            {
                "/var/snap/microk8s/common/run/containerd",
                "/var/snap/microk8s/common/var/lib/kubelet/pods",
            },
        ),
    ],
)
def test_on_their_nodes_the_agent_sees_the_containers_of_k3s_and_microk8s(
    cluster: ControlPlane, tmp_path: Path, distribution: str, folders: set[str]
) -> None:
    """As an overlay of a user's has it: the rest of the agent is as it was."""
    body = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(MANIFESTS / "components/nodeagent", tmp_path)],
        "components": [os.path.relpath(MANIFESTS / f"components/on-{distribution}", tmp_path)],
    }
    plain = _agent(cluster.kubectl("kustomize", str(MANIFESTS / "components/nodeagent")))
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(body))
    text = cluster.kubectl("kustomize", str(tmp_path))
    cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
    theirs = _agent(text)
    more = {one["mountPath"]: one for one in theirs["mounts"] if one not in plain["mounts"]}
    assert more.keys() == folders
    assert all(one["mountPropagation"] == "HostToContainer" for one in more.values())
    paths = {one["name"]: one.get("hostPath", {}).get("path") for one in theirs["volumes"]}
    assert all(paths[one["name"]] == path for path, one in more.items())
    assert [one for one in plain["mounts"] if one not in theirs["mounts"]] == []
    assert {one["name"] for one in theirs["env"]} - {one["name"] for one in plain["env"]} == {
        "PATH"
    }


def _agent(text: str) -> dict[str, list[Object]]:
    """What its container is given."""
    spec = _pods([one for one in yaml.safe_load_all(text) if one])["kyb-nodeagent"]["spec"]
    (one,) = spec["containers"]
    return {"mounts": one["volumeMounts"], "env": one["env"], "volumes": spec["volumes"]}


def test_applying_again_changes_nothing(installed: ControlPlane, built: Build) -> None:
    """kubectl calls some kinds "configured" each time; what counts is what the server keeps."""
    text = _stdin(built("default"))
    before = _versions(installed, text)
    installed.kubectl("apply", "-f", "-", stdin=text)
    assert _versions(installed, text) == before


def _versions(plane: ControlPlane, text: str) -> dict[str, object]:
    """Generations where there are any: a status moves by itself."""
    found = orjson.loads(plane.kubectl("get", "-f", "-", "-o", "json", stdin=text))["items"]
    return {
        f"{one['kind']}/{one['metadata']['name']}": one["metadata"].get(
            "generation", one["metadata"]["resourceVersion"]
        )
        for one in found
        if one["kind"] != "Namespace"
    }


def test_applying_again_keeps_the_authority_that_the_controller_filled_in(
    installed: ControlPlane,
) -> None:
    """An upgrade that emptied caBundle would take the webhook away until the next look at it."""
    kind, name = "validatingwebhookconfiguration", "kyb-validating"
    bundle = base64.b64encode(installed.ca_file.read_bytes()).decode()
    patch = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
    installed.kubectl("patch", kind, name, "--type=json", "-p", orjson.dumps(patch).decode())
    installed.kubectl("apply", "-k", str(MANIFESTS / "default"))
    kept = installed.kubectl(
        "get", kind, name, "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}"
    )
    assert kept == bundle


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_is_accepted_by_itself(
    cluster: ControlPlane, built: Build, name: str
) -> None:
    objects = built(f"components/{name}")
    answer = cluster.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=_stdin(objects)
    )
    assert answer.count("(server dry run)") == len(objects)


@pytest.mark.parametrize(
    "file",
    ["deployment", "job", "profiles", "checkpointpolicy", "models-on-a-light-node"],
)
def test_the_examples_are_accepted(installed: ControlPlane, namespace: str, file: str) -> None:
    path = MANIFESTS / "examples" / f"{file}.yaml"
    where = [] if file == "profiles" else ["-n", namespace]
    answer = installed.kubectl(
        "apply", "--dry-run=server", "--validate=strict", *where, "-f", str(path)
    )
    assert "(server dry run)" in answer


def test_kube_scheduler_accepts_the_example_configuration(cluster: ControlPlane) -> None:
    """Decoding is strict, and what it shows the extender has to be readable when it starts."""
    config = yaml.safe_load((MANIFESTS / "examples/scheduler.yaml").read_text())
    pair = cluster.credentials.admin
    config["extenders"][0]["tlsConfig"] |= {
        "caFile": str(cluster.ca_file),
        "certFile": str(pair.certificate),
        "keyFile": str(pair.key),
    }
    cluster.start_scheduler(config)
    cluster.stop_scheduler()


def test_the_scheduler_asks_the_extender_about_every_seat_of_the_example_profiles(
    built: Build,
) -> None:
    config = yaml.safe_load((MANIFESTS / "examples/scheduler.yaml").read_text())
    profiles = yaml.safe_load((MANIFESTS / "examples/profiles.yaml").read_text())
    seats = {
        one["resource"] for one in yaml.safe_load(profiles["data"]["profiles.yaml"])["profiles"]
    }
    assert {one["name"] for one in config["extenders"][0]["managedResources"]} == seats


def test_every_pod_but_those_on_the_host_is_restricted(
    installed: ControlPlane, built: Build
) -> None:
    """Judged by the real Pod Security admission, in a namespace that enforces `restricted`."""
    namespace = "restricted-pods"
    installed.kubectl("create", "namespace", namespace)
    installed.kubectl(
        "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"
    )
    judged = _pods(built("overlays/scheduler"))
    for name in judged.keys() - ON_THE_HOST:
        spec = {**judged[name]["spec"], "serviceAccountName": "default"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": _plain(spec)}
        text = orjson.dumps(pod).decode()
        installed.kubectl("create", "--dry-run=server", "-n", namespace, "-f", "-", stdin=text)
    assert judged.keys() > ON_THE_HOST


def _plain(spec: Object) -> Object:
    """Without what only kyb-system has."""
    return {key: value for key, value in spec.items() if key != "priorityClassName"} | {
        "automountServiceAccountToken": False
    }


def test_no_root_file_system_can_be_written_and_images_are_pinned(built: Build) -> None:
    for container in _containers(built("overlays/scheduler")):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, container["name"]
        assert re.fullmatch(r".+:v?\d+\.\d+\.\d+(-static)?", container["image"]), container["image"]


def test_every_container_says_what_it_needs_and_is_asked_whether_it_lives(built: Build) -> None:
    for container in _containers(built("overlays/scheduler")):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), container["name"]
        assert "livenessProbe" in container, container["name"]


def test_the_pool_of_an_agent_is_the_memory_it_asks_the_node_for(built: Build) -> None:
    (agent,) = [c for c in _containers(built("default")) if c["name"] == "nodeagent"]
    (pool,) = [env["valueFrom"] for env in agent["env"] if "POOL" in env["name"]]
    assert pool == {
        "resourceFieldRef": {"containerName": "nodeagent", "resource": "requests.memory"}
    }
    assert "limits" not in agent["resources"]


@pytest.mark.parametrize("name", ["extender", "webhook", "nodeagent"])
def test_policies_are_evaluated_on_loopback_beside_each_that_decides(
    built: Build, name: str
) -> None:
    beside = {c["name"]: c for c in _pods(built("default"))[f"kyb-{name}"]["spec"]["containers"]}
    assert "--addr=127.0.0.1:8181" in beside["opa"]["args"]
    assert "--opa-url=http://127.0.0.1:8181" in beside[name]["args"]


def test_opa_is_configured_as_the_code_says(built: Build) -> None:
    (shipped,) = [one for one in built("default") if one["metadata"]["name"] == "kyb-opa"]
    expected = opa_config(
        url="https://kyb-controller.kyb-system.svc",
        persistence="/var/lib/opa",
        tls=BundleTls(ca="/tls/ca.crt", certificate="/tls/tls.crt", key="/tls/tls.key"),
    )
    assert yaml.safe_load(shipped["data"]["config.yaml"]) == expected


def test_the_rules_of_the_admission_policies_fit_the_types_they_are_about(
    installed: ControlPlane,
) -> None:
    """kube-controller-manager checks each rule against the schemas it can match."""
    installed.kubectl(
        "wait", "validatingadmissionpolicy", "-l", "app.kubernetes.io/part-of=kybernate",
        "--for=jsonpath={.status.observedGeneration}=1", "--timeout=30s",
    )  # fmt: skip
    text = installed.kubectl(
        "get",
        "validatingadmissionpolicy",
        "-l",
        "app.kubernetes.io/part-of=kybernate",
        "-o",
        "json",
    )
    warnings = {
        one["metadata"]["name"]: one["status"]["typeChecking"]["expressionWarnings"]
        for one in orjson.loads(text)["items"]
        if one["status"].get("typeChecking", {}).get("expressionWarnings")
    }
    assert warnings == {}
