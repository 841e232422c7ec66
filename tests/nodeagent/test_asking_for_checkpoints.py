"""What is answered where no checkpoint can be made; on a light node, whose containers are not
runc's. Where it can be made: tests/node/two_nodes/test_waking.py."""

from kybernate.clients.agents import Agent, Sealing
from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import State
from kybernate.testing.agentnode import AgentNode


def test_who_cannot_be_sealed_is_told_why_and_goes_on_as_before(node: AgentNode) -> None:
    node.opa.slice_seconds = node.opa.retry_seconds = 3600.0
    node.start_agent()
    active = node.start_pod("active", "G0/0", vram="60Gi")
    node.await_state(active, State.ACTIVE)
    waiting = node.start_pod("waiting", "G0/1", vram="60Gi")
    node.await_state(waiting, State.WAITING)
    assert active.predict()["counter"] == 1
    with Agent.on_node(node.socket) as agent:
        said = {
            key: agent.checkpoint(key, within=60.0)
            for key in (active.key, waiting.key, WorkloadKey("default", "nobody"))
        }
        parked = agent.park(active.key, within=60.0)
        said_of_parked = agent.checkpoint(active.key, within=60.0)
    assert [one.reason for one in said.values()] == [
        "NOT_SEALABLE",
        "NOT_STARTED",
        "UNKNOWN_WORKLOAD",
    ]
    assert "runc's state of container" in said[active.key].message
    assert parked.ok
    assert (said_of_parked.ok, said_of_parked.reason) == (False, "NOT_SEALABLE")
    assert node.state_of(active) is State.PARKED
    node.end_pod(waiting)  # which has the GPU now
    with Agent.on_node(node.socket) as agent:
        assert agent.activate(active.key, within=60.0).ok
    assert active.predict()["counter"] == 2


def test_a_request_that_is_sent_again_is_done_once(node: AgentNode) -> None:
    node.start_agent()
    pod = node.start_pod("active", "G0/0", vram="60Gi")
    node.await_state(pod, State.ACTIVE)
    asked = Sealing(name="c", idempotency_key="k")
    with Agent.on_node(node.socket) as agent:
        ends = [list(agent.sealing(pod.key, asked, within=60.0))[-1].outcome for _ in range(2)]
    assert ends[0] == ends[1]
    assert node.state_of(pod) is State.ACTIVE
