"""
What the pool holds is made smaller while nobody waits, and comes back as it was.

Real: the guest library, the worker, the mechanism, the pool. Faked: the driver; its kernels do in
C, lane by lane, what ours do on a card.
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.disk.pool import Damaged
from nodeagent.gpuworker.client import WorkerAway
from nodeagent.gpuworker.places import is_pressed
from nodeagent.mechanisms import copies
from nodeagent.mechanisms.pressing import NotNow

MIB = 2**20
CHUNK = 2 * MIB
SIZE = 12 * CHUNK
MOST = 0.72  # of bf16


@pytest.fixture(scope="module")
def node(libraries, node_on):
    """One whose slabs are large enough for some pressed chunks."""
    folder = Path(tempfile.mkdtemp(prefix="kyb-p-"))
    made = node_on(folder, libraries, slab=64 * MIB)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def told(node):
    """A program with weights."""
    with node.program() as one:
        yield prepared(one)


def prepared(one, seed=1):
    one.at = one.alloc(SIZE)
    one.fill_weights(one.at, SIZE, seed)
    one.was = one.hashed(one.at, SIZE)
    return one


def pressed(node):
    """Until there is nothing left to press."""
    while node.mechanism.press.round():
        pass


def listed(node, told):
    (path,) = node.pool.folder.rglob(f"{told.body.uid}/*.copy")
    return copies.read(path)


def resumed(node, told, slot, kept):
    """And as it was. What became of it."""
    node.resume(told, slot, kept)
    assert told.hashed(told.at, SIZE) == told.was
    return node.mechanism.tallies[-1]


def test_weights_take_less_room_and_less_of_the_bus_and_come_back_as_they_were(node, told):
    before = node.pool.room().used
    slot, kept = node.park(told)
    assert node.pool.room().used - before == SIZE
    pressed(node)
    assert node.pool.room().used - before <= MOST * SIZE
    found = resumed(node, told, slot, kept)
    assert found.pressed == 12
    assert found.copied <= MOST * SIZE


def test_what_did_not_change_stays_pressed_and_what_did_is_copied(node, told):
    slot, kept = node.park(told)
    pressed(node)
    resumed(node, told, slot, kept)
    told.fill(told.at + 5 * CHUNK + 77, 1, 5)
    told.was = told.hashed(told.at, SIZE)
    slot, kept = node.park(told)
    found = node.mechanism.tallies[-1]
    assert (found.same, found.fresh, found.copied) == (11, 1, CHUNK)
    assert resumed(node, told, slot, kept).pressed == 11


def test_a_spare_is_pressed_too(node, told):
    resumed(node, told, *node.park(told))
    pressed(node)
    slot, kept = node.park(told)
    assert node.mechanism.tallies[-1].copied == 0
    assert resumed(node, told, slot, kept).pressed == 12


def test_what_gains_nothing_stays_plain_and_is_tried_once(node, told):
    told.fill(told.at, SIZE, 3)  # bytes at random
    told.was = told.hashed(told.at, SIZE)
    slot, kept = node.park(told)
    asked = node.mechanism.press.ask
    pressed(node)
    assert not any(map(is_pressed, listed(node, told).places))
    resumed(node, told, slot, kept)
    slot, kept = node.park(told)
    node.mechanism.press.ask = lambda _: pytest.fail("it was tried again")
    pressed(node)
    node.mechanism.press.ask = asked
    resumed(node, told, slot, kept)


def test_the_next_agent_knows_what_is_pressed(node, told):
    slot, kept = node.park(told)
    pressed(node)
    used = node.pool.room().used
    node.restart()
    assert node.pool.room().used == used
    assert resumed(node, told, slot, kept).pressed == 12


def test_replicas_share_what_is_pressed(node, told):
    node_used = node.bulk.chunks.used
    with node.program() as other:
        slot, kept = node.park(told)
        pressed(node)
        used = node.bulk.chunks.used
        prepared(other)
        others = node.park(other)
        assert node.mechanism.tallies[-1].shared == 12
        assert node.bulk.chunks.used == used
        resumed(node, told, slot, kept)
        resumed(node, other, *others)
    assert node.bulk.chunks.used >= node_used


def test_what_replicas_share_is_pressed_once(node, told):
    with node.program() as other:
        before = node.bulk.chunks.used
        first = node.park(told)
        second = node.park(prepared(other))
        pressed(node)
        assert (node.bulk.chunks.used - before) * CHUNK <= MOST * SIZE
        assert set(listed(node, told).places) == set(listed(node, other).places)
        resumed(node, told, *first)
        resumed(node, other, *second)


@pytest.mark.parametrize("at", [0, 700, 700_000, 1_200_000])  # head, plane, what is coded
def test_a_bit_flipped_in_a_pressed_chunk_is_never_let_run(node, told, at):
    slot, kept = node.park(told)
    pressed(node)
    node.flip(slot, 4 * CHUNK + at)
    with pytest.raises(Damaged, match="1 chunks"):
        node.mechanism.copy_in(told.body, kept[0], slot, lambda _: None)
    node.flip(slot, 4 * CHUNK + at)
    resumed(node, told, slot, kept)


def test_pressed_contents_that_were_carried_away_come_back_as_they_were(node, told):
    slot, (part,) = node.park(told)
    pressed(node)
    content = b"".join(node.bulk.carried(slot, part))
    assert len(content) <= MOST * SIZE
    assert len(content) < node.bulk.weight(slot, part) + 4096
    used = node.bulk.chunks.used
    node.pool.free(told.body.uid)
    slot = node.pool.reserve(told.body.uid, part.size)
    assert node.bulk.brought(slot, part.name, iter([content])) == (part.content, part.digest)
    slot.seal((part,))
    assert node.bulk.chunks.used <= used + 1
    resumed(node, told, slot, (part,))


def test_nothing_is_pressed_while_contents_move(node, told):
    slot, kept = node.park(told)

    def meanwhile(_):
        with pytest.raises(NotNow):
            node.mechanism.press.round()

    assert node.mechanism.copy_in(told.body, kept[0], slot, meanwhile) == kept[0].digest
    node.mechanism.unlock(told.body, 60.0)


def test_what_does_not_come_out_right_stays_plain(node, told):
    slot, kept = node.park(told)
    node.card.flip_next()  # the next copy to the card
    pressed(node)
    assert sum(map(is_pressed, listed(node, told).places)) == 11
    resumed(node, told, slot, kept)


def test_what_went_away_meanwhile_leaves_nothing(node):
    used = node.bulk.chunks.used
    with node.program() as told:
        slot, _ = node.park(prepared(told))
        ask = node.mechanism.press.ask

        def and_gone(message):
            answer = ask(message)
            if message["op"] == "store":
                node.pool.free(slot.name)
            return answer

        node.mechanism.press.ask = and_gone
        with gone():
            node.mechanism.press.round()
        node.mechanism.press.ask = ask
    assert node.bulk.chunks.used == used


@pytest.mark.crash
def test_an_agent_that_dies_before_the_list_is_written_leaves_the_old_one(node, told):
    slot, kept = node.park(told)
    used = node.bulk.chunks.used

    def dies(*_):
        raise KeyboardInterrupt

    node.bulk.swap = dies
    with pytest.raises(KeyboardInterrupt):
        node.mechanism.press.round()
    node.restart()
    assert node.bulk.chunks.used == used
    resumed(node, told, slot, kept)


@pytest.mark.crash
def test_a_worker_that_dies_while_it_presses_costs_nothing(node, told):
    slot, kept = node.park(told)
    used = node.bulk.chunks.used
    ((uuid, worker),) = node.mechanism.workers().items()
    ask = node.mechanism.press.ask

    def and_dies(message):
        if message["op"] != "store":
            return ask(message)
        os.kill(worker, signal.SIGKILL)  # and it is asked as if nobody had looked since
        return node.mechanism.worker(uuid).ask(message, 30.0)

    node.mechanism.press.ask = and_dies
    with pytest.raises(WorkerAway):
        node.mechanism.press.round()
    node.mechanism.press.ask = ask
    assert node.bulk.chunks.used == used
    with pytest.raises(NotNow):  # a worker is started by whoever needs it
        node.mechanism.press.round()
    node.mechanism.worker(uuid).node()
    pressed(node)
    assert resumed(node, told, slot, kept).pressed == 12


def test_it_goes_on_in_the_background(node, told):
    slot, kept = node.park(told)
    node.mechanism.press_in_the_background()
    until = time.monotonic() + 60.0
    while node.bulk.to_press() is not None:
        assert time.monotonic() < until
        threading.Event().wait(0.01)
    node.restart()
    assert resumed(node, told, slot, kept).pressed == 12


@contextmanager
def gone():
    with pytest.raises(Exception, match="not there any more"):
        yield
