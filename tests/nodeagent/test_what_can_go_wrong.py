"""Broken parts, with real processes around a real agent."""

import threading
from typing import Any

from kybernate.clients.agents import Agent, Outcome
from kybernate.clients.resources import GPUNODES, GPUWORKLOADS, PODS
from kybernate.model.workload import State
from kybernate.testing.agentnode import AgentNode, Pod, wait_for


def _activate(node: AgentNode, pod: Pod, within: float = 60.0) -> Outcome:
    with Agent.on_node(node.socket) as agent:
        return agent.activate(pod.key, within=within)


def _park(node: AgentNode, pod: Pod) -> Outcome:
    with Agent.on_node(node.socket) as agent:
        return agent.park(pod.key, within=60.0)


def _two(node: AgentNode) -> tuple[Pod, Pod]:
    """a parked, b active."""
    a = node.start_pod("a", "G0/0", vram="60Gi")
    node.await_state(a, State.ACTIVE)
    assert a.predict()["counter"] == 1
    b = node.start_pod("b", "G0/1", vram="60Gi")
    node.await_state(b, State.ACTIVE)
    node.await_state(a, State.PARKED)
    return a, b


def test_while_policy_is_away_nobody_is_preempted_and_the_waiter_is_told(node: AgentNode) -> None:
    node.opa.away = True
    node.start_agent()
    a = node.start_pod("a", "G0/0", vram="60Gi")
    node.await_state(a, State.ACTIVE)  # a free GPU needs no verdict
    b = node.start_pod("b", "G0/1", vram="60Gi")
    wait_for(lambda: _reasons(node, "b") >= {"PolicyUnavailable"}, "b is told")
    assert (node.state_of(a), node.state_of(b)) == (State.ACTIVE, State.WAITING)
    node.opa.away = False
    node.await_state(b, State.ACTIVE)


def test_who_was_refused_is_decided_about_anew_when_policy_changes(node: AgentNode) -> None:
    node.opa.slice_seconds = node.opa.retry_seconds = 3600.0
    node.start_agent()
    a = node.start_pod("a", "G0/0", vram="60Gi")
    node.await_state(a, State.ACTIVE)
    b = node.start_pod("b", "G0/1", vram="60Gi")
    wait_for(lambda: "PreemptionRefused" in _reasons(node, "b"), "b is refused for an hour")
    node.opa.slice_seconds, node.opa.retry_seconds = 0.0, 0.2
    node.opa.revision = "sha256:ba9876543210"
    node.await_state(b, State.ACTIVE)


def test_two_models_asked_for_at_the_same_instant_both_get_their_turn(node: AgentNode) -> None:
    node.start_agent()
    a, b = _two(node)
    assert _park(node, b).ok
    outcomes: list[Outcome] = []
    gate = threading.Barrier(2)

    def ask(pod: Pod) -> None:
        gate.wait()
        outcomes.append(_activate(node, pod))

    threads = [threading.Thread(target=ask, args=(pod,)) for pod in (a, b)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.ok for outcome in outcomes] == [True, True]
    assert _active(node) == 1


def test_a_workload_that_dies_while_parked_leaves_nothing_behind(node: AgentNode) -> None:
    node.start_agent()
    a, b = _two(node)
    node.end_pod(a)
    wait_for(lambda: node.state_of(a) is None, "a is forgotten")
    wait_for(lambda: not (node.folder / "state/pool" / a.uid).exists(), "its copy is freed")
    record = node.folder / "state/journal" / f"{a.uid}.json"
    wait_for(lambda: not record.exists(), "its record is forgotten")
    assert b.predict()["intact"]


def test_a_workload_that_dies_while_it_is_active_gives_way_to_the_next(node: AgentNode) -> None:
    node.opa.slice_seconds = 600.0
    node.start_agent()
    a = node.start_pod("a", "G0/0", vram="60Gi")
    node.await_state(a, State.ACTIVE)
    a.predict()
    b = node.start_pod("b", "G0/1", vram="60Gi")
    node.end_pod(a)
    node.await_state(b, State.ACTIVE)
    assert b.predict()["intact"]


def test_vram_held_by_a_stranger_is_never_counted_on(node: AgentNode) -> None:
    node.start_agent()
    with node.gpu() as gpu:
        gpu.inject(foreign_bytes=40 * 2**30)
        a = node.start_pod("a", "G0/0", vram="60Gi")
        wait_for(lambda: "VRAM" in _why(node, a) or "healthy" in _why(node, a), "a is told why")
        assert not a.started
        gpu.inject(foreign_bytes=0)
    node.await_state(a, State.ACTIVE)


