"""
What the agent makes of demand: told by an activator, or seen at a pod's own sockets.

Real: the agent, the simulated GPU, containers that share this machine's network, as light nodes'
do. Faked: the API server, OPA, PodResources.
"""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


class Metrics(ThreadingHTTPServer):
    """What a server in the pod would tell of its requests. None: it fails."""

    requests: int | None = 2
    daemon_threads = True

    @property
    def text(self) -> bytes:
        return f'vllm:num_requests_running{{engine="0"}} {self.requests}\n'.encode()


class _Page(BaseHTTPRequestHandler):
    server: Metrics

    def do_GET(self) -> None:
        self.send_response(500 if self.server.requests is None else 200)
        self.end_headers()
        self.wfile.write(self.server.text)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    with Metrics(("127.0.0.1", 0), _Page) as one:
        threading.Thread(target=one.serve_forever, args=(0.05,), daemon=True).start()
        yield one
        one.shutdown()


def test_an_idle_model_stays_while_its_own_metrics_tell_of_requests_or_cannot_be_read(
    node: AgentNode, metrics: Metrics
) -> None:
    node.opa.metrics["at"] = {"inference": f"{metrics.server_address[1]}/metrics"}
    node.start_agent()
    pod = node.start_pod("a", "G0/0", annotations={"kyb.ai/idle-after": "500ms"})
    with Agent.on_node(node.socket) as agent:

        def told() -> tuple[int | None, float | None]:
            seen = agent.state().workload(pod.key)
            demand = seen.demand if seen else None
            return (demand.in_flight, demand.idle_for) if demand else (None, -1.0)

        wait_for(lambda: told()[0] == 2, "its requests are counted")
        metrics.requests = None
        wait_for(lambda: told()[1] is None, "nobody calls it idle")

        assert node.state_of(pod) is State.ACTIVE
        metrics.requests = 0
        node.await_state(pod, State.PARKED)
