"""What kybernate-runc does with each of runc's commands. What is real: see conftest."""

import json
import os
import stat
import struct
import subprocess
import time

import pytest

from kybernate.clients.runtimecalls import Op, decode
from kybernate.testing.agentnode import wait_for

ALIVE = "alive"


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["--version"], id="version"),
        pytest.param(["features"], id="features"),
        pytest.param(["state", "c0ffee"], id="state"),
        pytest.param(["kill", "--all", "other", "15"], id="kill"),
        pytest.param(["exec", "--process", "nowhere", "other"], id="exec"),
        pytest.param(["delete", "--force", "other"], id="delete"),
        pytest.param(["start", "other"], id="start"),
        pytest.param(["start", "../../etc"], id="an-id-that-is-a-path"),
        pytest.param(["create", "--bundle", "/nowhere", "c0ffee"], id="create-without-a-bundle"),
        pytest.param([], id="nothing"),
        pytest.param(["no-such-command", "--x", ""], id="unknown"),
    ],
)
def test_what_is_not_about_a_seat_goes_to_runc_as_it_came(box, argv):
    box.agent.stop()
    done = box.call(*argv)
    assert done.returncode == 0
    assert box.calls == [" ".join(["--root", f"{box.folder}/root", *argv]).strip()]
    assert box.errors == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda config: config["process"].update(env=["PATH=/"]), id="no-seat"),
        pytest.param(lambda config: config["process"].update(env=None), id="no-environment"),
        pytest.param(
            lambda config: config["process"].update(env=["MY_KYB_GPU_SEAT=1", "KYB_GPU_SEATS=1"]),
            id="other-variables",
        ),
        pytest.param(lambda config: config.pop("process"), id="no-process"),
        pytest.param(lambda config: config.pop("annotations"), id="not-by-kubernetes"),
        pytest.param(
            lambda config: config["annotations"].update(
                {"io.kubernetes.cri.container-type": "sandbox"}
            ),
            id="sandbox",
        ),
    ],
)
def test_containers_without_a_seat_are_made_by_runc_alone_also_with_the_agent_away(box, change):
    config = box.config()
    change(config := json.loads(json.dumps(config)))
    box.agent.stop()
    done = box.create(config)
    assert (done.returncode, done.stdout) == (0, "created\n")
    assert len(box.calls) == 1
    assert not box.mark.exists()


def test_a_container_on_a_seat_is_made_by_runc_and_marked(box):
    done = box.create()
    assert (done.returncode, done.stdout) == (0, "created\n")
    (asked,) = box.agent.calls
    assert (asked.op, str(asked.pod), asked.uid) == (Op.CREATING, "team/model-0", "u-1")
    assert (asked.container, asked.container_id) == ("model", box.id)
    assert stat.S_IMODE(box.mark.stat().st_mode) == 0o600


def test_start_of_a_held_container_returns_at_once_and_tells_where_it_waits(box):
    box.create()
    box.clear()
    assert box.call("start", box.id).returncode == 0
    assert box.calls == []
    assert box.fifo.exists()
    (told,) = box.agent.told(Op.HELD)
    assert (told.pid, told.fifo, told.container) == (os.getpid(), box.fifo, "model")
    assert str(told.started) == box.environment["STARTED"]


def test_start_of_one_that_was_let_go_is_runcs_to_refuse(box):
    box.held()
    box.release()
    box.call("start", box.id)
    assert box.calls == [f"--root {box.folder}/root start {box.id}"]


def test_what_the_agent_refuses_is_said_where_the_kubelet_shows_it(box):
    box.agent.answer = lambda _: {"error": 'no "seat"\nhere'}
    assert box.create().returncode == 1
    assert box.calls == []
    assert box.errors == ['kybernate: the node agent refuses: no "seat"\nhere']


def test_runcs_own_errors_stay_the_last_words(box):
    (box.folder / "no-create").touch()
    assert box.create().returncode == 3
    assert box.errors == ["runc says no"]
    assert not box.mark.exists()


def test_with_the_agent_away_it_is_made_held_and_told_of_later(box):
    box.agent.stop()
    assert box.create().returncode == 0
    assert box.call("start", box.id).returncode == 0
    assert box.fifo.exists()
    (name,) = box.untold
    told = decode((box.folder / "untold" / name).read_bytes())
    assert (told.op, told.container_id, told.pid) == (Op.HELD, box.id, os.getpid())


