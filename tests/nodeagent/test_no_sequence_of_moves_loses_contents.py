"""Parked, demoted, promoted, resumed, killed anywhere and on a disk that fails, in whatever order:
the workload runs on with the bytes it had, and what is parked is whole in one tier."""

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

from kybernate.model.ids import GpuUuid
from kybernate.stores.disk import Disk
from kybernate.testing.builders import a_group
from nodeagent.disk.journal import BreakingJournal
from nodeagent.disk.records import Mark, Record
from nodeagent.linux.processes import boot_id
from nodeagent.mechanisms import Stands
from nodeagent.stories import demote, park, promote, recovery, resume
from nodeagent.stories.story import Undone

CARD, G0 = GpuUuid("GPU-0"), a_group(0)
NEVER, AT_ONCE = threading.Event(), threading.Event()
AT_ONCE.set()
WANTED = st.sampled_from([NEVER, NEVER, AT_ONCE])
SETTLED = {Mark.ACTIVE, Mark.PARKED}


PARK = (Mark.PARKING, Mark.COPIED, Mark.PARKED)
DEMOTE = (Mark.DEMOTING, Mark.DEMOTED, Mark.PARKED)
PROMOTE = (Mark.PROMOTING, Mark.PROMOTED, Mark.PARKED)
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

    @rule(nth=NTH, lowered=st.booleans(), bulk=st.booleans())
    def resumes(self, nth: int, lowered: bool, bulk: bool) -> None:
        """From the pool, from NVMe straight, or from there by way of the pool."""
        self._be(Mark.PARKED, lowered=lowered)
        self.desk.mechanism.where = Stands.BULK if bulk else Stands.SLOT
        self._tell(self._resume, _point(RESUME, nth))

    @rule(nth=NTH, up=st.booleans(), wanted=WANTED)
    def moves(self, nth: int, up: bool, wanted: threading.Event) -> None:
        """To the other tier, unless it is called off."""
        self._be(Mark.PARKED, lowered=up)
        self._tell(lambda: self._move(wanted), _point(PROMOTE if up else DEMOTE, nth))

    @rule(call=CALLS, left=st.integers(0, 6), up=st.booleans())
    def moves_on_a_disk_that_fails(self, call: str, left: int, up: bool) -> None:
        """To the other tier, or not."""
        self._be(Mark.PARKED, lowered=up)
        self.desk.use_disk(Failing(call, left))
        self._tell(lambda: self._move(NEVER), None)
        self.desk.use_cellar()

    @rule(point=st.none() | st.sampled_from(["before:parked", "after:parked", "before:active"]))
    def another_agent(self, point: str | None) -> None:
        """Finds what there is, perhaps killed once while it does."""
        self._restart(point)

    def _park(self) -> Record:
        return park.park(self.desk.story(self.record))

    def _resume(self) -> Record:
        return resume.resume(self.desk.story(self.record))

    def _move(self, wanted: threading.Event) -> Record:
        move = promote.promote if self.record.lowered else demote.demote
        return move(self.desk.story(self.record), wanted)

    def _be(self, mark: Mark, *, lowered: bool = False) -> None:
        """There, with nothing in the way."""
        if self.record.mark is not mark:
            self._tell(self._park if mark is Mark.PARKED else self._resume, None)
        if mark is Mark.PARKED and bool(self.record.lowered) is not lowered:
            self._tell(lambda: self._move(NEVER), None)
        assert (self.record.mark, bool(self.record.lowered)) == (mark, lowered)

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
        assert tiers == ((0, 1) if record.lowered else (1, 0))
        slot = desk.story(record).contents()
        assert {part.name: b"".join(slot.read(part.name)) for part in slot.parts()} == self.has


def _kill() -> None:
    raise Killed


def test_no_sequence_loses_contents_or_serves_wrong_bytes(desk: Any) -> None:
    few = settings(max_examples=60, stateful_step_count=15, deadline=None)
    here = type("Here", (Moves,), {"a_desk": staticmethod(type(desk))})
    run_state_machine_as_test(here, settings=few)
