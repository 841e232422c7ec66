"""Processes stop when they should: asked to, with their caller, and never instead of another."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from testbed import processes, record
from testbed.processes import RECORD, Processes, ProcessFailed

SLEEP = ["tail", "-f", "/dev/null"]
STUBBORN = ["sh", "-c", "trap '' TERM; touch stubborn; while :; do tail -f /dev/null; done"]

CALLER = """
import os, pathlib, sys, threading
from testbed.processes import Processes
group = Processes(pathlib.Path(sys.argv[1]), detached=sys.argv[2] == "detached")
for name in ("one", "two"):
    group.start(name, ["tail", "-f", "/dev/null"])
if sys.argv[2] == "forked" and os.fork() == 0:
    threading.Event().wait()  # holds a copy of every pipe of its parent
print("started", flush=True)
if sys.argv[2] == "detached":
    group.close()
else:
    threading.Event().wait()
"""


def test_ready_is_waited_for_and_the_log_is_kept(tmp_path: Path) -> None:
    with Processes(tmp_path) as group:
        mark = tmp_path / "mark"
        group.start(
            "marker", ["sh", "-c", f"echo hello; touch mark; {' '.join(SLEEP)}"], ready=mark.exists
        )
        assert group.running("marker")
        assert group.log("marker").read_text() == "hello\n"
        pid = group.pid("marker")
    assert not Path(f"/proc/{pid}").exists()


def test_one_that_ends_before_it_is_ready_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Processes(tmp_path) as group:
        with pytest.raises(ProcessFailed, match=r"(?s)bad ended before .*no such flag"):
            group.start("bad", ["sh", "-c", "echo no such flag; exit 1"], ready=lambda: False)
        assert not group.running("bad")


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with Processes(tmp_path) as group, pytest.raises(ProcessFailed, match="absent: not found"):
        group.start("x", ["absent"], ready=lambda: False)


def test_one_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    with Processes(tmp_path) as group:
        with pytest.raises(ProcessFailed, match=r"slow not ready in 0\.2 s"):
            group.start("slow", SLEEP, ready=lambda: False, within=0.2)
        assert not group.running("slow")


def test_the_last_started_is_the_first_stopped(tmp_path: Path) -> None:
    script = "trap 'echo $0 >> ../order; exit' TERM; touch $0; while :; do sleep 0.05; done"
    work = tmp_path / "work"
    with Processes(work) as group:
        for name in ("store", "server", "client"):
            group.start(name, ["sh", "-c", script, name], ready=(work / name).exists)
    assert (tmp_path / "order").read_text().split() == ["client", "server", "store"]


def test_one_that_ignores_the_request_is_killed_with_its_children(
    tmp_path: Path, eventually
) -> None:
    with Processes(tmp_path) as group:
        group.start("stubborn", STUBBORN, ready=(tmp_path / "stubborn").exists)
        pid = group.pid("stubborn")
        children = Path(f"/proc/{pid}/task/{pid}/children")
        child = int(eventually(lambda: children.read_text().split())[0])
        group.stop("stubborn", grace=0.2)
        assert not Path(f"/proc/{pid}").exists()
        eventually(lambda: _gone(child))


def test_children_left_behind_by_a_leader_that_ended_are_stopped_too(
    tmp_path: Path, eventually
) -> None:
    with Processes(tmp_path) as group:
        group.start("leader", ["sh", "-c", "tail -f /dev/null & echo $! > child"])
        eventually(lambda: not group.running("leader"))
        child = int((tmp_path / "child").read_text())
        group.stop("leader")
        eventually(lambda: _gone(child))


def test_it_can_be_started_again_under_its_name(tmp_path: Path) -> None:
    with Processes(tmp_path) as group:
        group.start("server", SLEEP)
        with pytest.raises(ProcessFailed, match="runs already"):
            group.start("server", SLEEP)
        assert group.running("server")
        group.stop("server")
        group.start("server", SLEEP)
        assert group.running("server")


def test_a_process_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    with Processes(tmp_path) as group:
        thread = threading.Thread(target=group.start, args=("server", SLEEP))
        thread.start()
        thread.join()
        assert group.running("server")


@pytest.mark.parametrize("kind", ["attached", "forked"])
def test_processes_stop_when_their_caller_is_killed(tmp_path: Path, eventually, kind: str) -> None:
    with _caller(tmp_path, kind) as caller:
        running = record.read(tmp_path / RECORD)
        assert [one.name for one in running] == ["one", "two"]
        os.kill(caller.pid, signal.SIGKILL)
        caller.wait()
        eventually(lambda: all(_gone(one.pid) for one in running))
        eventually(lambda: not (tmp_path / RECORD).exists())
        if kind == "forked":
            os.killpg(caller.pid, signal.SIGKILL)


def test_one_whose_caller_dies_before_it_is_recorded_never_runs(tmp_path: Path) -> None:
    subprocess.run(
        ["sh", "-c", processes._GATE, "name", "touch", str(tmp_path / "ran")],
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert not (tmp_path / "ran").exists()


def test_detached_processes_outlive_their_caller_until_they_are_ended(
    tmp_path: Path, eventually
) -> None:
    with _caller(tmp_path, "detached") as caller:
        caller.wait()
    running = record.read(tmp_path / RECORD)
    assert all(record.alive(one) for one in running)
    assert record.end_all(tmp_path / RECORD) == ["one", "two"]
    assert not any(record.alive(one) for one in running)
    assert record.end_all(tmp_path / RECORD) == []


def test_a_detached_group_is_found_again(tmp_path: Path) -> None:
    with _caller(tmp_path, "detached") as caller:
        caller.wait()
    group = Processes(tmp_path, detached=True)
    group.stop("one")
    assert [one.name for one in record.read(tmp_path / RECORD)] == ["two"]
    group.start("one", SLEEP)
    group.close()
    assert record.end_all(tmp_path / RECORD) == ["two", "one"]


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    with Processes(tmp_path) as group:
        group.start("server", SLEEP)
        with pytest.raises(ProcessFailed, match="in use, server still run"):
            Processes(tmp_path)


@pytest.mark.parametrize("differs", ["started", "boot"])
def test_a_number_that_was_given_to_another_process_is_left_alone(
    tmp_path: Path, differs: str
) -> None:
    with subprocess.Popen(SLEEP, start_new_session=True) as other:
        file = tmp_path / RECORD
        record.write(file, [record.identify("mine", other.pid)])
        body = json.loads(file.read_text())
        if differs == "boot":
            body["boot"] = "an earlier one"
        else:
            body["processes"][0]["started"] -= 1
        file.write_text(json.dumps(body))
        assert record.end_all(file) == []
        assert other.poll() is None
        other.kill()


def test_what_a_killed_one_left_running_is_ended_when_the_group_closes(tmp_path: Path) -> None:
    with Processes(tmp_path) as group:
        _leave_behind(group, tmp_path)
        group.kill("parent")
        assert (tmp_path / "child").exists()
    assert not (tmp_path / "child").exists()


def test_what_a_killed_one_left_running_is_ended_by_the_record(tmp_path: Path) -> None:
    group = Processes(tmp_path, detached=True)
    _leave_behind(group, tmp_path)
    group.kill("parent")
    group.close()
    assert record.end_all(tmp_path / RECORD) == []
    assert not (tmp_path / "child").exists()


def test_a_detached_group_can_be_ended_by_its_starter(tmp_path: Path) -> None:
    group = Processes(tmp_path, detached=True)
    group.start("one", SLEEP)
    pid = group.pid("one")
    group.stop_all()
    assert _gone(pid)


def _caller(folder: Path, kind: str) -> subprocess.Popen[str]:
    """Another Python that has started two processes."""
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, str(folder), kind],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert caller.stdout is not None
    assert caller.stdout.readline() == "started\n"
    return caller


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _leave_behind(group: Processes, folder: Path) -> None:
    """A file stands for what the parent has running elsewhere."""
    child = folder / "child"
    child.touch()
    group.start("parent", SLEEP, afterwards=["rm", str(child)])
