"""What the recorder writes once the outcome of an answer is seen, and what it keeps to itself."""

from collections.abc import Iterator
from typing import Any

import pytest

from extender.projections import Ledger, SeatPod
from extender.recorder import Recorder
from kybernate.clients.errors import Conflict
from kybernate.clients.resources import Resource
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.policy import PlacementVerdict
from kybernate.model.verdict import EventReason
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import SEAT_2X, a_workload
from kybernate.testing.clock import FakeClock


class Written:
    """An API server that refuses patches when it is told to, and an event recorder."""

    def __init__(self) -> None:
        self.patches: list[Any] = []
        self.events: list[tuple[str, EventReason, str, bool]] = []
        self.conflicts = 0
        self.dropped = 0

    def patch(
        self, resource: Resource, name: str, body: Any, namespace: str, *, subresource: str
    ) -> None:
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict(409, "Conflict", "the object has been modified")
        self.patches.append((resource.plural, f"{namespace}/{name}", subresource, body))

    def record(
        self, regarding: Any, reason: EventReason, action: str, note: str, *, warning: bool
    ) -> None:
        self.events.append((regarding.name, reason, note, warning))

    def flush(self, timeout: float) -> bool:
        return True

    def stop(self) -> None:
        pass


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def recorder(written: Written) -> Iterator[Recorder]:
    one: Any = Recorder(written, written, SystemClock())  # type: ignore[arg-type]
    yield one
    one.stop()


def known(recorder: Recorder, version: str = "7") -> None:
    """The workload's GpuWorkload is there."""
    workload = a_workload()
    ledger = Ledger(key=workload.key, pod=workload.uid, version=version, decisions=())
    recorder.ledger_changed(None, ledger)


def pod(**fields: Any) -> SeatPod:
    unschedulable = fields.pop("unschedulable", False)
    return SeatPod(workload=a_workload(**fields), unschedulable=unschedulable)


def test_nothing_is_told_before_the_outcome_is_seen(
    extender: Any, recorder: Recorder, written: Written
) -> None:
    recorder.decided(extender.filter(a_workload(), ["node-a", "node-b"]))
    recorder.pod_changed(None, pod())
    assert recorder.flush(5)
    assert (written.events, written.patches) == ([], [])


def test_a_placement_is_told_with_seconds_and_revision(
    extender: Any, recorder: Recorder, written: Written
) -> None:
    extender.judge.verdict = PlacementVerdict(revision="sha256:0123")
    known(recorder)
    recorder.decided(extender.filter(a_workload(), ["node-a", "node-b"]))
    recorder.pod_changed(pod(), pod(node=NodeName("node-b")))
    assert recorder.flush(5)
    text = "node-b 60.0 s = cold start 60.0; node-a 60.0 s = cold start 60.0; policy sha256:0123"
    assert written.events == [("llama-a", EventReason.PLACED, text, False)]
    [(plural, name, subresource, body)] = written.patches
    assert (plural, name, subresource) == ("gpuworkloads", "default/llama-a", "status")
    assert body["metadata"] == {"resourceVersion": "7"}
    assert body["status"]["placement"] == {"estimateSeconds": 60.0, "text": text}
    assert body["status"]["decisions"][0]["revision"] == "sha256:0123"


def test_a_bound_pod_is_told_about_once(
    extender: Any, recorder: Recorder, written: Written
) -> None:
    known(recorder)
    recorder.decided(extender.filter(a_workload(), ["node-a"]))
    for _ in range(3):
        recorder.pod_changed(pod(), pod(node=NodeName("node-a")))
    assert recorder.flush(5)
    assert len(written.events) == len(written.patches) == 1


def test_of_many_that_nobody_has_room_for_only_the_latest_are_remembered(
    extender: Any, recorder: Recorder, written: Written
) -> None:
    """Each holds the names of all nodes: at 5,000 of them, thousands would be more than a GiB."""
    known(recorder)
    first, *others = (a_workload(f"llama-{number}", resource=SEAT_2X) for number in range(300))
    for workload in (first, *others, a_workload(resource=SEAT_2X)):
        recorder.decided(extender.filter(workload, ["node-a"]))
    for workload in (first, a_workload()):
        recorder.pod_changed(None, SeatPod(workload=workload, unschedulable=True))
    assert recorder.flush(5)
    assert [name for name, *_ in written.events] == ["llama-a"]


