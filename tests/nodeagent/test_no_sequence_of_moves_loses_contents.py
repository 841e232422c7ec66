"""Parked, demoted, promoted, resumed, killed anywhere and on a disk that fails, in whatever order:
the workload runs on with the bytes it had, and what is parked is whole in one tier."""

import errno
import os
import tempfile
import threading
from collections.abc import Callable
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

CARD, G0, NEVER = GpuUuid("GPU-0"), a_group(0), threading.Event()
SETTLED = {Mark.ACTIVE, Mark.PARKED}
POINTS = st.sampled_from(
    [f"{when}:{mark}" for when in ("before", "after") for mark in Mark if mark is not Mark.HELD]
)
CALLS = st.sampled_from(["open", "preallocate", "write", "sync", "rename", "read"])
CONTENTS = st.sampled_from([b"w" * 5000, bytes(3 * 2**20), b"x" * (2 * 2**20) + b"y"])


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
        """Whatever it computes."""
        if self.record.mark is Mark.ACTIVE:
            self.desk.mechanism.vram["weights"] = weights
            self.has["weights"] = weights

    @rule(bulk=st.booleans())
    def comes_back_by_way_of_the_pool(self, bulk: bool) -> None:
        """Or straight from NVMe."""
        self.desk.mechanism.where = Stands.BULK if bulk else Stands.SLOT

    @rule(point=st.none() | POINTS)
    def parks(self, point: str | None) -> None:
        """From the card to the pool."""
        if self.record.mark is Mark.ACTIVE:
            self._tell(lambda: park.park(self.desk.story(self.record)), point)

    @rule(point=st.none() | POINTS, called_off=st.booleans())
    def moves(self, point: str | None, called_off: bool) -> None:
        """To the other tier."""
        if self.record.mark is not Mark.PARKED:
            return
        move = promote.promote if self.record.lowered else demote.demote
        wanted = threading.Event()
        if called_off:
            wanted.set()
        self._tell(lambda: move(self.desk.story(self.record), wanted), point)

    @rule(call=CALLS, left=st.integers(0, 6))
    def moves_on_a_disk_that_fails(self, call: str, left: int) -> None:
        """To the other tier, or not."""
        if self.record.mark is Mark.PARKED:
            self.desk.use_disk(Failing(call, left))
            self.moves_once()
            self.desk.use_cellar()

    def moves_once(self) -> None:
        move = promote.promote if self.record.lowered else demote.demote
        self._tell(lambda: move(self.desk.story(self.record), NEVER), None)

    @rule(point=st.none() | POINTS)
    def resumes(self, point: str | None) -> None:
        """From wherever it is."""
        if self.record.mark is Mark.PARKED:
            self._tell(lambda: resume.resume(self.desk.story(self.record)), point)

    @rule()
    def another_agent(self) -> None:
        """Finds what there is."""
        self._restart()

    def _tell(self, story: Callable[[], Record], point: str | None) -> None:
        if point is not None:
            self.desk.use_journal(BreakingJournal(self.desk.journal, point, _kill))
        try:
            story()
        except Undone:
            pass
        except Killed:
            self._restart()
        self.desk.use_journal(self.desk.journal)

    def _restart(self) -> None:
        self.desk.restart()
        groups, cards = {G0.name: G0}, {0: CARD}
        found = recovery.recover(self.desk.journal, self.desk.tools, groups, cards, boot_id())
        assert [life.record.mark in SETTLED for life in found.lives] == [True], found

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
    few = settings(max_examples=25, stateful_step_count=15, deadline=None)
    here = type("Here", (Moves,), {"a_desk": staticmethod(type(desk))})
    run_state_machine_as_test(here, settings=few)
