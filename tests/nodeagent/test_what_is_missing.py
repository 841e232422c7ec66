"""Cards, groups and pods that were there once, or never: told, and nobody else is held up."""

import tempfile
from pathlib import Path
from typing import Any

from kybernate.clients.resources import GPUNODES, PODS
from kybernate.model.workload import State
from kybernate.testing.agentnode import PROFILES, AgentNode, wait_for

PAIRS = PROFILES + (
    "  - {name: gpu-2x-seat, resource: kyb.ai/gpu-2x-seat, groupSize: 2, seatsPerGroup: 2}\n"
    "gpuTopology: {groups: [{name: far, gpus: [0, 7]}]}\n"
)


def _status(node: AgentNode) -> dict[str, Any]:
    found = [one for one in node.kube.list(GPUNODES) if one.get("status")]
    return found[0]["status"] if found else {}


def _condition(node: AgentNode, name: str) -> dict[str, Any]:
    conditions = _status(node).get("conditions", ())
    return next((one for one in conditions if one["type"] == name), {})


def test_a_group_of_which_a_card_is_missing_is_unhealthy_and_all_others_go_on() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="kyb-") as folder,
        AgentNode(Path(folder), profiles=PAIRS) as node,
    ):
        node.start_agent()
        a = node.start_pod("a", "G0/0")
        node.await_state(a, State.ACTIVE)
        said = wait_for(lambda: _condition(node, "GpusParkable"), "it is told")
        assert (said["status"], said["reason"]) == ("False", "CardMissing")
        assert "group far lists GPU 7, which is not there" in said["message"]
        healths = {group["name"]: group["health"] for group in _status(node)["groups"]}
        assert healths == {"G0": "Healthy", "far": "Unhealthy"}


def test_who_lives_on_a_group_that_is_gone_is_told(node: AgentNode) -> None:
    node.start_agent()
    a = node.start_pod("a", "G0/0")
    node.await_state(a, State.ACTIVE)
    node.kill_agent()
    text = PROFILES.replace("1x", "2x").replace("groupSize: 1", "groupSize: 2")
    (node.folder / "profiles.yaml").write_text(text)
    node.start_agent()
    wait_for(lambda: "Stranded" in {one["reason"] for one in node.events()}, "it is told")
    (said,) = [one for one in node.events() if one["reason"] == "Stranded"]
    assert said["regarding"]["name"] == "a"
    assert "group G0 is not on node any more" in said["note"]
    assert a.predict()["intact"]


def test_of_an_unreadable_record_the_copy_goes_with_its_pod(node: AgentNode) -> None:
    node.start_agent()
    a = node.start_pod("a", "G0/0")
    node.await_state(a, State.ACTIVE)
    node.kill_agent()
    record = node.folder / "state/journal" / f"{a.uid}.json"
    record.write_text("{")
    copy = node.folder / "state/pool" / a.uid
    copy.mkdir(parents=True, exist_ok=True)
    node.end_pod(a)
    node.kube.delete(PODS, "a", "default", grace_seconds=0)
    node.start_agent()
    wait_for(lambda: not copy.exists(), "its copy is gone")
    aside = node.folder / "state/journal/aside" / record.name
    wait_for(lambda: not aside.exists(), "its record is gone")
