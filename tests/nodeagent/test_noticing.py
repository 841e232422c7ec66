"""Noticing processes: letting them go at their FIFO, and hearing of their end."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kybernate.testing.agentnode import wait_for
from nodeagent.linux import fifo, processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.fifo import NotReleased
from nodeagent.linux.lifelines import Lifelines

HELD = ["/bin/sh", "-c", 'echo 0 >"$0"; exec "$@"']
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts programs, ended after the test."""
    begun: list[subprocess.Popen[bytes]] = []

    def run(*argv: str) -> "subprocess.Popen[bytes]":
        begun.append(subprocess.Popen(argv))
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.wait()


@pytest.fixture
def lifelines() -> Iterator[Lifelines]:
    watching = Lifelines()
    watching.start()
    yield watching
    watching.stop()


def test_a_held_process_goes_on_when_its_fifo_is_opened(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    process = start(*HELD, str(path), "true")
    fifo.let_go(path, process.pid, limit=10.0)
    assert process.wait(10) == 0
    assert not path.exists()


def test_letting_go_twice_is_fine(tmp_path: Path) -> None:
    fifo.let_go(tmp_path / "removed", os.getpid(), limit=0.1)


def test_nobody_at_the_fifo_is_said_in_time(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(NotReleased, match="nobody came"):
        fifo.let_go(path, os.getpid(), limit=0.3)
    assert path.exists()


def test_a_held_process_that_died_is_noticed(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    process = start("true")
    process.wait()
    with pytest.raises(NotReleased, match="gone"):
        fifo.let_go(path, process.pid, limit=10.0)


def test_the_end_of_a_process_is_heard_at_once(lifelines: Lifelines, start: Start) -> None:
    process = start(sys.executable, "-c", "input()")
    ended = threading.Event()
    begun = processes.started(process.pid)
    assert begun is not None
    lifelines.watch(process.pid, begun, ended.set)
    assert not ended.is_set()
    process.kill()
    assert ended.wait(10)


def test_a_process_that_is_gone_already_is_told_at_once(lifelines: Lifelines) -> None:
    ended = threading.Event()
    lifelines.watch(os.getpid(), 1, ended.set)  # our number, another start
    assert ended.is_set()


def test_a_process_is_known_by_number_and_start(start: Start) -> None:
    process = start("sleep", "60")
    begun = processes.started(process.pid)
    assert begun is not None
    assert processes.is_same(process.pid, begun)
    assert not processes.is_same(process.pid, begun - 1)
    process.kill()
    process.wait()
    assert not processes.is_same(process.pid, begun)


def test_children_belong_to_their_first_process(start: Start) -> None:
    process = start("/bin/sh", "-c", "sleep 60 & wait")
    child = _child_of(process.pid)
    asked = (process.pid, child, os.getpid(), 0)
    assert processes.belonging(asked, process.pid, "", Cgroups()) == {process.pid, child}
    assert processes.belonging(asked, child, "", Cgroups()) == {child}
    assert not processes.belonging(asked, 0, "", Cgroups())
    processes.freeze(process.pid)
    assert _is_stopped(child)
    processes.thaw(process.pid)
    assert not _is_stopped(child)


def test_a_frozen_tree_stands_when_that_is_said(start: Start) -> None:
    spin = "(while :; do :; done) & "
    process = start("/bin/sh", "-c", spin * 12 + "wait")
    wait_for(lambda: len(processes.tree(process.pid)) == 13, "all run")
    whole = processes.tree(process.pid)
    try:
        for _ in range(20):
            processes.freeze(process.pid)
            assert all(_is_stopped(one) for one in reversed(whole))
            processes.thaw(process.pid)
    finally:
        for one in whole[1:]:
            os.kill(one, signal.SIGKILL)


def _child_of(pid: int) -> int:
    for _ in range(1000):
        below = [one for one in processes.tree(pid) if one != pid]
        if below:
            return below[0]
        threading.Event().wait(0.01)
    raise AssertionError("no child")


def _is_stopped(pid: int) -> bool:
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rfind(")") + 2] == "T"


def test_a_listener_that_fails_keeps_no_other_end_from_being_heard(
    lifelines: Lifelines, start: Start
) -> None:
    ended = threading.Event()

    def fails() -> None:
        raise RuntimeError("a fault")

    for told in (fails, ended.set):
        process = start("sleep", "60")
        begun = processes.started(process.pid)
        assert begun is not None
        lifelines.watch(process.pid, begun, told)
        process.kill()
        process.wait()
    assert ended.wait(10)
