"""
The kubelet asks where a pod should sit as soon as it has seen it: our watch may be behind.

Faked: the API server. Real: the watches.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kybernate.clients.resources import PODS
from kybernate.model.ids import GroupName, NodeName, WorkloadKey
from kybernate.testing.builders import a_pod
from kybernate.testing.fakekube import FakeKube
from nodeagent.watching import Watching

SEAT = "kyb.ai/gpu-1x-seat"
LONG_S = 60.0  # never waited for


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def seen() -> threading.Event:
    """Set when the agent is told of a pod."""
    return threading.Event()


@pytest.fixture
def watching(kube: FakeKube, seen: threading.Event) -> Iterator[Watching]:
    one = Watching(kube, NodeName("node-a"), seen.set, lambda *_: None)
    one.start()
    yield one
    one.stop()


def bind(kube: FakeKube, name: str) -> WorkloadKey:
    """A pod comes to the node, and wishes for a group."""
    pod = a_pod(name, annotations={"kyb.ai/prefer-group": "G1"}, spec={"nodeName": "node-a"})
    kube.create(PODS, pod)
    return WorkloadKey("default", name)


def test_a_pod_that_our_watch_has_not_shown_is_waited_for(
    kube: FakeKube, watching: Watching
) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(watching.unseated, SEAT, set(), LONG_S)
        assert not asked.done()
        bind(kube, "late")
        assert [one.prefer_group for one in asked.result(LONG_S)] == [GroupName("G1")]


def test_who_has_a_seat_is_not_who_is_asked_about(
    kube: FakeKube, watching: Watching, seen: threading.Event
) -> None:
    first = bind(kube, "first")
    assert seen.wait(LONG_S)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(watching.unseated, SEAT, {first}, LONG_S)
        bind(kube, "second")
        assert len(asked.result(LONG_S)) == 1


def test_one_that_never_comes_is_waited_for_no_longer_than_said(watching: Watching) -> None:
    assert watching.unseated(SEAT, set(), behind=0.01) == ()
