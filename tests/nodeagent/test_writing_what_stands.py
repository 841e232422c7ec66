"""The status writer: what it keeps, and when it writes again. The API server is a list of calls."""

from types import SimpleNamespace
from typing import Any

import pytest

from kybernate.clients.errors import Forbidden
from kybernate.clients.resources import GPUNODES, GPUWORKLOADS, PODS
from kybernate.decisions.books import Books
from kybernate.model.ids import GpuUuid, NodeName, PodUid
from kybernate.testing.builders import a_group
from kybernate.testing.clock import FakeClock
from nodeagent.lives.life import Life, Lives
from nodeagent.reporting.standing import Measured
from nodeagent.reporting.writer import AT_LEAST_EVERY, FORBIDDEN, Sources, Writer

Desk = Any  # tests/nodeagent/conftest.py
GROUP = a_group(0)


class Kube:
    """Takes everything."""

    def __init__(self) -> None:
        self.patched: list[tuple[object, str]] = []
        self.states: list[str] = []
        self.forbidden: object = None  # of this resource

    def patch(self, resource: object, name: str, body: Any, *_: object, **__: object) -> None:
        self.patched.append((resource, name))
        if resource is self.forbidden:
            raise Forbidden(403, "Forbidden", "cannot patch")
        if resource is GPUWORKLOADS:
            self.states.append(body["status"]["state"])


@pytest.fixture
def life(desk: Desk) -> Life:
    return Life(record=desk.record(), group=GROUP, uuids={0: GpuUuid("GPU-0")})


def _writer(kube: Kube, lives: Lives, clock: FakeClock, uid: PodUid | None = None) -> Writer:
    books = Books(memory={0: 80 * 2**30}, groups={GROUP.name: GROUP})
    for life in lives.all():
        books = books.having(life.tenancy())
    coordinator: Any = SimpleNamespace(
        books=books, picture=None, revision="none", why=lambda _: None
    )  # fmt: skip
    sources = Sources(
        node=NodeName("node"), coordinator=coordinator, lives=lives, mechanism="fake", endpoint="",
        driver=lambda: "1", measured=Measured, uid_of=lambda _: uid,
    )  # fmt: skip
    return Writer(kube, sources, clock)  # type: ignore[arg-type]


def test_what_was_written_of_lives_that_are_over_is_forgotten(life: Life) -> None:
    lives = Lives()
    lives.add(life)
    writer = _writer(Kube(), lives, FakeClock())
    writer.write_all()
    assert len(writer._seated) == 1
    lives.drop(life)
    writer.write_all()
    assert (writer._seated, writer._written) == (set(), {})


@pytest.mark.parametrize(
    ("seconds", "tries"), [pytest.param(1, 3, id="soon"), pytest.param(FORBIDDEN + 1, 2, id="late")]
)
def test_a_seat_that_was_forbidden_is_written_again_for_a_while(
    life: Life, seconds: float, tries: int
) -> None:
    kube, lives, clock = Kube(), Lives(), FakeClock()
    lives.add(life)
    writer = _writer(kube, lives, clock)
    kube.forbidden = PODS
    writer.write_all()
    clock.advance(seconds)
    writer.write_all()
    writer.write_all()
    assert sum(resource is PODS for resource, _ in kube.patched) == tries


def test_a_workload_whose_container_ended_is_told_to_be_absent_once(life: Life) -> None:
    kube, lives = Kube(), Lives()
    lives.add(life)
    writer = _writer(kube, lives, FakeClock(), uid=life.record.uid)
    writer.write_all()
    lives.drop(life)
    writer.write_all()
    writer.write_all()
    assert kube.states[1:] == ["Absent"]


def test_a_wall_clock_that_is_put_back_does_not_keep_the_node_silent() -> None:
    kube, clock = Kube(), FakeClock()
    writer = _writer(kube, Lives(), clock)
    writer.write_all()
    clock.advance(AT_LEAST_EVERY)
    put_back: Any = SimpleNamespace(now=lambda: 0.0, monotonic=clock.monotonic)
    writer._clock = put_back
    writer.write_all()
    assert kube.patched == [(GPUNODES, "node")] * 2
