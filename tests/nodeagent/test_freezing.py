"""
Containers stand still and go on, by v1's freezer, by v2, and by signals where there is neither.
Real: the kernel's cgroups, and processes in them. Samples of /proc are of real nodes.
"""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from kybernate.runtime.clock import SystemClock
from kybernate.testing.agentnode import wait_for
from nodeagent.linux import cgroups, processes
from nodeagent.linux.cgroups import Cgroup, Cgroups, NoCgroup
from nodeagent.linux.freezer import Freezer, Means, NotFrozen, NotThawed

ID = "3f1c" * 16
MOUNTS_V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
MOUNTS_V2 = "29 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate\n"
PROCESS_V1 = f"""\
9:name=systemd:/kubepods/burstable/pod7d/{ID}
6:freezer:/kubepods/burstable/pod7d/{ID}
4:cpu,cpuacct:/kubepods/burstable/pod7d/{ID}
0::/
"""
SLICE = "/kubepods.slice/kubepods-pod7d.slice"
PROCESS_V2 = f"0::{SLICE}/cri-containerd-{ID}.scope\n"


def test_memberships_are_told_by_controller() -> None:
    of_v1 = cgroups.memberships(PROCESS_V1)
    assert of_v1["freezer"] == of_v1["cpuacct"] == PurePosixPath(f"/kubepods/burstable/pod7d/{ID}")
    assert of_v1[cgroups.UNIFIED] == PurePosixPath("/")
    assert cgroups.memberships(PROCESS_V2) == {"": PurePosixPath(PROCESS_V2[3:-1])}


def test_hierarchies_are_those_that_are_mounted_v1_before_v2() -> None:
    assert [one.name for one in cgroups.hierarchies(MOUNTS_V1)] == ["none", "freezer", ""]
    assert [one.mount for one in cgroups.hierarchies(MOUNTS_V2)] == [Path("/sys/fs/cgroup")]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        pytest.param(f"/kubepods/pod7d/{ID}", f"/kubepods/pod7d/{ID}", id="cgroupfs"),
        pytest.param(
            f"{SLICE}/cri-containerd-{ID}.scope", f"{SLICE}/cri-containerd-{ID}.scope", id="systemd"
        ),
        pytest.param(
            f"/kubepods/{ID}/system.slice/x", f"/kubepods/{ID}", id="one-of-its-own-below"
        ),
        pytest.param("/", None, id="top"),
        pytest.param("/user.slice/session-1.scope", None, id="somebody-elses"),
        pytest.param(f"/kubepods/{ID}0", None, id="another-container"),
    ],
)
def test_a_containers_cgroup_is_the_one_named_after_it(path: str, found: str | None) -> None:
    assert cgroups.named_after(PurePosixPath(path), ID) == (PurePosixPath(found) if found else None)


@pytest.mark.parametrize(
    ("mounts", "process", "freezer", "unified"),
    [
        pytest.param(
            MOUNTS_V1, PROCESS_V1, f"freezer/kubepods/burstable/pod7d/{ID}", False, id="v1"
        ),
        pytest.param(MOUNTS_V2, PROCESS_V2, PROCESS_V2[4:-1], True, id="v2"),
        pytest.param(
            MOUNTS_V1, PROCESS_V2 + "6:freezer:/\n", f"unified{PROCESS_V2[3:-1]}", True, id="hybrid"
        ),
    ],
)
def test_a_containers_cgroup_is_found_by_its_process(
    proc: Callable[..., Cgroups],
    tmp_path: Path,
    mounts: str,
    process: str,
    freezer: str,
    unified: bool,
) -> None:
    (tmp_path / "cgroup" / freezer).mkdir(parents=True)
    assert proc(mounts, process).of(7, ID) == Cgroup(tmp_path / "cgroup" / freezer, unified)


@pytest.mark.parametrize(
    ("mounts", "process", "why"),
    [
        pytest.param(MOUNTS_V1, "6:freezer:/\n0::/\n", "not its own", id="at-the-top"),
        pytest.param(MOUNTS_V2, PROCESS_V2, "is not shown", id="not-shown-here"),
        pytest.param("", PROCESS_V1, "is mounted here", id="nothing-mounted"),
        pytest.param(
            MOUNTS_V2.replace(" / ", " /kubepods/agent "),
            PROCESS_V2,
            "is not shown",
            id="part-of-it",
        ),
    ],
)
def test_why_there_is_no_cgroup_is_said(
    proc: Callable[..., Cgroups], mounts: str, process: str, why: str
) -> None:
    with pytest.raises(NoCgroup, match=why):
        proc(mounts, process).of(7, ID)


