"""Parked contents go to NVMe and come back: step by step, each step failing, killed at each, and on
a disk that is full, broken or lies. Real: journal, pool, cellar, their disk. Faked: the card."""

import errno
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kybernate.ladder.progress import Course
from kybernate.model.ids import GpuUuid
from kybernate.model.verdict import Reason
from kybernate.runtime.clock import SystemClock
from kybernate.stores.disk import Disk
from kybernate.testing.builders import a_group
from nodeagent.cellar import Cellar, Content, secret_in, sparing
from nodeagent.disk.journal import BreakingJournal, FileJournal
from nodeagent.disk.pool import Damaged, Kept, NoRoom
from nodeagent.disk.records import Mark, Record
from nodeagent.linux.processes import boot_id
from nodeagent.mechanisms import CardFull, NotYet, Stands
from nodeagent.stories import demote, park, promote, recovery, resume
from nodeagent.stories.story import Lost, Undone

Desk = Any  # tests/nodeagent/conftest.py: tests do not import each other
GIB = 2**30
CARD = GpuUuid("GPU-0")
G0 = a_group(0)
CONTENTS = {"weights": os.urandom(3 * 2**20 + 5), "cache": bytes(5 * 2**20), "few": b"c" * 1024}
NEVER = threading.Event()
MOVES = [Mark.DEMOTING, Mark.DEMOTED, Mark.PROMOTING, Mark.PROMOTED]


class Killed(BaseException):
    """The agent is no more."""


def _parked(desk: Desk) -> Record:
    desk.mechanism.vram = dict(CONTENTS)
    return park.park(desk.story())


def _demoted(desk: Desk) -> Record:
    return demote.demote(desk.story(_parked(desk)), NEVER)


def _runs_as_before(desk: Desk, record: Record) -> None:
    active = resume.resume(desk.story(record))
    assert active.mark is desk.on_disk() is Mark.ACTIVE
    assert active.lowered == ""
    assert desk.mechanism.vram == CONTENTS
    assert (desk.pool.slots(), desk.cellar.names()) == ({}, ())


def _restarted(desk: Desk) -> Record:
    """What an agent that starts now makes of it."""
    found = recovery.recover(desk.journal, desk.tools, {G0.name: G0}, {0: CARD}, boot_id())
    (life,) = found.lives
    assert not found.lost, found.lost
    return life.record


def test_demoting_gives_the_pools_room_back_and_touches_no_card(desk: Desk) -> None:
    parked = _parked(desk)
    desk.mechanism.log.clear()
    record = demote.demote(desk.story(parked), NEVER)
    assert record.mark is desk.on_disk() is Mark.PARKED
    assert record.lowered
    assert desk.pool.slots() == {}
    assert (desk.pool.room().used, desk.cellar.room().used) == (0, 3 * GIB)
    assert desk.mechanism.log == []
    assert desk.freezer.stands, "its processes stand still all the time"


def test_it_is_resumed_straight_from_nvme(desk: Desk) -> None:
    record = _demoted(desk)
    story = desk.story(record)
    resume.resume(story)
    assert desk.mechanism.vram == CONTENTS
    assert {"copy in", "fetch"} <= {phase.name for phase in story.watch.phases()}
    assert (desk.pool.slots(), desk.cellar.names()) == ({}, ())


def test_promoting_brings_it_back_into_the_pool(desk: Desk) -> None:
    record = promote.promote(desk.story(_demoted(desk)))
    assert (record.mark, record.lowered) == (Mark.PARKED, "")
    assert (desk.pool.room().used, desk.cellar.names()) == (3 * GIB, ())
    _runs_as_before(desk, record)


def test_bulk_comes_back_by_way_of_the_pool(desk: Desk) -> None:
    record = _demoted(desk)
    desk.mechanism.where = Stands.BULK
    story = desk.story(record)
    resume.resume(story)
    assert "read nvme" in {phase.name for phase in story.watch.phases()}
    assert desk.mechanism.vram == CONTENTS


def test_what_a_card_was_reading_ends_with_the_error_of_reading_it(desk: Desk) -> None:
    """Its stream holds the way to the object store, and nobody collects it."""
    closed = []

    def stream() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    def reads(part: Kept) -> None:
        reading = stream()
        next(reading)
        raise CardFull(part.uuid)

    parts = [Kept(name=n, uuid=n, size=1, content=1, digest="") for n in ("GPU-0", "GPU-1")]
    gc.collect()
    gc.disable()
    try:
        with suppress(CardFull):
            desk.story().by_card(parts, reads)
        assert closed == [True, True]
    finally:
        gc.enable()


def test_what_is_with_its_processes_is_not_demoted(desk: Desk) -> None:
    record = _parked(desk)
    desk.mechanism.where = Stands.PROCESS
    with pytest.raises(Undone) as caught:
        demote.demote(desk.story(record), NEVER)
    assert caught.value.reason is Reason.NOT_DEMOTABLE
    assert desk.cellar.names() == ()


