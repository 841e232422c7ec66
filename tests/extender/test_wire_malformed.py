"""What cannot be read is said with its JSON path, in an answer the scheduler reads."""

from typing import Any

import orjson
import pytest

from extender import wire
from kybernate.api.errors import Malformed
from kybernate.testing.builders import a_pod

POD = a_pod()


def changed(part: str, by: Any) -> Any:
    if isinstance(by, bytes):
        return b'{"Pod": {"spec": {}, "metadata": ' + by + b'}, "NodeNames": []}'
    value = {**POD.get(part, {}), **by} if isinstance(by, dict) else by
    return {"Pod": {**POD, part: value}, "NodeNames": []}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        pytest.param(b"", "$", id="empty"),
        pytest.param(b"{", "$", id="half"),
        pytest.param(b"[]", "$", id="list"),
        pytest.param(b'{"NodeNames": ["a"]}', "$.Pod", id="no-pod"),
        pytest.param(
            {"Pod": {"metadata": {}}, "NodeNames": []}, "$.Pod.spec", id="pod-without-spec"
        ),
        pytest.param({"Pod": POD}, "$.NodeNames", id="neither-names-nor-nodes"),
        pytest.param({"Pod": POD, "NodeNames": ["a", 1.5]}, "$.NodeNames[1]", id="float-for-name"),
        pytest.param({"Pod": POD, "NodeNames": "a"}, "$.NodeNames", id="text-for-list"),
        pytest.param(
            {"Pod": POD, "Nodes": {"items": [{}]}}, "$.Nodes.items[0].metadata.name", id="no-name"
        ),
        pytest.param({"Pod": POD, "Nodes": {"items": 3}}, "$.Nodes.items", id="items-no-list"),
        pytest.param(
            {"Pod": {"metadata": {}, "spec": {"containers": [1]}}, "NodeNames": []},
            "$.Pod.spec.containers[0]",
            id="container-no-object",
        ),
        pytest.param(changed("status", None), "$.Pod.status", id="status-null"),
        pytest.param(
            changed("metadata", {"annotations": 7}), "$.Pod.metadata.annotations", id="annotations"
        ),
        pytest.param(changed("metadata", {"uid": ["u"]}), "$.Pod.metadata.uid", id="uid-no-text"),
        pytest.param(changed("spec", {"priority": "5"}), "$.Pod.spec.priority", id="priority-text"),
        pytest.param(
            changed("spec", {"containers": [{"resources": {"limits": 7}}]}),
            "$.Pod.spec.containers[0]",
            id="limits-no-object",
        ),
        pytest.param(
            changed("metadata", b"[" * 1000 + b"]" * 1000), "$.Pod.metadata", id="very-deep"
        ),
    ],
)
def test_arguments_that_cannot_be_read_are_named(body: Any, path: str) -> None:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    with pytest.raises(Malformed) as caught:
        wire.read_args(raw)
    assert path in [fault.path for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("victims", "path"),
    [
        pytest.param({"NodeNameToMetaVictims": 3}, "$.NodeNameToMetaVictims", id="no-object"),
        pytest.param(
            {"NodeNameToMetaVictims": {"a": {"Pods": [{}]}}},
            "$.NodeNameToMetaVictims.a.Pods[0].UID",
            id="no-uid",
        ),
        pytest.param(
            {"NodeNameToVictims": {"a": {"Pods": [], "NumPDBViolations": 0.5}}},
            "$.NodeNameToVictims.a.NumPDBViolations",
            id="float",
        ),
    ],
)
def test_victims_that_cannot_be_read_are_named(victims: dict[str, Any], path: str) -> None:
    with pytest.raises(Malformed) as caught:
        wire.read_preemption(orjson.dumps({"Pod": POD, **victims}))
    assert path in [fault.path for fault in caught.value.faults]


def test_both_forms_of_victims_are_answered_in_the_meta_form() -> None:
    whole = {"a": {"Pods": [{"metadata": {"uid": "u1"}}], "NumPDBViolations": 2}}
    meta = {"b": {"Pods": [{"UID": "u2"}]}}
    args = wire.read_preemption(
        orjson.dumps({"Pod": POD, "NodeNameToVictims": whole, "NodeNameToMetaVictims": meta})
    )
    assert orjson.loads(wire.write_victims(args.victims)) == {
        "NodeNameToMetaVictims": {
            "a": {"Pods": [{"UID": "u1"}], "NumPDBViolations": 2},
            "b": {"Pods": [{"UID": "u2"}], "NumPDBViolations": 0},
        }
    }


def test_whole_nodes_are_answered_with_whole_nodes() -> None:
    nodes = [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]
    args = wire.read_args(orjson.dumps({"Pod": POD, "Nodes": {"items": nodes}}))
    assert args.names == ("a", "b")
    answer = orjson.loads(wire.write_filtered(args, [args.names[1]], {}))
    assert answer["Nodes"] == {"items": [nodes[1]]}
    assert answer["NodeNames"] is None