def test_who_is_in_a_containers_cgroup_belongs_to_it_whoever_started_it(
    proc: Callable[..., Cgroups], tmp_path: Path
) -> None:
    there = proc(MOUNTS_V1, PROCESS_V1)
    for pid, text in ((8, PROCESS_V1.replace(ID, f"{ID}/below")), (9, PROCESS_V1.replace(ID, "x"))):
        (tmp_path / "proc" / str(pid)).mkdir()
        (tmp_path / "proc" / str(pid) / "cgroup").write_text(text)
    assert [ID in there.names(pid) for pid in (7, 8, 9, 10)] == [True, True, False, False]


def test_a_scope_of_systemd_names_its_container(proc: Callable[..., Cgroups]) -> None:
    assert ID in proc(MOUNTS_V2, PROCESS_V2).names(7)


@pytest.fixture
def proc(tmp_path: Path) -> Callable[..., Cgroups]:
    """Cgroups as a machine with these mounts, and process 7, shows them, below `tmp_path`."""

    def made(mounts: str, process: str) -> Cgroups:
        for folder in ("self", "7"):
            (tmp_path / "proc" / folder).mkdir(parents=True)
        shown = mounts.replace("/sys/fs/cgroup", str(tmp_path / "cgroup"))
        (tmp_path / "proc/self/mountinfo").write_text(shown)
        (tmp_path / "proc/7/cgroup").write_text(process)
        return Cgroups(tmp_path / "proc")

    return made


class Tree:
    """A container's cgroup, with processes in it and in one below that count as they run."""

    def __init__(self, folder: Path, container_id: str, counts: Path) -> None:
        self.folder, self.id, self._counts = folder, container_id, counts
        self.below = folder / "below"
        self.below.mkdir()
        self.first = self._start("first", folder)
        self._second = self._start("second", self.below)
        wait_for(lambda: all(self.count()), "both run")

    def _start(self, name: str, folder: Path) -> "subprocess.Popen[bytes]":
        endless = 'n=0; while :; do n=$((n+1)); echo $n > "$0"; sleep 0.002; done'
        script = f'echo 0 > "$1"; {endless}'
        argv = ["/bin/sh", "-c", script, str(self._counts / name), str(folder / "cgroup.procs")]
        return subprocess.Popen(argv)

    def count(self) -> list[str]:
        return [
            path.read_text() if path.exists() else ""
            for path in (self._counts / "first", self._counts / "second")
        ]

    def goes_on(self) -> bool:
        before = self.count()
        return bool(wait_for(lambda: self._moved(before), "it goes on"))

    def _moved(self, before: list[str]) -> bool:
        return all(a != b and a for a, b in zip(self.count(), before, strict=True))

    def end(self) -> None:
        for folder in (self.folder, self.below):
            for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                if (folder / file).exists():
                    (folder / file).write_text(word)
        whole = Cgroup(self.folder, False)
        while found := whole.processes():
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in (self.first, self._second):
                process.wait()
        wait_for(lambda: _removed(self.below) and _removed(self.folder), "its cgroup goes")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return not folder.exists()
    return True


