"""How files, flags and programs of a node are read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kyb.doctor import host, kubelet, node, rates, runtimeconf
from kyb.doctor.facts import Folder, Rates, Unknown
from kyb.doctor.host import Host
from kybernate.testing.agentnode import wait_for

REPOSITORY = Path(__file__).parents[2]
SEAT_POD = "spec: {containers: [{resources: {limits: {kyb.ai/gpu-1x-seat: 1}}}]}"


def test_runtime_conf_is_read_as_kybernate_runc_reads_it():
    assert runtimeconf.read("").agent_wait == runtimeconf.AGENT_WAIT_S
    one = runtimeconf.read("# a\n\n agent-wait = 12.5 \nsocket=/a\nrunc = /b\nwake-wait=7")
    assert (one.agent_wait, one.wake_wait, one.faults) == (12.5, 7.0, ())
    assert runtimeconf.value_of("runc = /a\nrunc = /b", "runc") == "/b"


def test_every_fault_of_runtime_conf_is_told():
    one = runtimeconf.read("agent-wait = long\nsokcet = /a\nrunc = b\nnonsense\nagent-wait = 101")
    assert len(one.faults) == 5
    assert "'sokcet' is not known: runc, socket, agent-wait, wake-wait are" in one.faults
    assert one.agent_wait == runtimeconf.AGENT_WAIT_S


def test_its_names_and_bounds_are_those_of_the_program():
    source = (REPOSITORY / "native/runtime/settings.c").read_text()
    assert f"WAIT_MOST = {runtimeconf.LONGEST_WAIT_S:g}" in source
    assert f".agent_wait = {runtimeconf.AGENT_WAIT_S:g}" in source
    assert f".wake_wait = {runtimeconf.WAKE_WAIT_S:g}" in " ".join(source.split())
    assert f'"{runtimeconf.PATH}"' in source


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--config=/a"], "/a"),
        (["--config", "/b", "--x"], "/b"),
        (["-c", "/c"], "/c"),
        (["--config"], ""),
        (["--configuration=/d"], ""),
    ],
)
def test_flags_are_found_however_they_are_written(words, value):
    assert host.flag_of(["containerd", *words], "--config", "-c") == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15m", 900.0), ("10s", 10.0), (None, 120.0), ("0s", 120.0), ("often", 120.0)],
)
def test_a_request_timeout_that_is_not_set_is_the_kubelets_own(text, seconds):
    assert kubelet.seconds(text) == seconds


def test_the_kubelets_drop_ins_win_over_its_file_and_static_pods_are_looked_through(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "pods").mkdir()
    (tmp_path / "config").write_text("runtimeRequestTimeout: 1m\nstaticPodPath: /pods\n")
    (tmp_path / "conf.d/10.conf").write_text("runtimeRequestTimeout: 2m\n")
    (tmp_path / "conf.d/20.conf").write_text("runtimeRequestTimeout: 3m\n")
    (tmp_path / "pods/model.yaml").write_text(SEAT_POD)
    (tmp_path / "pods/plain.yaml").write_text("spec: {containers: [{}]}")
    (tmp_path / "pods/broken.yaml").write_text("{")
    flags = ["--config=/config", "--config-dir", "/conf.d"]
    found = kubelet._settings(tmp_path, flags)
    assert kubelet.seconds(found["runtimeRequestTimeout"]) == 180.0
    assert kubelet._static_seats(tmp_path, found["staticPodPath"]) == ("model.yaml",)


@pytest.mark.parametrize("pod", [None, [], {"spec": 1}, {"spec": {"containers": [1]}}])
def test_a_manifest_that_makes_no_sense_asks_for_no_seat(pod):
    assert not kubelet.asks_for_a_seat(pod)


def test_what_hands_out_the_same_gpus_is_found_by_its_socket_and_in_the_kubelets_book(tmp_path):
    assert isinstance(node._foreign_plugins(Host(tmp_path)), Unknown)
    folder = tmp_path / node.DEVICE_PLUGINS.lstrip("/")
    folder.mkdir(parents=True)
    (folder / "kubelet.sock").touch()
    assert node._foreign_plugins(Host(tmp_path)) == ()
    (folder / "nvidia-gpu.sock").touch()
    book = '{"Data":{"RegisteredDevices":{"nvidia.com/gpu":["a"],"kyb.ai/gpu-1x-seat":["G0/0"]}}}'
    (folder / "kubelet_internal_checkpoint").write_text(book)
    assert node._foreign_plugins(Host(tmp_path)) == ("nvidia-gpu.sock", "nvidia.com/gpu")
    (folder / "kubelet_internal_checkpoint").write_text("torn")
    assert node._foreign_plugins(Host(tmp_path)) == ("nvidia-gpu.sock",)


def test_cgroups_of_both_kinds_are_told_apart(tmp_path):
    top = tmp_path / "sys/fs/cgroup"
    (top / "freezer").mkdir(parents=True)
    one = node._cgroups(Host(tmp_path))
    assert (one.version, one.freezer) == (1, True)
    (top / "cgroup.controllers").touch()
    assert node._cgroups(Host(tmp_path)).freezer is False
    (top / "init.scope").mkdir()
    (top / "init.scope/cgroup.freeze").touch()
    one = node._cgroups(Host(tmp_path))
    assert (one.version, one.freezer) == (2, True)


def test_huge_pages_of_both_kinds_are_read(tmp_path):
    assert isinstance(node._huge_pages(Host(tmp_path)), Unknown)
    folder = tmp_path / "sys/kernel/mm/transparent_hugepage"
    folder.mkdir(parents=True)
    (folder / "enabled").write_text("always [madvise] never\n")
    reserved = tmp_path / "sys/kernel/mm/hugepages/hugepages-2048kB"
    reserved.mkdir(parents=True)
    (reserved / "nr_hugepages").write_text("512\n")
    one = node._huge_pages(Host(tmp_path))
    assert (one.transparent, one.reserved) == ("madvise", 1 << 30)


def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_above_it(tmp_path):
    found = node._folder(node._existing(tmp_path / "a/b"), "/a/b")
    assert isinstance(found, Folder)
    assert found.path == "/a/b"
    assert found.size >= found.free > 0


def test_programs_are_looked_for_where_the_daemon_would(tmp_path):
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/real").write_text("#!/bin/sh\n")
    (tmp_path / "opt/real").chmod(0o755)
    (tmp_path / "opt/criu").symlink_to("/opt/real")
    (tmp_path / "opt/text").write_text("")
    assert host.which(tmp_path, "criu", "/nowhere:/opt") == "/opt/criu"
    assert host.which(tmp_path, "text", "/opt") == ""
    assert host.which(tmp_path, "criu", "/nowhere") == ""


def test_a_program_that_fails_is_told_by_its_last_line():
    with pytest.raises(host.CommandFailed, match=r"^why$"):
        host.run(Path("/"), ["sh", "-c", "echo first >&2; echo why >&2; exit 3"])
    with pytest.raises(host.CommandFailed, match="did not end within"):
        host.run(Path("/"), ["sh", "-c", "read forever < /dev/tty || sleep 60"], seconds=0.2)
    with pytest.raises(host.CommandFailed, match="not-there"):
        host.run(Path("/"), ["/not-there"])


def test_a_process_is_found_with_its_flags_and_its_start():
    one = host.Process(os.getpid())
    assert one.program == os.path.realpath(sys.executable)
    assert one.root == Path("/")
    assert one.started > Path("/proc/1").stat().st_mtime - 1e9
    assert Host(Path("/")).process("no-such-program") is None


def test_a_program_of_many_names_is_asked_by_the_name_it_was_called(tmp_path):
    """As k3s is, whose containerd is a link to it."""
    shutil.copy(shutil.which("sleep"), tmp_path / "many")
    (tmp_path / "one").symlink_to("many")
    with subprocess.Popen(["one", "60"], executable=tmp_path / "one") as running:
        one = host.Process(running.pid)
        wait_for(lambda: one.arguments, "it has its arguments")  # a moment after its program
        assert (one.program, one.called) == (str(tmp_path / "many"), str(tmp_path / "one"))
        (tmp_path / "one").unlink()
        assert one.called == str(tmp_path / "many")
        running.kill()


def test_the_disk_is_measured_within_bounds_and_nothing_is_left(tmp_path):
    found = rates.disk(tmp_path, largest=rates._LEAST, longest=0.3)
    if isinstance(found, Unknown):
        assert "tmp" in found.why  # a file system without O_DIRECT
    else:
        assert isinstance(found, Rates)
        assert found.into > 0
        assert found.out_of > 0
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_not_filled(tmp_path, monkeypatch):
    monkeypatch.setattr(rates, "_SPARE", 1 << 60)
    found = rates.disk(tmp_path)
    assert isinstance(found, Unknown)
    assert "no room" in found.why


def test_a_bus_without_a_driver_says_so():
    found = rates.bus(1)
    if isinstance(found, Rates):
        assert min(found.into, found.out_of) > 0
    else:
        assert "libcuda" in found.why or "cu" in found.why
