"""
A workload that goes on is sealed by its policy's clock, on a real node, and any snapshot wakes.

Real: everything but the GPU: kubelet, containerd, runc, CRIU, the control plane, our processes.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kybernate.clients.kube import Kube
from kybernate.clients.resources import (
    CHECKPOINTPOLICIES,
    CHECKPOINTREQUESTS,
    GPUCHECKPOINTS,
    PODS,
)
from kybernate.testing import askmodel
from testbed.demo import objects
from testbed.stack import NodeSpec, Stack

pytestmark = [pytest.mark.controlplane, pytest.mark.node]

NODE, NAME, AGAIN = "real", "counter", "again"
PATIENCE_S = 180.0
WANTED = 3
POLICY = {
    "apiVersion": "kyb.ai/v1alpha1",
    "kind": "CheckpointPolicy",
    "metadata": {"name": "often", "namespace": "default"},
    "spec": {"selector": {"matchLabels": {"app": NAME}}, "every": "10s", "keep": 100},
}


@pytest.fixture(scope="module")
def stack(real_programs: None) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="ks-") as work,
        Stack.start(Path(work), [NodeSpec(name=NODE, real=True)]) as started,
    ):
        yield started


@pytest.fixture
def kube(stack: Stack) -> Kube:
    return Kube.from_kubeconfig(stack.plane.admin_kubeconfig)


def until(look: Callable[[], Any], what: str, pause: float = 0.1) -> Any:
    deadline, event = time.monotonic() + PATIENCE_S, threading.Event()
    while not (found := look()):
        assert time.monotonic() < deadline, what
        event.wait(pause)
    return found


def test_it_is_sealed_while_it_works_and_no_more_when_it_does_not_and_an_old_one_wakes(
    stack: Stack, kube: Kube
) -> None:
    wanted = [*objects.priority_classes(), objects.counter(NAME, "2Gi"), POLICY]
    stack.plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(wanted))
    counted = until(lambda: _worked(kube) and _sealed(kube, WANTED), "it is sealed thrice", 0.5)
    for one in counted:
        status = one["status"]
        print(one["metadata"]["name"], status["added"], status.get("pause", {}).get("text"))
    assert all(one["status"]["addedBytes"] < one["status"]["sizeBytes"] for one in counted[1:])
    requests = kube.list(CHECKPOINTREQUESTS, "default")
    assert len(requests) <= 2, "those that ended are forgotten, but for the last"

    said = "counter: it has not worked since its last checkpoint"
    until(lambda: _message(kube) == said, "it works no more, and that is said")
    before = len(_sealed(kube, 1))
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 25.0, "two of its clock's rounds pass")
    assert len(_sealed(kube, 1)) == before

    last = _ask(kube, NAME)["counter"]
    stack.plane.kubectl("delete", "cpol", "often")
    stack.plane.kubectl("delete", "pod", NAME)
    oldest = counted[0]["metadata"]["name"]
    pod = objects.counter(AGAIN, "2Gi", restore_from=oldest)
    stack.plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pod))
    answer = _ask(kube, AGAIN)
    print(f"{oldest} woke with {answer['counter']}, the last was {last}")
    assert answer["intact"]
    assert 1 < answer["counter"] < last - WANTED + 1
    assert _restarts(kube) == 0


def _worked(kube: Kube) -> bool:
    return bool(_ask(kube, NAME)["intact"])


def _sealed(kube: Kube, least: int) -> list[dict[str, Any]]:
    """Oldest first; none where there are fewer, or the last one's cost is not known yet."""
    found = kube.list(GPUCHECKPOINTS, "default")
    ready = [one for one in found if "sealedAt" in (one.get("status") or {})]
    ready.sort(key=lambda one: str(one["status"]["sealedAt"]))
    return ready if len(ready) >= least and "pause" in ready[-1]["status"] else []


def _message(kube: Kube) -> str:
    status = kube.get(CHECKPOINTPOLICIES, "often", "default").get("status") or {}
    return str((status.get("conditions") or [{}])[0].get("message", ""))


def _ask(kube: Kube, name: str) -> dict[str, Any]:
    def address() -> str | None:
        return str(kube.get(PODS, name, "default")["status"].get("podIP", "")) or None

    return askmodel.predict(address, PATIENCE_S)


def _restarts(kube: Kube) -> int:
    (one,) = kube.get(PODS, AGAIN, "default")["status"]["containerStatuses"]
    return int(one["restartCount"])
