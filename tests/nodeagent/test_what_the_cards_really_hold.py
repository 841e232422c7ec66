"""
NVML is compared with the books, and bytes that are nobody's are traced to who keeps them.
Real: processes, a fork that outlives its parent, their descriptors. Faked: the driver's device
nodes, which are files here; NVML's word, as values.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kybernate.clients.gpus import GpuProcess
from kybernate.clients.gpus.listed import ListedGpus
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.gpu import Group, Profile, Seat
from kybernate.model.ids import GroupName, PodUid, ResourceName, WorkloadKey
from kybernate.model.workload import State
from kybernate.testing.agentnode import wait_for
from kybernate.testing.builders import a_gpu
from nodeagent.gpus import neighbours
from nodeagent.gpus.cards import Picture
from nodeagent.gpus.coexistence import Stranger
from nodeagent.gpus.neighbours import Surroundings
from nodeagent.truth import holders
from nodeagent.truth.books import GRACE_S, deviations
from nodeagent.truth.own import is_own

GIB = 2**30
PROC = Path("/proc")
PROFILE = Profile(name="p", resource=ResourceName("r"), group_size=1, seats_per_group=2)
GROUP = Group(name=GroupName("G0"), gpus=(0,), profile=PROFILE, vram=80 * GIB)
# Opens its arguments as the driver's nodes, forks, and the first of the two ends.
FORKS = """
import os, signal, sys
files = [open(name) for name in sys.argv[1:]]
if os.fork():
    print(os.getpid(), flush=True)
    os._exit(0)
signal.pause()
"""


def tenancy(**fields: Any) -> Tenancy:
    known: dict[str, Any] = {
        "key": WorkloadKey("team", "a"), "uid": PodUid("u"), "group": GROUP,
        "seat": Seat(GROUP.name, 0), "vram": 40 * GIB, "state": State.ACTIVE,
    }  # fmt: skip
    return Tenancy(**known | fields)


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        pytest.param(
            {"held": {0: 60 * GIB}},
            "MoreThanItsVram",
            "team/a holds 60.0 GiB of GPU 0; its kyb.ai/vram gives it 40.0 GiB",
            id="more-than-it-said",
        ),
        pytest.param(
            {"held": {0: 3 * GIB}, "state": State.PARKED},
            "ParkedHoldsVram",
            "3.0 GiB of GPU 0, though it is Parked",
            id="parked",
        ),
        pytest.param(
            {"held": {0: 2 * GIB}, "state": State.WAITING},
            "ParkedHoldsVram",
            "though it is Waiting",
            id="waiting",
        ),
        pytest.param(
            {"held": {1: GIB}}, "OnAnothersGpu", "GPU 1, which is not of its group G0", id="another"
        ),
    ],
)
def test_a_workload_that_holds_what_it_should_not_is_named(
    fields: dict[str, Any], reason: str, words: str
) -> None:
    (found,) = deviations([tenancy(**fields)], now=GRACE_S)
    assert found.reason == reason
    assert words in found.words


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"held": {0: 40 * GIB + GIB // 2}}, id="with-its-context"),
        pytest.param({"held": {0: GIB // 2}, "state": State.PARKED}, id="a-context-that-stays"),
        pytest.param(
            {"held": {0: 5 * GIB}, "residue": 5 * GIB, "state": State.PARKED}, id="booked-residue"
        ),
        pytest.param({"held": {0: 60 * GIB}, "since": 1.0}, id="it-has-just-changed"),
        pytest.param({"held": {0: 60 * GIB}, "state": State.PARKING}, id="under-way"),
    ],
)
def test_a_context_and_what_is_under_way_are_nobodys_fault(fields: dict[str, Any]) -> None:
    assert deviations([tenancy(**fields)], now=GRACE_S) == ()


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    card, memory = tmp_path / "nvidia0", tmp_path / "nvidia-uvm"
    for one in (card, memory):
        one.touch()
    monkeypatch.setattr(holders, "_MEMORY", str(memory))
    return card, memory


@pytest.fixture
def orphan(nodes: tuple[Path, Path]) -> Any:
    """A child that keeps the driver's descriptors of a parent that is gone."""
    argv = [sys.executable, "-c", FORKS, *map(str, nodes)]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    known = int(parent.stdout.readline())
    parent.wait()
    parent.stdout.close()
    (kept,) = wait_for(
        lambda: holders.keepers([str(nodes[0])], frozenset(), PROC), "the child is seen"
    )
    yield kept.pid, known
    os.kill(kept.pid, signal.SIGKILL)


def test_a_child_that_keeps_descriptors_of_a_dead_parent_is_found_and_named(
    orphan: tuple[int, int], nodes: tuple[Path, Path]
) -> None:
    child, parent = orphan
    gpu = a_gpu(0, device_nodes=(str(nodes[0]),))
    dead = GpuProcess(pid=parent, uuid=gpu.uuid, used=GIB)  # as NVML may still say
    for outsiders in ((), (dead,)):
        picture = Picture(
            at=0.0, gpus=(gpu,), used={0: GIB}, strangers=frozenset({0}), outsiders=outsiders
        )
        at = Surroundings(inventory=ListedGpus((gpu,)), picture=lambda seen=picture: seen)
        command = (PROC / str(child) / "comm").read_text().strip()
        found = neighbours._strangers(at, picture)
        assert found == (Stranger(gpu=0, pid=child, command=command, keeps=True),)


def test_children_of_processes_that_the_driver_knows_are_nothing_unusual(
    orphan: tuple[int, int], nodes: tuple[Path, Path]
) -> None:
    child, _ = orphan
    assert holders.keepers([str(nodes[0])], frozenset({child}), PROC) == ()
    parent = int((PROC / str(child) / "stat").read_text().rpartition(")")[2].split()[1])
    assert holders.keepers([str(nodes[0])], frozenset({parent}), PROC) == ()


def test_who_only_looks_at_cards_keeps_nothing(nodes: tuple[Path, Path]) -> None:
    with nodes[0].open():
        assert holders.keepers([str(nodes[0])], frozenset(), PROC) == ()


def test_workers_are_known_by_program_and_place(tmp_path: Path) -> None:
    for pid, cgroup in ((7, "/ours"), (8, "/kubepods/theirs")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(b"python3\0-m\0nodeagent.gpuworker\0")
        (tmp_path / str(pid) / "cgroup").write_text(f"0::{cgroup}\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/ours\n")
    (tmp_path / "9").mkdir()
    (tmp_path / "9" / "cmdline").write_bytes(b"python3\0train.py\0")
    (tmp_path / "9" / "cgroup").write_text("0::/ours\n")
    assert [is_own(pid, tmp_path) for pid in (7, 8, 9, 10)] == [True, False, False, False]
    assert is_own(os.getpid())
