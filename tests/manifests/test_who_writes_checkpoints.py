"""Of a GpuCheckpoint every agent writes its own part, for its own node, and nobody else writes."""

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]

KYB = "/apis/kyb.ai/v1alpha1"
SEALED = {
    "sizeBytes": 7,
    "size": "0.0 GiB",
    "fingerprint": "sha256:aa",
    "signature": "ed25519:aa:bb",
    "sealedAt": "2026-01-31T12:00:00Z",
}
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Sealed",
    "message": "",
    "lastTransitionTime": "2026-01-31T12:00:00Z",
}


@pytest.fixture
def agents(
    account: Callable[..., Any], new_node: Callable[[], str]
) -> tuple[tuple[str, Any], tuple[str, Any]]:
    """Two nodes with an agent each: ((name, caller), (name, caller))."""
    one, other = new_node(), new_node()
    return (
        (one, account("kyb-nodeagent", node=one)),
        (other, account("kyb-nodeagent", node=other)),
    )


def _object(name: str, node: str | None) -> Object:
    spec = {"workload": "statefulset.llama.0", **({"node": node} if node else {})}
    return {
        "apiVersion": "kyb.ai/v1alpha1",
        "kind": "GpuCheckpoint",
        "metadata": {"name": name},
        "spec": spec,
    }


def _copy(node: str) -> Object:
    return {"node": node, "tier": "nvme"}


def _claim(node: str, uid: str = "u1") -> Object:
    return {"podUID": uid, "node": node, "pod": "llama-0"}


@pytest.fixture
def made(
    admin: Any, agents: Any, namespace: str, new_name: Callable[[str], str]
) -> Callable[..., str]:
    """Seals one on the first node; the path of its status."""

    def make(**status: Any) -> str:
        (mine, agent), _ = agents
        path, name = f"{KYB}/namespaces/{namespace}/gpucheckpoints", new_name("checkpoint")
        created = agent.create(path, _object(name, mine))
        assert created.status == 201, created.message
        whole = {**SEALED, "copies": [_copy(mine)], "conditions": [READY]}
        written = agent.merge(f"{path}/{name}/status", {"status": whole})
        assert written.status == 200, written.message
        if status:
            assert admin.merge(f"{path}/{name}/status", {"status": status}).status == 200
        return f"{path}/{name}/status"

    return make


@pytest.mark.parametrize("whose", ["another", "nobody"])
def test_an_agent_makes_checkpoints_of_its_own_node_only(
    agents: Any, namespace: str, whose: str
) -> None:
    (mine, agent), (other, _) = agents
    body = _object("x", other if whose == "another" else None)
    refused = agent.create(f"{KYB}/namespaces/{namespace}/gpucheckpoints", body)
    assert f"the agent of node {mine} makes checkpoints of its own node only" in refused.message


def test_a_token_that_names_no_node_makes_none(account: Any, namespace: str) -> None:
    path = f"{KYB}/namespaces/{namespace}/gpucheckpoints"
    refused = account("kyb-nodeagent").create(path, _object("x", None))
    assert "token names no node" in refused.message


def test_another_agent_adds_its_copy_and_touches_no_other(agents: Any, made: Any) -> None:
    (mine, _), (other, agent) = agents
    path = made()
    both = [_copy(mine), _copy(other)]
    assert agent.merge(path, {"status": {"copies": both}}).status == 200
    assert agent.merge(path, {"status": {"copies": [_copy(mine)]}}).status == 200
    for copies in ([], [_copy(other)], [*both, _copy("third")], [{"tier": "object"}]):
        refused = agent.merge(path, {"status": {"copies": copies}})
        assert "writes of its own copy, and of the one in object storage" in refused.message


def test_any_agent_says_of_the_copy_in_object_storage(agents: Any, made: Any) -> None:
    (mine, _), (other, agent) = agents
    path = made()
    for copies in (
        [_copy(mine), {"tier": "object"}],
        [_copy(mine), {"tier": "object"}, _copy(other)],
        [_copy(mine), _copy(other)],
    ):
        assert agent.merge(path, {"status": {"copies": copies}}).status == 200


