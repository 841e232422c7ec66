"""What a former agent left half done is ended or undone; nothing is kept for nobody."""

from typing import Any

import pytest

from kybernate.model.ids import GpuUuid
from kybernate.testing.builders import a_group
from nodeagent.disk.records import Mark
from nodeagent.linux import processes
from nodeagent.mechanisms import BodyGone, NotYet
from nodeagent.stories import park, recovery

Desk = Any  # tests/nodeagent/conftest.py
GROUP = a_group(0)
CONTENTS = {"weights": b"w" * 4096, "cache": b"c" * 1024}


def _recover(desk: Desk, boot: str | None = None) -> recovery.Recovered:
    groups, uuids = {GROUP.name: GROUP}, {0: GpuUuid("GPU-0")}
    here = boot if boot is not None else processes.boot_id()
    return recovery.recover(desk.journal, desk.tools, groups, uuids, here)


def _left_at(desk: Desk, mark: Mark) -> None:
    """As after kill -9: the journal says `mark`, VRAM and pool are what they are then."""
    story = desk.story()
    if mark in (Mark.HELD, Mark.ACTIVE):
        desk.record(mark)
    elif mark is Mark.PARKING:
        desk.pool.reserve(story.record.uid, 2**30)
        story.mark(Mark.PARKING)
        desk.mechanism.locked = True
    else:
        park.park(story)
        if mark is Mark.COPIED:
            desk.mechanism.vram["cache"] = CONTENTS["cache"]
        if mark in (Mark.RESUMING, Mark.VERIFIED):
            desk.mechanism.vram["weights"] = CONTENTS["weights"]
        if mark is Mark.VERIFIED:
            desk.mechanism.vram["cache"] = CONTENTS["cache"]
        story.mark(mark)


@pytest.mark.parametrize(
    ("left", "found", "in_vram"),
    [
        pytest.param(Mark.HELD, Mark.HELD, True, id="held"),
        pytest.param(Mark.ACTIVE, Mark.ACTIVE, True, id="active"),
        pytest.param(Mark.PARKING, Mark.ACTIVE, True, id="half a park is undone"),
        pytest.param(Mark.COPIED, Mark.PARKED, False, id="a copied park is ended"),
        pytest.param(Mark.PARKED, Mark.PARKED, False, id="parked"),
        pytest.param(Mark.RESUMING, Mark.PARKED, False, id="half a resume is undone"),
        pytest.param(Mark.VERIFIED, Mark.ACTIVE, True, id="a verified resume is ended"),
    ],
)
def test_every_step_has_one_way_on(desk: Desk, left: Mark, found: Mark, in_vram: bool) -> None:
    _left_at(desk, left)
    (life,) = _recover(desk).lives
    assert life.record.mark is desk.on_disk() is found
    assert desk.mechanism.vram == (CONTENTS if in_vram else {"weights": None, "cache": None})
    assert desk.mechanism.locked is not in_vram
    assert bool(desk.pool.slots()) is not in_vram


@pytest.mark.parametrize("was_frozen", [True, False])
@pytest.mark.parametrize(
    ("left", "stands"),
    [
        pytest.param(Mark.ACTIVE, False, id="active"),
        pytest.param(Mark.PARKING, False, id="half a park"),
        pytest.param(Mark.COPIED, True, id="a copied park"),
        pytest.param(Mark.PARKED, True, id="parked"),
        pytest.param(Mark.RESUMING, True, id="half a resume"),
        pytest.param(Mark.VERIFIED, False, id="a verified resume"),
    ],
)
def test_afterwards_who_is_parked_is_frozen_and_nobody_else(
    desk: Desk, left: Mark, stands: bool, was_frozen: bool
) -> None:
    _left_at(desk, left)
    desk.freezer.stands = was_frozen
    _recover(desk)
    assert desk.freezer.stands is stands


def test_recovering_twice_changes_nothing(desk: Desk) -> None:
    _left_at(desk, Mark.COPIED)
    _recover(desk)
    (life,) = _recover(desk).lives
    assert life.record.mark is Mark.PARKED


