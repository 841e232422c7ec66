"""
What the agent makes of demand: told by an activator, or seen at a pod's own sockets.

Real: the agent, the simulated GPU, containers that share this machine's network, as light nodes'
do. Faked: the API server, OPA, PodResources.
"""

from collections.abc import Iterator

import pytest

from kybernate.clients.agents import Agent, AgentRefused
from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import State
from kybernate.testing.agentnode import AgentNode, Pod, wait_for

NOBODY = WorkloadKey("default", "nobody")


@pytest.fixture
def agent(node: AgentNode) -> Iterator[Agent]:
    """Serving."""
    node.start_agent()
    with Agent.on_node(node.socket) as one:
        yield one


@pytest.fixture
def parked(node: AgentNode, agent: Agent) -> Pod:
    """A model that has answered once."""
    pod = node.start_pod("a", "G0/0")
    node.await_state(pod, State.ACTIVE)
    assert pod.predict()["counter"] == 1
    assert agent.park(pod.key, within=60.0).ok
    return pod


def test_who_asks_a_parked_model_of_a_light_node_is_answered(node: AgentNode, parked: Pod) -> None:
    answer = parked.predict()
    assert (answer["counter"], answer["intact"]) == (2, True)
    node.await_state(parked, State.ACTIVE)


def test_requests_held_elsewhere_wake_a_model_and_keep_it_busy(
    node: AgentNode, agent: Agent, parked: Pod
) -> None:
    unknown = agent.report_demand("activator-1", {(parked.key, parked.uid): 2, (NOBODY, ""): 1}, 60)
    assert unknown == (NOBODY,)
    node.await_state(parked, State.ACTIVE)

    def counted() -> bool:
        seen = agent.state().workload(parked.key)
        return seen is not None and seen.demand is not None and seen.demand.in_flight == 2

    wait_for(counted, "its requests are counted")
    assert agent.report_demand("activator-1", {}, 60) == ()


def test_a_report_that_cannot_be_is_refused_in_words(agent: Agent) -> None:
    with pytest.raises(AgentRefused, match="reporter: a name that stays"):
        agent.report_demand("", {})
    with pytest.raises(AgentRefused, match="valid_seconds 3600: 0 to 60"):
        agent.report_demand("activator-1", {}, 3600)


def test_a_pinned_model_is_not_parked_though_somebody_asks_for_that(
    node: AgentNode, agent: Agent
) -> None:
    pod = node.start_pod("a", "G0/0", annotations={"kyb.ai/pin": "true"})
    node.await_state(pod, State.ACTIVE)
    outcome = agent.park(pod.key, within=60.0)
    assert (outcome.ok, outcome.reason) == (False, "PINNED")
    assert "default/a is pinned by its pod" in outcome.message
    waits = node.start_pod("b", "G0/1", vram="60Gi")

    def why() -> str:
        seen = agent.state().workload(waits.key)
        return seen.why if seen else ""

    wait_for(lambda: "default/a is pinned by its pod" in why(), "who waits is told why")
    assert node.state_of(pod) is State.ACTIVE
