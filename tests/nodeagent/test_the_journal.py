"""Records on disk: sealed, versioned, believed only when whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kybernate.model.gpu import Seat
from kybernate.model.ids import GroupName, PodUid, ResourceName, WorkloadKey
from kybernate.model.workload import Desired, WorkloadClass
from nodeagent.disk import records
from nodeagent.disk.journal import BreakingJournal, FileJournal
from nodeagent.disk.records import Mark, Record, Terms, Unreadable

GOLDEN = Path(__file__).parent / "journal" / "record-v1.json"
RECORD = Record(
    key=WorkloadKey("team-a", "llama-b"), uid=PodUid("0f3d9f6e-2f3a-4b53-9d0a-6c1c5d3f9b10"),
    seat=Seat(GroupName("G01"), 2), container="model", container_id="c0ffee", pid=4711,
    pid_started=987654, exec_fifo="/run/containerd/x/exec.fifo",
    boot="d2e5a1b0-0000-4000-8000-000000000000",
    terms=Terms(
        resource=ResourceName("kyb.ai/gpu-2x-seat"), vram=40 * 2**30,
        workload_class=WorkloadClass.TRAINING, priority=100, min_runtime=300.0, idle_after=None,
        desired=Desired.AUTO,
    ),
    mark=Mark.PARKED, generation=17, since=1763800000.5, wanted_since=1763800001.0,
    last_active=1763800000.5, seconds_in={"Active": 61.25, "Waiting": 0.5},
)  # fmt: skip


LOWERED = replace(RECORD, lowered="9f86d081884c7d659a2feaa0c55ad015", generation=19)
STORED = replace(LOWERED, stored=True, generation=21)
SINCE = {"record-v1": RECORD, "record-v1-lowered": LOWERED, "record-v1-stored": STORED}


@pytest.mark.parametrize("name", SINCE)
def test_what_is_below_the_pool_is_read_and_written_as_ever(name: str) -> None:
    golden = GOLDEN.with_name(f"{name}.json").read_bytes()
    assert records.decode(golden) == SINCE[name]
    assert records.encode(SINCE[name]) + b"\n" == golden


def test_a_record_of_version_1_is_readable_for_ever() -> None:
    assert records.decode(GOLDEN.read_bytes()) == RECORD


def test_what_is_written_today_is_version_1_byte_for_byte() -> None:
    assert records.encode(RECORD) + b"\n" == GOLDEN.read_bytes()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(lambda text: text[:-30], "not a record", id="cut short"),
        pytest.param(lambda text: text.replace("parked", "active"), "digest", id="one word"),
        pytest.param(lambda text: text.replace('"version": 1', '"version": 9'), "version 9",
                     id="of a later version"),
        pytest.param(lambda _: "[]", "not a record", id="something else"),
        pytest.param(lambda _: "", "not a record", id="empty"),
    ],
)  # fmt: skip
def test_a_record_that_is_not_whole_is_not_believed(damage: Any, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        records.decode(damage(GOLDEN.read_text()).encode())


def test_every_mark_has_a_state() -> None:
    assert set(records.STATES) == set(Mark)


def test_each_write_is_a_new_generation(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    first = journal.write(RECORD)
    assert journal.write(first).generation == first.generation + 1
    assert journal.read_all() == ((journal.write(first),), ())


def test_a_draft_that_was_never_sealed_never_happened(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    kept = journal.write(RECORD)
    (tmp_path / "x.json.draft").write_bytes(b"half")
    assert journal.read_all() == ((kept,), ())
    assert not (tmp_path / "x.json.draft").exists()


def test_an_unreadable_record_is_put_aside_until_its_pod_is_forgotten(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    (tmp_path / "uid-x.json").write_text("{}")
    for _ in range(2):
        found, corrupt = journal.read_all()
        assert (found, [one.uid for one in corrupt]) == ((), ["uid-x"])
    journal.forget(PodUid("uid-x"))
    assert journal.read_all() == ((), ())


@pytest.mark.parametrize("uid", ["", "../x", ".hidden", "a/b"])
def test_a_uid_is_never_a_path(tmp_path: Path, uid: str) -> None:
    with pytest.raises(ValueError, match="not a pod uid"):
        FileJournal(tmp_path).forget(PodUid(uid))


@pytest.mark.parametrize(("point", "written"), [("before:parked", False), ("after:parked", True)])
def test_a_fault_is_injected_beside_the_write(tmp_path: Path, point: str, written: bool) -> None:
    class EndedError(Exception):
        pass

    def end() -> None:
        raise EndedError

    files = FileJournal(tmp_path)
    with pytest.raises(EndedError):
        BreakingJournal(files, point, end).write(RECORD)
    assert bool(files.read_all()[0]) is written


@pytest.mark.parametrize("point", ["parked", "during:parked", "before:lunch"])
def test_a_fault_point_that_does_not_exist_is_refused(tmp_path: Path, point: str) -> None:
    with pytest.raises(ValueError, match=r"point|Mark"):
        BreakingJournal(FileJournal(tmp_path), point, lambda: None)