def test_the_same_refusal_is_told_once_and_another_one_again(
    extender: Any, recorder: Recorder, written: Written
) -> None:
    known(recorder)
    refused = extender.filter(a_workload(resource=SEAT_2X), ["node-a", "node-b"])
    for _ in range(3):
        recorder.decided(refused)
        recorder.pod_changed(pod(), pod(unschedulable=True))
    recorder.decided(extender.filter(a_workload(resource=SEAT_2X), ["node-a"]))
    recorder.pod_changed(pod(), pod(unschedulable=True))
    assert recorder.flush(5)
    assert [(reason, note, warning) for _, reason, note, warning in written.events] == [
        (EventReason.PLACEMENT_REFUSED, f"no node: {count} node has no seat of this size", True)
        for count in (2, 1)
    ]
    assert "placement" not in written.patches[0][3]["status"]


def test_what_the_scheduler_itself_refused_is_not_ours_to_tell(
    extender: Any, recorder: Recorder, written: Written
) -> None:
    recorder.pod_changed(pod(), pod(unschedulable=True))
    recorder.decided(extender.filter(a_workload(), ["node-a"]))
    recorder.pod_changed(pod(), pod(unschedulable=True))
    assert recorder.flush(5)
    assert written.events == []


def test_a_pod_that_is_gone_is_forgotten(
    extender: Any, recorder: Recorder, written: Written
) -> None:
    recorder.decided(extender.filter(a_workload(), ["node-a"]))
    recorder.pod_changed(pod(), None)
    recorder.pod_changed(None, pod(node=NodeName("node-a")))
    assert recorder.flush(5)
    assert written.events == []


def test_somebody_elses_write_in_between_is_waited_out(
    extender: Any, recorder: Recorder, written: Written
) -> None:
    known(recorder)
    written.conflicts = 1
    recorder.decided(extender.filter(a_workload(), ["node-a"]))
    recorder.pod_changed(pod(), pod(node=NodeName("node-a")))
    assert recorder.flush(10)
    assert len(written.events) == len(written.patches) == 1


def test_a_workload_object_that_comes_late_is_waited_for(
    extender: Any, recorder: Recorder, written: Written
) -> None:
    recorder.decided(extender.filter(a_workload(), ["node-a"]))
    recorder.pod_changed(pod(), pod(node=NodeName("node-a")))
    known(recorder)
    assert recorder.flush(10)
    assert len(written.patches) == 1


def test_a_later_life_of_the_name_is_not_written_to(
    extender: Any, recorder: Recorder, written: Written
) -> None:
    known(recorder)
    later = Ledger(key=a_workload().key, pod=PodUid("later"), version="9", decisions=())
    old = Ledger(key=a_workload().key, pod=a_workload().uid, version="7", decisions=())
    recorder.ledger_changed(old, later)
    recorder.decided(extender.filter(a_workload(), ["node-a"]))
    recorder.pod_changed(pod(), pod(node=NodeName("node-a")))
    assert not recorder.flush(0.2)
    assert written.patches == []


def test_while_the_scheduler_asks_telling_gives_way(extender: Any, written: Written) -> None:
    clock = FakeClock()
    recorder: Any = Recorder(written, written, clock)  # type: ignore[arg-type]
    known(recorder)
    recorder.decided(extender.filter(a_workload(), ["node-a"]))
    recorder.pod_changed(pod(), pod(node=NodeName("node-a")))
    clock.wait_for_waiters()
    clock.advance(0.1)  # past the pace; but the scheduler asked a tenth of a second ago
    clock.wait_for_waiters()
    assert written.events == []
    clock.advance(0.3)
    assert recorder.flush(10.0)
    assert [event[1] for event in written.events] == [EventReason.PLACED]
    recorder.stop()
