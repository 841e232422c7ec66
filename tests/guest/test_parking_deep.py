"""Parked deep: nothing of the workload is on the card, its context is in its own memory."""

import os
import signal
import threading
from dataclasses import replace

import pytest

from nodeagent.gpuworker.checkpoints import State
from nodeagent.mechanisms import BodyGone, NotPossible, moving
from nodeagent.mechanisms.deep import Deep
from nodeagent.mechanisms.driverstates import DriverStates
from testbed.fakecuda.card import FakeCard, Step

MIB = 2**20
PATIENCE_S = 60.0
CONTEXT = "/context"


class DeepNode:
    """The node with the mechanism around the guest's."""

    def __init__(self, node):
        self.node, self.card = node, FakeCard(node.card.path)

    @property
    def mechanism(self):
        guest = self.node.mechanism
        held = lambda body: self.card.held(body.pid)  # noqa: E731
        return Deep(guest, DriverStates(guest.worker), held, moving.Notes(self.node.pool))

    def copied(self, body):
        """Locked, and a sealed slot of it."""
        self.mechanism.lock(body, PATIENCE_S)
        parts = self.mechanism.parts(body)
        slot = self.node.pool.reserve("slot", sum(part.size for part in parts))
        kept = tuple(self.mechanism.copy_out(body, p, slot, lambda _: None) for p in parts)
        assert [one.digest for one in kept] == [part.digest for part in parts]
        slot.seal(kept)
        return slot, kept

    def release(self, body):
        for part in self.mechanism.parts(body):
            if part.backed:
                self.mechanism.release(body, part, PATIENCE_S)

    def park(self, body):
        slot, kept = self.copied(body)
        self.release(body)
        return slot, kept

    def resume(self, body, slot, kept):
        for one in kept:
            digest = self.mechanism.copy_in(body, one, slot, lambda _: None)
            assert digest == one.digest
        self.mechanism.unlock(body, PATIENCE_S)
        self.node.pool.free("slot")

    def state(self, body):
        return self.card.on(body.pid).state


@pytest.fixture
def deep(node):
    made = DeepNode(node)
    yield made
    made.card.fail_next(None)


@pytest.fixture
def told(node):
    """A program with some memory."""
    with node.program() as one:
        one.at = one.alloc(5 * MIB)
        one.fill(one.at, 5 * MIB, 1)
        yield one


def test_a_deep_park_leaves_nothing_on_the_card_and_comes_back_whole(deep, told):
    for _ in range(2):
        parked = deep.park(told.body)
        assert deep.card.held(told.body.pid) == 0
        assert deep.state(told.body) == State.CHECKPOINTED
        waiting = told.later("holds", told.at, 5 * MIB, 1)
        deep.resume(told.body, *parked)
        assert waiting.answer() is True


def test_the_next_in_line_keeps_its_context(deep, told):
    body = replace(told.body, returns_soon=True)
    parked = deep.park(body)
    assert deep.state(body) == State.RUNNING
    assert 0 < deep.card.held(body.pid) < 5 * MIB
    deep.resume(body, *parked)
    assert told.holds(told.at, 5 * MIB, 1)


@pytest.mark.parametrize("kind", ["managed", "imported", "exported"])
def test_what_the_driver_would_not_bring_back_keeps_its_context(deep, node, told, kind):
    with node.program() as other:
        if kind == "managed":
            told.managed(1000)
        else:
            giving, taking = (other, told) if kind == "imported" else (told, other)
            at = giving.alloc(3 * MIB)
            taking.open_ticket(giving.ticket(at))
        parked = deep.park(told.body)
        assert deep.state(told.body) == State.RUNNING
        assert not any(one.name.endswith(CONTEXT) for one in parked[1])
        with pytest.raises(NotPossible, match="cannot leave its card"):
            deep.mechanism.let_go(told.body, PATIENCE_S)
        deep.resume(told.body, *parked)
        assert told.holds(told.at, 5 * MIB, 1)


def test_why_that_is_the_driver_loses_who_imported_memory_and_says_so_late(deep, node, told):
    """Of the stand-in, as measured on the real one: never to be done to a workload."""
    with node.program() as other:
        at = other.alloc(3 * MIB)
        told.open_ticket(other.ticket(at))
        (uuid,) = {part.uuid for part in deep.mechanism.parts(told.body)}
        states = DriverStates(node.mechanism.worker)
        states.lock(uuid, told.body.pid, 5.0)
        states.checkpoint(uuid, told.body.pid, 5.0)
        with pytest.raises(NotPossible, match="801"):
            states.restore(uuid, told.body.pid, 5.0)
        assert deep.state(told.body) == State.CHECKPOINTED


