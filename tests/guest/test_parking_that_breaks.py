"""Steps that fail leave a way back: to the running workload, or to the parked one."""

import os
import signal

import pytest

from nodeagent.disk.pool import Damaged
from nodeagent.mechanisms import BodyGone, CardFull, NotYet

MIB = 2**20
PATIENCE_S = 60.0


@pytest.fixture
def told(node):
    """A program with some memory."""
    with node.program() as one:
        one.at = one.alloc(5 * MIB)
        one.fill(one.at, 5 * MIB, 1)
        yield one


def test_work_that_does_not_end_keeps_its_card_and_the_program_goes_on(node, told):
    node.card.endless(True)
    try:
        with pytest.raises(NotYet, match="submitted work did not end"):
            node.mechanism.lock(told.body, 0.3)
        waiting = told.later("range_of", told.at)
        assert waiting.answer()[1] >= 5 * MIB
    finally:
        node.card.endless(False)
    slot, kept = node.park(told)
    node.resume(told, slot, kept)
    assert told.holds(told.at, 5 * MIB, 1)


def test_work_that_ends_within_the_limit_is_waited_for(node, told):
    told.busy(0.5)
    slot, kept = node.park(told)
    node.resume(told, slot, kept)
    assert told.holds(told.at, 5 * MIB, 1)


def test_a_graph_being_captured_is_not_interrupted(node, told):
    told.capture(True)
    with pytest.raises(NotYet, match="capture"):
        node.mechanism.lock(told.body, 0.3)
    told.capture(False)
    slot, kept = node.park(told)
    node.resume(told, slot, kept)


def test_memory_freed_while_a_graph_is_captured_is_given_back_after_it(node, told):
    used = node.card.used
    more = told.alloc(8 * MIB)
    told.capture(True)
    told.free(more)
    told.capture(False)
    told.free(told.alloc(3 * MIB))
    assert node.card.used == used


def test_parking_undone_before_the_release_lets_the_program_go_on(node, told):
    node.mechanism.lock(told.body, PATIENCE_S)
    node.copy_out(told.body)
    node.mechanism.unlock(told.body, PATIENCE_S)
    assert told.holds(told.at, 5 * MIB, 1)


def test_a_card_that_is_full_leaves_the_workload_parked_until_there_is_room(node, told):
    slot, kept = node.park(told)
    size = node.card.size
    node.card.resize(node.card.used + 2 * MIB)
    with pytest.raises(CardFull):
        node.mechanism.copy_in(told.body, kept[0], slot, lambda _: None)
    for part in node.mechanism.parts(told.body):
        node.mechanism.release(told.body, part, PATIENCE_S)
    node.card.resize(size)
    node.resume(told, slot, kept)
    assert told.holds(told.at, 5 * MIB, 1)


def test_a_byte_that_changed_on_the_way_in_is_found_and_copied_again(node, told):
    slot, kept = node.park(told)
    node.card.flip_next()
    node.resume(told, slot, kept)
    assert told.holds(told.at, 5 * MIB, 1)


def test_a_bit_flipped_in_the_pool_is_never_let_run(node, told):
    slot, kept = node.park(told)
    node.flip(slot, 3 * MIB + 17)
    with pytest.raises(Damaged, match="fingerprints"):
        node.mechanism.copy_in(told.body, kept[0], slot, lambda _: None)
    node.flip(slot, 3 * MIB + 17)
    node.resume(told, slot, kept)
    assert told.holds(told.at, 5 * MIB, 1)


@pytest.mark.crash
def test_an_agent_that_dies_leaves_the_gate_closed_and_the_next_one_goes_on(node, told):
    slot, kept = node.park(told)
    waiting = told.later("holds", told.at, 5 * MIB, 1)
    node.restart()
    assert not waiting.answers
    node.resume(told, slot, kept)
    assert waiting.answer() is True


@pytest.mark.crash
def test_an_agent_that_dies_before_the_release_finds_the_contents_untouched(node, told):
    node.mechanism.lock(told.body, PATIENCE_S)
    _, kept = node.copy_out(told.body)
    node.restart()
    assert [part.digest for part in node.mechanism.parts(told.body)] == [kept[0].digest]
    node.mechanism.unlock(told.body, PATIENCE_S)
    assert told.holds(told.at, 5 * MIB, 1)


@pytest.mark.crash
def test_an_agent_that_dies_while_filling_finds_nothing_it_could_let_run(node, told):
    slot, kept = node.park(told)
    size = node.card.size
    node.card.resize(node.card.used + 2 * MIB)
    with pytest.raises(CardFull):
        node.mechanism.copy_in(told.body, kept[0], slot, lambda _: None)
    node.card.resize(size)
    node.restart()
    assert [part.digest for part in node.mechanism.parts(told.body)] == [""]
    node.resume(told, slot, kept)
    assert told.holds(told.at, 5 * MIB, 1)


@pytest.mark.crash
def test_a_worker_that_dies_in_the_middle_is_replaced_for_the_next_try(node, told):
    body = told.body
    node.mechanism.lock(body, PATIENCE_S)
    (part,) = node.mechanism.parts(body)
    (worker,) = node.mechanism._workers.values()
    slot = node.pool.reserve("slot", part.size)
    with pytest.raises(NotYet, match="worker"):
        node.mechanism.copy_out(body, part, slot, lambda _: os.kill(worker.pid, signal.SIGKILL))
    slot, kept = node.copy_out(body)
    node.mechanism.release(body, part, PATIENCE_S)
    node.resume(told, slot, kept)
    assert told.holds(told.at, 5 * MIB, 1)


@pytest.mark.crash
def test_a_workload_killed_while_it_is_parked_is_gone(node, told):
    slot, kept = node.park(told)
    told.process.kill()
    told.process.wait()
    with pytest.raises(BodyGone):
        node.mechanism.copy_in(told.body, kept[0], slot, lambda _: None)
