"""The whole path on one node, with real processes: start, wait, switch, resume."""

from kybernate.clients.agents import Agent
from kybernate.model.workload import State
from kybernate.testing.agentnode import AgentNode, wait_for


def test_two_models_that_do_not_fit_together_take_turns_and_keep_their_contents(
    node: AgentNode,
) -> None:
    node.opa.slice_seconds = 0.2
    node.start_agent()
    first = node.start_pod("llama-a", "G0/0", vram="60Gi")
    node.await_state(first, State.ACTIVE)
    assert first.predict()["counter"] == 1

    second = node.start_pod("llama-b", "G0/1", vram="60Gi")
    node.await_state(second, State.ACTIVE)
    node.await_state(first, State.PARKED)
    assert second.predict()["intact"]

    with Agent.on_node(node.socket) as agent:
        outcome = agent.activate(first.key, within=60.0)
    assert outcome.ok, outcome
    assert {"wait", "lock", "copy out", "release", "copy in", "unlock", "unaccounted"} <= {
        phase.name for phase in outcome.phases
    }
    answer = first.predict()
    assert answer["intact"]
    assert answer["counter"] == 2
    node.await_state(second, State.PARKED)
    wait_for(lambda: _reasons(node) >= {"SeatAssigned", "Parked", "Resumed"}, "events are written")


def _reasons(node: AgentNode) -> set[str]:
    return {event["reason"] for event in node.events()}


def test_a_model_on_two_cards_takes_turns_with_those_on_each(two_cards: AgentNode) -> None:
    node = two_cards
    node.opa.slice_seconds = 0.2
    node.start_agent()
    a = node.start_pod("a", "G0/0", vram="60Gi")
    b = node.start_pod("b", "G1/0", vram="60Gi")
    for pod in (a, b):
        node.await_state(pod, State.ACTIVE)
        assert pod.predict()["intact"]

    both = node.start_pod("both", "G01/0", vram="120Gi")
    node.await_state(both, State.ACTIVE)
    assert both.predict()["intact"]
    assert (node.state_of(a), node.state_of(b)) == (State.PARKED, State.PARKED)

    with Agent.on_node(node.socket) as agent:
        for pod in (a, b):
            assert agent.activate(pod.key, within=60.0).ok
        assert [pod.predict()["counter"] for pod in (a, b)] == [2, 2]
        assert node.state_of(both) is State.PARKED
        assert agent.activate(both.key, within=60.0).ok
    assert both.predict()["counter"] == 2
