"""`create` as `runc restore`, and what follows. What is real: see conftest."""

import json
import os
import time

import pytest

from kybernate.clients.runtimecalls import Op, decode

OPTIONS = "--detach --no-subreaper --tcp-established --ext-unix-sk --file-locks"
LOG = """(00.1) mnt: fine
(00.1) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: not permitted
(00.2) Error (criu/files.c:1): file: Can't open "a"\tb
(00.3) Error (criu/cr-restore.c:2): Restoring FAILED.
"""
COMING = {"error": "it is copied", "again": "yes", "coming": "yes"}
ENDED = "(00.3) Error (criu/cr-restore.c:2): Restoring FAILED.\n"


def test_a_container_with_a_checkpoint_is_restored_in_place_of_made(box):
    box.wake()
    assert box.create().returncode == 0
    (call,) = box.calls
    where = f"--bundle {box.folder} --pid-file {box.folder}/init.pid"
    image = f"--image-path {box.folder}/image --work-path {box.folder}"
    assert call == f"--root {box.folder}/root restore {OPTIONS} {where} {image} {box.id}"


def test_the_agent_is_told_where_the_bundle_is(box):
    box.create()
    (asked,) = box.agent.told(Op.CREATING)
    assert asked.bundle == box.folder.resolve()


def test_the_terminal_and_the_pivot_are_handed_on_to_the_restore(box):
    box.wake()
    (box.folder / "config.json").write_text(json.dumps(box.config()))
    box.call("create", "--bundle", box.folder, "--no-pivot", "--console-socket", "/c", box.id)
    (call,) = box.calls
    assert " --console-socket /c " in call
    assert call.endswith(f" --no-pivot {box.id}")


def test_start_of_a_restored_container_says_so_and_starts_nothing(box):
    box.wake()
    box.create()
    box.clear()
    for _ in range(2):  # containerd may ask again
        assert box.call("start", box.id).returncode == 0
    assert box.calls == []
    told, again = box.agent.told(Op.HELD)
    assert told == again
    assert (told.restored, told.pid, told.fifo) == (True, os.getpid(), box.fifo)


def test_with_the_agent_away_a_restored_container_is_told_of_later(box):
    box.wake()
    box.create()
    box.agent.stop()
    assert box.call("start", box.id).returncode == 0
    (name,) = box.untold
    assert decode((box.folder / "untold" / name).read_bytes()).restored


def test_a_cold_container_is_not_called_restored(box):
    box.held()
    (told,) = box.agent.told(Op.HELD)
    assert not told.restored


def test_a_failed_restore_is_said_in_crius_words_to_people_and_to_the_agent(box):
    box.wake()
    (box.folder / "no-restore").write_text(LOG)
    assert box.create().returncode == 3
    why = 'file: Can\'t open "a" b'
    assert box.errors == [f"kybernate: its checkpoint cannot be restored: {why}"]
    (told,) = box.agent.told(Op.ENDED)
    assert told.failed == why
    assert not box.mark.exists()


@pytest.mark.parametrize("log", ["", "(00.1) nothing wrong\n", "(00.1) Error (criu/x", "\0", ENDED])
def test_a_failed_restore_without_a_usable_log_is_said_too(box, log):
    box.wake()
    (box.folder / "no-restore").write_text(log)
    assert box.create().returncode == 3
    assert "CRIU left no word" in box.errors[-1]


@pytest.mark.parametrize(
    "reply",
    [{"image": "relative", "work": "/w"}, {"image": "/i"}, {"image": "/i", "work": ""}, {}],
)
def test_an_answer_that_names_no_image_makes_nothing(box, reply):
    box.agent.answer = lambda _: {"ok": "restore", **reply}
    assert box.create().returncode == 1
    assert box.calls == []
    assert "names no image" in box.errors[-1]


def test_a_container_with_files_of_a_checkpoint_is_not_started_cold(box):
    (box.folder / "kyb-wake").mkdir()
    (box.folder / "kyb-wake" / "touched").touch()
    assert box.create().returncode == 1
    assert box.calls == []
    assert "a new container is needed" in box.errors[-1]
    box.wake()
    assert box.create().returncode == 0


def test_create_waits_for_a_checkpoint_that_is_on_its_way(box):
    box.wake()
    ready, answers = box.agent.answer, []

    def soon(call):
        answers.append(call)
        return COMING if len(answers) < 6 else ready(call)

    box.agent.answer = soon  # more often than the wait for an agent that is away
    assert box.create().returncode == 0
    assert " restore " in box.calls[0]


def test_one_that_does_not_come_is_no_reason_to_start_cold(box):
    box.configure(runc=box.folder / "runc", socket=box.agent.path, agent_wait=0, wake_wait=0.3)
    box.agent.answer = lambda _: COMING
    began = time.monotonic()
    assert box.create().returncode == 1
    assert time.monotonic() - began >= 0.3
    assert box.calls == []
    assert "not here yet" in box.errors[-1]


def test_crius_options_are_not_for_users(box):
    config = box.config()
    config["annotations"]["org.criu.config"] = "/tmp/mine.conf"
    assert box.create(config).returncode == 1
    assert box.calls == []
    assert "org.criu.config" in box.errors[-1]


@pytest.fixture(params=[("restore-from", "one"), ("on-delete", "checkpoint")], ids=str)
def sandbox(box, request):
    """The config.json of a sandbox whose pod is to wake, or may be."""
    config = box.config(container_type="sandbox", container_name=None)
    name, value = request.param
    config["annotations"][f"kyb.ai/{name}"] = value
    return config


def test_the_sandbox_of_a_pod_that_is_to_wake_waits_until_its_checkpoint_is_here(box, sandbox):
    answers = []

    def soon(call):
        answers.append(call)
        return {"ok": "heard"} if len(answers) > 5 else COMING

    box.agent.answer = soon
    assert box.create(sandbox).returncode == 0
    assert {(one.op, one.pod.name, one.container_id) for one in answers} == {
        (Op.ARRIVING, "model-0", box.id)
    }
    (call,) = box.calls
    assert " create " in call
    assert not (box.folder / "root" / box.id / "kyb-seat.json").exists()


def test_a_sandbox_whose_checkpoint_does_not_come_is_for_the_kubelet_to_try_again(box, sandbox):
    box.configure(runc=box.folder / "runc", socket=box.agent.path, agent_wait=0, wake_wait=0.3)
    box.agent.answer = lambda _: COMING
    assert box.create(sandbox).returncode == 1
    assert box.calls == []
    assert "not here yet" in box.errors[-1]


@pytest.mark.parametrize("answer", [{"error": "unknown op"}, {"ok": "cold"}])
def test_a_sandbox_is_made_whatever_else_the_agent_says(box, sandbox, answer):
    box.agent.answer = lambda _: answer
    assert box.create(sandbox).returncode == 0
    assert len(box.calls) == 1


def test_a_sandbox_is_made_with_the_agent_away(box, sandbox):
    box.agent.stop()
    assert box.create(sandbox).returncode == 0
    assert len(box.calls) == 1


def test_the_sandbox_of_any_other_pod_asks_nobody(box):
    config = box.config(container_type="sandbox", container_name=None)
    config["annotations"]["kyb.ai/on-delete"] = "discard"
    assert box.create(config).returncode == 0
    assert box.agent.told(Op.ARRIVING) == []
    assert len(box.calls) == 1
