"""What every implementation of the port does: the fake and the real one, one suite."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kybernate.api.errors import Malformed
from kybernate.api.policy import read_store_limits
from kybernate.clients.opa import OpaPolicy
from kybernate.clients.policy import Policy
from kybernate.model.callers import NOBODY
from kybernate.model.ids import NO_REVISION, WorkloadKey
from kybernate.model.policy import (
    AdmissionVerdict,
    CheckpointFacts,
    NodeClass,
    ParkedFacts,
    PlacementVerdict,
    PreemptionVerdict,
    RetentionQuestion,
    RetentionVerdict,
    TenantFacts,
    TieringVerdict,
    TimesliceVerdict,
)
from kybernate.model.storelimits import NO_LIMITS
from kybernate.model.tier import Tier
from kybernate.model.verdict import Reason, Refusal
from kybernate.model.workload import Desired
from kybernate.testing.policy import FakePolicy

Build = Callable[..., Any]
GIB = 2**30
UNHEARD = "http://127.0.0.1:9"  # nobody listens on the discard port


@pytest.fixture(params=["fake", pytest.param("opa", marks=pytest.mark.controlplane)])
def policy(request: pytest.FixtureRequest) -> Policy:
    """Either of them."""
    if request.param == "fake":
        return FakePolicy()
    found: OpaPolicy = request.getfixturevalue("opa_policy")
    return found


@pytest.fixture(params=["fake", "opa"])
def away(request: pytest.FixtureRequest) -> Policy:
    """Either of them, when nobody answers."""
    return FakePolicy(away=True) if request.param == "fake" else OpaPolicy(UNHEARD)


def test_every_verdict_says_the_revision_in_force(
    policy: Policy,
    a_tenant: Build,
    a_preemption: Build,
    a_timeslice: Build,
    a_placement: Build,
    an_admission: Build,
) -> None:
    revision = policy.revision()
    assert revision
    assert revision.startswith("sha256:")
    verdicts = (
        policy.admission(an_admission()),
        policy.placement(a_placement()),
        policy.preemption(a_preemption(a_tenant("b"), a_tenant("a"))),
        policy.timeslice(a_timeslice([], [a_tenant("b")])),
    )
    kinds = (AdmissionVerdict, PlacementVerdict, PreemptionVerdict, TimesliceVerdict)
    for verdict, kind in zip(verdicts, kinds, strict=True):
        assert isinstance(verdict, kind)
        assert verdict.revision == revision  # type: ignore[attr-defined]


def test_nobody_who_is_away_gives_a_verdict(
    away: Policy,
    a_tenant: Build,
    a_preemption: Build,
    a_timeslice: Build,
    a_placement: Build,
    an_admission: Build,
    a_tiering: Build,
) -> None:
    answers = (
        away.admission(an_admission()),
        away.placement(a_placement()),
        away.preemption(a_preemption(a_tenant("b"), a_tenant("a"))),
        away.timeslice(a_timeslice([], [a_tenant("b")])),
        away.tiering(a_tiering(a_tenant("b"))),
        away.ignored_callers(),
        away.engines(),
        away.store_limits(),
    )
    for answer in answers:
        assert isinstance(answer, Refusal)
        assert answer.reason is Reason.POLICY_UNAVAILABLE
        assert answer.detail
    assert away.revision() is None


@pytest.mark.parametrize(
    ("holder", "incoming", "reason"),
    [
        pytest.param({"running_seconds": 4.0}, {"priority": 9}, "MinRuntime", id="min-runtime"),
        pytest.param(
            {"running_seconds": 99.0, "min_runtime_seconds": 100.0}, {}, "MinRuntime", id="wish"
        ),
        pytest.param({"running_seconds": 6.0}, {}, "Sticky", id="busy"),
        pytest.param({"running_seconds": 6.0}, {"priority": -1}, "Sticky", id="lower-while-busy"),
        pytest.param(
            {"running_seconds": 99.0, "desired": Desired.ACTIVE},
            {"priority": 9},
            "Pinned",
            id="pin",
        ),
        pytest.param({"idle_seconds": None}, {}, "MinRuntime", id="just-started"),
    ],
)
def test_a_holder_is_protected(
    policy: Policy,
    a_tenant: Build,
    a_preemption: Build,
    holder: dict[str, Any],
    incoming: dict[str, Any],
    reason: str,
) -> None:
    verdict = policy.preemption(a_preemption(a_tenant("b", **incoming), a_tenant("a", **holder)))
    assert isinstance(verdict, PreemptionVerdict)
    assert (verdict.allow, verdict.reason) == (False, reason)


@pytest.mark.parametrize(
    ("holder", "incoming", "reason"),
    [
        pytest.param({"running_seconds": 5.0}, {"priority": 9}, "HigherPriority", id="priority"),
        pytest.param({"running_seconds": 6.0, "idle_seconds": 5.0}, {}, "HolderIdle", id="idle"),
        pytest.param({"running_seconds": 20.0}, {"priority": -9}, "SliceEnded", id="slice"),
        pytest.param(
            {"running_seconds": 6.0}, {"waiting_seconds": 30.0}, "WaitedLongEnough", id="collation"
        ),
        pytest.param({"desired": Desired.PARKED}, {}, "HolderWantedParked", id="unwanted"),
    ],
)
def test_a_holder_may_go(
    policy: Policy,
    a_tenant: Build,
    a_preemption: Build,
    holder: dict[str, Any],
    incoming: dict[str, Any],
    reason: str,
) -> None:
    verdict = policy.preemption(a_preemption(a_tenant("b", **incoming), a_tenant("a", **holder)))
    assert isinstance(verdict, PreemptionVerdict)
    assert (verdict.allow, verdict.reason) == (True, reason)


def test_a_refusal_says_when_to_ask_again(
    policy: Policy, a_tenant: Build, a_preemption: Build
) -> None:
    verdict = policy.preemption(a_preemption(a_tenant("b"), a_tenant("a", running_seconds=2.0)))
    assert isinstance(verdict, PreemptionVerdict)
    assert verdict.retry_seconds == 3.0


def test_whoever_had_a_turn_goes_behind_those_who_had_none(
    policy: Policy, a_tenant: Build, a_timeslice: Build
) -> None:
    again = a_tenant("again", priority=9, waiting_seconds=50.0, ran_since_others_wait=True)
    verdict = policy.timeslice(a_timeslice([], [again, a_tenant("first", priority=-9)]))
    assert isinstance(verdict, TimesliceVerdict)
    assert verdict.next == WorkloadKey("apps", "first")


def test_every_tenant_has_terms(policy: Policy, a_tenant: Build, a_timeslice: Build) -> None:
    waiting = a_tenant("b", min_runtime_seconds=60.0)
    verdict = policy.timeslice(a_timeslice([a_tenant("a")], [waiting]))
    assert isinstance(verdict, TimesliceVerdict)
    terms = {
        key.name: (one.slice_seconds, one.min_runtime_seconds) for key, one in verdict.terms.items()
    }
    assert terms == {"a": (20.0, 5.0), "b": (60.0, 60.0)}


def test_nodes_that_are_not_healthy_are_denied(policy: Policy, a_placement: Build) -> None:
    broken = NodeClass(id="broken", product="NVIDIA H100", labels={}, healthy=False)
    verdict = policy.placement(a_placement(classes=(broken,)))
    assert isinstance(verdict, PlacementVerdict)
    assert verdict.deny == {"broken": "Unhealthy"}


def test_a_pod_that_says_its_class_is_not_given_one(policy: Policy, an_admission: Build) -> None:
    given = policy.admission(an_admission())
    told = policy.admission(an_admission({"kyb.ai/class": "inference"}))
    assert isinstance(given, AdmissionVerdict)
    assert isinstance(told, AdmissionVerdict)
    assert given.defaults["kyb.ai/class"] == "inference"
    assert "kyb.ai/class" not in told.defaults


seconds = st.integers(0, 40).map(float)
wishes = st.none() | seconds


@st.composite
def tenants(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """The facts of one tenant, for both implementations."""
    return {
        "name": name,
        "priority": draw(st.integers(-1, 1)),
        "desired": draw(st.sampled_from(list(Desired))),
        "running_seconds": draw(seconds),
        "waiting_seconds": draw(seconds),
        "idle_seconds": draw(wishes),
        "min_runtime_seconds": draw(wishes),
        "idle_after_seconds": draw(wishes),
        "in_flight": draw(st.none() | st.integers(0, 2)),
        "pinned": draw(st.booleans()),
        "reload_seconds": draw(wishes),
        "asked_every_seconds": draw(wishes),
        "gpus": draw(st.sampled_from([(), (0,), (1,), (0, 1)])),
        "ran_since_others_wait": draw(st.booleans()),
    }


_BYTES = st.sampled_from([0, 39 * GIB, 40 * GIB, 80 * GIB, 400 * GIB])
_PARKED = st.builds(
    ParkedFacts,
    tier=st.sampled_from([Tier.RAM, Tier.NVME, Tier.OBJECT]),
    seconds=st.sampled_from([0.0, 59.0, 60.0, 600.0, 5000.0]),
    place=st.none() | st.integers(0, 2),
    fetch_seconds=st.sampled_from([0.0, 2.5, 40.0]),
    ram_capacity=_BYTES,
    ram_short=st.sampled_from([0, GIB]),
    ram_to_come=_BYTES,
    nvme_free=_BYTES,
    nvme_capacity=_BYTES,
    nvme_short=st.sampled_from([0, GIB]),
    object_free=_BYTES,
)


@given(data=st.data())
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_fake_judges_as_the_real_one_does(
    data: st.DataObject,
    opa_policy: OpaPolicy,
    a_tenant: Build,
    a_preemption: Build,
    a_timeslice: Build,
    a_tiering: Build,
) -> None:
    def drawn(name: str) -> TenantFacts:
        tenant: TenantFacts = a_tenant(**data.draw(tenants(name)))
        return tenant

    holders = [drawn(f"holder-{n}") for n in range(data.draw(st.integers(0, 3)))]
    waiting = [drawn(f"waiting-{n}") for n in range(data.draw(st.integers(0, 3)))]
    fake = FakePolicy(in_force=opa_policy.revision() or pytest.fail("no revision"))
    question = a_timeslice(holders, waiting)
    assert fake.timeslice(question) == opa_policy.timeslice(question)
    if holders and waiting:
        switches = data.draw(st.integers(18, 22))
        pair = a_preemption(waiting[0], holders[0], switches_last_minute=switches)
        assert _rounded(fake.preemption(pair)) == _rounded(opa_policy.preemption(pair))
    for holder in holders:
        idle = a_tiering(holder, ram_free=data.draw(st.sampled_from([0, 2**40])))
        assert fake.tiering(idle) == opa_policy.tiering(idle)
        parked = a_tiering(holder, ram_free=data.draw(_BYTES), parked=data.draw(_PARKED))
        assert _rounded(fake.tiering(parked)) == _rounded(opa_policy.tiering(parked))


V = TypeVar("V", PreemptionVerdict, TieringVerdict)


def _rounded(verdict: V | Refusal) -> V:
    assert not isinstance(verdict, Refusal)
    if isinstance(verdict, PreemptionVerdict):
        return replace(verdict, order=round(verdict.order, 9))
    after = verdict.after_seconds
    return replace(
        verdict,
        value=round(verdict.value, 9),
        after_seconds=None if after is None else round(after, 6),
    )


def test_a_model_that_says_when_it_is_idle_may_leave_then(
    policy: Policy, a_tenant: Build, a_tiering: Build
) -> None:
    facts = {"running_seconds": 60.0, "idle_after_seconds": 30.0}
    gone = policy.tiering(a_tiering(a_tenant("a", idle_seconds=31.0, **facts)))
    stays = policy.tiering(a_tiering(a_tenant("a", idle_seconds=10.0, **facts)))
    assert isinstance(gone, TieringVerdict)
    assert isinstance(stays, TieringVerdict)
    assert (gone.tier, gone.reason) == (Tier.RAM, "Idle")
    assert (stays.tier, stays.reason, stays.after_seconds) == (Tier.VRAM, "NotIdleYet", 20.0)


def test_of_holders_the_one_asked_for_seldom_goes_before_the_one_asked_for_often(
    policy: Policy, a_tenant: Build, a_preemption: Build
) -> None:
    def order(**facts: Any) -> float:
        verdict = policy.preemption(a_preemption(a_tenant("b"), a_tenant("a", **facts)))
        assert isinstance(verdict, PreemptionVerdict)
        return verdict.order

    seldom, often = order(asked_every_seconds=600.0), order(asked_every_seconds=6.0)
    cheap, dear = order(reload_seconds=0.5, idle_seconds=10.0), order(reload_seconds=5.0)
    assert seldom < often
    assert cheap < dear
    assert max(seldom, often, cheap, dear) < order(priority=1)


def test_nobodys_connections_are_ignored_unless_data_says_so(policy: Policy) -> None:
    assert policy.ignored_callers() == NOBODY


CHECKPOINTS = st.lists(
    st.builds(
        CheckpointFacts,
        name=st.uuids().map(str),
        age_seconds=st.floats(0, 10**6),
        size=st.integers(0, 2**40),
        gold=st.booleans(),
        ready=st.booleans(),
        claimed=st.booleans(),
    ),
    max_size=6,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(CHECKPOINTS.map(tuple), st.none() | st.integers(1, 4))
def test_the_fake_keeps_what_rego_keeps(
    opa_policy: OpaPolicy, checkpoints: tuple[CheckpointFacts, ...], keep: int | None
) -> None:
    question = RetentionQuestion(
        namespace="default", workload="statefulset.llama.0", keep=keep, checkpoints=checkpoints
    )
    told, fake = opa_policy.retention(question), FakePolicy().retention(question)
    assert isinstance(told, RetentionVerdict)
    assert isinstance(fake, RetentionVerdict)
    assert (told.keep, told.grace_seconds, told.quota_bytes) == (
        fake.keep, fake.grace_seconds, fake.quota_bytes,
    )  # fmt: skip


def test_what_programs_call_their_numbers_is_known(policy: Policy) -> None:
    engines = policy.engines()
    assert not isinstance(engines, Refusal)
    assert {"vllm:num_requests_running", "vllm:num_requests_waiting"} <= engines.requests
    assert "training_steps_total" in engines.steps
    assert not engines.at, "nobody is asked who did not say so"


def test_the_store_has_no_limit_until_somebody_sets_one(policy: Policy) -> None:
    assert policy.store_limits() == NO_LIMITS


@pytest.mark.parametrize(
    ("quotas", "fault"),
    [
        ({"store_bytes": -1}, "store_bytes"),
        ({"store_bytes": "1Ti"}, "bytes from 0 on, or null"),
        ({"default": {"store_bytes": True}}, "default.store_bytes"),
        ({"namespaces": {"lab": {"store_bytes": 1.5}}}, "namespaces.lab.store_bytes"),
        ({"namespaces": []}, "namespaces"),
    ],
)
def test_limits_of_the_store_that_make_no_sense_are_named(quotas: Any, fault: str) -> None:
    with pytest.raises(Malformed, match=re.escape(fault)):
        read_store_limits(quotas, NO_REVISION)


def test_limits_of_the_store_are_read_as_they_are_said() -> None:
    told = {
        "store_bytes": 9,
        "default": {"store_bytes": 5},
        "namespaces": {
            "lab": {"store_bytes": None},
            "other": {"seats": {}},
            "x": {"store_bytes": 0},
        },
    }
    limits = read_store_limits(told, NO_REVISION)
    assert (limits.whole, limits.of("lab"), limits.of("other"), limits.of("x")) == (9, None, 5, 0)
