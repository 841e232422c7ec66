"""Parked contents go on from NVMe into the object store and come back: step by step, each step
failing, killed at each, and with a store that is away, slow, full of errors, or gives wrong bytes.
Real: journal, pool, cellar, their disk, what is sealed. Faked: the card, the store's server."""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kybernate.artifacts.chunks import Bytes
from kybernate.model.ids import GpuUuid
from kybernate.model.tier import Room, Tier
from kybernate.model.verdict import Reason
from kybernate.stores.errors import Away, Denied
from kybernate.stores.port import Listed
from kybernate.stores.ram import Ram
from kybernate.testing.builders import a_group
from nodeagent import depot as depots
from nodeagent.disk.journal import BreakingJournal
from nodeagent.disk.pool import NoRoom
from nodeagent.disk.records import Mark, Record
from nodeagent.linux.processes import boot_id
from nodeagent.lives.life import tier_of
from nodeagent.mechanisms import Stands
from nodeagent.stories import demote, fetch, park, promote, recovery, resume, store
from nodeagent.stories.story import Lost, Undone

Desk = Any  # tests/nodeagent/conftest.py: tests do not import each other
GIB = 2**30
CARD, G0 = GpuUuid("GPU-0"), a_group(0)
CONTENTS = {"weights": os.urandom(3 * 2**20 + 5), "cache": bytes(5 * 2**20), "few": b"c" * 1024}
NEVER = threading.Event()
DOWN, UP = (Mark.STORING, Mark.STORED), (Mark.FETCHING, Mark.FETCHED)
TO_RAM = (Mark.PROMOTING, Mark.PROMOTED)


class Killed(BaseException):
    """The agent is no more."""


class Broken(Ram):
    """A server in memory whose calls do what a test says: `does` maps a call to what happens in its
    place, or before it."""

    def __init__(self, clock: Any) -> None:
        super().__init__(2**40, clock.now)
        self.does: dict[str, Callable[[str], None]] = {}
        self.alters: Callable[[str, memoryview], memoryview] = lambda _, found: found

    def put(self, key: str, content: Bytes) -> None:
        self._did("put", key)
        super().put(key, content)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        self._did("get", key)
        return self.alters(key, super().get(key, offset, size, into))

    def stat(self, key: str) -> Listed:
        self._did("stat", key)
        return super().stat(key)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        self._did("list", prefix)
        return super().list(prefix)

    def delete(self, key: str) -> bool:
        self._did("delete", key)
        return super().delete(key)

    def _did(self, call: str, key: str) -> None:
        if (does := self.does.get(call) or self.does.get("*")) is not None:
            does(key)


def _away(key: str) -> None:
    raise Away(f"{key}: 503 slow down")


@pytest.fixture
def server(desk: Desk) -> Broken:
    """The desk's object store."""
    made = Broken(desk.clock)
    desk.use_depot(made)
    desk.use_cellar()
    return made


def _lowered(desk: Desk) -> Record:
    desk.mechanism.vram = dict(CONTENTS)
    return demote.demote(desk.story(park.park(desk.story())), NEVER)


def _stored(desk: Desk) -> Record:
    return store.store(desk.story(_lowered(desk)), NEVER)


def _runs_as_before(desk: Desk, record: Record) -> None:
    active = resume.resume(desk.story(record))
    assert active.mark is desk.on_disk() is Mark.ACTIVE
    assert (active.lowered, active.stored) == ("", False)
    assert desk.mechanism.vram == CONTENTS
    assert (desk.pool.slots(), desk.cellar.names(), desk.depot.names()) == ({}, (), ())
    desk.depot.look()
    assert not _keys(desk), "nothing of it is left in the store"


def _keys(desk: Desk, below: str = "parked/node") -> list[str]:
    return sorted(one.key for one in Ram.list(desk.store_below, below))


def _restarted(desk: Desk) -> Record:
    found = recovery.recover(desk.journal, desk.tools, {G0.name: G0}, {0: CARD}, boot_id())
    (life,) = found.lives
    assert not found.lost, found.lost
    return life.record


def _kill() -> None:
    raise Killed