def test_a_checkpoint_that_fails_leaves_it_parked_shallow(deep, told):
    deep.card.fail_next(Step.CHECKPOINT)
    parked = deep.park(told.body)
    assert deep.state(told.body) == State.RUNNING
    deep.resume(told.body, *parked)
    assert told.holds(told.at, 5 * MIB, 1)


def test_a_lock_that_fails_leaves_it_parked_shallow(deep, told):
    slot, kept = deep.copied(told.body)
    deep.card.fail_next(Step.LOCK)
    deep.release(told.body)
    assert deep.state(told.body) == State.RUNNING
    deep.resume(told.body, slot, kept)
    assert told.holds(told.at, 5 * MIB, 1)


def test_work_that_does_not_end_at_the_last_step_leaves_it_parked_shallow(deep, node, told):
    slot, kept = deep.copied(told.body)
    node.card.endless(True)  # it passed the gate by
    try:
        for part in deep.mechanism.parts(told.body):
            deep.mechanism.release(told.body, part, 0.3)
        assert deep.state(told.body) == State.RUNNING
    finally:
        node.card.endless(False)
    deep.resume(told.body, slot, kept)
    assert told.holds(told.at, 5 * MIB, 1)


@pytest.mark.crash
def test_a_worker_that_dies_in_the_drivers_step_leaves_it_to_the_next_one(deep, node, told):
    slot, kept = deep.copied(told.body)
    (worker,) = node.mechanism.workers().values()
    node.card.endless(True)
    killing = threading.Timer(0.2, os.kill, (worker, signal.SIGKILL))
    killing.start()
    try:
        for part in deep.mechanism.parts(told.body):
            deep.mechanism.release(told.body, part, 2.0)
    finally:
        node.card.endless(False)
        killing.join()
    deep.resume(told.body, slot, kept)
    assert told.holds(told.at, 5 * MIB, 1)


def test_a_context_that_does_not_come_back_is_said_to_be_lost(deep, told):
    slot, kept = deep.park(told.body)
    deep.card.fail_next(Step.RESTORE)
    with pytest.raises(BodyGone, match="no whole GPU state"):
        deep.mechanism.copy_in(told.body, kept[0], slot, lambda _: None)


@pytest.mark.crash
def test_an_agent_that_dies_is_followed_by_one_that_finds_it_deep(deep, node, told):
    parked = deep.park(told.body)
    node.restart()
    assert not any(part.backed for part in deep.mechanism.parts(told.body))
    deep.resume(told.body, *parked)
    assert told.holds(told.at, 5 * MIB, 1)


@pytest.mark.crash
@pytest.mark.parametrize("steps", [(), ("checkpoint",), ("checkpoint", "restore")])
def test_an_agent_that_dies_between_two_of_the_drivers_steps_leaves_it_closed(
    deep, node, told, steps
):
    """Locked, emptied or back: whichever it was, the next agent goes on from there."""
    slot, kept = deep.copied(told.body)
    for part in deep.node.mechanism.parts(told.body):
        deep.node.mechanism.release(told.body, part, PATIENCE_S)
    uuid, pid = kept[0].uuid, told.body.pid
    states = DriverStates(node.mechanism.worker)
    states.lock(uuid, pid, 5.0)
    for step in steps:
        getattr(states, step)(uuid, pid, 5.0)
    node.restart()
    waiting = told.later("holds", told.at, 5 * MIB, 1)
    deep.release(told.body)
    assert deep.state(told.body) == State.CHECKPOINTED
    assert waiting.is_alive()
    deep.resume(told.body, slot, kept)
    assert waiting.answer() is True


@pytest.mark.crash
@pytest.mark.parametrize("when", ["copied", "parked"])
def test_a_workload_killed_in_the_middle_is_said_to_be_gone(deep, node, told, when):
    body = told.body
    slot, kept = deep.copied(body)
    if when == "parked":
        deep.release(body)
    os.kill(body.pid, signal.SIGKILL)
    told.process.wait()
    with pytest.raises(BodyGone):
        deep.mechanism.copy_in(body, kept[0], slot, lambda _: None)
    node.pool.free("slot")
