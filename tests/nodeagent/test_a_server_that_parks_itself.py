"""A pod that asks for `vllm-sleep`, under a real agent: parked and resumed, and after a restart."""

import json

import pytest
import urllib3

from kybernate.clients.agents import Agent
from kybernate.model.workload import State
from kybernate.testing.agentnode import wait_for

VLLM = ("testbed.vllm", "--model=m", "--enable-sleep-mode")
WISH = {"kyb.ai/park": "vllm-sleep"}


@pytest.fixture
def vllm(node):
    """The agent, and a vLLM that is active."""
    node.start_agent()
    node.serve = VLLM
    pod = node.start_pod("vllm", "G0/0", annotations=WISH)
    node.await_state(pod, State.ACTIVE)
    assert ask(pod) == (1, True)
    return pod


def ask(pod):
    """Its counter, and whether its contents are whole."""
    url = f"http://127.0.0.1:{wait_for(pod._port, 'it serves')}/v1/completions"
    body = json.dumps({"model": "m", "prompt": "", "max_tokens": 1})
    text = urllib3.request("POST", url, body=body, timeout=60.0).json()["choices"][0]["text"]
    return int(text.split("request ")[1].split()[0]), "intact" in text


def used(node):
    with node.gpu() as driver:
        return sum(one.used for one in driver.showing().processes)


def test_it_sleeps_to_be_parked_and_wakes_to_be_resumed(node, vllm):
    with Agent.on_node(node.socket) as agent:
        parked = agent.park(vllm.key)
        assert parked.ok, parked
        assert node.state_of(vllm) is State.PARKED
        assert used(node) == 0
        resumed = agent.activate(vllm.key)
        assert resumed.ok, resumed
    assert ask(vllm) == (2, True)


def test_it_is_parked_still_for_an_agent_that_starts_anew(node, vllm):
    with Agent.on_node(node.socket) as agent:
        assert agent.park(vllm.key).ok
    node.kill_agent()
    node.start_agent()
    node.await_state(vllm, State.PARKED)
    assert used(node) == 0
    with Agent.on_node(node.socket) as agent:
        assert agent.activate(vllm.key).ok
    assert ask(vllm) == (2, True)


def test_one_without_sleep_mode_keeps_its_gpu_and_people_read_why(node):
    node.start_agent()
    node.serve = VLLM[:2]
    pod = node.start_pod("vllm", "G0/0", annotations=WISH)
    node.await_state(pod, State.ACTIVE)
    ask(pod)
    with Agent.on_node(node.socket) as agent:
        refused = agent.park(pod.key)
    assert not refused.ok
    assert "Sleep mode is not enabled" in refused.message
    assert node.state_of(pod) is State.ACTIVE
    assert ask(pod) == (2, True)
