"""
A workload is sealed on one node and goes on on another.

Real and faked: as `conftest.py` says; checkpoints are fetched from agent to agent. Observed: the
pods' answers, the agents' word, the API server.
"""

import socket
import socketserver
import threading
import time
from contextlib import suppress

import pytest

from kybernate.clients.agents import AgentAway
from kybernate.model.ids import WorkloadKey
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

PATIENCE_S = 90.0  # two busy cores
PORT = 8443


def test_an_active_workload_is_sealed_and_goes_on(pair):
    one, _ = pair.nodes
    pair.run("sealed", one)
    assert pair.predict("sealed")["counter"] == 1
    made = pair.seal("sealed", one, "first")
    assert made.ok, made
    one.await_state("sealed", "Active")
    answer = pair.predict("sealed")
    assert (answer["counter"], answer["intact"]) == (2, True)
    wait_for(lambda: pair.checkpoint("first")["status"]["sizeBytes"], "it is published", 60.0)
    again = pair.seal("sealed", one, "first")
    assert (again.ok, again.reason) == (False, "NAME_TAKEN")
    assert pair.predict("sealed")["counter"] == 3


def test_a_sealed_workload_goes_on_on_the_other_node_and_again_on_the_first(pair):
    one, other = pair.nodes
    pair.run("before", one)
    for count in (1, 2, 3):
        assert pair.predict("before")["counter"] == count
    assert pair.seal("before", one, "moved", leave_parked=True).ok
    assert one.state("before") == "Parked"
    pair.delete("before")

    began = time.monotonic()
    pair.run("after", other, **{"restore-from": "moved"})
    answer = pair.predict("after")
    seconds = time.monotonic() - began
    assert (answer["counter"], answer["intact"]) == (4, True)
    status = wait_for(lambda: pair.switch("after"), "the switch is written", 60.0)
    phases = {phase["name"]: phase["seconds"] for phase in status["phases"]}
    print(f"create to the next number {seconds:.2f} s, of it {phases}")
    assert {"fetch and verify", "contents", "prepare", "restore", "copy in"} <= phases.keys()
    assert pair.checkpoint("moved")["status"]["claim"]["node"] == other.name

    pair.run("beside", other, **{"restore-from": "moved"})  # claimed: it begins anew
    other.await_state("beside", "Waiting")
    pair.delete("beside")

    assert pair.seal("after", other, "back", leave_parked=True).ok
    pair.delete("after")
    pair.run("home", one, **{"restore-from": "moved, back"})
    answer = pair.predict("home")
    assert (answer["counter"], answer["intact"]) == (5, True)


def test_an_agent_killed_while_it_seals_leaves_the_workload_parked(pair):
    """At the other marks: tests/nodeagent/test_sealing.py."""
    one, _ = pair.nodes
    pair.run("killed", one)
    assert pair.predict("killed")["counter"] == 1
    one.restart_agent(KYB_FAULT="before:sealed")
    one.await_state("killed", "Active")
    with pytest.raises(AgentAway):
        pair.seal("killed", one, "never")
    one.restart_agent()
    one.await_state("killed", "Parked")
    with one.agent() as agent:
        assert agent.activate(WorkloadKey("default", "killed"), within=60.0).ok
    answer = pair.predict("killed")
    assert (answer["counter"], answer["intact"]) == (2, True)
    assert pair.seal("killed", one, "never").reason == "NAME_TAKEN"  # it was whole already


def test_an_agent_killed_while_it_wakes_costs_nothing(pair):
    """At the other marks: tests/nodeagent/test_waking.py."""
    one, other = pair.nodes
    pair.run("before", one)
    assert pair.predict("before")["counter"] == 1
    assert pair.seal("before", one, "woken", leave_parked=True).ok
    pair.delete("before")
    other.restart_agent(KYB_FAULT="after:restoring")
    pair.run("after", other, wait=False, **{"restore-from": "woken"})
    wait_for(lambda: not other.agent_runs(), "the agent dies", PATIENCE_S)
    other.restart_agent()
    answer = pair.predict("after")
    assert (answer["counter"], answer["intact"]) == (2, True), pair.told("after")


@pytest.mark.parametrize(("kind", "counter"), [("training", 2), ("inference", 1)])
def test_a_woken_container_that_is_killed_goes_back_or_begins_anew_by_its_class(
    pair, kind, counter
):
    one, _ = pair.nodes
    pair.run("sealed", one)
    assert pair.predict("sealed")["counter"] == 1
    assert pair.seal("sealed", one, "kept-here", leave_parked=True).ok
    pair.delete("sealed")
    pair.run("woken", one, **{"restore-from": "kept-here", "class": kind})
    assert [pair.predict("woken")["counter"] for _ in range(2)] == [2, 3]
    one.real.runc("kill", pair.container("woken")["containerID"].rpartition("/")[2], "KILL")
    wait_for(lambda: pair.container("woken")["restartCount"] == 1, "it is made again", PATIENCE_S)
    answer = pair.predict("woken")
    assert (answer["counter"], answer["intact"]) == (counter, True), pair.told("woken")


class StuckLink(socketserver.ThreadingTCPServer):
    """Leads to an agent; after the first MiB of its answers nothing comes until `go_on` is set."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, target):
        self.go_on, self.passed = threading.Event(), 0
        self.target = target
        super().__init__(("127.0.0.1", 0), _Passing)

    @property
    def port(self):
        return self.server_address[1]


class _Passing(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(self.server.target) as agent:
            threading.Thread(target=self._ask, args=(agent,), daemon=True).start()
            with suppress(OSError):
                while piece := agent.recv(65536):
                    if self.server.passed > 2**20:
                        self.server.go_on.wait(PATIENCE_S)
                    self.server.passed += len(piece)
                    self.request.sendall(piece)

    def _ask(self, agent):
        with suppress(OSError):
            while piece := self.request.recv(65536):
                agent.sendall(piece)
            agent.shutdown(socket.SHUT_WR)


@pytest.fixture
def stuck(pair):
    """Between the second node and the agent of the first."""
    one, other = pair.nodes
    with StuckLink((one.real.state.address, PORT)) as link:
        threading.Thread(target=link.serve_forever, daemon=True).start()
        other.real.reach(link.port)
        one.reached_at = f"127.0.0.1:{link.port}"
        one.restart_agent()
        where = ("get", "gpunode", one.name, "-o", "jsonpath={.status.endpoint}")
        wait_for(lambda: pair.said(*where) == one.reached_at, "it is known anew", 60.0)
        yield link
        link.go_on.set()
        link.shutdown()
        one.reached_at = ""
        one.restart_agent()


def test_a_checkpoint_that_takes_longer_than_the_kubelet_waits_is_fetched_once(pair, stuck):
    """Also for a pod whose container is made once and never again: its sandbox waits."""
    one, other = pair.nodes
    pair.run("slow", one)
    assert pair.predict("slow")["counter"] == 1
    assert pair.seal("slow", one, "large", leave_parked=True).ok
    pair.delete("slow")
    wishes = {"restore-from": "large"}
    pair.run("late", other, wait=False, runtime="hurried", again="Never", **wishes)
    about = "involvedObject.name=late,reason=FailedCreatePodSandBox"
    refused = ("get", "events", f"--field-selector={about}", "-o", "jsonpath={.items[*].message}")
    wait_for(lambda: "not here yet" in pair.said(*refused), "the kubelet was refused", PATIENCE_S)
    stuck.go_on.set()
    answer = pair.predict("late")
    assert (answer["counter"], answer["intact"]) == (2, True)
    assert stuck.passed < 1.2 * pair.checkpoint("large")["status"]["sizeBytes"]
