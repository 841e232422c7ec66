"""
The real kube-scheduler places pods through our extender over TLS, and understands every answer.

With KYB_RECORD=1 the exchange is kept in tests/extender/golden, where test_golden_files.py answers
it again without a cluster.
"""

import os
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from kybernate.api import gpuworkloads, pods
from kybernate.clients.resources import GPUWORKLOADS, PODS, PRIORITYCLASSES
from kybernate.model.workload import State
from kybernate.testing.builders import GIB, a_group, a_node, a_tenant

pytestmark = pytest.mark.controlplane

GOLDEN = Path(__file__).parents[1] / "extender" / "golden"
VRAM, RESTORE = "kyb.ai/vram", "kyb.ai/restore-from"


@pytest.fixture
def record(beside: Any) -> Callable[..., None]:
    """`record(case, view, pod)` keeps what was said about the pod, and the scheduler's verdict."""

    def keep(case: str, view: bytes, pod: str) -> None:
        if not os.environ.get("KYB_RECORD"):
            return
        folder = GOLDEN / case
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "view.json").write_bytes(view)
        for verb in ("filter", "prioritize", "preempt"):
            for number, one in enumerate(beside.recording.of(pod, verb)[:2]):
                _write(folder / f"{verb}-{number}.request.json", one.request)
                _write(folder / f"{verb}-{number}.answer.json", one.answer)
        verdict = {
            "node": beside.node_of(pod),
            "condition": beside.condition(pod),
            "attempts": attempts(beside),
        }
        _write(folder / "scheduler.json", verdict)

    return keep


def attempts(beside: Any) -> list[str]:
    """The scheduler's count of its attempts so far, by result."""
    metrics: str = beside.plane.metrics("kube-scheduler")
    name = "scheduler_schedule_attempts_total"
    return [line for line in metrics.splitlines() if line.startswith(name)]


def _write(path: Path, value: Any) -> None:
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


@pytest.fixture(scope="module")
def two_nodes(beside: Any, eventually: Any) -> Any:
    """place-a has little CPU left, which the scheduler's own scores dislike; place-b is empty."""
    beside.add_node(a_node("place-a"), cpu="4")
    beside.add_node(a_node("place-b"))
    busy = {"containers": [{"name": "c", "image": "c", "resources": {"requests": {"cpu": "3"}}}]}
    beside.kube.create(
        PODS,
        {
            "metadata": {"name": "busy", "namespace": beside.namespace},
            "spec": {**busy, "nodeName": "place-a", "tolerations": [{"operator": "Exists"}]},
        },
    )
    for name in ("llama-1", "llama-2", "llama-3"):
        copies = [{"node": "place-a", "tier": "ram"}, {"tier": "object"}]
        beside.add_checkpoint(name, {"sizeBytes": 40 * GIB, "copies": copies})
    eventually(lambda: knows(beside, nodes={"place-a", "place-b"}, checkpoints=3))
    return beside


def knows(beside: Any, nodes: set[str], checkpoints: int = 0) -> bool:
    cluster = orjson.loads(beside.get("/debug/view"))["cluster"]
    ready = {name for name, node in cluster["nodes"].items() if node["state"]["groups"]}
    return nodes <= ready and len(cluster["checkpoints"]) >= checkpoints


def test_the_estimate_decides_against_the_schedulers_own_scores(
    two_nodes: Any, eventually: Any, record: Any
) -> None:
    view = two_nodes.get("/debug/view")
    for name in ("llama-1", "llama-2", "llama-3"):
        two_nodes.add_pod(name, annotations={VRAM: "40Gi", RESTORE: name})
    for name in ("llama-1", "llama-2", "llama-3"):
        assert eventually(lambda name=name: two_nodes.node_of(name)) == "place-a"
    scores = two_nodes.recording.of("llama-1", "prioritize")[0]
    assert {one["Host"]: one["Score"] for one in scores.answer} == {"place-a": 10, "place-b": 0}
    record("estimate", view, "llama-1")


def test_the_placement_is_told_in_events_and_status(two_nodes: Any, eventually: Any) -> None:
    pod = two_nodes.add_pod("llama-4", annotations={VRAM: "40Gi", RESTORE: "llama-1"})
    workload = pods.read_workload(pod)
    assert workload is not None
    two_nodes.kube.create(GPUWORKLOADS, gpuworkloads.new_object(workload))

    def told() -> Any:
        status = two_nodes.kube.get(GPUWORKLOADS, "llama-4", two_nodes.namespace)["status"]
        return status if "placement" in status else None

    status = eventually(told)
    text = status["placement"]["text"]
    assert text.startswith("place-a 0.9 s = resume 0.9; place-b 43.8 s = fetch object 40 GiB 42.9")
    assert status["placement"]["estimateSeconds"] == pytest.approx(0.859, abs=0.001)
    assert status["decisions"][0]["reason"] == "Placed"
    events = eventually(
        lambda: two_nodes.plane.kubectl(
            "get", "events.events.k8s.io", "-n", two_nodes.namespace,
            "--field-selector=reason=Placed,regarding.name=llama-4",
            "-o", "jsonpath={range .items[*]}{.reportingController} {.note}{end}",
        )
    )  # fmt: skip
    assert events == f"kyb.ai/extender {text}"


