"""The stories of parking and resuming, step by step, with every step failing once."""

import threading
from typing import Any

import pytest

from kybernate.model.verdict import Reason
from nodeagent.disk.pool import Kept
from nodeagent.disk.records import Mark, Record
from nodeagent.mechanisms import BodyGone, CardFull, NotPossible, NotYet
from nodeagent.stories import park, resume
from nodeagent.stories.story import Lost, Undone

Desk = Any  # tests/nodeagent/conftest.py: tests do not import each other
CONTENTS = {"weights": b"w" * 4096, "cache": b"c" * 1024}


def _parked(desk: Desk) -> Record:
    return park.park(desk.story())


def test_parking_locks_copies_and_only_then_releases(desk: Desk) -> None:
    record = _parked(desk)
    assert record.mark is desk.on_disk() is Mark.PARKED
    assert desk.mechanism.log == [
        "lock", "copy_out weights", "copy_out cache", "release weights", "release cache",
    ]  # fmt: skip
    assert desk.mechanism.locked, "the gate stays closed while it is parked"
    assert desk.mechanism.vram == {"weights": None, "cache": None}
    assert desk.pool.room().used == 4 * 2**30


def test_resuming_verifies_before_it_unlocks_and_frees_the_copy_last(desk: Desk) -> None:
    record = resume.resume(desk.story(_parked(desk)))
    assert record.mark is desk.on_disk() is Mark.ACTIVE
    assert desk.mechanism.log[-3:] == ["copy_in weights", "copy_in cache", "unlock"]
    assert desk.mechanism.vram == CONTENTS
    assert desk.pool.slots() == {}


def test_it_is_frozen_last_and_thawed_before_any_call_of_the_driver(desk: Desk) -> None:
    record = _parked(desk)
    assert desk.freezer.stands
    resume.resume(desk.story(record))
    assert not desk.freezer.stands


def test_one_that_does_not_come_to_a_stand_is_parked_all_the_same(desk: Desk) -> None:
    desk.freezer.fails = True
    assert _parked(desk).mark is Mark.PARKED


def test_a_resume_that_failed_leaves_it_frozen_as_before(desk: Desk) -> None:
    record = _parked(desk)
    desk.mechanism.fail["copy_in"] = [CardFull("no room")]
    with pytest.raises(Undone):
        resume.resume(desk.story(record))
    assert desk.freezer.stands


def test_progress_is_told_in_the_cards_bytes(desk: Desk) -> None:
    _parked(desk)
    gib = 2**30
    assert desk.told == [("copy out", gib, 2 * gib), ("copy out", 2 * gib, 2 * gib)]


def _on_cards(*cards: str) -> list[Kept]:
    return [
        Kept(name=f"p{n}", uuid=uuid, size=1, content=1, digest="") for n, uuid in enumerate(cards)
    ]


def test_cards_are_copied_side_by_side_and_each_in_its_order(desk: Desk) -> None:
    both, order = threading.Barrier(2, timeout=60), []

    def work(part: Kept) -> str:
        both.wait()  # nobody gets here alone
        order.append(part.name)
        return part.name.upper()

    parts = _on_cards("A", "B", "A", "B")
    assert desk.story().by_card(parts, work) == ["P0", "P1", "P2", "P3"]
    assert order.index("p0") < order.index("p2")
    assert order.index("p1") < order.index("p3")


def test_a_card_that_fails_is_told_when_nothing_is_under_way_any_more(desk: Desk) -> None:
    failed, ended = threading.Event(), []

    def work(part: Kept) -> None:
        if part.uuid == "A":
            failed.set()
            raise CardFull("no room")
        assert failed.wait(60)
        ended.append(part.name)

    with pytest.raises(CardFull):
        desk.story().by_card(_on_cards("A", "B", "A", "B"), work)
    assert ended == ["p1", "p3"]


def test_a_stories_time_is_split_and_the_rest_is_shown(desk: Desk) -> None:
    story = desk.story()
    park.park(story)
    names = [phase.name for phase in story.watch.phases()]
    assert names == [
        "journal",
        "lock",
        "copy out",
        "write down",
        "release",
        "freeze",
        "unaccounted",
    ]


def test_seconds_in_each_state_are_kept(desk: Desk) -> None:
    story = desk.story()
    desk.clock.advance(7.0)
    record = park.park(story)
    assert record.seconds_in["Active"] == 7.0


@pytest.mark.parametrize("step", ["lock", "copy_out"])
@pytest.mark.parametrize("error", [NotYet("slow"), NotPossible("no")])
def test_a_failure_before_the_copy_is_whole_leaves_it_active(
    desk: Desk, step: str, error: Exception
) -> None:
    desk.mechanism.fail[step] = [error]
    with pytest.raises(Undone) as undone:
        _parked(desk)
    assert undone.value.record.mark is desk.on_disk() is Mark.ACTIVE
    assert undone.value.reason is Reason.NOT_PARKABLE
    assert not desk.mechanism.locked
    assert desk.mechanism.vram == CONTENTS
    assert desk.pool.slots() == {}


