"""With our webhooks down (nothing of ours runs here) everything goes on but what they are for."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from kybernate.api import names
from testbed.controlplane import ControlPlane

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]

SEAT = {"kyb.ai/gpu-2x-seat": "1"}
BOTH = {"limits": SEAT, "requests": SEAT}


def _pod(resources: Object | None = None, *, init: bool = False, **metadata: object) -> Object:
    seated = {"name": "seated", "image": "m", "resources": resources or {}}
    plain = {"name": "plain", "image": "m"}
    spec = (
        {"containers": [plain], "initContainers": [seated]}
        if init
        else {"containers": [plain, seated]}
    )
    return {"metadata": {"name": "x", **metadata}, "spec": spec}


def _create(caller: Any, namespace: str, pod: Object) -> Any:
    return caller.create(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)


@pytest.mark.parametrize("where", ["kube-system", "kyb-system"])
def test_the_systems_own_pods_are_never_asked_about(admin: Any, where: str) -> None:
    assert _create(admin, where, _pod(BOTH)).status == 201


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(_pod(), id="no-resources"),
        pytest.param(_pod({"limits": {"cpu": "1", "nvidia.com/gpu": "1"}}), id="another-gpu"),
        pytest.param(_pod({"limits": {"kyb.ai/other": "1"}}), id="another-resource-of-ours"),
        pytest.param(_pod(labels={"kyb.ai/gpu-1x-seat": "1"}), id="only-a-label"),
        pytest.param(_pod(annotations={names.VRAM: "40Gi"}), id="only-an-annotation"),
    ],
)
def test_a_pod_without_a_seat_is_created(admin: Any, namespace: str, pod: Object) -> None:
    assert _create(admin, namespace, pod).status == 201


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(_pod(BOTH), id="limits-and-requests"),
        pytest.param(_pod({"limits": SEAT}), id="limits"),
        pytest.param(_pod(BOTH, init=True), id="init-container"),
        pytest.param(_pod({"limits": {"kyb.ai/gpu-16x-seat": "1"}}), id="a-size-nobody-has"),
    ],
)
def test_a_seat_pod_is_refused_with_the_name_of_who_did_not_answer(
    admin: Any, namespace: str, pod: Object
) -> None:
    """Only by the one that fails closed: the other one is passed over."""
    answer = _create(admin, namespace, pod)
    assert answer.status == 500
    assert 'failed calling webhook "validate.kyb.ai"' in answer.message
    assert "mutate.kyb.ai" not in answer.message


def test_a_mirror_pod_of_a_kubelet_is_created_and_nobody_else_can_pretend(
    admin: Any, installed: ControlPlane, namespace: str, new_node: Callable[[], str]
) -> None:
    """Static pods run whatever we say: refusing the mirror would only hide them."""
    node = new_node()
    uid = installed.api.get(f"/api/v1/nodes/{node}")["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": True}
    mirror = _pod(BOTH, annotations={"kubernetes.io/config.mirror": "x"}, ownerReferences=[owner])
    mirror["spec"]["nodeName"] = node
    text = orjson.dumps({"apiVersion": "v1", "kind": "Pod", **mirror}).decode()
    kubelet = installed.node_kubeconfig(node)
    answer = installed.kubectl(
        f"--kubeconfig={kubelet}", "create", "--dry-run=server", "-n", namespace, "-f", "-",
        stdin=text, check=False,
    )  # fmt: skip
    assert "created (server dry run)" in answer
    assert _create(admin, namespace, mirror).status == 500


def test_nothing_but_the_creation_of_pods_is_ever_asked_about(
    built: Callable[[str], list[Object]],
) -> None:
    """Running seat pods can be changed and deleted whatever became of us."""
    hooks = [hook for it in built("components/webhook-configurations") for hook in it["webhooks"]]
    asked = [rule for hook in hooks for rule in hook["rules"]]
    assert len(asked) == 2
    assert all((r["operations"], r["resources"]) == (["CREATE"], ["pods"]) for r in asked)


def test_both_webhooks_are_asked_about_the_same_pods(built: Callable[[str], list[Object]]) -> None:
    one, other = (
        hook for it in built("components/webhook-configurations") for hook in it["webhooks"]
    )
    for field in ("rules", "namespaceSelector", "matchConditions"):
        assert one[field] == other[field]
    assert (one["failurePolicy"], other["failurePolicy"]) == ("Ignore", "Fail")


def test_the_condition_says_what_the_code_says(built: Callable[[str], list[Object]]) -> None:
    for it in built("components/webhook-configurations"):
        (asks, _) = it["webhooks"][0]["matchConditions"]
        assert f"r.startsWith('{names.SEAT_RESOURCE_PREFIX}')" in asks["expression"]
        assert f"r.endsWith('{names.SEAT_RESOURCE_SUFFIX}')" in asks["expression"]
