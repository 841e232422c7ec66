"""A node whose pool holds one of three models: real agent, real processes, a simulated card."""

from typing import Any

import pytest

from kybernate.clients.agents import Agent
from kybernate.model.workload import State
from kybernate.testing.agentnode import AgentNode, Pod, wait_for

GIB = 2**30


def _start_three(node: AgentNode) -> list[Pod]:
    """One after the other, each asked once. Of the first two one has to leave the pool."""
    pods = []
    for number, name in enumerate("abc"):
        pod = node.start_pod(name, f"G0/{number}", vram="60Gi")
        node.await_state(pod, State.ACTIVE)
        assert pod.predict()["counter"] == 1
        pods.append(pod)
    return pods


def _ask(node: AgentNode, pod: Pod, count: int) -> None:
    with Agent.on_node(node.socket) as agent:
        agent.activate(pod.key, within=60.0)
    answer = pod.predict()
    assert answer == answer | {"intact": True, "counter": count}


def test_where_the_pool_is_full_the_least_valuable_leaves_it_and_comes_back(
    node: AgentNode,
) -> None:
    node.pool_limit = "70Gi"
    node.start_agent()
    a, b, c = _start_three(node)
    assert [node.tier_of(pod) for pod in (a, b, c)] == ["nvme", "ram", "vram"]
    view = node.view()
    assert view is not None
    rooms = {one.tier: one.used for one in view.tiers}
    assert rooms == {"ram": 60 * GIB, "nvme": 60 * GIB}
    wait_for(lambda: node.notes("Demoted"), "it is told")
    (note,) = node.notes("Demoted")
    assert note.startswith("demoted to NVMe in ")
    assert "write nvme" in note

    _ask(node, a, 2)
    assert node.tier_of(b) == "nvme"
    wait_for(lambda: any("fetch" in one for one in node.notes("Resumed")), "its phases are told")
    _ask(node, b, 2)
    _ask(node, c, 2)


def test_another_agent_finds_contents_in_either_tier(node: AgentNode) -> None:
    node.pool_limit = "70Gi"
    node.start_agent()
    a, b, c = _start_three(node)
    node.kill_agent()
    node.start_agent()
    wait_for(lambda: node.tier_of(a) == "nvme", "a is where it was")
    assert node.tier_of(b) == "ram"
    for pod in (a, b, c):
        _ask(node, pod, 2)


def test_without_nvme_a_full_pool_refuses_as_before(node: AgentNode) -> None:
    node.pool_limit, node.flags = "70Gi", ["--nvme-limit=0"]
    node.start_agent()
    a = node.start_pod("a", "G0/0", vram="60Gi")
    node.await_state(a, State.ACTIVE)
    b = node.start_pod("b", "G0/1", vram="60Gi")
    node.await_state(b, State.ACTIVE)
    c = node.start_pod("c", "G0/2", vram="60Gi")

    def why() -> Any:
        view = node.view()
        found = view.workload(c.key) if view else None
        return found and "no room in host memory" in found.why

    wait_for(why, "it is refused")
    assert node.state_of(b) is State.ACTIVE


def test_the_next_in_line_is_brought_up_before_its_turn(node: AgentNode) -> None:
    node.pool_limit, node.opa.demotes = "200Gi", True
    node.start_agent()
    a = node.start_pod("a", "G0/0", vram="60Gi")
    node.await_state(a, State.ACTIVE)
    b = node.start_pod("b", "G0/1", vram="60Gi")
    node.await_state(b, State.ACTIVE)
    wait_for(lambda: node.tier_of(a) == "nvme", "a went down")
    node.opa.demotes, node.opa.slice_seconds = False, 3600.0
    with Agent.on_node(node.socket) as agent, pytest.raises(Exception, match=r"."):
        agent.activate(a.key, within=1.0)
    wait_for(lambda: node.tier_of(a) == "ram", "it is staged while it waits")
    assert node.state_of(b) is State.ACTIVE
    wait_for(lambda: node.notes("Promoted"), "it is told")


def test_what_is_deleted_while_it_is_on_nvme_leaves_nothing(node: AgentNode) -> None:
    node.pool_limit, node.opa.demotes = "200Gi", True
    node.start_agent()
    a = node.start_pod("a", "G0/0", vram="60Gi")
    node.await_state(a, State.ACTIVE)
    b = node.start_pod("b", "G0/1", vram="60Gi")
    node.await_state(b, State.ACTIVE)
    below = node.folder / "state" / "parked"
    wait_for(lambda: node.tier_of(a) == "nvme", "a went down")
    assert [path.name for path in below.iterdir()] == [a.uid]
    node.end_pod(a)
    wait_for(lambda: not list(below.iterdir()), "nothing of it is left")
