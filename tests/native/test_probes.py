"""
Probes and hooks as kybernate-runc carries them out. What is real: see conftest; the user's command
is a script that the test's runc starts as runc would, in the background, its number in a file.
"""

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from kybernate.clients.runtimecalls import Op
from kybernate.testing.agentnode import wait_for
from kybernate.testing.runtimelistener import agree

SPEC = '{"period":1,"timeout":60,"x":"é \\"/ <&>"}'
RUN = {"ok": "run"}


@pytest.fixture
def active(box):
    """A container that has its GPU."""
    box.held()
    box.release()
    return box


def asked(box, kind, *command, spec=SPEC):
    """(runc's exit status, what containerd's process wrote, its number)."""
    marker = ["kyb-probe", kind, *([spec] if spec else []), *(["--", *command] if command else [])]
    (box.folder / "process.json").write_text(json.dumps({"args": marker, "cwd": "/"}))
    pid_file = box.folder / "exec.pid"
    process = ["--process", box.folder / "process.json", "--detach", "--pid-file", pid_file]
    done = box.call("exec", *process, box.id)
    return done, int(pid_file.read_text()) if pid_file.exists() else 0


def program(box, script):
    (box.folder / "program").write_text(script)


def said(box):
    """What the agent was asked, in order: (kind, spec, how it ended)."""
    return [(call.kind, call.spec, call.ended) for call in box.agent.told(Op.PROBE)]


@pytest.fixture
def mortal(box):
    """A container that has its GPU, and its first process, which may be killed."""
    with subprocess.Popen(["sleep", "600"]) as first:
        stat = Path(f"/proc/{first.pid}/stat").read_text()
        box.environment |= {
            "INIT": str(first.pid),
            "STARTED": stat[stat.rfind(")") + 2 :].split()[19],
        }
        box.held()
        box.release()
        yield box, first
        first.kill()


@pytest.mark.parametrize("kind", ["prestop", "liveness"])
def test_a_hook_or_probe_ends_with_its_container_whatever_the_agent_still_does(mortal, kind):
    """containerd tells of a container's end when all that ran in it has ended: not before."""
    box, first = mortal
    over, answered = threading.Event(), []

    def answer(call):
        if call.op is Op.PROBE:
            first.kill()
            answered.append(over.wait(60.0))
        return agree(call)

    box.agent.answer = answer
    asked(box, kind, spec='{"grace":600,"timeout":600}')
    assert answered == []
    over.set()
    wait_for(lambda: answered == [True], "the agent has its answer")


def test_of_a_container_that_ended_before_nothing_is_asked_for_long(mortal):
    box, first = mortal
    first.kill()
    first.wait()
    over = threading.Event()
    box.agent.answer = lambda call: over.wait(60.0) and agree(call)
    asked(box, "liveness")
    over.set()


def test_what_it_was_reaches_the_agent_as_it_was_written(active):
    active.agent.answer = lambda call: {"ok": "answered", "passed": "no", "say": "refused: 1"}
    done, pid = asked(active, "readiness")
    assert (done.returncode, done.stdout) == (0, "refused: 1\n")
    assert pid > 1
    assert said(active) == [("readiness", SPEC, "")]
    assert active.calls == []


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        pytest.param("echo fine", "exit 0", id="good"),
        pytest.param("exit 3", "exit 3", id="bad"),
        pytest.param("kill -9 $$", "signal 9", id="killed"),
    ],
)
def test_a_users_command_runs_in_the_container_and_the_agent_hears_how_it_ended(
    active, script, ended
):
    program(active, script)
    asked(active, "liveness", "cat", "/x")
    assert said(active) == [("liveness", SPEC, ""), ("liveness", SPEC, ended)]
    assert json.loads((active.folder / "process.json").read_text())["args"] == ["cat", "/x"]
    assert not (active.folder / "exec.pid.kyb").exists()