def test_a_sick_card_is_not_given_out_until_it_is_well(node: AgentNode) -> None:
    node.start_agent()
    with node.gpu() as gpu:
        gpu.inject(healthy=False)
        wait_for(lambda: _health(node) == "Unhealthy", "GpuNode says so")
        a = node.start_pod("a", "G0/0")
        wait_for(lambda: "healthy" in _why(node, a), "a is told why")
        gpu.inject(healthy=True)
    node.await_state(a, State.ACTIVE)
    wait_for(lambda: _health(node) == "Healthy", "GpuNode says so")


def test_an_agent_that_is_replaced_finds_everybody_where_they_were(node: AgentNode) -> None:
    node.opa.slice_seconds = 600.0
    node.start_agent()
    a = node.start_pod("a", "G0/0", vram="60Gi")
    node.await_state(a, State.ACTIVE)
    a.predict()
    c = node.start_pod("c", "G0/2", vram="60Gi")
    assert _park(node, a).ok
    node.await_state(c, State.ACTIVE)
    b = node.start_pod("b", "G0/1", vram="60Gi")
    wait_for(lambda: node.state_of(b) is State.WAITING, "b waits")
    assert node.stop_agent() == 0
    node.start_agent()
    states = [node.state_of(pod) for pod in (a, b, c)]
    assert states == [State.PARKED, State.WAITING, State.ACTIVE]
    node.opa.slice_seconds = 0.0
    assert _activate(node, a).ok
    _is_whole(a, counter=2)


def test_an_unreadable_journal_record_is_put_aside_and_told(node: AgentNode) -> None:
    node.start_agent()
    a, b = _two(node)
    node.kill_agent()
    record = node.folder / "state/journal" / f"{a.uid}.json"
    record.write_bytes(record.read_bytes().replace(b"parked", b"active"))
    node.start_agent()
    wait_for(lambda: _reasons(node, "a") >= {"Quarantined"}, "a's pod is told")
    node.await_state(a, State.QUARANTINED)
    assert node.state_of(b) is State.ACTIVE
    assert (node.folder / "state/journal/aside" / record.name).exists()
    assert (node.folder / "state/pool" / a.uid).exists()  # people may still look at its contents
    assert b.predict()["intact"]


def test_a_copy_that_was_damaged_in_the_pool_is_quarantined_not_resumed(node: AgentNode) -> None:
    node.start_agent()
    a, b = _two(node)
    for part in (node.folder / "state/pool" / a.uid).glob("*.part"):
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
    outcome = _activate(node, a)
    assert (outcome.ok, outcome.reason) == (False, "QUARANTINED")
    assert node.state_of(a) is State.QUARANTINED
    assert _activate(node, b).ok  # the card is whole: nothing of a is left on it
    assert b.predict()["intact"]


def test_a_device_that_fails_in_the_middle_of_a_copy_leaves_the_holder_active(
    node: AgentNode,
) -> None:
    node.start_agent()
    a = node.start_pod("a", "G0/0", vram="60Gi")
    node.await_state(a, State.ACTIVE)
    a.predict()
    with node.gpu() as gpu:
        gpu.fail_next("CopyOut", times=1, after_bytes=20 * 2**30)
    outcome = _park(node, a)
    assert (outcome.ok, outcome.reason) == (False, "NOT_PARKABLE")
    _is_whole(a, counter=2)
    wait_for(lambda: _reasons(node, "a") >= {"ParkFailed"}, "people are told")


def test_a_resume_that_fails_goes_back_to_parked_and_is_tried_again(node: AgentNode) -> None:
    node.start_agent()
    a, _ = _two(node)
    with node.gpu() as gpu:
        gpu.fail_next("CopyIn", times=1, after_bytes=20 * 2**30)
    assert _activate(node, a).ok
    _is_whole(a, counter=2)
    wait_for(lambda: _reasons(node, "a") >= {"ResumeFailed"}, "people are told")


def test_no_room_in_host_memory_is_said_before_anything_starts(node: AgentNode) -> None:
    node.pool_limit = "50Gi"
    node.start_agent()
    a = node.start_pod("a", "G0/0", vram="60Gi")
    node.await_state(a, State.ACTIVE)
    b = node.start_pod("b", "G0/1", vram="60Gi")
    wait_for(lambda: "host memory" in _why(node, b), "b is told why")
    outcome = _park(node, a)
    assert (outcome.ok, outcome.reason) == (False, "NO_HOST_MEMORY")
    assert a.predict()["intact"]