def test_storing_gives_the_disks_room_back_and_touches_no_card(desk: Desk, server: Broken) -> None:
    record = _lowered(desk)
    on_disk = {
        path.relative_to(desk.folder / "cellar" / "uid-a"): path.read_bytes()
        for path in (desk.folder / "cellar" / "uid-a").rglob("*")
        if path.is_file() and path.name != "reserved.json"
    }
    desk.mechanism.log.clear()
    record = store.store(desk.story(record), NEVER)
    assert record.mark is desk.on_disk() is Mark.PARKED
    assert (bool(record.lowered), record.stored, tier_of(record)) == (True, True, Tier.OBJECT)
    assert (desk.pool.slots(), desk.cellar.names()) == ({}, ())
    assert not list((desk.folder / "cellar").iterdir())
    assert (desk.cellar.room().used, desk.depot.room().used) == (0, 4 * GIB)
    assert desk.mechanism.log == []
    assert desk.freezer.stands, "its processes stand still all the time"
    there = {key.split("/", 3)[3]: bytes(server.get(key)) for key in _keys(desk)}
    assert there == {str(path): content for path, content in on_disk.items()}, "byte for byte"
    assert {key.split("/")[1] for key in _keys(desk)} == {"node"}


def test_it_is_resumed_straight_from_the_object_store(desk: Desk, server: Broken) -> None:
    record = _stored(desk)
    story = desk.story(record)
    resume.resume(story)
    assert desk.mechanism.vram == CONTENTS
    assert {"copy in", "fetch"} <= {phase.name for phase in story.watch.phases()}
    assert not (desk.folder / "cellar" / "uid-a").exists(), "nothing of it was written to the disk"
    desk.depot.look()
    assert not _keys(desk)


def test_fetching_brings_it_back_to_nvme(desk: Desk, server: Broken) -> None:
    record = fetch.fetch(desk.story(_stored(desk)), NEVER)
    assert (record.mark, tier_of(record)) == (Mark.PARKED, Tier.NVME)
    assert (desk.cellar.names(), desk.depot.names()) == (("uid-a",), ())
    _runs_as_before(desk, record)


def test_promoting_brings_it_straight_into_the_pool(desk: Desk, server: Broken) -> None:
    story = desk.story(_stored(desk))
    record = promote.promote(story)
    assert (record.mark, tier_of(record)) == (Mark.PARKED, Tier.RAM)
    assert "read object" in {phase.name for phase in story.watch.phases()}
    assert (desk.pool.room().used, desk.cellar.names(), desk.depot.names()) == (3 * GIB, (), ())
    _runs_as_before(desk, record)


def test_bulk_comes_back_by_way_of_the_pool(desk: Desk, server: Broken) -> None:
    record = _stored(desk)
    desk.mechanism.where = Stands.BULK
    story = desk.story(record)
    resume.reach(story)
    assert "read object" in {phase.name for phase in story.watch.phases()}
    assert tier_of(desk.now()) is Tier.RAM, "before anybody is parked for it"
    _runs_as_before(desk, desk.now())


@pytest.mark.parametrize("came_up", [fetch.fetch, promote.promote])
def test_who_came_up_meanwhile_is_within_reach_without_the_store(
    desk: Desk, server: Broken, came_up: Callable[..., Record]
) -> None:
    record = came_up(desk.story(_stored(desk)), NEVER)
    server.does = {"*": _away}
    assert resume.reach(desk.story(record)) == record
    server.does = {}
    _runs_as_before(desk, record)


@pytest.mark.parametrize("mark", [*DOWN, *UP, *TO_RAM])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("away", [False, True], ids=["", "the-store-is-away-then"])
def test_nothing_is_lost_wherever_the_agent_dies(
    desk: Desk, server: Broken, when: str, mark: Mark, away: bool
) -> None:
    record = _lowered(desk) if mark in DOWN else _stored(desk)
    move = store.store if mark in DOWN else fetch.fetch if mark in UP else promote.promote
    desk.use_journal(BreakingJournal(desk.journal, f"{when}:{mark}", _kill))
    with pytest.raises(Killed):
        move(desk.story(record), NEVER)
    server.does = {"*": _away} if away else {}
    desk.restart()
    found = _restarted(desk)
    assert found.mark is desk.on_disk() is Mark.PARKED
    here = (len(desk.pool.slots()), len(desk.cellar.names()))
    assert here == {Tier.RAM: (1, 0), Tier.NVME: (0, 1), Tier.OBJECT: (0, 0)}[tier_of(found)]
    server.does = {}
    _runs_as_before(desk, found)


