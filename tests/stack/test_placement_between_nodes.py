"""Two nodes: estimates decide where a pod goes, and what cannot be placed says why."""

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from kybernate.model.workload import State

pytestmark = pytest.mark.controlplane
GIB = 1 << 30


def test_the_idle_node_is_taken_before_the_one_with_a_busy_holder(cluster: Any) -> None:
    """First `four` is busy with all its GPUs, then `one` is, and `four` is not."""
    for busy, idle, seat in (("four", "one", "4x"), ("one", "four", "1x")):
        holder = cluster.trainer(
            f"busy-{busy}", 600, busy, "60Gi", seat=seat, annotations={"kyb.ai/min-runtime": "60s"}
        )
        cluster.until(cluster.is_(holder, State.ACTIVE), "the holder")
        cluster.until(lambda h=holder: _protected(cluster, h), "the holder's protection, reported")
        newcomer = cluster.model(f"not-on-{busy}", vram="30Gi")
        cluster.until(lambda n=newcomer: cluster.node_of(n), "a node")
        assert cluster.node_of(newcomer) == idle
        note = cluster.until(lambda n=newcomer: cluster.events(n, "Placed"), "the event")[0]
        assert note.startswith(f"{idle} "), note
        assert f"; {busy} " in note, note
        cluster.delete(holder, newcomer)


def _protected(cluster: Any, holder: str) -> bool:
    """Whether the node's agent has said until when its holder may stay."""
    nodes = cluster.stack.plane.kubectl("get", "gpunodes", "-o", "yaml")
    tenants = [t for n in yaml.safe_load(nodes)["items"] for t in n["status"].get("tenants", [])]
    return any(
        t["workload"]["name"] == holder and t["state"] == "Active" and t.get("minRuntimeUntil")
        for t in tenants
    )


@pytest.mark.parametrize(
    ("wishes", "reason", "detail"),
    [
        pytest.param(
            {"vram": "200Gi", "seat": "1x"},
            "workload needs more VRAM than a group of this size has",
            "(200 GiB of 80 GiB)",
            id="more VRAM than any group has",
        ),
        pytest.param(
            {"vram": "8Gi", "seat": "2x", "node": "one"},
            "Insufficient kyb.ai/gpu-2x-seat",
            "",
            id="two GPUs on a node with one",
        ),
        pytest.param(
            {
                "vram": "8Gi",
                "seat": "2x",
                "node": "four",
                "annotations": {"kyb.ai/require-group": "G0123"},
            },
            "node has not the required group",
            "",
            id="a group of another size",
        ),
    ],
)
def test_what_cannot_be_placed_says_why(
    cluster: Any, wishes: dict[str, Any], reason: str, detail: str
) -> None:
    cluster.model("hopeless", **wishes)
    cluster.until(lambda: reason in cluster.scheduling("hopeless"), "the scheduler's reason")
    failed = cluster.until(lambda: cluster.events("hopeless", "FailedScheduling"), "its event")
    assert any(reason in note for note in failed)
    if detail:
        notes = cluster.until(lambda: cluster.events("hopeless", "PlacementRefused"), "our event")
        assert detail in notes[-1]
    assert cluster.node_of("hopeless") == ""


def test_a_pod_that_does_not_say_its_vram_is_warned_and_gets_the_whole_group(
    cluster: Any, a_seat_pod: Callable[..., dict[str, Any]]
) -> None:
    command = ["python", "-m", "testbed.models", "serve", "--vram", "4Gi", "--port", "8080"]
    said = _kubectl_create(cluster, a_seat_pod("silent", command, node="one"))
    assert "Warning: kyb.ai/vram is not set" in said
    cluster.until(cluster.is_("silent", State.ACTIVE), "its turn")
    assert cluster.workload("silent").vram == 80 * GIB


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"vram": "forty"}, "kyb.ai/vram", id="VRAM that is no size"),
        pytest.param({"vram": "500Gi"}, "not between", id="VRAM beyond any GPU"),
        pytest.param({"vram": "4Gi", "schedulerName": "mine"}, "mine", id="foreign scheduler"),
        pytest.param({"vram": "4Gi", "nodeName": "one"}, "no node", id="preset node"),
        pytest.param(
            {"vram": "4Gi", "annotations": {"kyb.ai/seat": "G0/0"}},
            "written by the node agent only",
            id="an annotation only we write",
        ),
    ],
)
def test_a_pod_that_makes_no_sense_is_refused_in_words(
    cluster: Any, a_seat_pod: Callable[..., dict[str, Any]], changed: dict[str, Any], said: str
) -> None:
    answer = _kubectl_create(cluster, a_seat_pod("absurd", ["true"], **changed), accepted=False)
    assert said in answer


def _kubectl_create(cluster: Any, pod: dict[str, Any], *, accepted: bool = True) -> str:
    """What kubectl says on standard error: warnings, or the refusal."""
    plane = cluster.stack.plane
    argv = [plane.kubectl_program, f"--kubeconfig={plane.admin_kubeconfig}", "create", "-f", "-"]
    done = subprocess.run(
        argv,
        input=yaml.safe_dump(pod),
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
    )
    assert (done.returncode == 0) is accepted, done.stderr
    return done.stderr
