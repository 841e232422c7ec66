"""
Containers that nobody told this agent of. Real: marks in a folder as runc's, a process, a FIFO.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kybernate.clients.runtimecalls import Call, Op, encode
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.runtime.clock import SystemClock
from nodeagent.containers.relearning import MARK, SETTLED_S, Relearner
from nodeagent.linux import processes
from nodeagent.linux.freezer import Means, NotThawed

ID = "c1"


class FakeFreezer:
    """`Freezing`: everybody is frozen until thawed."""

    def __init__(self) -> None:
        self.thawed: list[str] = []
        self.stuck = False

    def freeze(self, pid: int, container_id: str) -> Means:
        raise AssertionError("nobody is to be frozen")

    def thaw(self, pid: int, container_id: str) -> None:
        if self.stuck:
            raise NotThawed("a cgroup above is frozen")
        self.thawed.append(container_id)

    def frozen(self, pid: int, container_id: str) -> bool:
        return True


class Desk:
    """A held container with an old mark; what was said, who was thawed."""

    def __init__(self, folder: Path) -> None:
        self.said: list[bytes] = []
        self.freezer = FakeFreezer()
        self.process = subprocess.Popen(["sleep", "60"])
        self.root, self.fifo = folder, folder / ID / "exec.fifo"
        self.fifo.parent.mkdir()
        os.mkfifo(self.fifo)
        self.relearner = Relearner(folder, self._say, self.freezer, SystemClock())
        self.mark()

    def mark(self, *, age: float = SETTLED_S + 1.0, **fields: Any) -> bytes:
        started = processes.started(self.process.pid)
        assert started is not None
        whole: dict[str, Any] = {
            "op": Op.HELD, "pod": WorkloadKey("default", "a"), "uid": PodUid("u"),
            "container": "model", "container_id": ID, "pid": self.process.pid,
            "started": started, "fifo": self.fifo,
        }  # fmt: skip
        line = encode(Call(**whole | fields))
        file = self.root / ID / MARK
        file.write_bytes(line)
        then = SystemClock().now() - age
        os.utime(file, (then, then))
        return line

    def _say(self, line: bytes) -> bytes:
        self.said.append(line)
        return b"{}"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


def test_a_held_container_is_told_again_by_its_mark(desk: Desk) -> None:
    line = desk.mark()
    desk.relearner.look()
    assert desk.said == [line]


def test_one_that_may_not_have_come_to_start_is_left_alone(desk: Desk) -> None:
    desk.mark(age=1.0)
    desk.relearner.look()
    assert desk.said == []


def test_one_that_runs_or_is_gone_or_was_woken_is_not_told_again(desk: Desk) -> None:
    desk.mark(restored=True)
    desk.relearner.look()
    desk.mark()
    desk.fifo.unlink()
    desk.relearner.look()
    os.mkfifo(desk.fifo)
    desk.process.kill()
    desk.process.wait()
    desk.relearner.look()
    assert desk.said == []


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"op":"ended","namespace":"n"}'])
def test_marks_that_cannot_be_read_keep_no_other_from_being_told(
    desk: Desk, content: bytes
) -> None:
    (desk.root / "b0").mkdir()
    (desk.root / "b0" / MARK).write_bytes(content)
    desk.relearner.look()
    assert len(desk.said) == 1


def test_one_that_is_frozen_without_a_record_is_thawed(desk: Desk) -> None:
    desk.fifo.unlink()
    desk.relearner.thaw_others(set())
    assert desk.freezer.thawed == [ID]


@pytest.mark.parametrize("recorded", [pytest.param(ID, id="by-id"), pytest.param("u", id="by-pod")])
def test_one_that_a_record_is_about_stays_frozen(desk: Desk, recorded: str) -> None:
    desk.fifo.unlink()
    desk.relearner.thaw_others({recorded})
    assert desk.freezer.thawed == []


def test_one_that_cannot_be_thawed_keeps_the_agent_from_nothing(desk: Desk) -> None:
    desk.fifo.unlink()
    desk.freezer.stuck = True
    desk.relearner.thaw_others(set())