def test_create_waits_for_an_agent_that_comes_back(box):
    box.configure(runc=box.folder / "runc", socket=box.agent.path, agent_wait=60)
    box.agent.stop()
    waiting = subprocess.Popen(
        [box.program, "--root", box.folder / "root", "create", "--bundle", box.folder, box.id],
        env=box.environment,
        stdout=subprocess.DEVNULL,
    )
    (box.folder / "config.json").write_text(json.dumps(box.config()))
    box.agent.start()
    assert waiting.wait(30) == 0


def test_a_note_that_cannot_be_put_down_fails_the_start_in_words(box):
    box.create()
    box.agent.stop()
    (box.folder / "untold").write_text("a file")
    assert box.call("start", box.id).returncode == 1
    assert "takes no note" in box.errors[-1]


def test_a_container_that_cannot_be_marked_is_taken_back(box):
    box.environment["INIT"] = "0"
    assert box.create().returncode == 1
    assert "cannot be marked" in box.errors[-1]
    assert box.calls[-1] == f"--root {box.folder}/root delete --force {box.id}"


def test_settings_that_cannot_be_used_stop_seats_in_words_and_nobody_else(box):
    box.configure(runc=box.folder / "runc", sokcet="/x")
    assert box.create().returncode == 1
    assert "known are runc, socket, agent-wait, wake-wait, not 'sokcet'" in box.errors[-1]
    assert box.create(box.config(container_type="sandbox")).returncode == 0


def test_a_runc_that_is_not_there_is_said(box):
    box.configure(runc="/no/runc")
    assert box.call("state", box.id).returncode == 1
    assert box.errors == ["kybernate: cannot run /no/runc: No such file or directory"]


# exec


def executed(box, *args, console=False):
    """(exit code of what containerd waits for, what it wrote) of a detached exec."""
    (box.folder / "process.json").write_text(json.dumps({"args": args, "cwd": "/"}))
    more = ["--console-socket", box.folder / "tty"] if console else []
    pid_file = box.folder / "exec.pid"
    process = ["--process", box.folder / "process.json", "--detach", "--pid-file", pid_file]
    done = box.call("exec", *process, *more, box.id)
    return done, pid_file.read_text() if pid_file.exists() else ""


def test_a_probe_of_a_waiting_container_is_alive_without_entering_it(box):
    box.held()
    done, pid = executed(box, "kyb-probe", "liveness", "--", "cat", "/healthy")
    assert (done.returncode, done.stdout) == (0, "alive: team/model-0 is waiting for its GPU\n")
    assert int(pid) > 1
    assert box.calls == []


def test_a_probe_of_a_parked_container_is_alive_by_the_agents_word(box):
    box.held()
    box.release()
    box.stand("Parked")
    done, _ = executed(box, "kyb-probe", "readiness")
    assert (done.returncode, done.stdout) == (0, "alive: it is Parked\n")


def test_a_probe_of_an_active_container_runs_the_users_own_command(box):
    box.held()
    box.release()
    box.stand("Active", held=False)
    done, _ = executed(box, "kyb-probe", "liveness", "--", "cat", "--", 'a "b"', "")
    assert json.loads(done.stdout) == {"args": ["cat", "--", 'a "b"', ""], "cwd": "/"}


def test_a_probe_of_an_active_container_given_by_arguments_runs_them(box):
    box.held()
    box.release()
    box.call("exec", box.id, "kyb-probe", "--", "cat", "/healthy")
    assert box.calls == [f"--root {box.folder}/root exec {box.id} cat /healthy"]


def test_a_users_command_into_an_active_container_goes_to_runc(box):
    box.held()
    box.release()
    done, _ = executed(box, "sh", "-c", "kyb-probe")
    assert json.loads(done.stdout)["args"] == ["sh", "-c", "kyb-probe"]
    assert len(box.calls) == 1


def test_a_users_command_into_a_parked_container_is_refused_in_a_sentence(box):
    box.held()
    box.release()
    box.stand("Parked")
    done, pid = executed(box, "sh")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "it is Parked; nothing can be run in it until it has\n"
    assert int(pid) > 1
    assert box.calls == []


