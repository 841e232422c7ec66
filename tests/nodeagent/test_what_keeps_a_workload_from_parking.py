"""
What stands in the way of parking is judged from a running workload's processes, and told by name.
Faked: /proc, as a folder; the guests' word; the API server's side, as lists.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from kybernate.clients.errors import Retry
from kybernate.model.gpu import Group, Profile
from kybernate.model.ids import GpuUuid, GroupName, PodUid, ResourceName, WorkloadKey
from kybernate.testing.clock import FakeClock
from nodeagent.disk.records import Mark
from nodeagent.eligibility import facts
from nodeagent.eligibility.judging import RANKS_ELSEWHERE, Facts, ProcessFacts, obstacles
from nodeagent.linux import processes
from nodeagent.lives.life import Life
from nodeagent.mechanisms import Body, NotPossible
from nodeagent.mechanisms.real import Real
from nodeagent.reporting.obstacles import Eligibility, Parts

GUEST = ProcessFacts(pid=7, command="python3", driver=True, library=True)
PLAIN = ProcessFacts(pid=8, command="ollama", driver=True)
MANAGED = "3 12582912 managed memory"


@pytest.mark.parametrize(
    ("seen", "reason", "forbids", "words"),
    [
        pytest.param(
            Facts(processes=[ProcessFacts(pid=9, command="nccl", verbs=True)]),
            "RdmaInUse", True, "nccl (9) has an RDMA device open", id="rdma",
        ),
        pytest.param(
            Facts(processes=[PLAIN]),
            "WithoutLibrary", False, "the driver alone parks it", id="no-library",
        ),
        pytest.param(
            Facts(processes=[PLAIN, GUEST]),
            "WithoutLibrary", True, "ollama (8) uses the driver without", id="mixed",
        ),
        pytest.param(
            Facts(processes=[ProcessFacts(pid=1, driver=True, library=True, nccl=True)], cards=2),
            "NcclAcrossCards", False, "NCCL on 2 cards", id="nccl",
        ),
        pytest.param(
            Facts(processes=[GUEST], left=[MANAGED, "1 4194304 managed memory", "1 0 arrays"]),
            "StaysOnCard", False, "4 x managed memory (16.0 MiB), 1 x arrays (0.0 MiB)",
            id="managed",
        ),
        pytest.param(
            Facts(left=[f"1 0 {RANKS_ELSEWHERE}", "1 0 nothing"], cards=2),
            "RanksElsewhere", True, "ranks that are not of this workload", id="ranks-elsewhere",
        ),
        pytest.param(
            Facts(left=["1 0 windows of NCCL", "1 0 x"]),
            "NcclWindows", True, "symmetric memory", id="windows",
        ),
        pytest.param(
            Facts(left=["2 0 functions of a second NCCL", "1 0 x"]),
            "SecondNccl", True, "two NCCL libraries", id="second",
        ),
        pytest.param(
            Facts(left=["1 4096 memory of other processes", "1 0 x"], cards=2),
            "PeerMemory", True, "--disable-custom-all-reduce", id="custom-all-reduce",
        ),
        pytest.param(
            Facts(processes=[ProcessFacts(pid=5, driver=True, library=True, nccl_inside=True)],
                  left=["1 0 x"]),
            "NcclBuiltIn", True, "collectives are not seen", id="built-in",
        ),
        pytest.param(
            Facts(left=["\x00lies"]), "StaysOnCard", False, "something unreadable", id="nonsense"
        ),
    ],
)  # fmt: skip
def test_an_obstacle_has_a_name_and_says_what_comes_of_it(
    seen: Facts, reason: str, forbids: bool, words: str
) -> None:
    found, *others = obstacles(seen)
    assert [one.reason for one in others] == ["StaysOnCard"] * (forbids and bool(seen.left))
    assert (found.reason, found.forbids) == (reason, forbids)
    assert words in found.words


def test_memory_of_another_process_on_one_card_stays_and_forbids_nothing() -> None:
    found = obstacles(Facts(left=["1 4096 memory of other processes"], cards=1))
    assert [one.reason for one in found] == ["StaysOnCard"]


def test_nccl_inside_a_library_whose_calls_are_seen_forbids_nothing() -> None:
    inside = ProcessFacts(pid=5, driver=True, library=True, nccl_inside=True)
    found = obstacles(Facts(processes=[inside], left=["1 0 communicators of NCCL"]))
    assert [one.reason for one in found] == ["StaysOnCard"]


def test_what_is_as_it_should_be_has_none() -> None:
    alone = ProcessFacts(pid=7, driver=True, library=True, nccl=True)
    assert obstacles(Facts(processes=[alone])) == ()


def test_all_are_told_those_that_forbid_first() -> None:
    verbs = ProcessFacts(pid=9, driver=True, library=True, nccl=True, verbs=True)
    found = obstacles(Facts(processes=[verbs], left=[MANAGED], cards=2))
    assert [one.reason for one in found] == ["RdmaInUse", "NcclAcrossCards", "StaysOnCard"]


@pytest.fixture
def proc(tmp_path: Path) -> Callable[..., Path]:
    def make(pid: int, *mapped: str, open_files: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "maps").write_text("".join(f"7f00-7f01 r-xp 0 00:00 1 {m}\n" for m in mapped))
        (folder / "comm").write_text("python3\n")
        for number, name in enumerate(open_files):
            (folder / "fd" / str(number)).symlink_to(name)
        return tmp_path

    return make


def test_nccl_s_threads_without_its_library_are_noticed(proc: Callable[..., Path]) -> None:
    where = proc(4, "/usr/lib/libcuda.so.580", "/x/libkybguest.so", "/x/libtorch_cuda.so")
    thread = where / "4" / "task" / "11"
    thread.mkdir(parents=True)
    (thread / "comm").write_text("NCCL Service  0\n")
    assert [one.nccl_inside for one in facts.of([4], where)] == [True]


def test_facts_come_from_mappings_and_descriptors(proc: Callable[..., Path]) -> None:
    proc(1, "/usr/lib/libcuda.so.580", "/x/libkybguest.so", "/x/libnccl.so.2")
    proc(2, open_files=("/dev/infiniband/uverbs0", "socket:[1]"))
    where = proc(3, "/usr/lib/libc.so.6")
    assert facts.of([1, 2, 3, 4], where) == (
        ProcessFacts(pid=1, command="python3", driver=True, library=True, nccl=True),
        ProcessFacts(pid=2, command="python3", verbs=True),
    )


class Told:
    """Whom the reports go to; `left` is what the guests say."""

    def __init__(self) -> None:
        self.left: tuple[str, ...] = ()
        self.events: list[tuple[str, str, bool]] = []
        self.patches: list[dict[str, Any]] = []
        self.away = False

    def record(self, workload: Any, decision: Any, action: str, *, warning: bool = False) -> None:
        self.events.append((decision.reason.value, decision.message, warning))

    def patch(self, key: Any, uid: Any, patch: dict[str, Any]) -> None:
        if self.away:
            raise Retry("away")
        self.patches.append(patch["status"]["conditions"][0])


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def reports(told: Told, desk: Any, monkeypatch: pytest.MonkeyPatch) -> Eligibility:
    record = desk.record(mark=Mark.ACTIVE, pid=7)
    profile = Profile(name="p", resource=ResourceName("r"), group_size=1, seats_per_group=1)
    group = Group(name=GroupName("G0"), gpus=(0,), profile=profile, vram=1)
    life = Life(record=record, group=group, uuids={0: GpuUuid("GPU-0")})
    monkeypatch.setattr(processes, "tree", lambda pid: (pid,))
    monkeypatch.setattr(facts, "of", lambda pids: (GUEST,))
    parts = Parts(
        lives=lambda: [life], left=lambda body: told.left, decisions=told, patch=told.patch
    )
    return Eligibility(parts, FakeClock())


def test_a_workload_without_obstacles_is_parkable_without_an_event(
    reports: Eligibility, told: Told
) -> None:
    reports.look()
    reports.look()
    (condition,) = told.patches
    assert (condition["type"], condition["status"]) == ("Parkable", "True")
    assert told.events == []


def test_what_comes_later_is_told_once_as_event_and_condition(
    reports: Eligibility, told: Told
) -> None:
    reports.look()
    told.left = (MANAGED,)
    reports.look()
    told.left = ("4 16777216 managed memory",)
    reports.look()
    ((reason, message, warning),) = told.events
    assert (reason, warning) == ("ParkableInPart", False)
    assert "3 x managed memory (12.0 MiB)" in message
    assert [one["reason"] for one in told.patches] == ["NothingFound", "StaysOnCard", "StaysOnCard"]
    assert len({one["lastTransitionTime"] for one in told.patches}) == 1


def test_what_forbids_parking_is_a_warning_and_false(
    reports: Eligibility, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "of", lambda pids: (ProcessFacts(pid=7, verbs=True),))
    told.away = True
    reports.look()
    told.away = False
    reports.look()
    assert [(reason, warning) for reason, _, warning in told.events] == [("NotParkable", True)]
    (condition,) = told.patches
    assert (condition["status"], condition["reason"]) == ("False", "RdmaInUse")


class Locked:
    """Stands for a mechanism that is asked to lock."""

    def __init__(self) -> None:
        self.locks = 0

    def lock(self, body: Any, limit: float) -> None:
        self.locks += 1

    def left(self, body: Any) -> tuple[str, ...]:
        return ()


@pytest.mark.parametrize(("verbs", "locks"), [(False, 1), (True, 0)])
def test_nothing_is_locked_that_has_an_rdma_device_open(
    monkeypatch: pytest.MonkeyPatch, verbs: bool, locks: int
) -> None:
    monkeypatch.setattr(processes, "tree", lambda pid: (pid,))
    seen = ProcessFacts(pid=7, command="ib", driver=True, library=True, verbs=verbs)
    monkeypatch.setattr(facts, "of", lambda pids: (seen,))
    guest: Any = Locked()
    body = Body(key=WorkloadKey("team", "a"), uid=PodUid("u"), pid=7, gpus=(GpuUuid("GPU-0"),))
    real = Real(guest, guest)
    refused = pytest.raises(NotPossible, match=r"ib \(7\) has an RDMA device open")
    with refused if verbs else nullcontext():
        real.lock(body, 1.0)
    assert guest.locks == locks
