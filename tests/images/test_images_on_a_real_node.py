"""Images of real containers, and new pods from them. What is real: see conftest."""

import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from kybernate.testing.agentnode import wait_for
from nodeagent.images import fitness

pytestmark = [pytest.mark.controlplane, pytest.mark.node]

PATIENCE_S = 90.0
COUNTER = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done"
EVERYTHING = ("python3", "-c", (Path(__file__).parent / "program.py").read_text())
SCRATCH = {"volumes": [{"name": "scratch", "emptyDir": {}}]}
TALKS = (
    "python3", "-c",
    """
import socket, time
one = socket.socket(socket.AF_UNIX)
one.connect("/outside/server.sock")
one.settimeout(0.1)
while True:
    try:
        print("closed" if one.recv(10) == b"" else "data", flush=True)
        time.sleep(0.1)
    except TimeoutError:
        print("open", flush=True)
""",
)  # fmt: skip


def with_scratch():
    return {
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "env": [{"name": "KYB_WAKE_SIGNAL", "value": "SIGUSR1"}],
    }


def last(images, name):
    lines = [line.strip() for line in images.lines(name)]
    return int(next((line for line in reversed(lines) if line.isdecimal()), -1))


def counts_beyond(images, name, number):
    wait_for(lambda: last(images, name) > number, f"{name} counts beyond {number}", PATIENCE_S)


def ask(images, name):
    """What the program of program.py says of all it holds."""
    address = images.pod(name)["status"]["podIP"]

    def look():
        try:
            with urllib.request.urlopen(f"http://{address}:8080/", timeout=30) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            return None

    return wait_for(look, f"{name} answers", PATIENCE_S)


def test_a_server_goes_on_in_a_new_pod_with_all_it_held(images):
    images.run("holds-all", *EVERYTHING, container=with_scratch(), **SCRATCH)
    before = ask(images, "holds-all")
    address = images.pod("holds-all")["status"]["podIP"]
    with socket.create_connection((address, 9000)):
        told = []
        wait_for(
            lambda: told.append(ask(images, "holds-all")) or told[-1]["outside"] == ["open"],
            "it is connected",
        )
        asked = told[-1]["child"]  # how often, when it was dumped
        assert images.ask("unfit", id=images.container("holds-all")) == []
        image = images.dump("holds-all")
        after = ask(images, "holds-all")
        assert after["outside"] == ["open"]  # the one that was dumped goes on as if nothing were
        assert after["told"] == []
    images.delete("holds-all")
    images.wake("woke", image, *EVERYTHING, container=with_scratch(), **SCRATCH)
    woke = ask(images, "woke")
    assert woke.pop("outside") != ["open"]
    assert before["count"] < woke.pop("count")
    assert (woke.pop("host"), woke.pop("told")) == ("woke", ["SIGUSR1"])
    assert woke == {
        "child": asked + 1, "log": asked + 1,
        "unix": "HELLO\n", "loopback": "HELLO\n", "own": "HELLO\n", "own-address": True,
        "halves": "half", "gone": 3 * 2**20, "shared": "kept!", "plain": "plain",
        "scratch": "scratch", "torn": "torn", "new": "new", "renamed": [False, True, False],
        "pipe": "through", "memfd": "memfd", "watch": True, "event": [1], "pid": 1, "user": 0,
    }  # fmt: skip


def test_what_is_different_in_the_new_pod_is_said_to_people_and_to_the_container(images):
    images.run("first", "sh", "-c", COUNTER)
    counts_beyond(images, "first", 3)
    old = images.pod("first")["status"]["podIP"]
    image = images.dump("first")
    images.wake("second", image, "sh", "-c", COUNTER)
    new = images.pod("second")["status"]["podIP"]
    changed = images.changed("second")
    assert "pod first is now second" in changed
    assert f"address {old} is now {new}" in changed
    assert "HOSTNAME stay as they were" in changed
    told = json.loads(images.exec("second", "cat", "/run/kyb/identity.json"))
    assert (told["now"]["addresses"], told["before"]["pod"]) == ([new], "first")
    assert images.exec("second", "hostname").strip() == "second"
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert images.exec("second", "cat", token) != images.exec("first", "cat", token)


def test_a_parked_container_stays_frozen_through_its_dump_and_its_image_wakes_standing(images):
    found = images.run("parked", "sh", "-c", COUNTER)
    counts_beyond(images, "parked", 3)
    images.ask("freeze", id=found)
    at = last(images, "parked")
    image = images.dump("parked")
    assert images.ask("standing", id=found)["frozen"]
    assert last(images, "parked") == at
    images.images["standing"] = image
    woken = images.run("standing", "sh", "-c", COUNTER)
    standing = images.ask("standing", id=woken)
    assert standing["frozen"]
    assert standing["stopped"] == standing["all"]
    assert images.lines("standing") == []
    again = images.dump("standing")  # before it was ever resumed
    assert images.ask("standing", id=woken)["frozen"]
    images.ask("thaw", id=woken)
    counts_beyond(images, "standing", at + 2)
    assert int(images.lines("standing")[0]) == at + 1
    images.wake("third", again, "sh", "-c", COUNTER)
    counts_beyond(images, "third", at + 2)
    assert int(images.lines("third")[0]) == at + 1