def test_nothing_is_lost_where_the_agent_dies_while_the_cellars_copy_goes(
    desk: Desk, server: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, rmtree = _lowered(desk), shutil.rmtree

    def half(path: Path, **_: object) -> None:
        rmtree(path / "domains")
        _kill()

    with monkeypatch.context() as broken:
        broken.setattr("nodeagent.cellar.shutil.rmtree", half)
        with pytest.raises(Killed):
            store.store(desk.story(record), NEVER)
    assert desk.on_disk() is Mark.STORED
    assert not list((desk.folder / "cellar" / "uid-a" / "manifests").rglob("contents"))
    desk.restart()
    found = _restarted(desk)
    assert tier_of(found) is Tier.OBJECT
    _runs_as_before(desk, found)


def test_what_was_fetched_is_not_given_up_for_a_disk_that_fails_to_read_for_once(
    desk: Desk, server: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = _stored(desk)
    desk.use_journal(BreakingJournal(desk.journal, f"after:{Mark.FETCHED}", _kill))
    with pytest.raises(Killed):
        fetch.fetch(desk.story(record), NEVER)
    desk.restart()

    def fails(*_: object) -> memoryview:
        raise OSError(errno.EIO, "for once")

    with monkeypatch.context() as broken:
        broken.setattr("kybernate.stores.nvme.Nvme.get", fails)
        found = _restarted(desk)
    assert tier_of(found) is Tier.NVME
    _runs_as_before(desk, found)


def test_a_store_that_is_away_leaves_it_on_nvme_and_goes_on_later(
    desk: Desk, server: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kybernate.artifacts.packs.FULL", 2**20)
    record = _lowered(desk)
    for call in ("put", "stat", "get"):
        server.does = {call: _away}
        with pytest.raises(Undone, match="does not answer"):
            store.store(desk.story(record), NEVER)
        record = desk.now()
        assert tier_of(record) is Tier.NVME
    assert desk.depot.room().free == 0, "nothing more goes there meanwhile"
    server.does = {}
    assert desk.depot.look() == depots.LOOK_S
    assert desk.depot.room().free
    put = []
    server.does = {"put": put.append}
    _ = store.store(desk.story(record), NEVER)
    assert all("/manifests/" in key for key in put), "what was there was not put again"
    _runs_as_before(desk, desk.now())


def test_what_was_only_begun_holds_no_room_against_itself_or_others(
    desk: Desk, server: Broken
) -> None:
    desk.use_depot(server, 6 * GIB)
    desk.use_cellar()
    record = _lowered(desk)
    server.does = {"put": _away}
    with pytest.raises(Undone, match="does not answer"):
        store.store(desk.story(record), NEVER)
    server.does = {}
    desk.depot.look()
    assert desk.depot.room().free == 6 * GIB, "or policy would never have it go there again"
    with pytest.raises(depots.OutOfReach, match="removed first"):
        desk.depot._reserve("uid-b.0", 4 * GIB)
    assert desk.depot.room().free == 2 * GIB, "until it is gone"
    desk.depot.look()
    record = store.store(desk.story(desk.now()), NEVER)
    assert desk.depot.room().free == 2 * GIB
    with pytest.raises(NoRoom):
        desk.depot._reserve("uid-b.0", 4 * GIB)
    desk.depot.look()
    _runs_as_before(desk, record)


@pytest.mark.parametrize("story", [promote.promote, fetch.fetch, resume.resume, resume.reach])
def test_while_the_store_is_away_it_stays_parked_and_comes_back_later(
    desk: Desk, server: Broken, story: Callable[..., Record]
) -> None:
    record = _stored(desk)
    server.does = {"*": _away}
    with pytest.raises(Undone, match="does not answer"):
        _tell(story, desk, record)
    assert (desk.now().mark, tier_of(desk.now())) == (Mark.PARKED, Tier.OBJECT)
    assert (desk.pool.slots(), desk.cellar.names()) == ({}, ())
    server.does = {}
    _runs_as_before(desk, desk.now())


def _tell(story: Callable[..., Record], desk: Desk, record: Record) -> Record:
    wants = (NEVER,) if story in (promote.promote, fetch.fetch) else ()
    return story(desk.story(record), *wants)


def _flipped(key: str, found: memoryview) -> memoryview:
    if "/packs/" not in key:
        return found
    wrong = bytearray(found)
    wrong[len(wrong) // 2] ^= 1
    return memoryview(wrong)


def _short(key: str, found: memoryview) -> memoryview:
    return found[: len(found) // 2] if "/packs/" in key else found


def _no_manifest(key: str, found: memoryview) -> memoryview:
    return memoryview(b"<html>a proxy's words</html>") if "/manifests/" in key else found


@pytest.mark.parametrize("alters", [_flipped, _short, _no_manifest])
@pytest.mark.parametrize("story", [promote.promote, fetch.fetch, resume.resume])
def test_wrong_bytes_are_never_resumed_and_nothing_is_given_up_for_them(
    desk: Desk, server: Broken, story: Callable[..., Record], alters: Any
) -> None:
    record = _stored(desk)
    server.alters = alters
    with pytest.raises(Undone, match="its copy in the object store"):
        _tell(story, desk, record)
    assert (desk.now().mark, tier_of(desk.now())) == (Mark.PARKED, Tier.OBJECT)
    assert desk.mechanism.locked
    assert desk.mechanism.vram == dict.fromkeys(CONTENTS), "nothing wrong is left on the card"
    server.alters = lambda _, found: found
    _runs_as_before(desk, desk.now())


@pytest.mark.parametrize("story", [promote.promote, fetch.fetch, resume.resume, resume.reach])
@pytest.mark.parametrize("part", ["/packs/", "/manifests/"])
def test_an_object_that_is_gone_leaves_it_parked_until_it_is_back(
    desk: Desk, server: Broken, story: Callable[..., Record], part: str
) -> None:
    record = _stored(desk)
    gone = {key: bytes(server.get(key)) for key in _keys(desk) if part in key}
    for key in gone:
        server.delete(key)
    with pytest.raises(Undone, match="its copy in the object store"):
        _tell(story, desk, record)
    assert (desk.now().mark, tier_of(desk.now())) == (Mark.PARKED, Tier.OBJECT)
    for key, content in gone.items():
        server.put(key, content)
    _runs_as_before(desk, desk.now())


@pytest.mark.parametrize("alters", [_flipped, _short, _no_manifest])
def test_nvme_keeps_it_until_the_store_gave_every_byte_back(
    desk: Desk, server: Broken, alters: Any
) -> None:
    record = _lowered(desk)
    server.alters = alters
    with pytest.raises(Undone):
        store.store(desk.story(record), NEVER)
    assert tier_of(desk.now()) is Tier.NVME
    assert desk.cellar.names() == ("uid-a",)
    server.alters = lambda _, found: found
    with pytest.raises(Undone, match="removed first"):
        store.store(desk.story(desk.now()), NEVER)
    desk.depot.look()
    assert not _keys(desk), "what was wrong is not built upon"
    assert tier_of(store.store(desk.story(desk.now()), NEVER)) is Tier.OBJECT
    _runs_as_before(desk, desk.now())


def test_a_flipped_bit_on_the_disk_is_not_carried_on(desk: Desk, server: Broken) -> None:
    record = _lowered(desk)
    (pack,) = (p for p in (desk.folder / "cellar" / "uid-a").rglob("*") if "packs" in p.parts
               and p.is_file())  # fmt: skip
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    with pytest.raises(Lost):
        store.store(desk.story(record), NEVER)
    assert desk.cellar.names() == ("uid-a",), "people may look at it"


def test_whoever_wants_it_does_not_wait_for_objects_on_their_way(
    desk: Desk, server: Broken
) -> None:
    record, wanted, free = _lowered(desk), threading.Event(), threading.Event()

    def hangs(_: str) -> None:
        wanted.set()
        assert free.wait(60.0)

    server.does = {"put": hangs}
    with pytest.raises(Undone):
        store.store(desk.story(record), wanted)
    server.does = {}
    active = resume.resume(desk.story(desk.now()))
    assert desk.mechanism.vram == CONTENTS
    desk.depot.look()
    again = demote.demote(desk.story(park.park(desk.story(active))), NEVER)
    store.store(desk.story(again), NEVER)
    free.set()
    copies = {_copy(again)}
    _until(lambda: bool(desk.depot.look()) and {key.split("/")[2] for key in _keys(desk)} == copies)
    _runs_as_before(desk, desk.now())


def test_what_was_called_off_puts_no_more_though_the_next_one_is_not(
    desk: Desk, server: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kybernate.artifacts.packs.FULL", 2**17)
    monkeypatch.setattr("kybernate.ladder.copying.AT_ONCE", 1)
    record, wanted, free = _lowered(desk), threading.Event(), threading.Event()
    assert len(list((desk.folder / "cellar" / "uid-a").rglob("packs/*/*"))) > 2
    put: list[str] = []

    def hangs(key: str) -> None:
        put.append(key)
        wanted.set()
        assert free.wait(60.0)

    server.does = {"put": hangs}
    with pytest.raises(Undone):
        store.store(desk.story(record), wanted)
    wanted.clear()
    free.set()
    _until(lambda: not any(one.busy for one in desk.depot._held.values()))
    assert len(put) == 1, "only what was on its way"
    _runs_as_before(desk, desk.now())


def _copy(record: Record) -> str:
    return depots._name(record.uid, record.lowered)


def _until(true: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(600):
        if true():
            return
        waiting.wait(0.05)
    raise AssertionError("it never became so")


def test_called_off_it_is_found_where_it_was(desk: Desk, server: Broken) -> None:
    wanted = threading.Event()
    wanted.set()
    with pytest.raises(Undone):
        store.store(desk.story(_lowered(desk)), wanted)
    assert tier_of(desk.now()) is Tier.NVME
    record = store.store(desk.story(desk.now()), NEVER)
    for move in (fetch.fetch, promote.promote):
        with pytest.raises(Undone):
            move(desk.story(record), wanted)
        assert tier_of(desk.now()) is Tier.OBJECT
    assert (desk.pool.slots(), desk.cellar.names()) == ({}, ())
    _runs_as_before(desk, desk.now())


@pytest.mark.parametrize("move", [fetch.fetch, promote.promote])
def test_what_is_read_in_the_background_is_called_off_while_the_store_is_away(
    desk: Desk, server: Broken, move: Callable[..., Record]
) -> None:
    record, wanted, asked = _stored(desk), threading.Event(), []

    def away(key: str) -> None:
        asked.append(key)
        wanted.set()
        _away(key)

    server.does = {"*": away}
    with pytest.raises(Undone):
        move(desk.story(record), wanted)
    assert len(asked) == 1, "not tried again for somebody who is not waiting for it"
    server.does = {}
    _runs_as_before(desk, desk.now())


def test_without_room_or_a_store_it_stays_on_nvme(desk: Desk, server: Broken) -> None:
    record = _lowered(desk)
    for given, limit in ((server, 4 * GIB - 1), (server, 0)):
        desk.use_depot(given, limit)
        desk.use_cellar()
        with pytest.raises(Undone) as caught:
            store.store(desk.story(desk.now()), NEVER)
        assert caught.value.reason is Reason.NO_OBJECT_ROOM
    assert not _keys(desk)
    _runs_as_before(desk, desk.now(lowered=record.lowered))


def test_an_agent_that_starts_removes_what_its_journal_does_not_name(
    desk: Desk, server: Broken
) -> None:
    record = _stored(desk)
    own = _keys(desk)
    others = [
        "parked/node/uid-z.0123456789abcdef/manifests/parked/contents",
        "parked/node/uid-a.0123456789abcdef/domains/parked/packs/00/00",
        "parked/node-b/uid-z.0123456789abcdef/manifests/parked/contents",
        "manifests/team-a/llama", "domains/team-a/packs/00/00",
    ]  # fmt: skip
    for key in others:
        server.put(key, b"x")
    desk.restart()
    assert _restarted(desk) == record
    desk.depot.look()
    assert _keys(desk, "") == sorted([*own, *others[2:]]), "only what is its own"
    _runs_as_before(desk, desk.now())


def test_one_copy_that_cannot_be_removed_bars_no_other(desk: Desk, server: Broken) -> None:
    _stored(desk)
    stuck, other = (f"parked/node/uid-{n}.0/manifests/parked/contents" for n in "yz")
    for key in (stuck, other):
        server.put(key, b"x")

    def denied(key: str) -> None:
        if key == stuck:
            raise Denied("it is locked")

    server.does = {"delete": denied}
    desk.restart()
    record = _restarted(desk)
    assert desk.depot.look() == depots.LOOK_S
    assert desk.depot.room().free, "the store is not away"
    assert stuck in _keys(desk)
    assert other not in _keys(desk)
    server.does = {}
    desk.depot.look()
    assert stuck not in _keys(desk)
    _runs_as_before(desk, record)


def test_after_a_boot_all_of_it_goes(desk: Desk, server: Broken) -> None:
    record = _stored(desk)
    desk.journal.write(desk.now(boot="another"))
    (desk.folder / "pool" / "cellar.key").unlink()
    desk.restart()
    recovery.recover(desk.journal, desk.tools, {G0.name: G0}, {0: CARD}, boot_id())
    with pytest.raises(depots.OutOfReach, match="object store"):
        desk.depot.slot("uid-a", record.lowered, hurried=True).parts()
    server.does = {"*": _away}
    assert desk.depot.look() == depots.AGAIN_S
    assert _keys(desk)
    server.does = {}
    desk.depot.look()
    assert not _keys(desk)


def test_what_belongs_to_an_unreadable_record_stays(desk: Desk, server: Broken) -> None:
    _stored(desk)
    (desk.folder / "journal" / "uid-a.json").write_bytes(b"{}")
    desk.restart()
    recovery.recover(desk.journal, desk.tools, {G0.name: G0}, {0: CARD}, boot_id())
    desk.depot.look()
    assert _keys(desk), "people may look at it"
    desk.depot.drop("uid-a")
    desk.depot.look()
    assert not _keys(desk)


def test_an_older_copy_is_never_taken_for_the_newest(desk: Desk, server: Broken) -> None:
    first = _stored(desk)
    old = {key.split("/", 3)[3]: bytes(server.get(key)) for key in _keys(desk)}
    active = resume.resume(desk.story(first))
    desk.depot.look()
    desk.mechanism.vram = {**CONTENTS, "weights": b"newer" * 1000}
    lowered = demote.demote(desk.story(park.park(desk.story(active))), NEVER)
    again = store.store(desk.story(lowered), NEVER)
    (name,) = {key.split("/")[2] for key in _keys(desk)}
    for key in _keys(desk):
        server.delete(key)
    for key, content in old.items():
        server.put(f"parked/node/{name}/{key}", content)
    with pytest.raises(Undone, match="its copy in the object store"):
        resume.resume(desk.story(again))


def test_a_wake_goes_before_what_is_stored_in_the_background(desk: Desk, server: Broken) -> None:
    record = _stored(desk)
    slot = desk.depot.slot("uid-a", record.lowered, hurried=True)
    stream = slot.read("weights")
    next(stream)
    moved, passed = [], threading.Event()
    yielding = desk.depot._yielding("uid-b.0", depots.Course(desk.clock))

    def put() -> None:
        yielding.put("manifests/parked/contents", b"x")
        moved.append("put")
        passed.set()

    threading.Thread(target=put, daemon=True).start()
    assert not passed.wait(0.5)
    assert moved == []
    stream.close()
    assert passed.wait(30.0)


def test_the_store_has_nothing_that_can_be_read(desk: Desk, server: Broken, tmp_path: Path) -> None:
    desk.mechanism.vram = {"weights": b"secret weights" * 1000}
    lowered = demote.demote(desk.story(park.park(desk.story())), NEVER)
    store.store(desk.story(lowered), NEVER)
    assert all(b"secret weights" not in bytes(server.get(key)) for key in _keys(desk))


def test_an_agent_that_was_given_no_store_any_more_says_so(desk: Desk, server: Broken) -> None:
    _stored(desk)
    desk.depot = depots.Depot(None, "node", 0, b"", desk.clock)
    desk.use_cellar()
    assert _restarted(desk).stored
    for story in (resume.reach, resume.resume):
        with pytest.raises(Undone, match="was given no object store"):
            story(desk.story(desk.now()))
    assert desk.depot.room() == Room(capacity=4 * GIB, used=4 * GIB)
    desk.use_depot(server)
    desk.use_cellar()
    _runs_as_before(desk, _restarted(desk))


def test_who_waits_for_the_same_gpu_does_not_wait_for_a_store_that_hangs(
    desk: Desk, server: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, free = _stored(desk), threading.Event()
    monkeypatch.setattr(depots, "REACH_S", 0.2)
    server.does = {"*": lambda _: free.wait(60.0) and None}
    with pytest.raises(Undone, match="does not answer within") as caught:
        resume.reach(desk.story(record))
    assert caught.value.reason is Reason.CONTENTS_AWAY
    free.set()
    server.does = {}
    _runs_as_before(desk, desk.now())
