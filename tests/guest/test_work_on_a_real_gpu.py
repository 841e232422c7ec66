"""
Who works on a real GPU, as the signals of demand have it: the driver's samples, the guests' calls.

Real: the card, NVML, the guest library, the picture of the cards and both signals. On the machine's
first GPU, where it has one.
"""

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import pytest

from kybernate.clients.gpus.nvml import NvmlGpus
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_group
from nodeagent.demand.calls import Submitted
from nodeagent.demand.work import Work
from nodeagent.disk.records import Mark, Record, Terms
from nodeagent.gpus.cards import CardWatch
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.lives.life import Life, Lives

GIB = 2**30
EVERY_S = 0.5

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="there is no GPU (nvidia-smi)"),
]


@pytest.fixture(scope="module")
def real_node(libraries, node_on):
    """An agent on the real card."""
    folder = Path(tempfile.mkdtemp(prefix="kyb-w-", dir="/dev/shm"))
    made = node_on(folder, libraries, real=True)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def inventory():
    made = NvmlGpus()
    yield made
    made.close()


class Looks:
    """Both signals of some programs, read together every half a second."""

    def __init__(self, node, inventory, programs):
        group, card = a_group(0), inventory.gpus()[0]
        lives = Lives()
        self.lives = [_life(one, number, group, card) for number, one in enumerate(programs)]
        for life in self.lives:
            lives.add(life)
        watch = CardWatch(inventory, {group.name: group}, lives, SystemClock(), Cgroups())
        self.picture = watch.look()
        self.look = watch.look
        self.work = Work(lambda: self.picture, SystemClock())
        calls = node.mechanism.calls
        self.submitted = Submitted(lambda _: True, lambda life: calls(life.body), SystemClock())

    def until(self, holds, within):
        """What `holds` was asked of, once it said yes: what each signal says of each program."""
        end = time.monotonic() + within
        while True:
            self.picture = self.look()
            found = [(self.work.read(one), self.submitted.read(one)) for one in self.lives]
            if holds(*found):
                return found
            assert time.monotonic() < end, found
            threading.Event().wait(EVERY_S)


def _life(told, number, group, card):
    record = Record(
        key=WorkloadKey("team", f"model-{number}"), uid=PodUid(f"u-{number}"),
        seat=group.seats()[0], container="main", container_id=f"c-{told.process.pid}",
        pid=told.process.pid, pid_started=processes.started(told.process.pid), exec_fifo="",
        boot="", terms=Terms(resource="kyb.ai/seat", vram=GIB), mark=Mark.ACTIVE,
    )  # fmt: skip
    return Life(record=record, group=group, uuids={0: card.uuid})


def test_who_works_is_told_from_who_holds_memory_only(real_node, inventory):
    with real_node.program() as working, real_node.program() as idle:
        at = working.alloc(GIB)
        idle.alloc(GIB)
        looks = Looks(real_node, inventory, [working, idle])
        working.works(at, GIB)
        looks.until(
            lambda one, other: one[0].busy and one[1].busy and not other[0].busy
            and other[0].idle_for > 2.0 and not other[1].busy and other[1].idle_for > 2.0,
            within=15.0,
        )  # fmt: skip
        for _ in range(6):  # and at every look: a model that works is never taken for idle
            ((samples, calls), _) = looks.until(lambda *_: True, within=0.0)
            assert samples.idle_for < 2.0
            assert calls.busy
            threading.Event().wait(EVERY_S)
        working.rests()
        looks.until(
            lambda one, _: not one[0].busy and one[0].idle_for > 2.0
            and not one[1].busy and one[1].idle_for > 2.0,
            within=15.0,
        )  # fmt: skip


def test_work_that_goes_on_after_the_last_call_is_seen_by_the_samples(real_node, inventory):
    with real_node.program() as told:
        at = told.alloc(16 * GIB)
        looks = Looks(real_node, inventory, [told])
        told.works_off(at, 16 * GIB, 1000)  # 5 ms each, and nobody waits for them
        looks.until(lambda one: one[0].busy and not one[1].busy, within=10.0)


def test_the_cards_are_the_ones_of_the_driver(real_node, inventory):
    with real_node.program() as told:
        told.alloc(GIB)
        found = {one.pid: one for one in inventory.processes()}
        assert found[told.process.pid].used >= GIB
        assert found[told.process.pid].idle_seconds is not None
        assert os.getpid() not in found
