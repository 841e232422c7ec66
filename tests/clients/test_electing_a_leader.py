"""One leader at most, whatever clocks, networks and processes do."""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kybernate.clients.errors import Conflict, Unavailable
from kybernate.clients.leases import Elector, Terms
from kybernate.clients.resources import LEASES
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube

TERMS = Terms(lease=15.0, renew_within=10.0, retry=2.0)


@dataclass
class Candidate:
    """An elector, its clock, and what it was told."""

    kube: FakeKube
    name: str
    skew: float = 0.0
    clock: FakeClock = field(init=False)
    told: list[str] = field(default_factory=list)
    elector: Elector = field(init=False)

    def __post_init__(self) -> None:
        self.clock = FakeClock(skew=self.skew)
        self.elector = Elector(
            self.kube,
            "kyb-system",
            "kyb-controller",
            self.name,
            self.clock,
            lambda: self.told.append("started"),
            lambda: self.told.append("stopped"),
            terms=TERMS,
        )


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def pair(kube: FakeKube) -> tuple[Candidate, Candidate]:
    return Candidate(kube, "a"), Candidate(kube, "b", skew=-3600.0)


def lease(kube: FakeKube) -> dict[str, Any]:
    spec: dict[str, Any] = kube.get(LEASES, "kyb-controller", "kyb-system")["spec"]
    return spec


def pass_time(seconds: float, *candidates: Candidate) -> None:
    for candidate in candidates:
        candidate.clock.advance(seconds)


def test_the_first_one_leads_and_the_second_waits(
    kube: FakeKube, pair: tuple[Candidate, Candidate]
) -> None:
    a, b = pair
    a.elector.step()
    b.elector.step()
    assert (a.elector.leading, b.elector.leading) == (True, False)
    assert (a.told, b.told) == (["started"], [])
    assert lease(kube)["holderIdentity"] == "a"
    assert lease(kube)["leaseDurationSeconds"] == 15


def test_a_leader_that_renews_is_never_replaced(pair: tuple[Candidate, Candidate]) -> None:
    a, b = pair
    for _ in range(50):
        a.elector.step()
        b.elector.step()
        pass_time(2.0, a, b)
    assert (a.told, b.told) == (["started"], [])


def test_a_silent_leader_is_replaced_after_a_whole_lease_was_watched(
    kube: FakeKube, pair: tuple[Candidate, Candidate]
) -> None:
    a, b = pair
    a.elector.step()
    b.elector.step()
    pass_time(15.0, a, b)
    b.elector.step()
    assert not b.elector.leading
    pass_time(0.1, a, b)
    b.elector.step()
    assert b.elector.leading
    assert lease(kube)["leaseTransitions"] == 1
    a.elector.step()
    assert not a.elector.leading
    assert a.told == ["started", "stopped"]


def test_an_old_lease_is_watched_before_it_is_taken_whatever_its_timestamps_say(
    kube: FakeKube,
) -> None:
    dead = Candidate(kube, "dead", skew=-86400.0)
    dead.elector.step()
    fresh = Candidate(kube, "fresh")
    fresh.elector.step()
    assert not fresh.elector.leading
    pass_time(15.1, fresh)
    fresh.elector.step()
    assert fresh.elector.leading


def test_a_leader_cut_off_stops_before_anybody_may_take_over(
    kube: FakeKube, pair: tuple[Candidate, Candidate]
) -> None:
    a, b = pair
    a.elector.step()
    b.elector.step()
    kube.outage()
    pass_time(9.9, a, b)
    a.elector.step()
    assert a.elector.leading
    pass_time(0.1, a, b)
    assert not a.elector.leading, "true before the next step, while a request may hang"
    a.elector.step()
    assert a.told == ["started", "stopped"]
    kube.recover()
    a.elector.step()
    assert a.told == ["started", "stopped", "started"]


def test_a_released_lease_is_taken_at_once(
    kube: FakeKube, pair: tuple[Candidate, Candidate]
) -> None:
    a, b = pair
    a.elector.step()
    b.elector.step()
    a.elector.release()
    assert a.told == ["started", "stopped"]
    assert lease(kube)["holderIdentity"] == ""
    b.elector.step()
    assert b.elector.leading


