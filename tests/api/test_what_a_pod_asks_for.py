"""Pods to workloads: seats, annotations, and every fault at once."""

import timeit
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kybernate.api import names, pods
from kybernate.api.annotations import read_wishes
from kybernate.api.errors import Malformed
from kybernate.api.pods import is_finished, is_seat_pod, read_workload, seat_requests
from kybernate.model.gpu import Seat
from kybernate.model.ids import GroupName, NodeName, WorkloadKey
from kybernate.model.workload import (
    Endpoint,
    OnDelete,
    ParkMechanism,
    ScaleToZero,
    Wishes,
    Workload,
    WorkloadClass,
)
from kybernate.testing.builders import SEAT_1X, SEAT_2X, a_pod

GIB = 2**30
EVERYTHING = {
    "kyb.ai/vram": "40Gi",
    "kyb.ai/class": "training",
    "kyb.ai/min-runtime": "5m",
    "kyb.ai/idle-after": "30s",
    "kyb.ai/prefer-group": "G23",
    "kyb.ai/require-group": "G01",
    "kyb.ai/restore-from": "llama-a-1, models/llama-gold",
    "kyb.ai/on-delete": "checkpoint",
    "kyb.ai/park": "vllm-sleep",
    "kyb.ai/readiness": "active",
    "kyb.ai/pin": "true",
    "kyb.ai/keep-warm": "false",
    "kyb.ai/scale-to-zero": "checkpoint",
    "kyb.ai/metrics": "9100/stats",
    "kyb.ai/model": "meta-llama/Llama-3.1-8B-Instruct:awq",
}


def with_resources(*containers: dict[str, Any], init: Any = ()) -> dict[str, Any]:
    def dressed(prefix: str, all_: Any) -> list[dict[str, Any]]:
        return [{"name": f"{prefix}{n}", "resources": one} for n, one in enumerate(all_)]

    spec = {"containers": dressed("c", containers), "initContainers": dressed("i", init)}
    return a_pod(spec=spec)


def the_workload(pod: dict[str, Any]) -> Workload:
    found = read_workload(pod)
    assert found is not None
    return found


def faults_of(pod: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(Malformed) as caught:
        read_workload(pod)
    return {fault.path: fault.expected for fault in caught.value.faults}


def test_a_pod_that_asks_for_no_seat_is_none_of_ours() -> None:
    pod = a_pod(resource=None, annotations={"kyb.ai/vram": "nonsense"})
    assert read_workload(pod) is None
    assert not is_seat_pod(pod)
    assert seat_requests(pod) == []


def test_everything_a_pod_says_is_in_the_workload() -> None:
    pod = a_pod("llama-a", namespace="team", annotations=EVERYTHING | {"kyb.ai/seat": "G01/2"})
    pod["spec"] |= {"priority": 1000, "priorityClassName": "burst", "nodeName": "node-a"}
    pod["status"]["nominatedNodeName"] = "node-b"
    assert read_workload(pod) == Workload(
        key=WorkloadKey("team", "llama-a"),
        uid="uid-llama-a",  # type: ignore[arg-type]
        resource=SEAT_1X,
        seat_container="model",
        priority=1000,
        wishes=Wishes(
            vram=40 * GIB,
            workload_class=WorkloadClass.TRAINING,
            min_runtime=300.0,
            idle_after=30.0,
            prefer_group=GroupName("G23"),
            require_group=GroupName("G01"),
            restore_from=("llama-a-1", "models/llama-gold"),
            on_delete=OnDelete.CHECKPOINT,
            park=ParkMechanism.VLLM_SLEEP,
            readiness_active=True,
            pinned=True,
            scale_to_zero=ScaleToZero.CHECKPOINT,
            model="meta-llama/Llama-3.1-8B-Instruct:awq",
            metrics=Endpoint(9100, "/stats"),
        ),
        node=NodeName("node-a"),
        nominated_node=NodeName("node-b"),
        seat=Seat(GroupName("G01"), 2),
        policy_class="burst",
    )


def test_a_pod_that_says_nothing_leaves_it_to_policy() -> None:
    assert the_workload(a_pod()).wishes == Wishes()
    assert the_workload(a_pod(annotations={"other.io/x": "1"})).wishes == Wishes()


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(with_resources({}, {"limits": {SEAT_2X: "1"}}), id="limits"),
        pytest.param(with_resources({}, {"requests": {SEAT_2X: "1"}}), id="requests-only"),
        pytest.param(with_resources({"limits": None}, {"limits": {SEAT_2X: 1}}), id="null-limits"),
    ],
)
def test_limits_and_requests_are_looked_at(pod: dict[str, Any]) -> None:
    assert is_seat_pod(pod)
    assert seat_requests(pod) == [("c1", SEAT_2X, 1)]
    assert the_workload(pod).seat_container == "c1"
    assert the_workload(pod).resource == SEAT_2X


