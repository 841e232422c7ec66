"""
kill -9 before and after each record of a switch; after a restart everything is in order.

The story: a starts, b starts (a is parked for it), a is asked for (b is parked, a resumed). The
agent kills itself at the first record with the mark under test, wherever in the story that is.
"""

from contextlib import suppress

import pytest

from kybernate.clients.agents import Agent, AgentAway
from kybernate.model.workload import State
from kybernate.testing.agentnode import AgentNode, Pod, wait_for
from nodeagent.disk.records import Mark

pytestmark = pytest.mark.crash

KILLED = -9
MARKS = [
    Mark.HELD, Mark.STARTING, Mark.ACTIVE, Mark.PARKING, Mark.COPIED, Mark.PARKED, Mark.RESUMING,
    Mark.VERIFIED,
]  # fmt: skip


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("mark", MARKS)
def test_nothing_is_lost_wherever_the_agent_dies(node: AgentNode, when: str, mark: Mark) -> None:
    node.start_agent(fault=f"{when}:{mark}")
    a, b = node.create_pod("a", "G0/0", vram="60Gi"), node.create_pod("b", "G0/1", vram="60Gi")
    told: list[Pod] = []
    counted = _tell_the_story(node, a, b, told)
    assert node.await_agent_end() == KILLED

    node.start_agent()
    _everything_is_in_order(node, a, b)
    for pod in told:
        wait_for(lambda one=pod: node.state_of(one), f"{pod.key} is known")
        _asked_for(node, pod)
        _everything_is_in_order(node, a, b)
        answer = pod.predict()
        assert answer == answer | {"intact": True, "counter": counted.get(pod.key, 0) + 1}


BETWEEN = [Mark.DEMOTING, Mark.DEMOTED, Mark.PROMOTING, Mark.PROMOTED]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("mark", BETWEEN)
def test_nothing_is_lost_wherever_it_dies_between_the_tiers(
    node: AgentNode, when: str, mark: Mark
) -> None:
    """a is parked and demoted; then it waits behind b, and is brought up for its turn."""
    node.start_agent(fault=f"{when}:{mark}")
    a, b = node.create_pod("a", "G0/0", vram="60Gi"), node.create_pod("b", "G0/1", vram="60Gi")
    asked = dict.fromkeys((a.key, b.key), 0)
    with suppress(AgentAway, AssertionError, _Died):
        node.opa.demotes = True
        for pod in (a, b):
            node.tell_created(pod)
            _active(node, pod)
            asked[pod.key] = pod.predict()["counter"]
        wait_for(lambda: node.tier_of(a) == "nvme" or not node.agent_runs, "a is on NVMe")
        node.opa.demotes, node.opa.slice_seconds = False, 3600.0
        with Agent.on_node(node.socket) as agent:
            agent.activate(a.key, within=5.0)
    assert node.await_agent_end() == KILLED

    node.opa.demotes, node.opa.slice_seconds = False, 0.0
    node.start_agent()
    for pod in (a, b):
        _asked_for(node, pod)
        _everything_is_in_order(node, a, b)
        answer = pod.predict()
        assert answer == answer | {"intact": True, "counter": asked[pod.key] + 1}


STORED = [Mark.STORING, Mark.STORED, Mark.FETCHING, Mark.FETCHED]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("mark", STORED)
def test_nothing_is_lost_wherever_it_dies_between_nvme_and_the_object_store(
    node: AgentNode, when: str, mark: Mark
) -> None:
    """a is parked, goes down both steps, and comes back to NVMe."""
    node.flags = [f"--checkpoint-store={node.folder / 'store'}"]
    node.start_agent(fault=f"{when}:{mark}")
    a, b = node.create_pod("a", "G0/0", vram="60Gi"), node.create_pod("b", "G0/1", vram="60Gi")
    asked = dict.fromkeys((a.key, b.key), 0)
    with suppress(AgentAway, AssertionError, _Died):
        node.opa.places = {str(a.key): "object"}
        for pod in (a, b):
            node.tell_created(pod)
            _active(node, pod)
            asked[pod.key] = pod.predict()["counter"]
        wait_for(lambda: node.tier_of(a) == "object" or not node.agent_runs, "a is stored")
        node.opa.places = {str(a.key): "nvme"}
    assert node.await_agent_end() == KILLED

    node.opa.places = {}
    node.start_agent()
    for pod in (a, b):
        _asked_for(node, pod)
        _everything_is_in_order(node, a, b)
        answer = pod.predict()
        assert answer == answer | {"intact": True, "counter": asked[pod.key] + 1}
    below = node.folder / "store" / "parked" / "node"
    wait_for(lambda: not [p for p in below.rglob("*") if p.is_file()], "nothing of a is left there")


def _tell_the_story(node: AgentNode, a: Pod, b: Pod, told: list[Pod]) -> dict[object, int]:
    """Until the agent dies. How often each model was asked; `told` gets whom the agent heard of."""
    counted: dict[object, int] = {}
    with suppress(AgentAway, AssertionError, _Died):
        node.tell_created(a)
        told.append(a)
        _active(node, a)
        counted[a.key] = a.predict()["counter"]
        node.tell_created(b)
        told.append(b)
        _active(node, b)
        counted[b.key] = b.predict()["counter"]
        with Agent.on_node(node.socket) as agent:
            agent.activate(a.key, within=60.0)
        counted[a.key] = a.predict()["counter"]
    return counted


class _Died(Exception):
    """The agent ended itself, as it should."""


def _active(node: AgentNode, pod: Pod) -> None:
    def look() -> bool:
        if not node.agent_runs:
            raise _Died
        return node.state_of(pod) is State.ACTIVE

    wait_for(look, f"{pod.key} is active")


def _asked_for(node: AgentNode, pod: Pod) -> None:
    with Agent.on_node(node.socket) as agent:
        outcome = agent.activate(pod.key, within=60.0)
    assert outcome.ok, outcome


def _everything_is_in_order(node: AgentNode, *pods: Pod) -> None:
    wait_for(lambda: _settled(node), "no switch is under way")
    view = node.view()
    assert view is not None
    states = {one.key: one.state for one in view.workloads}
    assert len(view.workloads) == len(states), "a workload is in one state"
    active = [key for key, state in states.items() if state is State.ACTIVE]
    assert len(active) <= 1, "one is active on a GPU"
    assert State.QUARANTINED not in states.values(), node.agent_log
    with node.gpu() as gpu:
        owners = {p.pid for p in gpu.showing().processes if p.used}
    running = {pod.process.pid for pod in pods if pod.key in active}
    assert owners <= running, "no VRAM without an owner"
    tiers = ("state/pool", "state/parked")
    held = [path.name for tier in tiers for path in (node.folder / tier).iterdir() if path.is_dir()]
    parked = [pod.uid for pod in pods if states.get(pod.key) is State.PARKED]
    assert sorted(held) == sorted(parked), "what is parked is in one tier, and nothing else is"


def _settled(node: AgentNode) -> bool:
    """Who waits gets its turn at once here, so a switch is about to begin for it."""
    view = node.view()
    moving = (State.ACTIVATING, State.PARKING, State.WAITING)
    return view is not None and all(one.state not in moving for one in view.workloads)