def test_a_refusal_reaches_the_pods_condition_as_a_constant_reason(
    two_nodes: Any, eventually: Any, record: Any
) -> None:
    view = two_nodes.get("/debug/view")
    two_nodes.add_pod("too-large", annotations={VRAM: "500Gi"})
    message = eventually(lambda: two_nodes.condition("too-large"))
    assert "kybernate: workload needs more VRAM than a group of this size has" in message
    record("refused", view, "too-large")
    note = eventually(
        lambda: two_nodes.plane.kubectl(
            "get", "events.events.k8s.io", "-n", two_nodes.namespace,
            "--field-selector=reason=PlacementRefused", "-o", "jsonpath={.items[*].note}",
        )
    )  # fmt: skip
    assert "(500 GiB of 80 GiB)" in note


def test_a_seat_that_is_free_elsewhere_is_not_searched_for_twice(
    two_nodes: Any, eventually: Any
) -> None:
    """A refused pod is not asked about again and again while nothing changes."""
    two_nodes.add_pod("quiet", annotations={VRAM: "600Gi"})
    eventually(lambda: two_nodes.condition("quiet"))
    two_nodes.add_pod("after", annotations={VRAM: "1Gi"})
    eventually(lambda: two_nodes.node_of("after"))
    assert len(two_nodes.recording.of("quiet", "filter")) <= 4


def test_preemption_of_the_schedulers_own_choice_is_confirmed(
    beside: Any, eventually: Any, record: Any
) -> None:
    for name, value in (("low", 10), ("high", 1000)):
        beside.kube.create(
            PRIORITYCLASSES, {"metadata": {"name": f"placing-{name}"}, "value": value}
        )
    groups = [a_group(0, 1, seats=1)]
    beside.add_node(a_node("pair", groups=groups), seats=1)
    eventually(lambda: knows(beside, {"pair"}))
    seat = {"resource": "kyb.ai/gpu-2x-seat"}
    beside.add_pod("victim", {"priorityClassName": "placing-low"}, **seat)
    eventually(lambda: beside.node_of("victim") == "pair")
    victim = beside.pod("victim")["metadata"]["uid"]
    view = beside.get("/debug/view")
    beside.add_pod("urgent", {"priorityClassName": "placing-high"}, **seat)
    eventually(lambda: beside.pod("urgent").get("status", {}).get("nominatedNodeName") == "pair")
    told = beside.recording.of("urgent", "preempt")[0]
    assert told.request["NodeNameToVictims"] is None
    assert told.answer["NodeNameToMetaVictims"]["pair"]["Pods"] == [{"UID": victim}]
    record("preempt", view, "urgent")
    eventually(lambda: "deletionTimestamp" in beside.pod("victim")["metadata"])
    beside.kube.delete(PODS, "victim", beside.namespace, grace_seconds=0)
    eventually(lambda: beside.node_of("urgent") == "pair")
    # It is nominated, so it is asked about with that node alone, and gets the same answer.
    assert beside.recording.of("urgent", "filter")[-1].answer["NodeNames"] == ["pair"]


def test_pods_placed_at_the_same_moment_do_not_all_go_to_one_node(
    beside: Any, eventually: Any
) -> None:
    names = [f"spread-{at}" for at in range(4)]
    groups = [a_group(0, 1, 2, 3, seats=4)]
    for name in names:
        beside.add_node(a_node(name, groups=groups), seats=4)
    eventually(lambda: knows(beside, set(names)))
    wanted = [f"replica-{at}" for at in range(8)]
    for name in wanted:
        beside.add_pod(name, resource="kyb.ai/gpu-4x-seat")
    placed = [eventually(lambda name=name: beside.node_of(name)) for name in wanted]
    assert len(set(placed)) == 4


def test_a_holder_costs_seconds_and_the_empty_node_wins(
    beside: Any, eventually: Any, record: Any
) -> None:
    holder = a_tenant("holder", group="G0", state=State.ACTIVE, vram=60 * GIB)
    slow = a_node("held", tenants=[holder], labels={"for": "holder"})
    beside.add_node(slow)
    beside.add_node(a_node("free", labels={"for": "holder"}))
    eventually(lambda: knows(beside, {"held", "free"}))
    view = beside.get("/debug/view")
    only = {"nodeSelector": {"for": "holder"}}
    beside.add_pod("newcomer", only, annotations={VRAM: "40Gi"})
    assert eventually(lambda: beside.node_of("newcomer")) == "free"
    record("holder", view, "newcomer")
    assert beside.recording.of("newcomer", "filter")[0].answer["NodeNames"] == ["free", "held"]


def test_a_new_certificate_is_taken_over_while_it_runs(beside: Any, eventually: Any) -> None:
    host, port = beside.url.removeprefix("https://").split(":")
    shown = partial(ssl.get_server_certificate, (host, int(port)))
    before = shown()
    beside.renew_certificate()
    assert eventually(lambda: shown() != before)
    assert beside.get("/healthz") == b"ok\n"


def test_the_scheduler_found_no_fault_with_any_answer(beside: Any) -> None:
    """The last test of this file: everything above was said by now."""
    assert {one.status for one in beside.recording.exchanges} == {200}
    counted = attempts(beside)
    assert any('result="scheduled"' in line for line in counted)
    assert [line for line in counted if 'result="error"' in line and not line.endswith(" 0")] == []
    log = beside.plane.log("kube-scheduler").read_text()
    assert "xtender" not in "".join(line for line in log.splitlines() if line.startswith("E"))
    for one in beside.recording.exchanges:
        if one.verb == "prioritize":
            assert all(type(entry["Score"]) is int for entry in one.answer)
