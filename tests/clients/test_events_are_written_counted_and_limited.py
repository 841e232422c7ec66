"""Events: the first is written, the second makes a series, further ones are counted."""

from collections.abc import Iterator
from typing import Any

import pytest

from kybernate.clients.errors import Forbidden, Invalid, Unavailable
from kybernate.clients.events import EventRecorder, Limits, ObjectRef
from kybernate.clients.resources import EVENTS
from kybernate.model.verdict import EventReason
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube

POD = ObjectRef(kind="Pod", namespace="team", name="llama-a", uid="uid-a")
OTHER = ObjectRef(kind="Pod", namespace="team", name="llama-b", uid="uid-b")
NODE = ObjectRef(kind="GpuNode", name="node-a", api_version="kyb.ai/v1alpha1")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def events(kube: FakeKube, clock: FakeClock) -> Iterator[EventRecorder]:
    recorder = EventRecorder(kube, "kyb.ai/agent", "node-a", clock)
    yield recorder
    recorder.stop()


def record(events: EventRecorder, note: str = "parked in 1.2 s", regarding: Any = POD) -> None:
    events.record(regarding, EventReason.PARKED, "Parking", note)
    assert events.flush(10)


def written(kube: FakeKube) -> list[dict[str, Any]]:
    return kube.list(EVENTS)


def test_an_event_has_everything_the_api_asks_for(kube: FakeKube, events: EventRecorder) -> None:
    events.record(
        POD, EventReason.PARKED, "Parking", "parked in 1.2 s", warning=True, related=OTHER
    )
    assert events.flush(10)
    (event,) = written(kube)
    metadata = event.pop("metadata")
    assert metadata["namespace"] == "team"
    assert metadata["name"].startswith("llama-a.")
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "eventTime": "2023-11-14T22:13:20.000000Z",
        "reportingController": "kyb.ai/agent",
        "reportingInstance": "node-a",
        "action": "Parking",
        "reason": "Parked",
        "type": "Warning",
        "note": "parked in 1.2 s",
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "team",
            "name": "llama-a",
            "uid": "uid-a",
        },
        "related": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "team",
            "name": "llama-b",
            "uid": "uid-b",
        },
    }


def test_an_event_about_a_cluster_scoped_object_is_in_default(
    kube: FakeKube, events: EventRecorder
) -> None:
    record(events, regarding=NODE)
    (event,) = written(kube)
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["regarding"]


def test_the_second_makes_a_series_and_further_ones_are_only_counted(
    kube: FakeKube, events: EventRecorder, clock: FakeClock
) -> None:
    for _ in range(5):
        record(events)
        clock.advance(60)
    (event,) = written(kube)
    assert event["series"] == {"count": 2, "lastObservedTime": "2023-11-14T22:14:20.000000Z"}
    assert len(kube.asked_of("POST", "PATCH")) == 2


def test_the_count_is_written_every_half_hour(
    kube: FakeKube, events: EventRecorder, clock: FakeClock
) -> None:
    for _ in range(32):
        record(events)
        clock.advance(60)
    (event,) = written(kube)
    assert event["series"]["count"] == 32
    assert len(kube.asked_of("POST", "PATCH")) == 3


def test_the_last_count_is_written_when_the_series_has_ended(
    kube: FakeKube, events: EventRecorder, clock: FakeClock, until: Any
) -> None:
    for _ in range(5):
        record(events)
    clock.wait_for_waiters()
    clock.advance(400)
    until(lambda: written(kube)[0]["series"]["count"] == 5)


def test_after_six_quiet_minutes_the_same_is_a_new_event(
    kube: FakeKube, events: EventRecorder, clock: FakeClock
) -> None:
    record(events)
    clock.advance(361)
    record(events)
    assert len(written(kube)) == 2


def test_another_explanation_is_another_event(kube: FakeKube, events: EventRecorder) -> None:
    record(events, "holder is within its minimum runtime")
    record(events, "policy protects the holder")
    assert [event["note"] for event in written(kube)] == [
        "holder is within its minimum runtime",
        "policy protects the holder",
    ]


def test_a_long_note_is_cut_between_characters(kube: FakeKube, events: EventRecorder) -> None:
    record(events, "ü" * 2000)
    note = written(kube)[0]["note"]
    assert len(note.encode()) <= 1024
    assert note.endswith("ü...")


def test_a_long_name_leaves_room_for_the_stamp(kube: FakeKube, events: EventRecorder) -> None:
    record(events, regarding=ObjectRef(kind="Pod", namespace="t", name="x" * 253))
    assert len(written(kube)[0]["metadata"]["name"]) <= 253