def test_whoever_wants_it_calls_it_off(desk: Desk) -> None:
    record, wanted = _parked(desk), threading.Event()
    wanted.set()
    with pytest.raises(Undone):
        demote.demote(desk.story(record), wanted)
    assert desk.cellar.names() == ()
    lowered = demote.demote(desk.story(desk.now()), NEVER)
    with pytest.raises(Undone):
        promote.promote(desk.story(lowered), wanted)
    assert desk.pool.slots() == {}
    _runs_as_before(desk, desk.now())


def test_a_resume_that_failed_leaves_it_on_nvme(desk: Desk) -> None:
    record = _demoted(desk)
    desk.mechanism.fail["copy_in"] = [CardFull("no room"), NotYet("busy")]
    for _ in range(2):
        with pytest.raises(Undone) as caught:
            resume.resume(desk.story(record))
        record = caught.value.record
        assert (record.mark, bool(record.lowered)) == (Mark.PARKED, True)
    _runs_as_before(desk, record)


@pytest.mark.parametrize("mark", MOVES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_nothing_is_lost_wherever_the_agent_dies(desk: Desk, when: str, mark: Mark) -> None:
    def end() -> None:
        raise Killed

    record = _parked(desk) if mark in MOVES[:2] else _demoted(desk)
    desk.use_journal(BreakingJournal(desk.journal, f"{when}:{mark}", end))
    move = demote.demote if mark in MOVES[:2] else promote.promote
    with pytest.raises(Killed):
        move(desk.story(record), NEVER)
    desk.restart()
    found = _restarted(desk)
    assert found.mark is desk.on_disk() is Mark.PARKED
    there = (len(desk.pool.slots()), len(desk.cellar.names()))
    assert there == ((0, 1) if found.lowered else (1, 0)), "in one tier"
    _runs_as_before(desk, found)


@pytest.mark.parametrize("mark", [Mark.DEMOTED, Mark.PROMOTED])
@pytest.mark.parametrize("left", ["pool", "cellar"])
def test_between_two_tiers_whichever_copy_is_whole_is_kept(
    desk: Desk, mark: Mark, left: str
) -> None:
    """Both copies are there, and one is broken: by a disk, or because it was going already."""
    lowered = _demoted(desk)
    desk.use_journal(BreakingJournal(desk.journal, "after:promoted", _kill))
    with pytest.raises(Killed):
        promote.promote(desk.story(lowered))
    desk.journal.write(desk.now(mark=mark))
    broken = desk.folder / ("cellar" if left == "pool" else "pool") / "uid-a"
    for path in broken.rglob("*"):
        if path.is_file():
            path.write_bytes(b"rubbish")
    desk.restart()
    _runs_as_before(desk, _restarted(desk))


def _kill() -> None:
    raise Killed


class Failing(Disk):
    """Fails every call of this name from its n-th on, while `on`."""

    def __init__(self) -> None:
        self.call, self.code, self.left = "", 0, 0

    def __getattribute__(self, name: str) -> object:
        own = object.__getattribute__(self, "__dict__")
        if name == own.get("call"):
            if own["left"] <= 0:
                raise OSError(own["code"], os.strerror(own["code"]))
            own["left"] -= 1
        return super().__getattribute__(name)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["open", "preallocate", "write", "sync", "rename", "read"])
@pytest.mark.parametrize("at", [0, 2])
def test_a_disk_that_fails_in_the_middle_leaves_it_in_the_pool(
    desk: Desk, call: str, code: int, at: int
) -> None:
    record, disk = _parked(desk), Failing()
    desk.use_disk(disk)
    disk.call, disk.code, disk.left = call, code, at
    try:
        record = demote.demote(desk.story(record), NEVER)
    except Undone as undone:
        record = undone.record
        assert (record.lowered, desk.cellar.room().used) == ("", 0)
        assert not list((desk.folder / "cellar").iterdir()), "nothing of it stays"
    disk.call = ""
    _runs_as_before(desk, record)


def test_a_disk_that_fails_to_read_leaves_it_where_it_is(desk: Desk) -> None:
    record, disk = _demoted(desk), Failing()
    desk.use_disk(disk)
    disk.call, disk.code = "read", errno.EIO
    for story in (promote.promote, resume.resume):
        with pytest.raises(Undone):
            story(desk.story(record))
        assert (desk.now().mark, desk.now().lowered) == (Mark.PARKED, record.lowered)
    assert desk.pool.slots() == {}
    disk.call = ""
    _runs_as_before(desk, record)


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def _files(desk: Desk) -> list[Path]:
    below = desk.folder / "cellar" / "uid-a"
    return sorted(path for part in ("domains", "manifests") for path in (below / part).rglob("*")
                  if path.is_file())  # fmt: skip