def test_a_terminal_into_a_waiting_container_is_refused_as_an_error(box):
    box.held()
    done, _ = executed(box, "sh", console=True)
    assert done.returncode == 1
    assert "waiting for its GPU; nothing can be run" in box.errors[-1]


def test_a_command_by_hand_into_a_waiting_container_ends_with_a_code_of_its_own(box):
    box.held()
    done = box.call("exec", box.id, "sh")
    assert done.returncode == 126
    assert "waiting" in done.stderr


def test_with_the_agent_away_the_kernel_says_whether_it_is_stopped(box):
    with subprocess.Popen(["sleep", "600"]) as program:
        box.environment["INIT"] = str(program.pid)
        box.held()
        box.release()
        box.agent.stop()
        assert executed(box, "kyb-probe", "x")[0].stdout == "alive\n"
        os.kill(program.pid, 19)
        said = "alive: team/model-0 is parked: it does not have its GPU now\n"
        wait_for(lambda: executed(box, "kyb-probe", "x")[0].stdout == said, "stopped")
        program.kill()


# kill and delete


@pytest.mark.parametrize("number", ["15", "SIGTERM", "QUIT", "2"])
def test_a_polite_signal_ends_a_container_that_has_not_begun(box, number):
    box.held()
    assert box.call("kill", "--all", box.id, number).returncode == 0
    assert box.calls == [f"--root {box.folder}/root kill --all {box.id} KILL"]


def test_a_polite_signal_ends_a_parked_container(box):
    box.held()
    box.release()
    box.stand("Parked")
    box.call("kill", box.id, "15")
    assert box.calls == [f"--root {box.folder}/root kill {box.id} KILL"]


@pytest.mark.parametrize(
    ("state", "number"),
    [
        pytest.param("Active", "15", id="active"),
        pytest.param("Parked", "0", id="only-asked"),
        pytest.param("Parked", "9", id="killed-anyway"),
        pytest.param("Parked", "CONT", id="continue"),
    ],
)
def test_other_signals_are_passed_on(box, state, number):
    box.held()
    box.release()
    box.stand(state, held=state != "Active")
    box.call("kill", box.id, number)
    assert box.calls == [f"--root {box.folder}/root kill {box.id} {number}"]


def test_the_agent_is_told_of_the_end_after_runc_has_done_it(box):
    box.held()
    there = []
    box.agent.answer = lambda call: there.append(box.fifo.exists()) or {"ok": "heard"}
    assert box.call("delete", box.id).returncode == 0
    (told,) = box.agent.told(Op.ENDED)
    assert (told.container_id, told.uid, there) == (box.id, "u-1", [False])


def test_one_that_ends_before_the_agent_heard_of_it_is_not_told_of_later(box):
    box.agent.stop()
    box.held()
    assert box.untold
    assert box.call("delete", "--force", box.id).returncode == 0
    assert box.untold == []


# the program


def test_it_needs_no_library(runtime):
    image = runtime.read_bytes()
    offset, size, count = (
        struct.unpack_from("<Q", image, 32)[0],
        *struct.unpack_from("<HH", image, 54),
    )
    kinds = {struct.unpack_from("<I", image, offset + i * size)[0] for i in range(count)}
    assert 3 not in kinds  # PT_INTERP: the loader it would ask for


@pytest.mark.parametrize("seat", [pytest.param(False, id="plain"), pytest.param(True, id="seat")])
def test_it_adds_little_to_a_create(box, seat):
    """At most as much as runc's stand-in, a shell script that runs two programs, takes itself."""
    (box.folder / "runc").write_text("#!/bin/sh\n/bin/true; /bin/true; [ -e $BOX/root ]\n")
    (box.folder / "root" / box.id).mkdir(parents=True)
    (box.folder / "root" / box.id / "state.json").write_text(
        json.dumps({"init_process_pid": 1, "init_process_start": 1, "config": "x" * 50_000})
    )
    config = box.config(container_type="container" if seat else "sandbox")
    programs = (box.program, box.folder / "runc")
    taken = [[seconds(box, config, one) for one in programs] for _ in range(30)]  # in turn
    through, alone = map(min, zip(*taken, strict=True))
    assert through < 3 * alone


def seconds(box, config, program):
    """What a create takes."""
    began = time.perf_counter()
    assert box.create(config, program=program).returncode == 0
    return time.perf_counter() - began
