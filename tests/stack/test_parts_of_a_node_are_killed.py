"""kill -9 of the agent, the device plugin, the light node and workloads, while they are at work."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from kybernate.clients.errors import NotFound
from kybernate.clients.resources import NODES
from kybernate.model.workload import State

pytestmark = [pytest.mark.controlplane, pytest.mark.crash]

MODELS = ("kept-a", "kept-b", "kept-c")
SEAT = "kyb.ai/gpu-1x-seat"
# Where in a switch the agent dies, in the words of its own progress.
MOMENTS = ("parking", "resuming", "parking", "resuming")


def test_contents_outlive_an_agent_that_is_killed_in_switch_after_switch(
    cluster: Any, witness: Callable[[str], Any]
) -> None:
    asked = dict.fromkeys(MODELS, 0)
    for name in MODELS:
        cluster.model(name, "one", "20Gi")
        cluster.loaded(name)
    killed_before_the_end = 0
    with witness("one") as seen:
        for turn, moment in enumerate(MOMENTS):
            name = MODELS[turn % len(MODELS)]
            with cluster.caught(name, "one", moment) as answer:
                cluster.stack.kill("nodeagent-one")
            cluster.stack.start_again("nodeagent-one")
            killed_before_the_end += answer.exception() is not None
            _ask(cluster, name, asked)
        for name in MODELS:
            _ask(cluster, name, asked)
    assert killed_before_the_end >= len(MOMENTS) // 2
    assert not seen.faults
    parked = {cluster.pod(n)["metadata"]["uid"] for n in MODELS if cluster.state(n) is State.PARKED}
    assert cluster.pool("one") == parked, "the pool holds what is parked, and nothing else"


def _ask(cluster: Any, name: str, asked: dict[str, int]) -> None:
    outcome = cluster.until(lambda: cluster.activate(name), f"an answer about {name}")
    assert outcome.ok, outcome
    asked[name] += 1
    answer = cluster.predict(name)
    assert answer == answer | {"counter": asked[name], "intact": True}


def test_a_killed_device_plugin_takes_no_seat_along(cluster: Any) -> None:
    cluster.model("seated", "one")
    cluster.loaded("seated")
    pid, seat = cluster.pid("seated"), cluster.workload("seated").seat
    cluster.stack.kill("deviceplugin-one")
    cluster.until(lambda: _allocatable(cluster) == "0", "no seat can be had")
    cluster.model("waiting", "one")
    cluster.until(lambda: f"Insufficient {SEAT}" in cluster.scheduling("waiting"), "it pends")
    assert cluster.predict("seated")["intact"]
    cluster.stack.start_again("deviceplugin-one")
    cluster.until(cluster.is_("waiting", State.ACTIVE, State.PARKED), "a seat and a turn")
    assert (cluster.pid("seated"), cluster.workload("seated").seat) == (pid, seat)
    assert cluster.workload("waiting").seat != seat


def _allocatable(cluster: Any) -> str:
    seats: str = cluster.kube.get(NODES, "one")["status"]["allocatable"][SEAT]
    return seats


def test_pods_live_on_through_a_killed_light_node(cluster: Any) -> None:
    for name in ("active", "parked"):
        cluster.model(name, "one")
        cluster.loaded(name)
    cluster.activate("active")
    before = {name: _life(cluster, name) for name in ("active", "parked")}
    cluster.stack.kill("lightnode-one")
    assert cluster.activate("parked").ok
    assert cluster.predict("parked")["intact"]
    cluster.stack.start_lightnode("one")
    cluster.until(lambda: _seated(cluster, "late"), "a new pod gets a seat")
    assert {name: _life(cluster, name) for name in ("active", "parked")} == before
    assert cluster.activate("active").ok
    assert cluster.predict("active")["intact"]


def _seated(cluster: Any, name: str) -> bool:
    """As whoever owns it would: a pod that came before the device plugin was back is replaced."""
    with suppress(NotFound):
        if cluster.phase(name) != "Failed":
            return cluster.workload(name) is not None
        cluster.delete(name)
    cluster.model(name, "one")
    return False


def _life(cluster: Any, name: str) -> tuple[int, str, int]:
    status = cluster.pod(name)["status"]["containerStatuses"][0]
    return cluster.pid(name), cluster.workload(name).seat, status["restartCount"]


def test_a_workload_that_dies_while_parked_frees_its_seat_and_its_bytes(cluster: Any) -> None:
    for name in ("mortal", "heir"):
        cluster.model(name, "one", "40Gi")
        cluster.loaded(name)
    pid, uid = cluster.pid("mortal"), cluster.pod("mortal")["metadata"]["uid"]
    assert cluster.activate("heir").ok
    assert cluster.state("mortal") is State.PARKED
    assert cluster.pool("one") == {uid}
    seat = cluster.workload("mortal").seat
    os.kill(pid, signal.SIGKILL)
    cluster.until(lambda: cluster.workload("mortal") is None, "no such workload")
    cluster.until(lambda: not cluster.pool("one"), "its bytes are freed")
    cluster.until(lambda: cluster.phase("mortal") == "Failed", "its pod has failed")
    cluster.until(lambda: not any(t.used for t in cluster.view("one").tiers), "and told so")
    names = [f"next-{n}" for n in range(5)]
    for name in names:
        cluster.model(name, "one", "1Gi")
    cluster.until(lambda: all(map(cluster.workload, names)), "all six seats are taken")
    assert seat in {cluster.workload(name).seat for name in names}


def test_two_that_are_asked_for_at_the_same_instant_both_get_their_turn(
    cluster: Any, witness: Callable[[str], Any]
) -> None:
    for name in MODELS:
        cluster.model(name, "one", "40Gi")
        cluster.loaded(name)
    with witness("one") as seen, ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            wanted = ("kept-a", "kept-b", "kept-a", "kept-b")
            outcomes = list(pool.map(cluster.activate, wanted))
            assert not [one for one in outcomes if not one.ok]
            assert cluster.activate("kept-c").ok
    assert not seen.faults
    for name in MODELS:
        assert cluster.activate(name).ok
        assert cluster.predict(name)["intact"]
