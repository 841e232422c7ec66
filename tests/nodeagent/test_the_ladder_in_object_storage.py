"""A node whose parked contents go on into object storage and come back: real agent, real processes,
a real S3 server (SeaweedFS), a simulated card."""

from collections.abc import Iterator
from typing import Any

import pytest

from kybernate.clients.agents import Agent
from kybernate.model.workload import State
from kybernate.stores import places
from kybernate.testing.agentnode import AgentNode, Pod, wait_for
from testbed.objectserver import KEY_ID, SECRET, ObjectServer

GIB = 2**30
STORE = "s3://kyb/cluster-a"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with ObjectServer.start(tmp_path_factory.mktemp("objects")) as running:
        running.make_bucket("kyb")
        yield running


@pytest.fixture
def stored(node: AgentNode, server: ObjectServer) -> AgentNode:
    """The node, its agent started with the store, and on G0 the models a, which is parked and in
    object storage, and b, which runs."""
    node.pool_limit, node.flags = "200Gi", [f"--checkpoint-store={STORE}"]
    node.environment = _who(server)
    node.opa.places = {"default/a": "object"}
    node.start_agent()
    for number, name in enumerate("ab"):
        pod = node.start_pod(name, f"G0/{number}", vram="60Gi")
        node.await_state(pod, State.ACTIVE)
        assert pod.predict()["counter"] == 1
    wait_for(lambda: node.tier_of(_pod(node, "a")) == "object", "a is in the object store")
    return node


def _who(server: ObjectServer) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": server.url,
    }


def _pod(node: AgentNode, name: str) -> Pod:
    return next(pod for key, pod in node.pods.items() if key.name == name)


def _there(server: ObjectServer) -> list[str]:
    return [one.key for one in places.store(STORE, _who(server)).list("parked")]


def _ask(node: AgentNode, pod: Pod, count: int) -> None:
    with Agent.on_node(node.socket) as agent:
        agent.activate(pod.key, within=60.0)
    answer = pod.predict()
    assert answer == answer | {"intact": True, "counter": count}


def test_it_goes_down_both_steps_and_runs_on_with_what_it_had(
    stored: AgentNode, server: ObjectServer
) -> None:
    a, b = _pod(stored, "a"), _pod(stored, "b")
    assert {key.split("/")[1] for key in _there(server)} == {"node"}
    assert not list((stored.folder / "state" / "parked").iterdir()), "the disk is free again"
    view = stored.view()
    assert view is not None
    assert {one.tier: one.used for one in view.tiers} == {"ram": 0, "nvme": 0, "object": 60 * GIB}
    wait_for(lambda: len(stored.notes("Demoted")) == 2, "both steps are told")
    nvme, store = stored.notes("Demoted")
    assert nvme.startswith("demoted to NVMe in ")
    assert store.startswith("demoted to object storage in ")
    assert "write object" in store
    assert "verify object" in store
    stored.opa.places = {}
    _ask(stored, a, 2)
    wait_for(lambda: any("fetch" in one for one in stored.notes("Resumed")), "it is told how")
    wait_for(lambda: not _there(server), "nothing of it is left there")
    _ask(stored, b, 2)


def test_another_agent_finds_it_there(stored: AgentNode, server: ObjectServer) -> None:
    stored.kill_agent()
    stored.start_agent()
    wait_for(lambda: stored.tier_of(_pod(stored, "a")) == "object", "a is where it was")
    stored.opa.places = {}
    _ask(stored, _pod(stored, "a"), 2)


@pytest.mark.parametrize("mark", ["storing", "stored"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_on_its_way_there_it_runs_on(
    node: AgentNode, server: ObjectServer, when: str, mark: str
) -> None:
    node.pool_limit, node.flags = "200Gi", [f"--checkpoint-store={STORE}"]
    node.environment = _who(server)
    node.start_agent(fault=f"{when}:{mark}")
    a = node.start_pod("a", "G0/0", vram="60Gi")
    node.await_state(a, State.ACTIVE)
    assert a.predict()["counter"] == 1
    node.opa.places = {"default/a": "object"}
    node.start_pod("b", "G0/1", vram="60Gi")
    node.await_agent_end()
    node.opa.places = {}
    node.start_agent()
    wait_for(lambda: node.tier_of(a) in ("nvme", "object", "vram"), "it is known where a is")
    _ask(node, a, 2)
    wait_for(lambda: not _there(server), "nothing of it is left there")


def test_while_the_server_is_away_it_stays_parked_and_nobody_leaves_for_it(
    stored: AgentNode, server: ObjectServer
) -> None:
    a, b = _pod(stored, "a"), _pod(stored, "b")
    server.kill()
    with Agent.on_node(stored.socket) as agent, pytest.raises(Exception, match=r"."):
        agent.activate(a.key, within=10.0)
    wait_for(lambda: _why_not(stored), "the event says why")
    assert (stored.state_of(a), stored.state_of(b)) == (State.PARKED, State.ACTIVE)
    assert b.predict()["counter"] == 2, "the holder never left"
    assert len(stored.notes("Parked")) == 1, "which is that of a"
    server.start_again()
    stored.opa.places = {}
    wait_for(lambda: stored.state_of(a) is State.ACTIVE, "it is tried again", 90.0)
    answer = a.predict()
    assert answer == answer | {"intact": True, "counter": 2}


def _why_not(node: AgentNode) -> Any:
    return [note for note in node.notes("ResumeFailed") if "object store" in note]


def test_it_comes_up_before_its_turn(stored: AgentNode) -> None:
    a = _pod(stored, "a")
    stored.opa.places, stored.opa.slice_seconds = {}, 3600.0
    with Agent.on_node(stored.socket) as agent, pytest.raises(Exception, match=r"."):
        agent.activate(a.key, within=1.0)
    wait_for(lambda: stored.tier_of(a) == "ram", "it is staged while it waits")
    assert stored.state_of(_pod(stored, "b")) is State.ACTIVE
    wait_for(lambda: "promoted to RAM" in "".join(stored.notes("Promoted")), "it is told")


def test_it_comes_back_to_nvme_where_policy_says_so(stored: AgentNode) -> None:
    a = _pod(stored, "a")
    stored.opa.places = {"default/a": "nvme"}
    wait_for(lambda: stored.tier_of(a) == "nvme", "it is on NVMe", 60.0)
    wait_for(lambda: "promoted to NVMe" in "".join(stored.notes("Promoted")), "it is told")
    stored.opa.places = {}
    _ask(stored, a, 2)


def test_what_is_deleted_while_it_is_there_leaves_nothing(
    stored: AgentNode, server: ObjectServer
) -> None:
    stored.end_pod(_pod(stored, "a"))
    wait_for(lambda: not _there(server), "nothing of it is left")


def test_where_ram_and_nvme_are_full_the_longest_parked_goes_on_and_all_run_on(
    node: AgentNode, server: ObjectServer
) -> None:
    node.pool_limit = "70Gi"
    node.flags = [f"--checkpoint-store={STORE}", "--nvme-limit=70Gi"]
    node.environment = _who(server)
    node.start_agent()
    pods = []
    for number, name in enumerate("abcd"):
        pod = node.start_pod(name, f"G0/{number}", vram="60Gi")
        node.await_state(pod, State.ACTIVE)
        assert pod.predict()["counter"] == 1
        pods.append(pod)
    assert [node.tier_of(pod) for pod in pods] == ["object", "nvme", "ram", "vram"]
    for pod in pods:
        _ask(node, pod, 2)