def test_a_terminal_and_a_read_only_root_file_system_are_as_they_were(images):
    how = {"tty": True, "stdin": True, "securityContext": {"readOnlyRootFilesystem": True}}
    images.run("terminal", "sh", "-c", COUNTER, container=dict(how))
    counts_beyond(images, "terminal", 3)
    image = images.dump("terminal")
    images.delete("terminal")
    images.wake("other-terminal", image, "sh", "-c", COUNTER, container=dict(how))
    counts_beyond(images, "other-terminal", 6)
    script = "touch /x 2>&1 | grep -c Read-only; test -t 0 < /dev/console && echo terminal"
    assert images.exec("other-terminal", "sh", "-c", script).split() == ["1", "terminal"]


@pytest.mark.skipif(
    not fitness.may_look_at_others(),
    reason="root lacks CAP_SYS_RESOURCE here, so CRIU cannot read the limits of other users",
)
def test_a_user_without_any_rights_wakes_as_that(images):
    rights = {
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    images.run("restricted", "sh", "-c", COUNTER, container={"securityContext": rights})
    counts_beyond(images, "restricted", 3)
    assert images.ask("unfit", id=images.container("restricted")) == []
    image = images.dump("restricted")
    images.wake("woken", image, "sh", "-c", COUNTER, container={"securityContext": rights})
    counts_beyond(images, "woken", 6)
    status = images.exec("woken", "cat", "/proc/1/status").splitlines()
    told = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert told["Uid"].split() == ["1000"] * 4
    assert (int(told["CapEff"], 16), told["NoNewPrivs"], told["Seccomp"]) == (0, "1", "2")


def test_a_unix_socket_to_the_outside_wakes_closed(images):
    outside = {
        "volumes": [{"name": "outside", "hostPath": {"path": str(images.folder)}}],
        "container": {"volumeMounts": [{"name": "outside", "mountPath": "/outside"}]},
    }
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(images.folder / "server.sock"))
        server.listen()
        images.run("talks", *TALKS, **json.loads(json.dumps(outside)))
        accepted, _ = server.accept()
        wait_for(lambda: "open" in images.lines("talks"), "it is connected", PATIENCE_S)
        assert images.ask("unfit", id=images.container("talks")) == []
        image = images.dump("talks")
        images.wake("is-cut-off", image, *TALKS, **json.loads(json.dumps(outside)))
        wait_for(lambda: "closed" in images.lines("is-cut-off"), "it hears of it", PATIENCE_S)
        assert "closed" not in images.lines("talks")
        accepted.close()


def test_a_dump_without_room_fails_in_words_and_the_workload_goes_on(images):
    images.run("too-large", "sh", "-c", COUNTER)
    counts_beyond(images, "too-large", 3)
    small = images.folder / "small"
    small.mkdir()
    images.node.run("mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", small)
    found = images.container("too-large")
    said = images.ask("dump", id=found, into=str(small / "image"))
    images.node.run("umount", small)
    assert said == {"raised": "DumpFailed", "why": "there is no room left for the image"}
    counts_beyond(images, "too-large", last(images, "too-large") + 3)
    images.ask("freeze", id=found)
    images.node.run("mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", small)
    assert "raised" in images.ask("dump", id=found, into=str(small / "image"))
    images.node.run("umount", small)
    assert images.ask("standing", id=found)["frozen"]


def test_an_image_that_cannot_be_restored_is_said_where_people_look(images):
    images.run("whole", "sh", "-c", COUNTER)
    counts_beyond(images, "whole", 3)
    image = images.dump("whole")
    facts = json.loads((image / "image.json").read_text())
    (image / "image.json").write_text(json.dumps({**facts, "kernel": "5.4.0"}))
    images.images |= {"of-another-kernel": image}
    images.create("of-another-kernel", "sh", "-c", COUNTER)
    assert "made under kernel 5.4.0, and here is" in images.complaint("of-another-kernel")
    (image / "image.json").write_text(json.dumps(facts))
    memory = image / "criu" / "mm-1.img"
    os.truncate(memory, memory.stat().st_size - 10)
    images.images |= {"of-half": image}
    images.create("of-half", "sh", "-c", COUNTER)
    assert "its checkpoint cannot be restored: " in images.complaint("of-half")
    told = wait_for(lambda: images.failures("of-half"), "the agent is told", PATIENCE_S)
    assert told[0] in images.complaint("of-half")