def test_contents_that_change_while_they_are_copied_are_not_trusted(desk: Desk) -> None:
    real = desk.mechanism.copy_out

    def meddling(*arguments: Any) -> Any:
        desk.mechanism.vram["cache"] = b"x" * 1024
        return real(*arguments)

    desk.mechanism.copy_out = meddling
    with pytest.raises(Undone, match="changed while it was copied"):
        _parked(desk)
    assert not desk.mechanism.locked


def test_a_release_that_fails_once_is_tried_again(desk: Desk) -> None:
    desk.mechanism.fail["release"] = [NotYet("away")]
    assert _parked(desk).mark is Mark.PARKED


def test_a_release_that_never_works_brings_it_back_from_the_copy(desk: Desk) -> None:
    done = desk.mechanism.release

    def half(body: Any, part: Any, limit: float) -> None:
        if part.name == "cache":
            raise NotPossible("no")
        done(body, part, limit)

    desk.mechanism.release = half
    with pytest.raises(Undone) as undone:
        _parked(desk)
    assert undone.value.record.mark is Mark.ACTIVE
    assert desk.mechanism.vram == CONTENTS
    assert not desk.mechanism.locked
    assert desk.mechanism.log.count("copy_in weights") == 1
    assert "copy_in cache" not in desk.mechanism.log, "what is in VRAM already stays"


def test_no_room_in_the_pool_is_found_before_anything_begins(desk: Desk) -> None:
    desk.pool.limit = 2**30
    with pytest.raises(Undone) as undone:
        _parked(desk)
    assert undone.value.reason is Reason.NO_HOST_MEMORY
    assert desk.mechanism.log == []


def test_a_resume_that_could_run_out_of_memory_is_never_tried(desk: Desk) -> None:
    record = _parked(desk)
    desk.cards.room = 3 * 2**30
    with pytest.raises(Undone) as undone:
        resume.resume(desk.story(record))
    assert undone.value.reason is Reason.VRAM_NOT_FREE
    assert desk.on_disk() is Mark.PARKED
    assert "copy_in weights" not in desk.mechanism.log


@pytest.mark.parametrize(
    ("error", "reason"), [(CardFull("full"), Reason.VRAM_NOT_FREE), (NotYet("away"), None)]
)
def test_a_resume_that_fails_gives_back_what_came_in_and_stays_parked(
    desk: Desk, error: Exception, reason: Reason | None
) -> None:
    record = _parked(desk)
    real = desk.mechanism.copy_in

    def second_fails(body: Any, kept: Any, slot: Any, moved: Any) -> Any:
        if kept.name == "cache":
            raise error
        return real(body, kept, slot, moved)

    desk.mechanism.copy_in = second_fails
    with pytest.raises(Undone) as undone:
        resume.resume(desk.story(record))
    assert undone.value.reason is reason
    assert desk.on_disk() is Mark.PARKED
    assert desk.mechanism.vram == {"weights": None, "cache": None}
    desk.mechanism.copy_in = real
    resume.resume(desk.story(undone.value.record))
    assert desk.mechanism.vram == CONTENTS


def test_a_copy_that_was_changed_in_the_pool_is_lost_and_said_to_be(desk: Desk) -> None:
    record = _parked(desk)
    for part in (desk.folder / "pool").glob("*/*.part"):
        part.write_bytes(b"!" + part.read_bytes()[1:])
    with pytest.raises(Lost, match="was changed in the pool"):
        resume.resume(desk.story(record))
    assert desk.on_disk() is Mark.QUARANTINED
    assert desk.mechanism.vram == {"weights": None, "cache": None}
    assert desk.pool.slots(), "people may still look at it"


def test_contents_that_arrive_changed_are_given_back_not_lost(desk: Desk) -> None:
    record = _parked(desk)
    real = desk.mechanism.copy_in
    desk.mechanism.copy_in = lambda *arguments: real(*arguments) and "another digest"
    with pytest.raises(Undone, match="arrived changed"):
        resume.resume(desk.story(record))
    assert desk.on_disk() is Mark.PARKED


def test_a_gate_that_does_not_open_again_is_quarantined(desk: Desk) -> None:
    record = _parked(desk)
    desk.mechanism.fail["unlock"] = [NotYet("hangs")] * 3
    with pytest.raises(Lost, match="stays locked"):
        resume.resume(desk.story(record))
    assert desk.on_disk() is Mark.QUARANTINED


def test_a_workload_that_dies_on_the_way_is_told_as_gone(desk: Desk) -> None:
    desk.mechanism.fail["copy_out"] = [BodyGone("no context")]
    with pytest.raises(BodyGone):
        _parked(desk)


def test_a_disk_that_is_full_begins_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    story = desk.story()

    def full(record: Record) -> Record:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(desk.journal, "write", full)
    with pytest.raises(Exception, match="journal cannot be written"):
        park.park(story)
    assert desk.mechanism.log == []
    assert desk.pool.slots() == {}