def test_a_machine_that_was_started_anew_has_no_workloads(desk: Desk) -> None:
    _left_at(desk, Mark.PARKED)
    found = _recover(desk, boot="another boot")
    assert found.lives == ()
    assert desk.pool.slots() == {}
    assert desk.journal.read_all() == ((), ())


def test_a_number_that_another_process_has_now_is_not_the_workload(desk: Desk) -> None:
    desk.record(Mark.PARKED, pid_started=1)
    assert _recover(desk).lives == ()


def test_a_workload_that_died_meanwhile_is_cleared_away(desk: Desk) -> None:
    _left_at(desk, Mark.PARKING)
    desk.mechanism.fail["unlock"] = [BodyGone("no context")]
    found = _recover(desk)
    # Its process is this test's, which lives: so its GPU state is lost, not the workload gone.
    assert [why for _, why in found.lost] == ["it lives, but its GPU state is gone: no context"]
    assert desk.on_disk() is Mark.QUARANTINED


def test_a_parked_workload_without_its_copy_is_quarantined_with_the_reason(desk: Desk) -> None:
    _left_at(desk, Mark.PARKED)
    desk.pool.free("uid-a")
    ((life, why),) = _recover(desk).lost
    assert life.record.mark is Mark.QUARANTINED
    assert "incomplete" in why


def test_a_device_that_is_away_loses_nobody_silently(desk: Desk) -> None:
    _left_at(desk, Mark.RESUMING)
    desk.mechanism.fail["release"] = [NotYet("away")] * 3
    ((life, why),) = _recover(desk).lost
    assert life.record.mark is Mark.QUARANTINED
    assert "half of it is in VRAM" in why


def test_a_slot_without_an_owner_is_cleared(desk: Desk) -> None:
    desk.pool.reserve("uid-of-nobody", 2**30)
    _recover(desk)
    assert desk.pool.slots() == {}


def test_the_copy_of_an_unreadable_record_is_kept(desk: Desk) -> None:
    _left_at(desk, Mark.PARKED)
    (path,) = (desk.folder / "journal").glob("*.json")
    path.write_bytes(path.read_bytes()[:-20])
    for _ in range(2):  # also after the next restart
        found = _recover(desk)
        assert [one.uid for one in found.corrupt] == ["uid-a"]
        assert "uid-a" in desk.pool.slots()


def test_a_parked_workload_whose_group_was_taken_out_of_the_profile_keeps_its_contents(
    desk: Desk,
) -> None:
    _left_at(desk, Mark.PARKED)
    uuids = {0: GpuUuid("GPU-0")}
    found = recovery.recover(desk.journal, desk.tools, {}, uuids, processes.boot_id())
    assert ([one.uid for one in found.stranded], found.lives) == (["uid-a"], ())
    (life,) = _recover(desk).lives  # the group is back
    assert life.record.mark is Mark.PARKED
    assert "uid-a" in desk.pool.slots()


def test_a_fault_over_one_workload_keeps_nobody_from_the_agent(desk: Desk) -> None:
    _left_at(desk, Mark.COPIED)
    desk.mechanism.fail["release"] = [ZeroDivisionError("a fault")]
    ((life, why),) = _recover(desk).lost
    assert life.record.mark is desk.on_disk() is Mark.QUARANTINED
    assert why == "fault in the agent: a fault"
    assert "uid-a" in desk.pool.slots()


def test_nothing_is_done_on_other_cards_than_the_workload_has(desk: Desk) -> None:
    """A card that fell off gives its index to the next one."""
    desk.record(Mark.HELD, cards=(GpuUuid("GPU-that-fell-off"),))
    assert [one.uid for one in _recover(desk).stranded] == ["uid-a"]
    desk.record(Mark.HELD, cards=(GpuUuid("GPU-0"),))
    assert [life.record.uid for life in _recover(desk).lives] == ["uid-a"]