def test_a_users_command_has_its_own_timeout_and_is_ended_then(active):
    program(active, f"echo $$ >{active.folder}/number; exec sleep 600")
    asked(active, "liveness", "x", spec='{"timeout":1}')
    assert [ended for _, _, ended in said(active)] == ["", "timeout"]
    number = int((active.folder / "number").read_text())
    wait_for(lambda: not os.path.exists(f"/proc/{number}/exe"), "it is gone")  # noqa: PTH110


def test_a_hooks_command_has_no_timeout_and_is_asked_about_afterwards(active):
    program(active, "exit 0")
    asked(active, "prestop", "bye", spec='{"grace":30}')
    assert [ended for _, _, ended in said(active)] == ["", "exit 0"]


def test_a_hook_that_is_ours_alone_is_asked_about_as_one_that_ran(active):
    active.agent.answer = lambda call: (
        {"ok": "answered", "passed": "yes", "say": "sealed"} if call.ended else RUN
    )
    done, _ = asked(active, "prestop", spec='{"grace":30,"seal":true}')
    assert done.stdout == "sealed\n"
    assert active.calls == []


def test_a_command_that_cannot_be_started_is_runcs_error_as_always(active):
    (active.folder / "no-exec").touch()
    done, pid = asked(active, "liveness", "nowhere")
    assert (done.returncode, pid) == (4, 0)
    assert active.errors == ["no such program"]


def test_the_agents_word_counts_over_the_commands(active):
    program(active, "exit 1")

    def answer(call):
        excused = {"ok": "answered", "passed": "yes", "say": "alive: it was parked meanwhile"}
        return excused if call.ended else agree(call)

    active.agent.answer = answer
    done, _ = asked(active, "liveness", "x")
    assert done.stdout.endswith("alive: it was parked meanwhile\n")


@pytest.mark.parametrize(
    ("held", "word"),
    [
        pytest.param("yes", "alive: team/model-0 is Parked\n", id="parked"),
        pytest.param("no", "alive\n", id="active"),
    ],
)
def test_with_the_agent_away_what_it_wrote_down_last_counts(active, held, word):
    active.agent.stop()
    notes = active.agent.path.with_name("standing")
    notes.mkdir()
    note = {"held": held, "say": "team/model-0 is Parked"}
    (notes / f"{active.id}.json").write_text(json.dumps(note))
    done, _ = asked(active, "readiness")
    assert (done.returncode, done.stdout) == (0, word)


def test_with_the_agent_away_one_that_never_began_is_alive_and_not_ready(box):
    box.held()
    box.agent.stop()
    assert asked(box, "liveness")[0].stdout == "alive: team/model-0 is waiting for its GPU\n"
    assert asked(box, "readiness")[0].stdout == "not ready: team/model-0 is waiting for its GPU\n"


def test_with_the_agent_away_a_users_command_decides_where_it_can_run(active):
    active.agent.stop()
    program(active, "echo ran")
    done, _ = asked(active, "liveness", "x")
    assert done.stdout.endswith("ran\n")


def test_an_agent_that_refuses_kills_nobody(active):
    active.agent.answer = lambda call: {"error": "spec: not understood"}
    done, _ = asked(active, "liveness")
    assert done.stdout == "alive: the node agent refuses: spec: not understood\n"


def test_a_note_that_is_spoilt_counts_for_nothing(active):
    active.agent.stop()
    notes = active.agent.path.with_name("standing")
    notes.mkdir()
    for spoilt in (b"", b"{", b'{"held":1}', b"[]", b'{"held":"' + b"y" * 5000 + b'"}'):
        (notes / f"{active.id}.json").write_bytes(spoilt)
        assert asked(active, "liveness")[0].stdout == "alive\n"


def test_a_hook_that_is_to_seal_waits_for_an_agent_that_is_started_again(active):
    active.agent.stop()
    again = threading.Timer(0.5, active.agent.start)
    again.start()
    active.agent.answer = lambda call: {"ok": "answered", "passed": "yes", "say": "sealed"}
    done, _ = asked(active, "prestop", spec='{"grace":30,"seal":true}')
    again.join()
    assert done.stdout == "sealed\n"