def test_switching_goes_on_while_the_api_server_is_away(node: AgentNode) -> None:
    node.start_agent()
    a, b = _two(node)
    node.kube.outage()
    assert _activate(node, a).ok
    assert _activate(node, b).ok
    assert b.predict()["intact"]
    node.kube.recover()
    wait_for(lambda: _status(node, "b").get("state") == "Active", "b's status follows")
    wait_for(lambda: _status(node, "a").get("state") == "Parked", "a's status follows")


def test_what_people_want_is_done_and_kept(node: AgentNode) -> None:
    node.start_agent()
    a, b = _two(node)
    _desire(node, "b", "Active")
    outcome_of_a: list[str] = []
    with Agent.on_node(node.socket) as agent:
        for progress in agent.activating(a.key, within=60.0):
            outcome_of_a.append(progress.message)
            if "stays active" in progress.message:
                break
    _desire(node, "b", "Parked")
    node.await_state(b, State.PARKED)
    node.await_state(a, State.ACTIVE)
    outcome = _activate(node, b)
    assert (outcome.ok, outcome.reason) == (False, "WANTED_PARKED")


def test_a_pod_on_a_group_it_must_not_use_is_not_started(node: AgentNode) -> None:
    node.start_agent()
    a = node.start_pod("a", "G0/0", annotations={"kyb.ai/require-group": "G7"})
    wait_for(lambda: "required group" in _why(node, a), "a is told why")
    assert not a.started


def test_a_request_that_is_repeated_is_answered_the_same_and_done_once(node: AgentNode) -> None:
    node.start_agent()
    a, b = _two(node)
    with Agent.on_node(node.socket) as agent:
        first = agent.activate(a.key, idempotency_key="k1")
        assert agent.activate(b.key, idempotency_key="k2").ok
        again = agent.activate(a.key, idempotency_key="k1")
    assert again == first
    assert node.state_of(a) is State.PARKED


def test_the_pod_and_its_objects_say_what_happened(node: AgentNode) -> None:
    node.start_agent()
    _two(node)
    wait_for(lambda: _status(node, "a").get("state") == "Parked", "a's status")
    status: Any = _status(node, "a")
    assert status["tier"] == "ram"
    names = [phase["name"] for phase in status["lastSwitch"]["phases"]]
    assert "copy out" in names
    assert names[-1] == "unaccounted"
    seat = wait_for(lambda: _annotations(node, "a").get("kyb.ai/seat"), "the seat is written")
    assert seat == "G0/0"
    gpunode = wait_for(lambda: _gpunode(node), "the GpuNode")
    assert gpunode["groups"][0]["name"] == "G0"
    assert gpunode["bandwidths"][0]["bytesPerSecond"] > 0
    decisions = wait_for(lambda: status_decisions(node, "a"), "decisions are kept")
    assert "Parked" in {one["reason"] for one in decisions}


# looking


def _is_whole(pod: Pod, counter: int) -> None:
    """Its contents are what they were, its next answer is this one."""
    answer = pod.predict()
    assert answer == answer | {"counter": counter, "intact": True}


def _active(node: AgentNode) -> int:
    view = node.view()
    return sum(1 for one in view.workloads if one.state is State.ACTIVE) if view else 0


def _why(node: AgentNode, pod: Pod) -> str:
    view = node.view()
    found = view.workload(pod.key) if view else None
    return found.why if found else ""


def _reasons(node: AgentNode, name: str) -> set[str]:
    return {one["reason"] for one in node.events() if one["regarding"]["name"] == name}


def _status(node: AgentNode, name: str) -> dict[str, object]:
    status: dict[str, object] = node.kube.get(GPUWORKLOADS, name, "default").get("status") or {}
    return status


def status_decisions(node: AgentNode, name: str) -> list[dict[str, str]]:
    found = _status(node, name).get("decisions") or []
    assert isinstance(found, list)
    return found if any(one["reason"] == "Parked" for one in found) else []


def _annotations(node: AgentNode, name: str) -> dict[str, str]:
    annotations: dict[str, str] = node.kube.get(PODS, name, "default")["metadata"]["annotations"]
    return annotations


def _gpunode(node: AgentNode) -> dict[str, list[dict[str, object]]] | None:
    found = node.kube.list(GPUNODES)
    status = found[0].get("status") if found else None
    states = {tenant["state"] for tenant in status["tenants"]} if status else set()
    return status if states == {"Parked", "Active"} else None


def _health(node: AgentNode) -> object:
    found = node.kube.list(GPUNODES)
    status = found[0].get("status") if found else None
    return status["groups"][0]["health"] if status else None


def _desire(node: AgentNode, name: str, desired: str) -> None:
    node.kube.patch(GPUWORKLOADS, name, {"spec": {"desired": desired}}, "default")
