"""A GpuNode that changes for the better wakes pods that the extender refused because of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller import openings
from controller.openings import SETTLE, Openings, Standing
from kybernate.api import names
from kybernate.clients.resources import GPUNODES, NODES
from kybernate.model.gpu import Health
from kybernate.model.ids import GroupName, PodUid
from kybernate.model.node import NodeState
from kybernate.model.tier import Room, Tier
from kybernate.testing.builders import a_gpunode, a_node, a_tenant
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube

Wait = Callable[..., Any]
THERE = Standing(
    ready=True, healthy=frozenset({GroupName("G0")}), tenants=frozenset({PodUid("a")}), free=10
)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(None, THERE, True, id="a-new-node"),
        pytest.param(None, replace(THERE, ready=False), False, id="a-new-node-not-ready"),
        pytest.param(THERE, THERE, False, id="nothing-new"),
        pytest.param(replace(THERE, ready=False), THERE, True, id="its-agent-is-back"),
        pytest.param(THERE, replace(THERE, ready=False), False, id="its-agent-is-away"),
        pytest.param(replace(THERE, healthy=frozenset()), THERE, True, id="a-group-is-well-again"),
        pytest.param(THERE, replace(THERE, healthy=frozenset()), False, id="a-group-is-sick"),
        pytest.param(THERE, replace(THERE, tenants=frozenset()), True, id="somebody-left"),
        pytest.param(replace(THERE, tenants=frozenset()), THERE, False, id="somebody-came"),
        pytest.param(THERE, replace(THERE, free=11), True, id="more-host-memory"),
        pytest.param(THERE, replace(THERE, free=9), False, id="less-host-memory"),
    ],
)
def test_what_is_better(before: Standing | None, after: Standing, expected: bool) -> None:
    assert openings.better(before, after) is expected


def a_kube(clock: FakeClock) -> FakeKube:
    return FakeKube({"kind": "Node", "metadata": {"name": "n1"}}, gpunode(full()), clock=clock)


def gpunode(state: NodeState) -> dict[str, Any]:
    return a_gpunode(state)


def full() -> NodeState:
    return a_node("n1", tenants=[a_tenant("llama-a")])


def opened(kube: FakeKube) -> str | None:
    annotations = kube.get(NODES, "n1")["metadata"].get("annotations") or {}
    return annotations.get(names.OPENED)


def report(kube: FakeKube, state: NodeState) -> None:
    kube.patch(GPUNODES, "n1", {"status": gpunode(state)["status"]}, subresource="status")


def settled(part: Openings, clock: FakeClock) -> None:
    clock.advance(SETTLE)
    part.look()


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(a_node("n1"), id="a-seat"),
        pytest.param(
            a_node(
                "n1",
                tenants=[a_tenant("llama-a")],
                rooms={Tier.RAM: Room(capacity=1 << 50)},
            ),
            id="host-memory",
        ),
    ],
)
def test_a_node_that_opened_is_told_once_it_settled(
    running: Wait, eventually: Wait, after: NodeState
) -> None:
    clock = FakeClock()
    kube = a_kube(clock)
    with running(Openings(kube, clock, lambda: True)) as part:
        settled(part, clock)
        first = opened(kube)
        report(kube, after)
        eventually(part.look)
        assert opened(kube) == first
        settled(part, clock)
        assert opened(kube) not in {None, first}


def test_what_got_worse_is_not_told(running: Wait, eventually: Wait) -> None:
    clock = FakeClock()
    kube = a_kube(clock)
    sick = replace(full(), group_health={GroupName("G0"): Health.UNHEALTHY})
    with running(Openings(kube, clock, lambda: True)) as part:
        settled(part, clock)
        first = opened(kube)
        report(kube, sick)
        eventually(lambda: not part.watches[0].get(("", "n1")).healthy)
        clock.advance(SETTLE)
        assert part.look() is None
        assert opened(kube) == first


def test_while_no_pod_waits_no_node_is_touched(running: Wait) -> None:
    clock = FakeClock()
    kube = a_kube(clock)
    with running(Openings(kube, clock, lambda: False)) as part:
        settled(part, clock)
        assert opened(kube) is None
        assert part.look() is None


def test_a_gpunode_without_a_node_is_passed_over(running: Wait) -> None:
    clock = FakeClock()
    kube = FakeKube(
        {"kind": "Node", "metadata": {"name": "n1"}},
        gpunode(full()),
        gpunode(a_node("gone")),
        clock=clock,
    )
    with running(Openings(kube, clock, lambda: True)) as part:
        settled(part, clock)
        assert opened(kube)
