"""Parked, demoted, stored, fetched, promoted, resumed, collected, killed anywhere, on a disk that
fails and with a store that does, in whatever order: the workload runs on with the bytes it had, and
what is parked is whole in one tier."""

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from kybernate.artifacts.chunks import Bytes
from kybernate.clients.clock import Clock
from kybernate.ladder.collecting import Collecting
from kybernate.model.ids import GpuUuid
from kybernate.model.tier import Tier
from kybernate.stores.disk import Disk
from kybernate.stores.errors import Away
from kybernate.stores.port import Listed
from kybernate.stores.ram import Ram
from kybernate.testing.builders import a_group
from nodeagent.disk.journal import BreakingJournal
from nodeagent.disk.records import Mark, Record
from nodeagent.linux.processes import boot_id
from nodeagent.lives.life import tier_of
from nodeagent.mechanisms import Stands
from nodeagent.stories import demote, fetch, park, promote, recovery, resume, store
from nodeagent.stories.story import Undone

CARD, G0 = GpuUuid("GPU-0"), a_group(0)
NEVER, AT_ONCE = threading.Event(), threading.Event()
AT_ONCE.set()
WANTED = st.sampled_from([NEVER, NEVER, AT_ONCE])
SETTLED = {Mark.ACTIVE, Mark.PARKED}


PARK = (Mark.PARKING, Mark.COPIED, Mark.PARKED)
PROMOTE = (Mark.PROMOTING, Mark.PROMOTED, Mark.PARKED)
MOVES: dict[tuple[Tier, Tier], tuple[Any, tuple[Mark, ...]]] = {
    (Tier.RAM, Tier.NVME): (demote.demote, (Mark.DEMOTING, Mark.DEMOTED, Mark.PARKED)),
    (Tier.NVME, Tier.OBJECT): (store.store, (Mark.STORING, Mark.STORED, Mark.PARKED)),
    (Tier.OBJECT, Tier.NVME): (fetch.fetch, (Mark.FETCHING, Mark.FETCHED, Mark.PARKED)),
    (Tier.NVME, Tier.RAM): (promote.promote, PROMOTE),
    (Tier.OBJECT, Tier.RAM): (promote.promote, PROMOTE),
}
WAYS = st.sampled_from(list(MOVES))
TIERS = st.sampled_from([Tier.RAM, Tier.NVME, Tier.OBJECT])
ASKED = st.sampled_from(["put", "get", "stat", "list", "delete"])
RESUME = (Mark.RESUMING, Mark.VERIFIED, Mark.ACTIVE)
# Where it is killed: on either side of the n-th record of the story; 0 is nowhere.
NTH = st.integers(0, 6)
CALLS = st.sampled_from(["open", "preallocate", "write", "sync", "rename", "read"])
CONTENTS = st.sampled_from([b"w" * 5000, bytes(2**20), b"x" * (2 * 2**20) + b"y"])


class Killed(BaseException):
    """The agent is no more."""


class Failing(Disk):
    """Fails every call of this name from its n-th on."""

    def __init__(self, call: str, left: int) -> None:
        self._call, self._left = call, left

    def __getattribute__(self, name: str) -> object:
        own = object.__getattribute__(self, "__dict__")
        if name == own.get("_call"):
            own["_left"] -= 1
            if own["_left"] < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().__getattribute__(name)