def test_one_that_does_not_lead_releases_nothing(
    kube: FakeKube, pair: tuple[Candidate, Candidate]
) -> None:
    a, b = pair
    a.elector.step()
    b.elector.step()
    b.elector.release()
    assert lease(kube)["holderIdentity"] == "a"


def test_when_two_write_at_once_one_loses(
    kube: FakeKube, pair: tuple[Candidate, Candidate]
) -> None:
    a, _ = pair
    kube.fail("POST", "leases", Conflict(409, "Conflict", "somebody was faster"))
    a.elector.step()
    assert not a.elector.leading


def test_a_write_whose_answer_was_lost_does_not_count(
    kube: FakeKube, pair: tuple[Candidate, Candidate]
) -> None:
    a, _ = pair
    a.elector.step()
    pass_time(8.0, a)
    kube.fail("PUT", "leases", Unavailable(0, "Timeout", "no answer"))
    a.elector.step()
    pass_time(2.0, a)
    assert not a.elector.leading


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param((10.0, 10.0, 2.0), id="renew-as-long-as-the-lease"),
        pytest.param((15.0, 2.0, 2.0), id="retry-as-long-as-renew"),
        pytest.param((15.0, 10.0, 0.0), id="no-pause"),
    ],
)
def test_terms_that_could_give_two_leaders_are_refused(terms: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="retry < renew_within < lease"):
        Terms(*terms)


Act = tuple[str, int, float]
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["step", "step", "step", "release", "outage", "recover", "lost"]),
        st.integers(0, 2),
        st.floats(0.0, 12.0),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(ACTS, st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
def test_never_two_leaders_with_any_skew_outage_and_order(
    acts: list[Act], skews: list[float]
) -> None:
    kube = FakeKube()
    trio = [Candidate(kube, name, skew) for name, skew in zip("abc", skews, strict=True)]
    for act, who, seconds in acts:
        pass_time(seconds, *trio)
        assert sum(one.elector.leading for one in trio) <= 1
        match act:
            case "step":
                trio[who].elector.step()
            case "release":
                trio[who].elector.release()
            case "outage":
                kube.outage()
            case "recover":
                kube.recover()
            case "lost":
                kube.fail("PUT", "leases", Unavailable(0, "Timeout", "lost"))
        assert sum(one.elector.leading for one in trio) <= 1


def test_threads_elect_one_and_hand_over_when_it_stops(kube: FakeKube, until: Any) -> None:
    pair = [Candidate(kube, name) for name in "ab"]
    for one in pair:
        one.elector.start()
    until(lambda: any(one.elector.leading for one in pair))
    first = next(one for one in pair if one.elector.leading)
    other = pair[1 - pair.index(first)]
    first.elector.stop()
    assert first.told == ["started", "stopped"]
    other.clock.wait_for_waiters()
    other.clock.advance(2.0)
    until(lambda: other.elector.leading)
    other.elector.stop()


def test_a_leader_whose_tries_end_in_a_bug_is_told_when_its_time_is_up(kube: FakeKube) -> None:
    one = Candidate(kube, "a")
    one.elector.step()
    assert one.told == ["started"]
    one.elector._kube = None  # type: ignore[assignment]  # what it does not expect
    one.clock.advance(TERMS.renew_within)
    with pytest.raises(AttributeError):
        one.elector.step()
    assert one.told == ["started", "stopped"]


def test_a_callback_that_fails_does_not_end_the_election(kube: FakeKube, until: Any) -> None:
    clock = FakeClock()
    calls: list[str] = []

    def fail() -> None:
        calls.append("started")
        raise RuntimeError("a bug")

    elector = Elector(kube, "kyb-system", "x", "a", clock, fail, lambda: calls.append("stopped"))
    elector.start()
    until(lambda: bool(calls))
    clock.wait_for_waiters()
    assert elector.leading
    elector.stop()
    assert calls == ["started", "stopped"]


def test_random_schedules_keep_somebody_in_office() -> None:
    """Not only safe: with a reachable server somebody leads most of the time."""
    chance = random.Random(7)
    kube = FakeKube()
    pair = [Candidate(kube, name, chance.uniform(-1e4, 1e4)) for name in "ab"]
    led = 0
    for round_ in range(500):
        kube.recover() if round_ % 100 != 50 else kube.outage()
        for one in pair:
            one.elector.step()
        led += any(one.elector.leading for one in pair)
        pass_time(2.0, *pair)
    assert led >= 480
