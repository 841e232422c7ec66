"""
The NetworkPolicies as a table: who reaches which port of whom, and that nobody else does.

Judged here by the rules of the API, for there is no network plugin on the testbed to enforce them.
`outside` is whoever no selector can name: the API server, kube-scheduler of the host, the kubelet.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]
Build = Callable[[str], list[Object]]
SYSTEM = "kyb-system"
WORKLOADS = ("Deployment", "DaemonSet")
OPA_USERS = ("kyb-controller", "kyb-extender", "kyb-nodeagent", "kyb-webhook")
# Node addresses cannot be selected, so what they call is open to all, and TLS guards it.
ANYBODY_OUTSIDE = {"outside", "asking", "prometheus", "stranger"}

REACHED = {
    "kyb-extender https": {*ANYBODY_OUTSIDE, "kyb-scheduler"},
    "kyb-webhook https": ANYBODY_OUTSIDE,
    "kyb-controller https": {*OPA_USERS},  # bundles
    "kyb-nodeagent grpc": {"kyb-controller", "kyb-nodeagent", "kyb-activator"},
    "kyb-activator http": {"asking"},
    "kyb-scheduler https": set(),
    "kyb-registry grpc": {"kyb-nodeagent"},
    # The kubelet asks it; the API lets that through whatever a policy says.
    **{f"{name} opa-health": set() for name in OPA_USERS},
    **{
        f"{name} metrics": {"prometheus"}
        for name in (*OPA_USERS, "kyb-activator", "kyb-deviceplugin", "kyb-registry")
    },
}


@dataclass(frozen=True)
class Peer:
    """A pod as a policy sees it; in a namespace that is ours or has these labels."""

    name: str
    labels: Object = field(default_factory=dict)
    namespace: Object = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        return self.namespace.get("kubernetes.io/metadata.name") == SYSTEM


OTHERS = (
    Peer("outside"),
    Peer("asking", namespace={"kubernetes.io/metadata.name": "web", "kyb.ai/models": "ask"}),
    Peer(
        "prometheus", namespace={"kubernetes.io/metadata.name": "mon", "kyb.ai/metrics": "scrape"}
    ),
    Peer("stranger", namespace={"kubernetes.io/metadata.name": "default"}),
)


def _peers(objects: list[Object]) -> list[Peer]:
    found = []
    for one in objects:
        if one["kind"] in WORKLOADS:
            pod = one["spec"]["template"]
            ports = {
                port["name"]: port["containerPort"]
                for container in pod["spec"]["containers"]
                for port in container.get("ports", ())
            }
            ours = {"kubernetes.io/metadata.name": SYSTEM}
            found.append(Peer(one["metadata"]["name"], pod["metadata"]["labels"], ours, ports))
    return found


def _selects(selector: Object, labels: Object) -> bool:
    """As the API has it: an empty selector selects everything."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions", ()):
        assert one["operator"] in {"In", "NotIn"}, one
        if (labels.get(one["key"]) in one["values"]) != (one["operator"] == "In"):
            return False
    return True


def _is(peer: Peer, among: list[Object] | None) -> bool:
    """Whether one of `from` or `to` means the peer; without any, everybody is meant."""
    if among is None:
        return True
    return any(
        (
            _selects(one["namespaceSelector"], peer.namespace) and bool(peer.namespace)
            if "namespaceSelector" in one
            else peer.ours
        )
        and _selects(one.get("podSelector", {}), peer.labels)
        for one in among
    )


def _rules(policies: list[Object], peer: Peer, way: str) -> Iterator[Object]:
    for policy in policies:
        spec = policy["spec"]
        if way.title() in spec["policyTypes"] and _selects(spec["podSelector"], peer.labels):
            yield from spec.get(way, ())


def _passes(rule: Object, end: str, other: Peer, port: str, number: int) -> bool:
    ports = rule.get("ports")
    open_ = ports is None or any(one["port"] in {port, number} for one in ports)
    return open_ and _is(other, rule.get(end))


def _reaches(policies: list[Object], caller: Peer, server: Peer, port: str) -> bool:
    number = server.ports[port]
    let_out = not caller.ours or any(
        _passes(rule, "to", server, port, number) for rule in _rules(policies, caller, "egress")
    )
    return let_out and any(
        _passes(rule, "from", caller, port, number) for rule in _rules(policies, server, "ingress")
    )


def test_every_port_is_reached_by_whom_it_is_for_and_by_nobody_else(built: Build) -> None:
    objects = built("overlays/scheduler")
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    ours = _peers(objects)
    reached = {
        f"{server.name} {port}": {
            caller.name for caller in (*ours, *OTHERS) if _reaches(policies, caller, server, port)
        }
        for server in ours
        for port in server.ports
    }
    assert reached == REACHED


def test_nobody_of_ours_is_left_out_of_the_policies(built: Build) -> None:
    """What no policy selects may be called by all and call everybody."""
    objects = built("overlays/scheduler")
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    for peer, way in product(_peers(objects), ("ingress", "egress")):
        assert any(
            way.title() in one["spec"]["policyTypes"]
            and _selects(one["spec"]["podSelector"], peer.labels)
            for one in policies
        ), (peer.name, way)


def test_a_port_that_a_policy_names_is_there(built: Build) -> None:
    objects = built("overlays/scheduler")
    ours = _peers(objects)
    for policy in (one for one in objects if one["kind"] == "NetworkPolicy"):
        selected = [peer for peer in ours if _selects(policy["spec"]["podSelector"], peer.labels)]
        assert selected, policy["metadata"]["name"]
        for rule in policy["spec"].get("ingress", ()):
            for port in rule.get("ports", ()):
                assert any(port["port"] in peer.ports for peer in selected), policy["metadata"]


def test_a_service_leads_to_a_port_of_a_pod(built: Build) -> None:
    objects = built("overlays/scheduler")
    ours = _peers(objects)
    for service in (one for one in objects if one["kind"] == "Service"):
        behind = [
            peer
            for peer in ours
            if _selects({"matchLabels": service["spec"]["selector"]}, peer.labels)
        ]
        assert len(behind) == 1, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in behind[0].ports, service["metadata"]["name"]


def test_a_drain_takes_one_pod_of_several_and_is_never_stuck(built: Build) -> None:
    objects = built("overlays/scheduler")
    budgets = [one["spec"] for one in objects if one["kind"] == "PodDisruptionBudget"]
    for one in (one for one in objects if one["kind"] == "Deployment"):
        replicas, labels = (
            one["spec"].get("replicas", 1),
            one["spec"]["template"]["metadata"]["labels"],
        )
        mine = [budget for budget in budgets if _selects(budget["selector"], labels)]
        assert bool(mine) == (replicas > 1), one["metadata"]["name"]
        for budget in mine:
            assert budget["minAvailable"] == replicas - 1
            assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
