"""Who a container is, and what of it changes. Real: a network namespace where there is root."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from nodeagent.images import facts, identity, volumes
from nodeagent.images.port import Unrestorable

WAS = {
    "pod": "model-0",
    "namespace": "team",
    "addresses": ["10.1.0.2", "fd00::2"],
    "environment": {"A": "1", "TOKEN": "secret", "GONE": "x"},
}
NOW = {
    "pod": "model-7",
    "namespace": "team",
    "addresses": ["10.2.0.9", "fd00::9"],
    "environment": {"A": "1", "TOKEN": "other", "NEW": "y"},
}


def test_what_changed_is_said_without_anybodys_values():
    said = "; ".join(identity.changes(WAS, NOW))
    assert said == (
        "pod model-0 is now model-7; address 10.1.0.2, fd00::2 is now 10.2.0.9, fd00::9; "
        "the environment's GONE, NEW, TOKEN stay as they were"
    )
    assert identity.changes(WAS, WAS) == ()


def test_addresses_move_within_their_family():
    moved = {str(a): str(b) for a, b in identity.moved(WAS, NOW).items()}
    assert moved == {"10.1.0.2": "10.2.0.9", "fd00::2": "fd00::9"}
    assert identity.moved(WAS, WAS) == {}
    only_one = {**NOW, "addresses": ["10.2.0.9"]}
    assert {str(a) for a in identity.moved(WAS, only_one)} == {"10.1.0.2"}


def test_addresses_that_are_none_are_refused():
    with pytest.raises(Unrestorable):
        identity.moved({**WAS, "addresses": ["/etc/passwd"]}, NOW)


def test_the_container_is_told_all_of_it():
    told = json.loads(identity.told(WAS, NOW))
    assert told == {"now": NOW, "before": WAS}


@pytest.mark.parametrize(
    ("asked", "number"),
    [("SIGUSR1", 10), ("SIGHUP", 1), ("SIGKILL", None), ("9", None), ("", None), (None, None)],
)
def test_only_harmless_signals_may_be_asked_for(asked, number):
    env = [f"{identity.SIGNAL}={asked}"] if asked is not None else []
    assert identity.wake_signal({"process": {"env": env}}) == number


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_namespaces_addresses_are_told_and_ours_stay_ours():
    script = "ip link set lo up && ip addr add 192.0.2.7/32 dev lo"
    script += " && echo ready && cat"
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as inside:
        if inside.stdout.readline() != b"ready\n":
            pytest.skip("no network namespaces here")
        ours = identity.addresses(Path("/proc/self/ns/net"))
        theirs = identity.addresses(Path(f"/proc/{inside.pid}/ns/net"))
        inside.communicate()
    assert [str(one) for one in theirs] == ["192.0.2.7"]
    assert identity.addresses(Path("/proc/self/ns/net")) == ours


def test_a_namespace_that_is_not_there_is_an_error():
    with pytest.raises(OSError, match="nowhere"):
        identity.addresses(Path("/nowhere"))


@pytest.fixture
def known(tmp_path):
    """An image's facts, as they are here; a function that changes some."""
    here = {**facts._here(), facts.CRIU: "4.2.1"}

    def change(**some):
        (tmp_path / facts.FILE).write_text(json.dumps({**here, **some}))
        return tmp_path

    return change


def test_an_image_of_this_machine_fits(known):
    assert facts.check(known(), "4.2.1")[facts.CRIU] == "4.2.1"
    facts.check(known(), "4.10")


@pytest.mark.parametrize(
    ("some", "words"),
    [
        ({"kernel": "5.4.0-generic"}, "made under kernel 5.4.0-generic, and here is"),
        ({"machine": "riscv64"}, "made under machine riscv64"),
        ({"cpu": "fpu amx_tile_of_2031"}, "this processor lacks amx_tile_of_2031"),
        ({"criu": "9.0"}, "made by CRIU 9.0, and here is 4.2.1"),
        ({"kernel": 3}, "not an object of texts"),
    ],
)
def test_an_image_of_another_machine_is_refused_in_words(known, some, words):
    with pytest.raises(Unrestorable, match=words):
        facts.check(known(**some), "4.2.1")


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_unreadable_facts_are_refused(tmp_path, text):
    (tmp_path / facts.FILE).write_text(text)
    with pytest.raises(Unrestorable):
        facts.check(tmp_path, "4.2.1")


def config(**mounts):
    """Bind mounts by destination, with dashes for slashes."""
    return {
        "mounts": [
            {"destination": name.replace("_", "/"), "source": source, "type": "bind"}
            for name, source in mounts.items()
        ]
    }


EMPTY = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/scratch"


def test_shared_memory_and_empty_folders_are_carried_and_nothing_else(tmp_path):
    for name in ("shm", "claim"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    made = config(_dev_shm=str(tmp_path / "shm"), _data=str(tmp_path / "claim"), _scratch=EMPTY)
    carried = [one.destination for one in volumes.binds(made) if one.carried]
    assert carried == ["/dev/shm", "/scratch"]
    (tmp_path / "image").mkdir()
    volumes.pack(made, tmp_path / "image")
    (tmp_path / "new").mkdir()
    volumes.unpack(config(_dev_shm=str(tmp_path / "new"), _scratch=EMPTY), tmp_path / "image")
    assert (tmp_path / "new" / "file").read_text() == "shm"


def test_other_mounts_than_before_are_refused_in_words():
    one, two = config(_a="/x"), config(_a="/x", _b="/y")
    volumes.compare(one, config(_a="/other"))
    with pytest.raises(Unrestorable, match="this pod has no /b"):
        volumes.compare(two, one)
    with pytest.raises(Unrestorable, match="this pod has /b, which"):
        volumes.compare(one, two)
    with pytest.raises(Unrestorable, match="another kind of volume"):
        volumes.compare(one, config(_a=EMPTY))
