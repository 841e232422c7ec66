"""A claim is freed when the pod that holds it is gone, and never before."""

from collections.abc import Callable
from typing import Any

import pytest

from controller.claims import EVERY, Claims
from kybernate.api import names
from kybernate.clients.errors import Conflict
from kybernate.clients.resources import GPUCHECKPOINTS, PODS
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_pod
from kybernate.testing.fakekube import FakeKube

Wait = Callable[..., Any]


def claimed(by: str = "llama-a", uid: str = "uid-llama-a", name: str = "one") -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GpuCheckpoint",
        "metadata": {"name": name},
        "spec": {"workload": "statefulset.llama.0"},
        "status": {"claim": {"podUID": uid, "node": "node-a", "pod": by}},
    }


def claim(kube: FakeKube, name: str = "one") -> Any:
    return kube.get(GPUCHECKPOINTS, name, "default")["status"].get("claim")


def test_it_is_freed_when_the_pod_goes(running: Wait, eventually: Wait) -> None:
    kube = FakeKube(a_pod(), claimed())
    part = Claims(kube, SystemClock())
    with running(part):
        eventually(lambda: "GET /api/v1/namespaces/default/pods/llama-a" in kube.asked)
        assert claim(kube)
        kube.delete(PODS, "llama-a", "default", grace_seconds=0)
        part.pod_gone("default", "uid-llama-a")
        eventually(lambda: claim(kube) is None)


@pytest.mark.parametrize(
    ("pod", "held"),
    [
        pytest.param(a_pod(), True, id="its-pod-lives"),
        pytest.param(a_pod() | {"status": {"phase": "Failed"}}, True, id="its-pod-is-kept"),
        pytest.param(a_pod(uid="another"), False, id="another-pod-of-its-name"),
        pytest.param(a_pod("llama-b"), False, id="no-pod-of-its-name"),
    ],
)
def test_who_still_holds_it(running: Wait, pod: dict[str, Any], held: bool) -> None:
    kube = FakeKube(pod, claimed())
    part = Claims(kube, SystemClock())
    for watch in part.watches:
        watch.start()
        assert watch.wait_synced(10)
    assert part.look(("default", "one")) == (EVERY if held else None)
    assert bool(claim(kube)) is held
    for watch in part.watches:
        watch.stop()


def test_a_claim_that_changed_since_it_was_read_is_left_alone() -> None:
    kube = FakeKube(claimed())
    part = Claims(kube, SystemClock())
    for watch in part.watches:
        watch.start()
        assert watch.wait_synced(10)
    kube.fail("PATCH", "gpucheckpoints", Conflict(409, "Conflict", "it was written meanwhile"))
    with pytest.raises(Conflict):
        part.look(("default", "one"))
    assert claim(kube)
    for watch in part.watches:
        watch.stop()