def test_init_containers_are_looked_at() -> None:
    pod = with_resources({}, init=[{"limits": {SEAT_1X: "1"}}])
    assert seat_requests(pod) == [("i0", SEAT_1X, 1)]
    assert the_workload(pod).seat_container == "i0"


def test_a_pod_that_asks_too_much_is_read_by_its_first_container_and_counted_in_full() -> None:
    pod = with_resources(
        {"limits": {SEAT_2X: "2"}, "requests": {SEAT_2X: "3", "cpu": "1"}},
        {"requests": {SEAT_1X: "1"}},
        init=[{"limits": {SEAT_1X: "1", SEAT_2X: "1"}}],
    )
    assert seat_requests(pod) == [
        ("c0", SEAT_2X, 3),
        ("c1", SEAT_1X, 1),
        ("i0", SEAT_1X, 1),
        ("i0", SEAT_2X, 1),
    ]
    assert the_workload(pod).seat_container == "c0"


def test_counts_that_are_no_counts_are_all_told() -> None:
    pod = with_resources({"limits": {SEAT_1X: "500m"}}, {"requests": {SEAT_1X: "many"}})
    with pytest.raises(Malformed) as caught:
        seat_requests(pod)
    assert [fault.path for fault in caught.value.faults] == [
        "spec.containers[0].resources.limits[kyb.ai/gpu-1x-seat]",
        "spec.containers[1].resources.requests[kyb.ai/gpu-1x-seat]",
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("kyb.ai/vram", "40GB", "like 40Gi"),
        ("kyb.ai/vram", "-1Gi", "not negative"),
        ("kyb.ai/vram", "0", "above 0"),
        ("kyb.ai/class", "Inference", "one of inference, training, batch"),
        ("kyb.ai/min-runtime", "300", "like 90s"),
        ("kyb.ai/idle-after", "soon", "like 90s"),
        ("kyb.ai/prefer-group", "../etc", "the name of a group"),
        ("prefer-group", "G 1", "the name of a group"),
        ("kyb.ai/require-group", "", "the name of a group"),
        ("kyb.ai/restore-from", "a,,b", "names of checkpoints"),
        ("kyb.ai/restore-from", "../../etc/passwd", "names of checkpoints"),
        ("kyb.ai/restore-from", "a/b/c", "NAMESPACE/NAME for a gold image of another"),
        ("kyb.ai/restore-from", "/a", "names of checkpoints"),
        ("kyb.ai/restore-from", "a/", "names of checkpoints"),
        ("kyb.ai/restore-from", "with.dot/a", "names of checkpoints"),
        ("kyb.ai/restore-from", "", "names of checkpoints"),
        ("kyb.ai/restore-from", ",".join("abcdefghi"), "at most 8 names of checkpoints"),
        ("kyb.ai/on-delete", "keep", "one of checkpoint, discard"),
        ("kyb.ai/park", "no", "one of auto, vllm-sleep, driver, never"),
        ("kyb.ai/readiness", "true", "active"),
        ("kyb.ai/pin", "yes", "true or false"),
        ("kyb.ai/keep-warm", "", "true or false"),
        ("kyb.ai/scale-to-zero", "park", "one of checkpoint, none"),
        ("kyb.ai/model", "../etc", "a model's name"),
        ("kyb.ai/metrics", "metrics", "a port of the pod and a path"),
        ("kyb.ai/metrics", "70000/metrics", "a port of the pod and a path"),
        ("kyb.ai/metrics", "80/a b", "a port of the pod and a path"),
        ("kyb.ai/seat", "G01", "a seat like G01/2"),
        ("kyb.ai/vrma", "40Gi", "one of kyb.ai/class, kyb.ai/idle-after"),
    ],
)
def test_a_bad_value_is_a_fault_with_its_path_and_what_is_accepted(
    name: str, value: str, expected: str
) -> None:
    faults = faults_of(a_pod(annotations={name: value}))
    assert list(faults) == [f"metadata.annotations[{name}]"]
    assert expected in faults[f"metadata.annotations[{name}]"]