def _flipped(found: memoryview) -> memoryview:
    wrong = bytearray(found)
    if wrong:
        wrong[len(wrong) // 2] ^= 1
    return memoryview(wrong)


WRONG: list[Callable[[memoryview], memoryview]] = [
    _flipped,
    lambda found: found[: len(found) // 2],
    lambda _: memoryview(b"<html>a proxy's words</html>"),
]


class Server(Ram):
    """A store whose calls of a name fail from the n-th on, or which gives wrong bytes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(2**40, clock.now)
        self.wrong: Callable[[memoryview], memoryview] | None = None
        self.fails("", 0)

    def fails(self, call: str, left: int) -> None:
        """From now on."""
        self._call, self._left = call, left

    def put(self, key: str, content: Bytes) -> None:
        self._did("put")
        super().put(key, content)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        self._did("get")
        found = super().get(key, offset, size, into)
        return self.wrong(found) if self.wrong else found

    def stat(self, key: str) -> Listed:
        self._did("stat")
        return super().stat(key)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        self._did("list")
        return super().list(prefix)

    def delete(self, key: str) -> bool:
        self._did("delete")
        return super().delete(key)

    def _did(self, call: str) -> None:
        if call == self._call:
            self._left -= 1
            if self._left < 0:
                raise Away("503 slow down")


def _point(marks: tuple[Mark, ...], nth: int) -> str | None:
    return f"{('before', 'after')[nth % 2]}:{marks[(nth - 1) // 2]}" if nth else None


class Moves(RuleBasedStateMachine):
    """One workload; `has` is what is in its VRAM, or was when it was parked. `a_desk` makes a desk
    in a folder."""

    a_desk: Callable[[Path], Any]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="kyb-")
        self.desk = self.a_desk(Path(self.folder.name))
        self.server = Server(self.desk.clock)
        self.desk.use_depot(self.server)
        self.desk.use_cellar()
        self.has = dict(self.desk.mechanism.vram)
        self.desk.record()

    def teardown(self) -> None:
        self.folder.cleanup()

    @property
    def record(self) -> Record:
        """As the journal has it."""
        now: Record = self.desk.now()
        return now

    @rule(weights=CONTENTS)
    def works(self, weights: bytes) -> None:
        """Whatever it computes, in its turn."""
        self._be(Mark.ACTIVE)
        self.desk.mechanism.vram["weights"] = weights
        self.has["weights"] = weights

    @rule(nth=NTH)
    def parks(self, nth: int) -> None:
        """From the card to the pool."""
        self._be(Mark.ACTIVE)
        self._tell(self._park, _point(PARK, nth))

    @rule(nth=NTH, tier=TIERS, bulk=st.booleans())
    def resumes(self, nth: int, tier: Tier, bulk: bool) -> None:
        """From the pool, from below straight, or from there by way of the pool."""
        self._be(Mark.PARKED, tier)
        self.desk.mechanism.where = Stands.BULK if bulk else Stands.SLOT
        self._tell(self._resume, _point(RESUME, nth))

    @rule(nth=NTH, way=WAYS, wanted=WANTED)
    def moves(self, nth: int, way: tuple[Tier, Tier], wanted: threading.Event) -> None:
        """To another tier, unless it is called off."""
        self._be(Mark.PARKED, way[0])
        self._tell(lambda: self._move(way[1], wanted), _point(MOVES[way][1], nth))

    @rule(call=CALLS, left=st.integers(0, 6), way=WAYS)
    def moves_on_a_disk_that_fails(self, call: str, left: int, way: tuple[Tier, Tier]) -> None:
        """To another tier, or not."""
        self._be(Mark.PARKED, way[0])
        self.desk.use_disk(Failing(call, left))
        self._tell(lambda: self._move(way[1], NEVER), None)
        self.desk.use_cellar()

    @rule(call=ASKED, left=st.integers(0, 4), way=WAYS, nth=NTH)
    def moves_with_a_store_that_fails(
        self, call: str, left: int, way: tuple[Tier, Tier], nth: int
    ) -> None:
        """To another tier, or not, and perhaps killed while the store does not answer."""
        self._be(Mark.PARKED, way[0])
        self.server.fails(call, left)
        self._tell(lambda: self._move(way[1], NEVER), _point(MOVES[way][1], nth))
        self.server.fails("", 0)

    @rule(call=ASKED, left=st.integers(0, 2))
    def is_asked_for_while_the_store_fails(self, call: str, left: int) -> None:
        """It runs, or stays where it is."""
        self._be(Mark.PARKED, Tier.OBJECT)
        self.server.fails(call, left)
        self._tell(self._resume, None)
        self.server.fails("", 0)

    @rule(alters=st.sampled_from([0, 1, 2]))
    def is_asked_for_while_the_store_gives_wrong_bytes(self, alters: int) -> None:
        """It runs with what it had, or stays where it is."""
        self._be(Mark.PARKED, Tier.OBJECT)
        self.server.wrong = WRONG[alters]
        self._tell(self._resume, None)
        self.server.wrong = None

    @rule()
    def somebody_collects(self) -> None:
        """The store, as agents do, and what is to go of what was parked."""
        collecting = Collecting(self.server, {}, self.desk.clock, 0.0)
        for domain in collecting.domains():
            collecting.collect(domain)
        self.desk.depot.look()

    @rule(point=st.none() | st.sampled_from(["before:parked", "after:parked", "before:active"]))
    def another_agent(self, point: str | None) -> None:
        """Finds what there is, perhaps killed once while it does."""
        self._restart(point)

    def _park(self) -> Record:
        return park.park(self.desk.story(self.record))

    def _resume(self) -> Record:
        return resume.resume(self.desk.story(self.record))

    def _move(self, to: Tier, wanted: threading.Event) -> Record:
        story = self.desk.story(self.record)
        moved: Record = MOVES[tier_of(self.record), to][0](story, wanted)
        return moved

    def _be(self, mark: Mark, tier: Tier = Tier.RAM) -> None:
        """There, with nothing in the way."""
        if self.record.mark is not mark:
            self._tell(self._park if mark is Mark.PARKED else self._resume, None)
        self.desk.depot.look()
        while mark is Mark.PARKED and (here := tier_of(self.record)) is not tier:
            to = Tier.NVME if (here, tier) == (Tier.RAM, Tier.OBJECT) else tier
            self._tell(lambda to=to: self._move(to, NEVER), None)
            assert tier_of(self.record) is to
        assert self.record.mark is mark

    def _tell(self, story: Callable[[], Record], point: str | None) -> None:
        with self._killed_at(point):
            try:
                story()
            except Undone:
                pass
            except Killed:
                self._restart(point)

    def _restart(self, point: str | None = None) -> None:
        self.desk.restart()
        with self._killed_at(point):
            try:
                found = self._recover()
            except Killed:
                self.desk.restart()
                self.desk.use_journal(self.desk.journal)
                found = self._recover()
        assert [life.record.mark in SETTLED for life in found.lives] == [True], found

    def _recover(self) -> recovery.Recovered:
        groups, cards = {G0.name: G0}, {0: CARD}
        tools, boot = self.desk.tools, boot_id()
        return recovery.recover(self.desk.journal, tools, groups, cards, boot)

    @contextmanager
    def _killed_at(self, point: str | None) -> Iterator[None]:
        if point is not None:
            self.desk.use_journal(BreakingJournal(self.desk.journal, point, _kill))
        yield
        self.desk.use_journal(self.desk.journal)

    @invariant()
    def it_has_its_bytes(self) -> None:
        """On the card, or whole in one tier."""
        record, desk = self.record, self.desk
        tiers = (len(desk.pool.slots()), len(desk.cellar.names()))
        if record.mark is Mark.ACTIVE:
            assert desk.mechanism.vram == self.has
            assert not desk.mechanism.locked
            assert tiers == (0, 0)
            return
        assert record.mark is Mark.PARKED
        there = {Tier.RAM: (1, 0), Tier.NVME: (0, 1), Tier.OBJECT: (0, 0)}
        assert tiers == there[tier_of(record)]
        slot = desk.story(record).contents()
        assert {part.name: b"".join(slot.read(part.name)) for part in slot.parts()} == self.has


def _kill() -> None:
    raise Killed


def test_no_sequence_loses_contents_or_serves_wrong_bytes(desk: Any) -> None:
    few = settings(max_examples=50, stateful_step_count=15, deadline=None)
    here = type("Here", (Moves,), {"a_desk": staticmethod(type(desk))})
    run_state_machine_as_test(here, settings=few)
