"""Deep parking and the driver's own, on the machine's first GPU, where it has one."""

import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from kybernate.model.ids import GpuUuid
from kybernate.runtime.clock import SystemClock
from nodeagent.gpuworker.checkpoints import State
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer
from nodeagent.mechanisms import NotPossible, moving
from nodeagent.mechanisms.deep import Deep
from nodeagent.mechanisms.driver import DriverMechanism
from nodeagent.mechanisms.driverstates import DriverStates

MIB = 2**20
PATIENCE_S = 120.0

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="there is no GPU (nvidia-smi)"),
]


@pytest.fixture(scope="module")
def real_node(libraries, node_on):
    """An agent on the real card. Its pool is in a tmpfs: no other file can be pinned."""
    folder = Path(tempfile.mkdtemp(prefix="kyb-d-", dir="/dev/shm"))
    made = node_on(folder, libraries, real=True)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def card():
    asked = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader", "-i", "0"]
    return GpuUuid(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())


def on_the_card():
    """MiB in use, by nvidia-smi."""
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


class By:
    """A mechanism with which a program is parked and resumed."""

    def __init__(self, node, mechanism):
        self.node, self.mechanism = node, mechanism

    def park(self, body):
        self.mechanism.lock(body, PATIENCE_S)
        parts = self.mechanism.parts(body)
        slot = self.node.pool.reserve("slot", sum(part.size for part in parts))
        kept = tuple(self.mechanism.copy_out(body, p, slot, lambda _: None) for p in parts)
        slot.seal(kept)
        for part in parts:
            self.mechanism.release(body, part, PATIENCE_S)
        return slot, kept

    def resume(self, body, slot, kept):
        for one in kept:
            assert self.mechanism.copy_in(body, one, slot, lambda _: None) == one.digest
        self.mechanism.unlock(body, PATIENCE_S)
        self.node.pool.free("slot")


@pytest.fixture
def states(real_node):
    return DriverStates(real_node.mechanism.worker)


@pytest.fixture
def deep(real_node, states):
    notes = moving.Notes(real_node.pool)
    return By(real_node, Deep(real_node.mechanism, states, lambda _: 0, notes))


@pytest.fixture
def driver(real_node, states):
    freezer = Freezer(SystemClock(), Cgroups())
    return By(real_node, DriverMechanism(states, lambda _: {}, freezer, real_node.pool))


def filled(told):
    at = told.alloc(256 * MIB)
    told.fill(at, 64 * MIB, 1)
    return at


def test_the_driver_is_one_that_can(states, card):
    assert states.why_not(card) == ""


def test_deep_leaves_nothing_on_the_card_and_comes_back_whole(real_node, deep, states, card):
    with real_node.program() as told:
        at = filled(told)
        body = replace(told.body, gpus=(card,))
        deep.resume(body, *deep.park(body))  # the worker has its own context and slabs from now on
        for _ in range(3):
            active = on_the_card()
            parked = deep.park(body)
            assert states.of(card, body.pid) is State.CHECKPOINTED
            assert on_the_card() <= active - 256 - 100  # memory and context
            waiting = told.later("holds", at, 64 * MIB, 1)
            deep.resume(body, *parked)
            assert waiting.answer() is True


def test_a_process_with_memory_of_another_one_stays_shallow(real_node, deep, states, card):
    with real_node.program() as giving, real_node.program() as told:
        at = giving.alloc(3 * MIB)
        giving.fill(at, 3 * MIB, 8)
        opened = told.open_ticket(giving.ticket(at))
        body = replace(told.body, gpus=(card,))
        parked = deep.park(body)
        assert states.of(card, body.pid) is State.RUNNING
        with pytest.raises(NotPossible, match="memory of other processes"):
            deep.mechanism.let_go(body, PATIENCE_S)
        deep.resume(body, *parked)
        assert told.holds(opened, 3 * MIB, 8)


def test_a_program_without_the_library_goes_by_the_driver(real_node, driver, states, card):
    with real_node.program(guest=False) as told:
        at = filled(told)
        body = replace(told.body, gpus=(card,))
        for _ in range(2):
            parked = driver.park(body)
            assert states.of(card, body.pid) is State.CHECKPOINTED
            driver.resume(body, *parked)
            assert told.holds(at, 64 * MIB, 1)


@pytest.mark.crash
@pytest.mark.parametrize("steps", [(), ("checkpoint",), ("checkpoint", "restore")])
def test_an_agent_that_dies_between_two_of_the_drivers_steps_is_followed(
    real_node, deep, card, steps
):
    with real_node.program() as told:
        at = filled(told)
        body = replace(told.body, gpus=(card,), returns_soon=True)
        slot, kept = deep.park(body)
        states = DriverStates(real_node.mechanism.worker)
        states.lock(card, body.pid, 5.0)
        for step in steps:
            getattr(states, step)(card, body.pid, PATIENCE_S)
        real_node.restart()
        again = Deep(
            real_node.mechanism, DriverStates(real_node.mechanism.worker), lambda _: 0,
            moving.Notes(real_node.pool),
        )  # fmt: skip
        By(real_node, again).resume(body, slot, kept)
        assert told.holds(at, 64 * MIB, 1)