def test_every_fault_is_told_at_once() -> None:
    bad = {"kyb.ai/vram": "x", "kyb.ai/class": "y", "kyb.ai/unknown": "z", "kyb.ai/seat": "s"}
    assert set(faults_of(a_pod(annotations=bad))) == {
        f"metadata.annotations[{name}]" for name in bad
    }


def test_the_same_fault_is_told_each_time_and_not_passed_around() -> None:
    pod = a_pod(annotations={"kyb.ai/vram": "x"})
    caught = []
    for _ in range(2):
        with pytest.raises(Malformed) as one:
            read_workload(pod)
        caught.append(one.value)
    assert caught[0] is not caught[1]
    assert str(caught[0]) == str(caught[1])


def test_the_plain_prefer_group_means_the_same() -> None:
    assert the_workload(a_pod(annotations={"prefer-group": "G23"})).wishes.prefer_group == "G23"
    both = {"prefer-group": "G23", "kyb.ai/prefer-group": "G23"}
    assert the_workload(a_pod(annotations=both)).wishes.prefer_group == "G23"
    faults = faults_of(a_pod(annotations=both | {"prefer-group": "G01"}))
    assert faults == {
        "metadata.annotations[prefer-group]": "the same as kyb.ai/prefer-group",
    }


def test_every_input_annotation_of_the_design_is_read() -> None:
    assert set(EVERYTHING) == names.INPUT_ANNOTATIONS
    assert read_wishes(EVERYTHING).readiness_active


@pytest.mark.parametrize(
    ("phase", "finished"),
    [("Pending", False), ("Running", False), ("Succeeded", True), ("Failed", True)],
)
def test_a_finished_pod_is_told_by_its_phase(phase: str, finished: bool) -> None:
    assert is_finished(a_pod() | {"status": {"phase": phase}}) is finished
    assert not is_finished({"metadata": {}})


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from([*sorted(EVERYTHING), "prefer-group"]), st.text(max_size=20))
)
def test_no_text_in_an_annotation_raises_anything_but_malformed(texts: dict[str, str]) -> None:
    with suppress(Malformed):
        read_workload(a_pod(annotations=texts))


def test_a_huge_value_is_not_repeated_in_full() -> None:
    with pytest.raises(Malformed) as caught:
        read_workload(a_pod(annotations={"kyb.ai/vram": "9" * 200_000}))
    assert len(str(caught.value)) < 300


def test_a_thousand_faults_are_counted_and_the_first_are_told() -> None:
    with pytest.raises(Malformed) as caught:
        read_workload(a_pod(annotations={f"kyb.ai/x{n}": "" for n in range(20_000)}))
    assert len(caught.value.faults) == 20_000
    assert str(caught.value).endswith("; and 19950 more")
    assert len(str(caught.value)) < 30_000


def test_large_annotations_are_looked_at_and_not_remembered() -> None:
    before = pods._remembered.cache_info().currsize
    for number in range(3):
        listed = ",".join(f"checkpoint-{number}-{n}" for n in range(10_000))
        pod = a_pod(annotations={"kyb.ai/restore-from": listed})
        with pytest.raises(Malformed, match="at most 8 names"):
            read_workload(pod)
    assert pods._remembered.cache_info().currsize == before


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(7, id="a-number"),
        pytest.param(["40Gi"], id="a-list"),
        pytest.param(orjson.loads("[" * 1000 + "]" * 1000), id="deeper-than-python-prints"),
    ],
)
def test_an_annotation_that_is_no_text_is_malformed(value: Any) -> None:
    faults = faults_of(a_pod(annotations={"kyb.ai/vram": value}))
    assert faults == {"metadata.annotations[kyb.ai/vram]": "a string"}


@pytest.mark.parametrize(
    "pod",
    [
        {"metadata": {"name": "x"}, "spec": {}},
        {"metadata": {"name": "x"}},
        {"metadata": {"name": "x"}, "spec": {"containers": None, "initContainers": None}},
    ],
)
def test_a_pod_without_containers_is_none_of_ours(pod: dict[str, Any]) -> None:
    assert read_workload(pod) is None


def test_reading_a_seat_pod_is_cheap_enough_for_every_watch_event() -> None:
    """Aim: below 15 microseconds. The bound leaves room for a slow, busy machine."""
    pod = orjson.loads(orjson.dumps(a_pod(annotations=EVERYTHING, spec={"priority": 5})))
    best = min(timeit.repeat(lambda: read_workload(pod), number=1000, repeat=5)) / 1000
    assert best < 60e-6
