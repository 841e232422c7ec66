"""The same library, worker and mechanism on the machine's first GPU, where it has one."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from nodeagent.disk.pool import Damaged
from nodeagent.mechanisms import NotYet

MIB = 2**20
PATIENCE_S = 60.0

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="there is no GPU (nvidia-smi)"),
]


@pytest.fixture(scope="module")
def real_node(libraries, node_on):
    """An agent on the real card. Its pool is in a tmpfs: no other file can be pinned."""
    folder = Path(tempfile.mkdtemp(prefix="kyb-r-", dir="/dev/shm"))
    made = node_on(folder, libraries, real=True, slab=64 * MIB)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def told(real_node):
    """A program with memory of many kinds; `whole` says whether all of it is right."""
    sizes = [5 * MIB, 64 * MIB, 1000, 70_000, *[20 * MIB] * 12, 1]
    with real_node.program() as one:
        memory = [(one.alloc(size), size, seed) for seed, size in enumerate(sizes)]
        memory.append((one.map_(one.create(4 * MIB), 4 * MIB), 4 * MIB, 99))
        memory.append((one.alloc_in_order(6 * MIB), 6 * MIB, 98))
        for place in memory:
            one.fill(*place)
        one.whole = lambda: all(one.holds(*place) for place in memory)
        yield one


def test_contents_come_back_as_they_were_again_and_again(real_node, told):
    for _ in range(3):
        real_node.resume(told, *real_node.park(told))
        assert told.whole()


def test_work_that_does_not_end_keeps_its_card_and_the_program_goes_on(real_node, told):
    flag = told.alloc(512)
    told.fill(flag, 512, 1)
    told.stick(flag)
    with pytest.raises(NotYet, match="submitted work did not end"):
        real_node.mechanism.lock(told.body, 0.5)
    told.unstick(flag)
    real_node.resume(told, *real_node.park(told))
    assert told.whole()


def test_a_bit_flipped_in_the_pool_is_never_let_run(real_node, told):
    slot, kept = real_node.park(told)
    real_node.flip(slot, 63 * MIB)
    with pytest.raises(Damaged, match="1 chunks"):
        real_node.mechanism.copy_in(told.body, kept[0], slot, lambda _: None)
    real_node.flip(slot, 63 * MIB)
    real_node.resume(told, slot, kept)
    assert told.whole()


def test_what_did_not_change_is_not_copied_again(real_node, told):
    for _ in range(2):
        real_node.resume(told, *real_node.park(told))
    assert real_node.mechanism.tallies[-2].copied == 0
    assert told.whole()


def test_one_changed_byte_is_one_chunk_to_copy(real_node, told):
    at = told.alloc(64 * MIB)
    told.fill(at, 64 * MIB, 7)
    real_node.resume(told, *real_node.park(told))
    told.fill(at + 5 * MIB, 1, 77)
    real_node.resume(told, *real_node.park(told))
    assert real_node.mechanism.tallies[-2].copied == 2 * MIB
    assert told.holds(at + 5 * MIB, 1, 77)
    assert told.whole()


def test_replicas_share_what_they_have_alike(real_node, told):
    with real_node.program() as other:
        at = other.alloc(64 * MIB)
        other.fill(at, 64 * MIB, 1)  # as the second of `told`
        real_node.resume(told, *real_node.park(told))
        real_node.resume(other, *real_node.park(other))
        assert real_node.mechanism.tallies[-2].shared >= 31
        assert other.holds(at, 64 * MIB, 1)
        assert told.whole()


def test_weights_are_pressed_and_come_back_as_they_were(real_node, told):
    at = told.alloc(96 * MIB)
    told.fill_weights(at, 96 * MIB, 1)
    was = told.hashed(at, 96 * MIB)
    slot, kept = real_node.park(told)
    before = real_node.pool.room().used
    while real_node.mechanism.press.round():
        pass
    assert before - real_node.pool.room().used >= 0.28 * 96 * MIB
    real_node.resume(told, slot, kept)
    assert real_node.mechanism.tallies[-1].pressed >= 48
    assert told.hashed(at, 96 * MIB) == was
    assert told.whole()
    real_node.resume(told, *real_node.park(told))
    assert real_node.mechanism.tallies[-2].copied == 0
    assert told.hashed(at, 96 * MIB) == was


@pytest.mark.crash
def test_an_agent_that_dies_leaves_its_worker_and_its_slabs_to_the_next_one(real_node, told):
    slot, kept = real_node.park(told)
    ((uuid, pid),) = real_node.mechanism.workers().items()
    pinned = real_node.mechanism.pinned(uuid)
    real_node.restart()
    real_node.resume(told, slot, kept)
    assert real_node.mechanism.workers() == {uuid: pid}
    assert real_node.mechanism.pinned(uuid) == pinned
    assert told.whole()


@pytest.mark.crash
def test_an_agent_that_dies_leaves_the_workload_parked_for_the_next_one(real_node, told):
    slot, kept = real_node.park(told)
    real_node.restart()
    real_node.resume(told, slot, kept)
    assert told.whole()


@pytest.mark.crash
def test_a_worker_that_dies_in_the_middle_is_replaced_for_the_next_try(real_node, told):
    body = told.body
    real_node.mechanism.lock(body, PATIENCE_S)
    (part,) = real_node.mechanism.parts(body)
    (worker,) = real_node.mechanism.workers().values()
    slot = real_node.pool.reserve("slot", part.size)
    with pytest.raises(NotYet, match="worker"):
        real_node.mechanism.copy_out(body, part, slot, lambda _: os.kill(worker, signal.SIGKILL))
    slot, kept = real_node.copy_out(body)
    real_node.mechanism.release(body, part, PATIENCE_S)
    real_node.resume(told, slot, kept)
    assert told.whole()


def test_a_forked_child_is_a_guest_of_its_own_where_the_driver_lets_it(real_node, told):
    assert told.fork() in ("", "right")  # the driver refuses a child of a process that used it
    real_node.resume(told, *real_node.park(told))
    assert told.whole()


def test_the_old_calls_share_memory_between_two_guests(real_node, told):
    with real_node.program() as taking:
        at = told.alloc(3 * MIB)
        told.fill(at, 3 * MIB, 8)
        opened = taking.open_ticket(told.ticket(at))
        assert taking.holds(opened, 3 * MIB, 8)
        taking.fill(opened, 3 * MIB, 9)
        assert told.holds(at, 3 * MIB, 9)
        real_node.resume(told, *real_node.park(told))
        assert told.holds(at, 3 * MIB, 9)
        assert told.whole()
