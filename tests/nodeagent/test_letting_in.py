"""Letting containers in, with everything around faked."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.runtime.clock import SystemClock
from nodeagent.containers.learning import Containers
from nodeagent.disk.announcements import Announcements, Created
from nodeagent.linux import processes
from nodeagent.lives.life import Lives


class Seats:
    """Fails in a way nobody expects, then knows of no seat."""

    def __init__(self) -> None:
        self.asked_again = threading.Event()
        self._failed = False

    def seats(self) -> dict[Any, Any]:
        if not self._failed:
            self._failed = True
            raise RuntimeError("a fault")
        self.asked_again.set()
        return {}


def _held(tmp_path: Path) -> Created:
    started = processes.started(os.getpid())
    assert started is not None
    return Created(
        key=WorkloadKey("default", "a"), uid=PodUid("u"), container="model", container_id="c1",
        pid=os.getpid(), pid_started=started, exec_fifo=tmp_path / "fifo",
    )  # fmt: skip


def _containers(tmp_path: Path, seats: Seats) -> Containers:
    node: Any = SimpleNamespace(
        seats=seats, announcements=Announcements(tmp_path / "announced", "b"), clock=SystemClock(),
        pod_of=lambda _: None, pods=lambda: (), synced=lambda: True, groups={},
    )  # fmt: skip
    nobody: Any = SimpleNamespace()
    return Containers(node, Lives(), nobody, nobody, nobody)


def test_a_fault_does_not_keep_out_whoever_comes_after_it(tmp_path: Path) -> None:
    seats = Seats()
    containers = _containers(tmp_path, seats)
    containers.start()
    containers.created(_held(tmp_path))
    assert seats.asked_again.wait(30.0)
    containers.stop()


def test_a_container_is_known_to_be_held_before_its_pod_is_known(tmp_path: Path) -> None:
    containers = _containers(tmp_path, Seats())
    held = _held(tmp_path)
    containers.created(held)
    assert containers.announced(held.key, PodUid("u"))
    assert not containers.announced(held.key, PodUid("another"))
    assert not containers.announced(WorkloadKey("default", "b"), PodUid("u"))


def test_what_was_held_before_a_reboot_is_forgotten(tmp_path: Path) -> None:
    held = _held(tmp_path)
    Announcements(tmp_path / "announced", "boot 1").keep(held)
    assert Announcements(tmp_path / "announced", "boot 1").all() == (held,)
    assert Announcements(tmp_path / "announced", "boot 2").all() == ()
    assert Announcements(tmp_path / "announced", "boot 1").all() == ()
