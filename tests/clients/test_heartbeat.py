"""An agent's Lease says it lives."""

from typing import Any

import pytest

from kybernate.api import timestamps
from kybernate.clients.leases import LeaseHeartbeat, is_stale
from kybernate.clients.resources import LEASES
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def heart(kube: FakeKube, clock: FakeClock) -> LeaseHeartbeat:
    return LeaseHeartbeat(kube, "kyb-system", "kyb-agent-node-a", "node-a", clock)


def renewed(kube: FakeKube) -> float:
    spec = kube.get(LEASES, "kyb-agent-node-a", "kyb-system")["spec"]
    return timestamps.parse_rfc3339(spec["renewTime"])


def test_the_first_beat_makes_the_lease(
    kube: FakeKube, heart: LeaseHeartbeat, clock: FakeClock
) -> None:
    assert heart.beat()
    spec = kube.get(LEASES, "kyb-agent-node-a", "kyb-system")["spec"]
    assert spec["holderIdentity"] == "node-a"
    assert spec["leaseDurationSeconds"] == 40
    assert renewed(kube) == clock.now()


def test_every_beat_moves_the_time(kube: FakeKube, heart: LeaseHeartbeat, clock: FakeClock) -> None:
    heart.beat()
    clock.advance(10.5)
    assert heart.beat()
    assert renewed(kube) == clock.now()


def test_an_outage_is_survived(kube: FakeKube, heart: LeaseHeartbeat) -> None:
    kube.outage()
    assert not heart.beat()
    kube.recover()
    assert heart.beat()


def test_its_thread_beats_every_ten_seconds(
    kube: FakeKube, heart: LeaseHeartbeat, clock: FakeClock, until: Any
) -> None:
    heart.start()
    clock.wait_for_waiters()
    began = renewed(kube)
    clock.advance(10.0)
    until(lambda: renewed(kube) == began + 10.0)
    heart.stop()


@pytest.mark.parametrize(("unchanged", "stale"), [(0.0, False), (40.0, False), (40.1, True)])
def test_a_lease_is_stale_after_its_own_length(unchanged: float, stale: bool) -> None:
    assert is_stale({"spec": {"leaseDurationSeconds": 40}}, unchanged) is stale


def test_a_lease_without_a_length_is_stale_at_once() -> None:
    assert is_stale({"spec": {}}, 0.1)
