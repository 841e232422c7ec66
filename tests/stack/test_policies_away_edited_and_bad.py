"""OPA is killed, policies are edited under waiting pods, and offers that are no policies."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import pytest

from kybernate.clients.agents import AgentAway
from kybernate.clients.errors import Unavailable
from kybernate.model.workload import State

pytestmark = [pytest.mark.controlplane, pytest.mark.crash]

PLACEMENT = "data__placement.json"
# OPA polls every 2 s, pods are tried again 3 s after, the scheduler's longest back-off is 10 s.
TRIED_AGAIN_S = 30.0


def test_without_opa_holders_stay_and_with_it_turns_go_on(cluster: Any) -> None:
    cluster.model("holder", "one", "40Gi")
    cluster.loaded("holder")
    cluster.model("other", "one", "60Gi")
    cluster.loaded("other")
    assert cluster.activate("holder").ok
    with _opa_away(cluster), pytest.raises(AgentAway):
        # Several times what policy gives a holder: it would long have been parked.
        cluster.activate("other", within=5.0)
    told = cluster.until(lambda: cluster.events("other", "PolicyUnavailable"), "the event")
    assert "no verdict from policy, so nothing is preempted" in told[0]
    cluster.until(cluster.is_("other", State.ACTIVE), "the turn that was asked for")
    assert cluster.state("holder") is State.PARKED
    assert cluster.predict("other")["intact"]


def test_without_opa_a_free_gpu_is_given_and_no_new_seat(cluster: Any) -> None:
    cluster.trainer("leaver", 3000, "one")
    cluster.until(cluster.is_("leaver", State.ACTIVE), "the first")
    cluster.model("next", "one")
    cluster.until(cluster.is_("next", State.WAITING, State.ACTIVE), "the next")
    cluster.activate("next")
    with _opa_away(cluster, besides="next"):
        with pytest.raises(Unavailable, match="policy gives no verdict, so no seat is given"):
            cluster.model("refused", "one")
        cluster.delete("next")
        cluster.until(cluster.is_("leaver", State.ACTIVE), "a GPU that is free needs no verdict")


@contextmanager
def _opa_away(cluster: Any, besides: str = "") -> Iterator[None]:
    """Nobody answers at its address meanwhile; and no holder is parked but this one."""
    stopped, gone = threading.Event(), []
    before = {
        w.key
        for n in cluster.agents
        for w in cluster.view(n).workloads
        if w.state == "Active" and w.key.name != besides
    }

    def look_on() -> None:
        while not stopped.wait(0.05):
            now = {w.key: w.state for n in cluster.agents for w in cluster.view(n).workloads}
            gone.extend(key for key in before if now.get(key) is not State.ACTIVE)

    cluster.stack.opa.kill()
    thread = threading.Thread(target=look_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        cluster.stack.opa.start_again()
        cluster.until(cluster.stack.opa.has_bundles, "OPA with policies")
    assert not gone


def test_a_pod_that_policy_refused_is_placed_when_the_policy_changes(cluster: Any) -> None:
    def closed(text: str) -> str:
        rules = json.loads(text)
        rules["rules"].append(
            {"name": "closed", "classes": ["training"], "deny": "ClosedToTraining"}
        )
        return json.dumps(rules)

    with cluster.policies(PLACEMENT, closed):
        patient = cluster.until(partial(_refused, cluster, count()), "a refusal")
        note = cluster.until(lambda: cluster.events(patient, "PlacementRefused"), "the event")
        assert "ClosedToTraining" in note[0]
        assert cluster.stack.policy_revision() in note[0]
        edited = time.monotonic()
    # Nothing else happens in the cluster, and nobody touches the pod.
    cluster.until(lambda: cluster.node_of(patient), "a node", TRIED_AGAIN_S)
    print(f"placed {time.monotonic() - edited:.1f} s after the edit")
    cluster.until(lambda: cluster.phase(patient) == "Succeeded", "its end")


def _refused(cluster: Any, numbers: Iterator[int]) -> str:
    """A trainer that policy refuses: those that come before the policy is everywhere are placed."""
    name: str = cluster.trainer(f"patient-{next(numbers)}", 1)
    cluster.until(lambda: cluster.node_of(name) or cluster.scheduling(name), "placed or refused")
    return name if "policy denies this node" in cluster.scheduling(name) else ""


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        pytest.param(
            "kyb__placement__placement.rego",
            "package kyb.placement\n\nverdict := {",
            "placement.rego",
            id="syntax error",
        ),
        pytest.param(
            "kyb__preemption__preemption.rego", None, "preemption", id="missing entrypoint"
        ),
        pytest.param(
            "data__classes.json", '{"inference": 1}', "classes", id="data against its schema"
        ),
        pytest.param("data__turns.json", "{", "turns", id="data that is no JSON"),
    ],
)
def test_policies_that_are_none_are_refused_and_the_last_good_ones_stay(
    cluster: Any, key: str, text: str | None, said: str
) -> None:
    revision = cluster.stack.policy_revision()
    before = len(cluster.events("kyb-policies", "PolicyRefused", "kyb-system"))
    with cluster.policies(key, lambda _: text):
        notes = cluster.until(
            lambda: cluster.events("kyb-policies", "PolicyRefused", "kyb-system")[before:],
            "the refusal",
        )
        assert "the policies before stay in force" in notes[-1]
        assert said in notes[-1]
        assert cluster.stack.policy_revision() == revision
        cluster.trainer("meanwhile", 1)
        cluster.until(lambda: cluster.phase("meanwhile") == "Succeeded", "life goes on")
    assert cluster.stack.policy_revision() == revision
