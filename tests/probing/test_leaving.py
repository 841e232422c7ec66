"""What a preStop hook does for a pod that is to be sealed. Faked: API server, sealing, clock."""

from types import SimpleNamespace

import pytest

from kybernate.api.timestamps import rfc3339
from kybernate.clients.errors import NotFound, Unavailable
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.probing import Asked, Kind, Outcome
from kybernate.model.workload import OnDelete, State, Wishes
from kybernate.testing.clock import FakeClock
from nodeagent.probing.leaving import NoSealing, Parting

KEY, UID = WorkloadKey("default", "one"), PodUid("u1")
HOOK = Asked(kind=Kind.PRESTOP, grace=30, seal=True)


class World:
    def __init__(self):
        self.clock = FakeClock()
        self.answer = self.pod(grace=60)
        self.known = SimpleNamespace(uid=UID, wishes=Wishes(on_delete=OnDelete.CHECKPOINT))
        self.state = State.ACTIVE
        self.outcome = Outcome(passed=True, say="sealed as one-1")
        self.takes = 10.0
        self.sealed, self.told = [], []
        self.checkpoints = []

    def pod(self, grace=None, uid=UID):
        metadata = {"uid": uid}
        if grace is not None:
            metadata["deletionTimestamp"] = rfc3339(self.clock.now() + grace)
        return {"metadata": metadata}

    def get(self, resource, name, namespace=None):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def list(self, resource, namespace=None):
        return [
            {"metadata": {"name": name, "creationTimestamp": made}, "spec": {"workload": workload}}
            for name, made, workload in self.checkpoints
        ]

    def seconds(self, key):
        return self.takes

    def seal(self, key, uid, within):
        self.sealed.append((key, uid, round(within)))
        return self.outcome

    def leave(self, hook=HOOK, sealing=None):
        parting = Parting(
            api=self,
            sealing=sealing or self,
            pod_of=lambda key: self.known,
            state_of=lambda key: self.state,
            went=lambda *said: self.told.append(said),
            clock=self.clock,
        )
        return parting.leave(KEY, UID, hook)


@pytest.fixture
def world():
    return World()


@pytest.mark.parametrize("state", [State.ACTIVE, State.PARKED])
def test_a_deleted_pod_is_sealed_in_the_time_that_is_left(world, state):
    world.state = state
    assert world.leave() == world.outcome
    assert world.sealed == [(KEY, UID, 58)]
    assert world.told == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(lambda w: setattr(w, "answer", w.pod(5)), "3 s of its grace", id="short"),
        pytest.param(lambda w: setattr(w, "answer", w.pod(0)), "0 s of its grace", id="none"),
        pytest.param(
            lambda w: setattr(w, "answer", NotFound(404, "NotFound", "")), "by force", id="force"
        ),
        pytest.param(
            lambda w: setattr(w, "answer", w.pod(uid="u2")), "by force", id="another-of-its-name"
        ),
        pytest.param(
            lambda w: setattr(w, "outcome", Outcome(passed=False, say="no room")), "no room",
            id="it-fails",
        ),
    ],
)  # fmt: skip
def test_one_that_cannot_be_sealed_keeps_its_last_checkpoint_and_says_so(world, change, why):
    change(world)
    outcome = world.leave()
    assert not outcome.passed
    ((key, uid, said),) = world.told
    assert (key, uid) == (KEY, UID)
    assert said == outcome.say
    assert why in said
    assert said.endswith("there is none from before")


def test_the_last_one_is_named(world):
    world.outcome = Outcome(passed=False, say="no room")
    world.checkpoints = [
        ("one-1", "2026-01-01T00:00:00Z", "one"),
        ("one-2", "2026-01-02T00:00:00Z", "one"),
        ("two-1", "2026-01-03T00:00:00Z", "two"),
    ]
    assert world.leave().say.endswith("no room; the last one is kept: one-2")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda w: setattr(w.known, "wishes", Wishes()), id="nobody-wishes-it"),
        pytest.param(
            lambda w: setattr(w.known, "wishes", Wishes(on_delete=OnDelete.DISCARD)), id="discard"
        ),
        pytest.param(lambda w: setattr(w, "answer", w.pod()), id="it-is-only-restarted"),
        pytest.param(lambda w: setattr(w, "state", State.WAITING), id="it-never-ran"),
    ],
)
def test_nothing_is_sealed_that_need_not_be(world, change):
    change(world)
    assert world.leave().passed
    assert (world.sealed, world.told) == ([], [])


def test_the_hooks_own_word_counts_where_the_pod_is_not_known(world):
    world.known = None
    assert world.leave().passed
    assert len(world.sealed) == 1
    assert world.leave(Asked(kind=Kind.PRESTOP, grace=30)).passed
    assert len(world.sealed) == 1


def test_with_the_api_server_away_the_pods_own_grace_period_counts(world):
    world.answer = Unavailable(503, "ServiceUnavailable", "away")
    assert world.leave().passed
    assert world.sealed == [(KEY, UID, 28)]


def test_an_agent_that_seals_nothing_says_so(world):
    assert "makes no checkpoints" in world.leave(sealing=NoSealing()).say