@pytest.fixture(params=["v1", "v2"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    """In a real hierarchy of this machine; skipped, with the reason, where there is none."""
    name = cgroups.FREEZER if request.param == "v1" else cgroups.UNIFIED
    mounted = cgroups.hierarchies(Path("/proc/self/mountinfo").read_text())
    found = [one.mount for one in mounted if one.name == name]
    if not found or not os.access(found[0], os.W_OK):
        pytest.skip(f"no {request.param} freezer that we may write to")
    container_id = os.urandom(32).hex()
    folder = found[0] / f"kyb-test-{container_id}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error}")
    made = Tree(folder, container_id, tmp_path)
    yield made
    made.end()


@pytest.fixture
def freezer() -> Freezer:
    return Freezer(SystemClock(), Cgroups())


def test_a_whole_container_stands_and_goes_on(tree: Tree, freezer: Freezer) -> None:
    pid = tree.first.pid
    means = freezer.freeze(pid, tree.id)
    assert means in (Means.CGROUP_V1, Means.CGROUP_V2)
    before = tree.count()
    assert freezer.frozen(pid, tree.id)
    assert freezer.freeze(pid, tree.id) is means  # twice is fine
    threading.Event().wait(0.05)
    assert tree.count() == before
    freezer.thaw(pid, tree.id)
    freezer.thaw(pid, tree.id)
    assert not freezer.frozen(pid, tree.id)
    assert tree.goes_on()


def test_all_processes_of_a_container_are_known(tree: Tree) -> None:
    members = Cgroups().of(tree.first.pid, tree.id).processes()
    assert {tree.first.pid, tree._second.pid} <= set(members)
    assert os.getpid() not in members


def test_a_process_is_its_containers_by_its_first_process_or_by_the_cgroup(
    tree: Tree,
) -> None:
    """The second was not started by the first."""
    firsts, ids = {tree.first.pid: "a"}, {tree.id: "a"}
    both = (tree.first.pid, tree._second.pid)
    assert [processes.owner(pid, firsts, ids, Cgroups()) for pid in both] == ["a", "a"]
    assert [processes.owner(pid, firsts, {}, Cgroups()) for pid in both] == ["a", None]
    assert processes.owner(os.getpid(), firsts, ids, Cgroups()) is None
    assert processes.belonging(both, tree.first.pid, tree.id, Cgroups()) == set(both)


def test_what_a_container_froze_itself_stays_frozen(tree: Tree, freezer: Freezer) -> None:
    file, word = ("freezer.state", "FROZEN")
    if not (tree.below / file).exists():
        file, word = ("cgroup.freeze", "1")
    (tree.below / file).write_text(word)
    freezer.freeze(tree.first.pid, tree.id)
    freezer.thaw(tree.first.pid, tree.id)
    before = tree.count()
    wait_for(lambda: tree.count()[0] != before[0], "the first goes on")
    assert tree.count()[1] == before[1]


def test_one_that_cannot_go_on_is_told(tree: Tree) -> None:
    """Its cgroup is another's who is frozen: here the container's is the one below."""
    inner = "below"
    freezer = Freezer(SystemClock(), Cgroups(), limit=0.1)
    freezer.freeze(tree.first.pid, tree.id)
    with pytest.raises(NotThawed, match="a cgroup above"):
        freezer.thaw(tree._second.pid, inner)


def test_one_that_does_not_stand_in_time_goes_on(
    tree: Tree, freezer: Freezer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process in the kernel's hands cannot be made at will, so time is up at once."""
    monkeypatch.setattr("nodeagent.linux.freezer._Switch.insists", lambda _: False)
    hasty = Freezer(SystemClock(), Cgroups(), limit=0.0)
    with pytest.raises(NotFrozen, match="did not come to a stand"):
        hasty.freeze(tree.first.pid, tree.id)
    assert not freezer.frozen(tree.first.pid, tree.id)
    assert tree.goes_on()


def test_frozen_again_and_again_while_it_makes_processes(tree: Tree, freezer: Freezer) -> None:
    for _ in range(30):
        freezer.freeze(tree.first.pid, tree.id)
        freezer.thaw(tree.first.pid, tree.id)
    assert tree.goes_on()


def test_without_a_cgroup_of_its_own_a_process_is_stopped_by_signals(freezer: Freezer) -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert freezer.freeze(process.pid, "light-1") is Means.SIGNALS
        assert processes.is_stopped(process.pid)
        assert freezer.frozen(process.pid, "light-1")
        freezer.thaw(process.pid, "light-1")
        assert not freezer.frozen(process.pid, "light-1")
    finally:
        process.kill()
        process.wait()


def test_the_agent_never_freezes_itself(freezer: Freezer) -> None:
    with pytest.raises(NotFrozen, match="agent itself"):
        freezer.freeze(os.getppid(), "light-1")


def test_a_container_that_is_gone_is_neither_frozen_nor_thawed(freezer: Freezer) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    freezer.thaw(process.pid, ID)
    assert not freezer.frozen(process.pid, ID)


@pytest.mark.parametrize(
    ("said", "path"),
    [
        pytest.param("/kubepods/pod1/abc", "/kubepods/pod1/abc", id="cgroupfs"),
        pytest.param(
            "kubepods-burstable-pod1.slice:cri-containerd:abc",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"
            "/cri-containerd-abc.scope",
            id="systemd",
        ),
        pytest.param("system.slice::abc", "/system.slice/abc.scope", id="without a prefix"),
        pytest.param(":x:abc", None, id="without a slice"),
        pytest.param("relative", None, id="relative"),
        pytest.param(None, None, id="none"),
    ],
)
def test_where_a_containers_cgroup_is_to_be_is_read_from_its_configuration(said, path) -> None:
    found = cgroups.path_of({"linux": {"cgroupsPath": said}} if said else {})
    assert found == (PurePosixPath(path) if path else None)
