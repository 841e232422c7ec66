"""The three verbs, as the scheduler sees them."""

from typing import Any

import orjson
import pytest

from kybernate.model.gpu import Health
from kybernate.model.ids import GroupName, NodeName, PodUid
from kybernate.model.policy import PlacementVerdict
from kybernate.model.tier import Room, Tier
from kybernate.testing.builders import GIB, SEAT_2X, a_node, a_pod, a_tenant, a_workload

SICK = {GroupName("G0"): Health.UNHEALTHY}
VRAM = "kyb.ai/vram"


def call(answer: Any, pod: Any = None, **args: Any) -> Any:
    return orjson.loads(answer(orjson.dumps({"Pod": pod or a_pod(), **args})))


def test_filter_answers_best_first_and_leaves_the_reasons_out(extender: Any) -> None:
    extender.with_nodes(
        a_node("node-a", tenants=[a_tenant("llama-b", vram=40 * GIB)]),
        a_node("node-c", group_health=SICK),
    )
    answer = call(extender.service.filter, NodeNames=["node-a", "node-b", "node-c", "unknown"])
    assert answer == {
        "Nodes": None,
        "NodeNames": ["node-b", "node-a"],
        "FailedNodes": {},
        "FailedAndUnresolvableNodes": {},
        "Error": "",
    }


def test_when_none_is_left_every_node_has_a_constant_reason_in_the_right_map(
    extender: Any,
) -> None:
    full = {Tier.RAM: Room(capacity=0)}
    extender.with_nodes(
        a_node("node-a", tenants=[a_tenant("llama-b")], rooms=full),
        a_node("node-b", group_health=SICK),
    )
    answer = call(extender.service.filter, NodeNames=["node-a", "node-b", "unknown"])
    assert answer["NodeNames"] == []
    assert answer["FailedNodes"] == {
        "node-a": "kybernate: no room in host memory to park the holder"
    }
    assert answer["FailedAndUnresolvableNodes"] == {
        "node-b": "kybernate: no healthy group of this size",
        "unknown": "kybernate: node has no Kybernate seats",
    }
    assert answer["Error"] == ""


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        pytest.param(
            a_pod(resource=SEAT_2X),
            "kybernate: node has no seat of this size",
            id="2x-seat-on-nodes-with-one-gpu",
        ),
        pytest.param(
            a_pod(annotations={VRAM: "500Gi"}),
            "kybernate: workload needs more VRAM than a group of this size has",
            id="vram-larger-than-any-group",
        ),
        pytest.param(
            a_pod(annotations={VRAM: "lots"}),
            "kybernate: pod annotations cannot be read",
            id="unreadable-annotation",
        ),
    ],
)
def test_what_no_node_can_take_is_refused_everywhere(extender: Any, pod: Any, reason: str) -> None:
    answer = call(extender.service.filter, pod, NodeNames=["node-a", "node-b"])
    assert answer["FailedAndUnresolvableNodes"] == {"node-a": reason, "node-b": reason}


def test_a_pod_without_vram_may_go_anywhere(extender: Any) -> None:
    answer = call(extender.service.filter, a_pod(), NodeNames=["node-a", "node-b"])
    assert sorted(answer["NodeNames"]) == ["node-a", "node-b"]


def test_a_pod_that_wants_no_seat_passes_untouched(extender: Any) -> None:
    pod = a_pod(resource=None)
    names = ["node-x", "node-a"]
    assert call(extender.service.filter, pod, NodeNames=names)["NodeNames"] == names
    assert call(extender.service.prioritize, pod, NodeNames=names) == [
        {"Host": "node-x", "Score": 0},
        {"Host": "node-a", "Score": 0},
    ]
    victims = {"node-a": {"Pods": [{"UID": "u"}], "NumPDBViolations": 0}, "node-b": {"Pods": []}}
    answer = call(extender.service.preempt, pod, NodeNameToMetaVictims=victims)
    assert list(answer["NodeNameToMetaVictims"]) == ["node-a"]


def test_no_nodes_offered_none_answered(extender: Any) -> None:
    answer = call(extender.service.filter, NodeNames=[])
    assert (answer["NodeNames"], answer["FailedNodes"]) == ([], {})