@pytest.mark.parametrize("field", [*SEALED, "conditions"])
def test_another_agent_says_nothing_of_what_was_sealed(
    agents: Any, namespace: str, new_name: Callable[[str], str], field: str
) -> None:
    (mine, sealer), (other, agent) = agents
    path, name = f"{KYB}/namespaces/{namespace}/gpucheckpoints", new_name("checkpoint")
    assert sealer.create(path, _object(name, mine)).status == 201
    said = {**SEALED, "conditions": [READY]}[field]
    refused = agent.merge(f"{path}/{name}/status", {"status": {field: said}})
    assert f"the agent of node {other} did not seal this checkpoint" in refused.message


def test_an_agent_claims_for_its_own_node_what_is_free(agents: Any, made: Any) -> None:
    (mine, agent), (other, its_agent) = agents
    path = made()
    refused = agent.merge(path, {"status": {"claim": _claim(other)}})
    assert "claims, and gives back, for pods of its own node only" in refused.message
    assert its_agent.merge(path, {"status": {"claim": _claim(other)}}).status == 200
    assert "claim is taken" in agent.merge(path, {"status": {"claim": _claim(mine, "u2")}}).message
    assert not agent.merge(path, {"status": {"claim": None}}).allowed
    assert its_agent.merge(path, {"status": {"claim": None}}).status == 200
    assert agent.merge(path, {"status": {"claim": _claim(mine)}}).status == 200


def test_the_controller_ends_claims_and_writes_nothing_else(
    agents: Any, made: Any, account: Any
) -> None:
    (mine, _), _ = agents
    controller, path = account("kyb-controller"), made(claim=_claim("gone"))
    for status in (
        {"claim": _claim("another")},
        {"signature": None},
        {"copies": [_copy(mine), _copy("x")]},
        {"conditions": []},
    ):
        assert controller.merge(path, {"status": status}).status in (403, 422)
    assert controller.merge(path, {"status": {"claim": None}}).status == 200
    refused = controller.merge(path, {"status": {"claim": _claim(mine)}})
    assert "of a GpuCheckpoint the controller only ends claims" in refused.message


def test_the_controller_says_whether_one_is_kept_and_no_other_condition(
    agents: Any, made: Any, account: Any
) -> None:
    (_, agent), (_, other_agent) = agents
    controller, path = account("kyb-controller"), made()
    kept = {**READY, "type": "Kept", "reason": "Newest"}
    there = agent.get(path.removesuffix("/status")).body["status"].get("conditions", [])
    assert controller.merge(path, {"status": {"conditions": [*there, kept]}}).status == 200
    ready = {**READY, "status": "False"}
    refused = controller.merge(path, {"status": {"conditions": [ready, kept]}})
    assert refused.status == 403
    refused = other_agent.merge(
        path, {"status": {"conditions": [*there, {**kept, "status": "False"}]}}
    )
    assert "did not seal this checkpoint" in refused.message


def test_no_user_writes_a_checkpoint_or_its_status(
    user: Any, made: Any, namespace: str, agents: Any
) -> None:
    path, editor = made(), user("edit")
    checkpoints = f"{KYB}/namespaces/{namespace}/gpucheckpoints"
    assert editor.create(checkpoints, _object("x", None)).status == 403
    for somebody in (editor, user("cluster-admin")):
        refused = somebody.merge(path, {"status": {"claim": _claim("x")}})
        assert refused.status == 403
    assert "written by agents" in refused.message


def test_who_may_edit_a_namespace_deletes_its_checkpoints(user: Any, made: Any) -> None:
    path = made().removesuffix("/status")
    assert not user("view").ask("DELETE", path).allowed
    assert user("edit").ask("DELETE", path).status == 200