@pytest.mark.parametrize("story", [promote.promote, resume.resume], ids=["promoted", "resumed"])
@pytest.mark.parametrize("part", ["pack", "manifest"])
@pytest.mark.parametrize("at", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_a_flipped_bit_on_the_disk_is_found_and_never_resumed(
    desk: Desk, story: Callable[..., Record], part: str, at: float
) -> None:
    record = _demoted(desk)
    wanted = "domains" if part == "pack" else "manifests"
    (path,) = (p for p in _files(desk) if wanted in p.parts)
    flipped = int(at * (path.stat().st_size - 1))
    _flip(path, flipped)
    says_nothing = part == "pack" and (at == 1.0 or flipped < 8)  # its magic, and its own list
    if says_nothing:
        story(desk.story(record))
        if story is promote.promote:
            resume.resume(desk.story(desk.now()))
        assert desk.mechanism.vram == CONTENTS
        return
    with pytest.raises(Lost) as caught:
        story(desk.story(record))
    assert caught.value.record.mark is desk.on_disk() is Mark.QUARANTINED
    assert desk.cellar.names() == ("uid-a",), "people may look at it"
    assert desk.mechanism.locked


def test_a_flipped_bit_in_the_pool_is_found_before_the_room_is_given_back(desk: Desk) -> None:
    record = _parked(desk)
    for path in (desk.folder / "pool" / "uid-a").glob("*.part"):
        _flip(path, 7)
    with pytest.raises(Lost) as caught:
        demote.demote(desk.story(record), NEVER)
    assert caught.value.record.mark is Mark.QUARANTINED
    assert desk.cellar.names() == ()
    assert "uid-a" in desk.pool.slots(), "people may look at it"


def test_an_older_copy_is_never_taken_for_the_newest(desk: Desk) -> None:
    """A disk that forgets what was deleted and written since."""
    first = _demoted(desk)
    old = {path: path.read_bytes() for path in _files(desk)}
    active = resume.resume(desk.story(first))
    changed = {**CONTENTS, "weights": os.urandom(1000)}
    desk.mechanism.vram = dict(changed)
    again = demote.demote(desk.story(park.park(desk.story(active))), NEVER)
    for path in _files(desk):
        path.unlink()
    for path, content in old.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(Lost):
        resume.resume(desk.story(again))
    assert desk.mechanism.vram == dict.fromkeys(changed)


def test_without_room_below_it_stays(desk: Desk) -> None:
    record = _parked(desk)
    desk.use_cellar(limit=3 * GIB - 1)
    with pytest.raises(Undone) as caught:
        demote.demote(desk.story(record), NEVER)
    assert caught.value.reason is Reason.NO_NVME_ROOM
    desk.use_cellar(limit=100 * GIB, free=1000)
    with pytest.raises(Undone) as caught:
        demote.demote(desk.story(desk.now()), NEVER)
    assert caught.value.reason is Reason.NO_NVME_ROOM
    assert desk.cellar.room().free == 0
    _runs_as_before(desk, desk.now())


def test_without_room_above_it_stays_below_and_runs_all_the_same(desk: Desk) -> None:
    record = _demoted(desk)
    desk.pool.reserve("uid-b", desk.pool.limit)
    with pytest.raises(Undone) as caught:
        promote.promote(desk.story(record))
    assert caught.value.reason is Reason.NO_HOST_MEMORY
    resume.resume(desk.story(desk.now()))
    assert desk.mechanism.vram == CONTENTS


def test_the_disk_has_nothing_that_can_be_read_without_the_pools_key(desk: Desk) -> None:
    desk.mechanism.vram = {"weights": b"secret weights" * 1000}
    record = demote.demote(desk.story(park.park(desk.story())), NEVER)
    for path in _files(desk):
        assert b"secret weights" not in path.read_bytes()
    (desk.folder / "pool" / "cellar.key").unlink()
    other = secret_in(desk.folder / "pool")
    desk.cellar = Cellar(desk.folder / "cellar", 100 * GIB, other, desk.clock, free=sparing(0))
    with pytest.raises(Damaged):
        desk.cellar.slot("uid-a", record.lowered).parts()


def test_a_copy_that_is_nobodys_is_cleared_at_a_restart(desk: Desk) -> None:
    _demoted(desk)
    desk.journal.forget("uid-a")
    desk.restart()
    recovery.recover(desk.journal, desk.tools, {}, {}, boot_id())
    assert desk.cellar.names() == ()
    assert not list((desk.folder / "cellar").iterdir())


def test_a_limit_of_nothing_keeps_nothing(tmp_path: Path) -> None:
    cellar = Cellar(tmp_path / "none", 0, b"k" * 32, SystemClock(), free=sparing(0))
    assert (cellar.room().free, cellar.names()) == (0, ())
    part = Kept(name="a", uuid="GPU-0", size=1, content=1, digest="")
    with pytest.raises(NoRoom):
        cellar.keep("uid-a", "t", [Content(part, 1, iter([b"x"]))], Course(SystemClock()))
    assert not (tmp_path / "none").exists()


def test_a_journal_from_before_has_it_in_the_pool(desk: Desk) -> None:
    record = _parked(desk)
    assert b"lowered" not in (desk.folder / "journal" / "uid-a.json").read_bytes()
    assert FileJournal(desk.folder / "journal").read_all()[0] == (record,)