def test_one_object_cannot_flood_and_does_not_silence_others(
    kube: FakeKube, events: EventRecorder, clock: FakeClock
) -> None:
    for index in range(40):
        record(events, f"note {index}")
    record(events, "heard", regarding=OTHER)
    assert len(written(kube)) == 26
    assert events.limited == 15
    clock.advance(40)
    record(events, "later")
    assert len(written(kube)) == 27


def test_the_limit_is_a_setting(kube: FakeKube, clock: FakeClock) -> None:
    events = EventRecorder(kube, "kyb.ai/agent", "n", clock, limits=Limits(burst=2))
    for index in range(5):
        record(events, f"note {index}")
    assert len(written(kube)) == 2
    events.stop()


def test_an_event_that_expired_is_written_anew_with_its_count(
    kube: FakeKube, events: EventRecorder
) -> None:
    record(events)
    (event,) = written(kube)
    kube.delete(EVENTS, event["metadata"]["name"], "team")
    record(events)
    (event,) = written(kube)
    assert event["series"]["count"] == 2


def test_recording_never_blocks_and_events_outlast_an_outage(
    kube: FakeKube, events: EventRecorder, clock: FakeClock, until: Any
) -> None:
    kube.outage()
    events.record(POD, EventReason.PARKED, "Parking", "one")
    events.record(POD, EventReason.RESUMED, "Resuming", "two")
    assert not events.flush(0.01)
    kube.recover()
    until(lambda: _let_pass(clock) or events.flush(0.01))
    assert [event["note"] for event in written(kube)] == ["one", "two"]
    assert [event.get("series") for event in written(kube)] == [None, None]
    assert events.dropped == 0


def test_an_answer_that_was_lost_does_not_write_twice(
    kube: FakeKube, events: EventRecorder, clock: FakeClock, until: Any
) -> None:
    real = kube.server.store.create

    def created_but_not_said(*args: Any) -> Any:
        real(*args)
        kube.server.store.create = real  # type: ignore[method-assign]
        raise Unavailable(503, "Lost", "the answer was lost")

    kube.server.store.create = created_but_not_said  # type: ignore[method-assign]
    events.record(POD, EventReason.PARKED, "Parking", "once")
    until(lambda: _let_pass(clock) or events.flush(0.01))
    assert len(written(kube)) == 1


def test_what_is_refused_is_dropped_and_counted(kube: FakeKube, events: EventRecorder) -> None:
    kube.fail("POST", "events", Invalid(422, "Invalid", "no"))
    record(events, "refused")
    record(events, "written")
    assert [event["note"] for event in written(kube)] == ["written"]
    assert events.dropped == 1


def test_what_is_forbidden_for_a_moment_is_written_all_the_same(
    kube: FakeKube, events: EventRecorder, clock: FakeClock, until: Any
) -> None:
    """As by an API server that has just started and has not read its roles."""
    kube.fail("POST", "events", Forbidden(403, "Forbidden", "cannot create"), times=2)
    events.record(POD, EventReason.PARKED, "Parking", "early")
    until(lambda: _let_pass(clock) or events.flush(0.01))
    assert [event["note"] for event in written(kube)] == ["early"]
    assert events.dropped == 0


def test_what_stays_forbidden_is_dropped_and_counted(
    kube: FakeKube, events: EventRecorder, clock: FakeClock, until: Any
) -> None:
    kube.fail("POST", "events", Forbidden(403, "Forbidden", "cannot create"), times=1000)
    events.record(POD, EventReason.PARKED, "Parking", "never")
    until(lambda: _let_pass(clock) or events.flush(0.01))
    assert events.dropped == 1


def test_a_last_count_that_is_refused_holds_no_other_back(
    kube: FakeKube, events: EventRecorder, clock: FakeClock, until: Any
) -> None:
    for regarding in (POD, OTHER):
        for _ in range(3):
            record(events, regarding=regarding)
    kube.fail("PATCH", "events", Forbidden(403, "Forbidden", "namespace team is gone"))
    clock.advance(400)
    until(lambda: _let_pass(clock) or counts(kube).get("llama-b") == 3)
    assert counts(kube)["llama-a"] == 2


def counts(kube: FakeKube) -> dict[str, int]:
    return {one["regarding"]["name"]: one["series"]["count"] for one in written(kube)}


def test_in_a_long_outage_the_queue_is_bounded(kube: FakeKube, events: EventRecorder) -> None:
    kube.outage()
    for index in range(1200):
        events.record(POD, EventReason.PARKED, "Parking", f"note {index}")
    assert events.dropped >= 199


def _let_pass(clock: FakeClock) -> bool:
    clock.advance(1.0)
    return False