def test_scores_are_whole_numbers_for_every_node_asked_about(extender: Any) -> None:
    extender.with_nodes(a_node("node-a", tenants=[a_tenant("llama-b", vram=3000 * GIB)]))
    extender.with_nodes(a_node("node-a", tenants=[a_tenant("b", vram=500 * GIB)]))
    raw = extender.service.prioritize(
        orjson.dumps({"Pod": a_pod(), "NodeNames": ["node-a", "node-b", "unknown"]})
    )
    assert b"." not in raw
    scores = {entry["Host"]: entry["Score"] for entry in orjson.loads(raw)}
    assert scores == {"node-a": 7, "node-b": 10, "unknown": 0}


def test_malformed_bodies_are_answered_too(extender: Any) -> None:
    service = extender.service
    answer = orjson.loads(service.filter(b'{"Pod": 1}'))
    assert "$.Pod" in answer["Error"]
    assert "$.NodeNames" in answer["Error"]
    assert orjson.loads(service.prioritize(b"{")) == []
    assert orjson.loads(service.preempt(b"nonsense")) == {"NodeNameToMetaVictims": {}}
    text = extender.metrics.text().decode()
    assert 'kyb_extender_malformed_total{verb="filter"} 1.0' in text


def test_nothing_is_decided_before_the_view_is_complete(extender: Any) -> None:
    extender.synced = False
    assert "not complete" in call(extender.service.filter, NodeNames=["node-a"])["Error"]
    assert call(extender.service.prioritize, NodeNames=["node-a"])[0]["Score"] == 0
    victims = {"node-a": {"Pods": [{"UID": "u"}]}}
    answer = call(extender.service.preempt, NodeNameToMetaVictims=victims)
    assert answer == {"NodeNameToMetaVictims": {}}
    assert extender.told.placements == []


def test_preempt_confirms_victims_only_where_they_would_help(extender: Any) -> None:
    extender.with_nodes(a_node("node-b", group_health=SICK))
    victims = {"Pods": [{"UID": "u1"}, {"UID": "u2"}], "NumPDBViolations": 1}
    answer = call(
        extender.service.preempt,
        NodeNameToMetaVictims={
            "node-a": victims,
            "node-b": victims,
            "unknown": victims,
            "empty": {"Pods": []},
        },
    )
    assert answer == {"NodeNameToMetaVictims": {"node-a": victims}}


def test_a_nominated_node_gets_the_answer_it_would_get_among_many(extender: Any) -> None:
    pod = a_pod()
    pod["status"]["nominatedNodeName"] = "node-a"
    extender.view.put_workload(PodUid("uid-llama-a"), a_workload(nominated_node=NodeName("node-a")))
    assert call(extender.service.filter, pod, NodeNames=["node-a"])["NodeNames"] == ["node-a"]
    both = call(extender.service.filter, pod, NodeNames=["node-a", "node-b"])["NodeNames"]
    assert sorted(both) == ["node-a", "node-b"]


def test_a_promised_node_is_left_to_whom_it_was_promised(extender: Any) -> None:
    promised = a_workload("first", nominated_node=NodeName("node-a"), priority=10)
    extender.view.put_workload(promised.uid, promised)
    answer = call(extender.service.filter, NodeNames=["node-a", "node-b"])
    assert answer["NodeNames"] == ["node-b", "node-a"]
    scores = call(extender.service.prioritize, NodeNames=["node-a", "node-b"])
    assert [entry["Score"] for entry in scores] == [9, 10]


def test_policy_denies_nodes_of_a_class(extender: Any) -> None:
    extender.with_nodes(a_node("node-a", product="Old GPU"))
    old = next(found for found in extender.view.classes() if found.product == "Old GPU")
    extender.judge.verdict = PlacementVerdict(deny={old.id: "TooOld"})
    assert call(extender.service.filter, NodeNames=["node-a", "node-b"])["NodeNames"] == ["node-b"]
    answer = call(extender.service.filter, NodeNames=["node-a"])
    assert answer["FailedAndUnresolvableNodes"] == {"node-a": "kybernate: policy denies this node"}


def test_refusals_are_counted_by_reason(extender: Any) -> None:
    call(extender.service.filter, a_pod(resource=SEAT_2X), NodeNames=["node-a", "node-b"])
    text = extender.metrics.text().decode()
    assert 'kyb_extender_refusals_total{reason="NO_SUCH_SEAT"} 2.0' in text
