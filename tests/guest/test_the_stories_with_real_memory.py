"""The agent's stories of parking and resuming, told with this mechanism and a frozen process."""

import pytest

from kybernate.model.gpu import Seat
from kybernate.model.ids import GpuUuid, GroupName, NodeName, PodUid, ResourceName, WorkloadKey
from kybernate.runtime.clock import SystemClock
from nodeagent.cellar import Cellar
from nodeagent.depot import Depot
from nodeagent.disk.journal import FileJournal
from nodeagent.disk.records import Mark, Record, Terms
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer
from nodeagent.lives.phases import Stopwatch
from nodeagent.mechanisms import Body
from nodeagent.stories import park, resume
from nodeagent.stories.story import Limits, Lost, Story, Tools, Undone
from testbed import fakecuda

MIB = 2**20
CARD = GpuUuid(fakecuda.UUID)


class Cards:
    """What the fake card shows."""

    def __init__(self, card):
        self._card = card

    def free(self, uuid):
        return self._card.size - self._card.used

    def held_by(self, body):
        return self._card.used


@pytest.fixture
def told(node):
    """A program with some memory."""
    with node.program() as one:
        one.at = one.alloc(5 * MIB)
        one.fill(one.at, 5 * MIB, 1)
        yield one


@pytest.fixture
def story(node, told, tmp_path):
    """Makes a story about the program, from where the last one ended."""
    clock = SystemClock()
    tools = Tools(
        journal=FileJournal(tmp_path / "journal"), pool=node.pool, mechanism=node.mechanism,
        cards=Cards(node.card), clock=clock, freezer=Freezer(clock, Cgroups()),
        limits=Limits(drain=0.5),
            cellar=Cellar(tmp_path / "cellar", 0, b"", clock, free=lambda _: 0),
            depot=Depot(None, NodeName("node"), 0, b"", clock),
    )  # fmt: skip
    pid = told.process.pid
    first = Record(
        key=WorkloadKey("team", "model"), uid=PodUid("uid-a"), seat=Seat(GroupName("G0"), 0),
        container="model", container_id="c1", pid=pid, pid_started=processes.started(pid),
        exec_fifo=str(tmp_path / "fifo"), boot=processes.boot_id(), mark=Mark.ACTIVE,
        since=clock.now(), terms=Terms(resource=ResourceName("kyb.ai/gpu-1x-seat"), vram=8 * MIB),
    )  # fmt: skip

    def tell(record=first):
        body = Body(key=record.key, uid=record.uid, pid=pid, gpus=(CARD,))
        return Story(
            tools=tools, body=body, record=record, watch=Stopwatch(clock),
            tell=lambda *_: None, need={CARD: record.terms.vram},
        )  # fmt: skip

    yield tell
    processes.thaw(pid)
    node.pool.free("uid-a")


def test_a_workload_is_parked_frozen_and_resumed(node, told, story):
    used = node.card.used
    parked = park.park(story())
    assert parked.mark is Mark.PARKED
    assert node.card.used <= used - 6 * MIB
    assert processes.is_stopped(told.process.pid)
    assert resume.resume(story(parked)).mark is Mark.ACTIVE
    assert told.holds(told.at, 5 * MIB, 1)


def test_parking_that_does_not_drain_leaves_it_active(node, told, story):
    node.card.endless(True)
    try:
        with pytest.raises(Undone, match="did not end") as undone:
            park.park(story())
        assert undone.value.record.mark is Mark.ACTIVE
    finally:
        node.card.endless(False)
    assert told.holds(told.at, 5 * MIB, 1)


def test_a_card_that_was_taken_leaves_it_parked(node, told, story):
    parked = park.park(story())
    size = node.card.size
    about = story(parked)
    about.need = {}  # the inventory shows room, and then there is none
    node.card.resize(node.card.used + 2 * MIB)
    with pytest.raises(Undone) as undone:
        resume.resume(about)
    node.card.resize(size)
    assert undone.value.record.mark is Mark.PARKED
    assert resume.resume(story(undone.value.record)).mark is Mark.ACTIVE
    assert told.holds(told.at, 5 * MIB, 1)


def test_a_copy_that_was_changed_in_the_pool_is_quarantined(node, told, story):
    parked = park.park(story())
    node.flip(node.pool.slot("uid-a"), MIB)
    with pytest.raises(Lost, match="fingerprints") as lost:
        resume.resume(story(parked))
    assert lost.value.record.mark is Mark.QUARANTINED
