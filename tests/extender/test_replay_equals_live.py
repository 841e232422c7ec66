"""A dump leads to the decision that was taken; asking twice leads to the same answer."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extender import dump, replay
from extender.__main__ import main
from extender.dump import Dump
from extender.placing import Options
from kybernate.api.errors import Malformed
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.gpu import Health
from kybernate.model.ids import GroupName, NodeName
from kybernate.model.node import NodeState
from kybernate.model.policy import PlacementVerdict
from kybernate.model.tier import Bandwidth, Tier
from kybernate.model.workload import State, Wishes, Workload
from kybernate.testing.builders import (
    GIB,
    SEAT_1X,
    SEAT_2X,
    a_checkpoint,
    a_group,
    a_node,
    a_tenant,
    a_workload,
)
from kybernate.testing.clock import START

GROUPS = [a_group(0), a_group(1), a_group(0, 1)]


@st.composite
def states(draw: Any, name: str) -> NodeState:
    tenants = [
        a_tenant(
            f"{name}-t{at}",
            group=draw(st.sampled_from(["G0", "G1", "G01"])),
            number=at,
            state=draw(st.sampled_from(list(State))),
            vram=draw(st.integers(1, 60)) * GIB,
            min_runtime_until=START + draw(st.integers(-10, 50)),
        )
        for at in range(draw(st.integers(0, 3)))
    ]
    return a_node(
        name,
        groups=GROUPS,
        tenants=tenants,
        agent_ready=draw(st.booleans()) or draw(st.booleans()),
        group_health={
            group.name: draw(st.sampled_from([Health.HEALTHY, Health.HEALTHY, Health.UNKNOWN]))
            for group in GROUPS
        },
        bandwidths={Tier.RAM: Bandwidth(bytes_per_second=draw(st.integers(1, 50)) * 1e9)},
        labels={"topology.kubernetes.io/zone": draw(st.sampled_from(["a", "b"])), "x": "y"},
    )


@st.composite
def workloads(draw: Any, name: str, where: list[NodeName]) -> Workload:
    wishes = Wishes(
        vram=draw(st.sampled_from([None, 10 * GIB, 70 * GIB, 100 * GIB])),
        prefer_group=draw(st.sampled_from([None, GroupName("G1")])),
        restore_from=draw(st.sampled_from([(), ("c1",), ("gone", "c2")])),
    )
    node = draw(st.sampled_from([None, None, *where]))
    return a_workload(
        name,
        resource=draw(st.sampled_from([SEAT_1X, SEAT_2X])),
        wishes=wishes,
        priority=draw(st.integers(0, 2)),
        node=node,
        nominated_node=None if node else draw(st.sampled_from([None, *where])),
    )


def checkpoints() -> list[Checkpoint]:
    return [
        a_checkpoint("c1", copies={NodeName("n001"): Tier.NVME}),
        a_checkpoint("c2", in_object_storage=True),
    ]


NAMES = [NodeName(f"n{at:03d}") for at in range(80)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_replay_equals_live(extender: Any, data: Any) -> None:
    extender = type(extender)(options=Options(candidates=data.draw(st.sampled_from([0, 1, 3]))))
    count = data.draw(st.sampled_from([3, 80]))  # few nodes are looked at, many have a board
    kinds = [data.draw(states("n")) for _ in range(5)]
    for at, name in enumerate(NAMES[:count]):
        extender.with_nodes(replace(kinds[at % 5], name=name))
        extender.view.put_labels(name, kinds[at % 5].labels)
    for found in checkpoints():
        extender.view.put_checkpoint(f"{found.namespace}/{found.name}", found)
    pods = [data.draw(workloads(f"p{at}", NAMES[:count])) for at in range(6)]
    for pod in pods:
        extender.view.put_workload(pod.uid, pod)
    first = extender.view.classes()[0].id
    extender.judge.verdict = PlacementVerdict(
        deny=data.draw(st.sampled_from([{}, {first: "no"}])),
        penalty_seconds=data.draw(st.sampled_from([{}, {first: 3.0}])),
    )
    for pod in pods:  # boards of an earlier moment must not show
        extender.filter(pod, NAMES[:count])
    extender.clock.advance(data.draw(st.integers(0, 40)))
    for at in data.draw(st.lists(st.integers(0, count - 1), max_size=3)):
        extender.with_nodes(replace(data.draw(states("n")), name=NAMES[at]))

    waiting = sorted((pod for pod in pods if pod.node is None), key=lambda pod: pod.key)
    live = [(pod, extender.filter(pod, NAMES[:count])) for pod in waiting]
    again = [(pod, extender.filter(pod, NAMES[:count])) for pod in waiting]
    assert again == live
    written = dump.write(
        Dump(
            now=extender.clock.now(),
            candidates=extender.options.candidates,
            cold_start=extender.options.cold_start,
            cluster=extender.view.snapshot(),
            verdicts={pod.uid: extender.judge.verdict for pod in waiting},
        )
    )
    assert list(replay.decisions(dump.read(written))) == live


def a_dump(extender: Any) -> Dump:
    workload = a_workload()
    extender.view.put_workload(workload.uid, workload)
    return Dump(
        now=START,
        candidates=32,
        cold_start=60.0,
        cluster=extender.view.snapshot(),
        verdicts={workload.uid: PlacementVerdict(revision="sha256:0123")},
        asked={workload.uid: (NodeName("node-a"),)},
    )


def test_a_dump_reads_back_as_it_was(extender: Any) -> None:
    written = a_dump(extender)
    assert dump.read(dump.write(written)) == written


def test_replay_prints_the_plan_with_scores(extender: Any) -> None:
    extender.with_nodes(a_node("node-a", tenants=[a_tenant("llama-b", vram=50 * 10**9)]))
    assert replay.text(a_dump(extender)) == (
        "default/llama-a: 1 candidates, policy sha256:0123\n"
        "  10  node-a 61.0 s = park llama-b 1.0 + cold start 60.0"
    )


def test_replay_prints_refusals(extender: Any) -> None:
    extender.with_nodes(a_node("node-a", agent_ready=False))
    assert replay.text(a_dump(extender)) == (
        "default/llama-a: no node: 1 node agent does not report; policy sha256:0123"
    )


def test_a_file_is_replayed_from_the_command_line(
    extender: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    file = tmp_path / "view.json"
    file.write_bytes(dump.write(a_dump(extender)))
    monkeypatch.setattr(sys, "argv", ["extender", "--replay", str(file)])
    assert main() == 0
    assert "node-a 60.0 s = cold start 60.0" in capsys.readouterr().out
    file.write_text("{}")
    assert main() == 2
    assert "$.format" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "path"),
    [
        pytest.param(b"", "$", id="empty"),
        pytest.param(b'{"format": 2}', "$.format", id="newer"),
        pytest.param(b'{"format": 1, "now": "x"}', "$.now", id="text-for-number"),
        pytest.param(b'{"format": 1, "cats": 1}', "$", id="unknown-field"),
        pytest.param(b'{"format": 1, "now": 1}', "$", id="missing-fields"),
    ],
)
def test_what_is_no_dump_is_refused_with_its_path(body: bytes, path: str) -> None:
    with pytest.raises(Malformed) as caught:
        dump.read(body)
    assert caught.value.faults[0].path == path
