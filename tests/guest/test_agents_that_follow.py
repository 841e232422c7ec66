"""Workers and the pool outlive the agent: the next one finds both, and trusts neither blindly."""

import os
import signal

import pytest

from nodeagent.gpuworker import wire
from nodeagent.linux import processes
from nodeagent.mechanisms import NotYet
from nodeagent.mechanisms.slabs import Slabs
from testbed import fakecuda

MIB = 2**20
CHUNK = 2 * MIB
SIZE = 4 * CHUNK

pytestmark = pytest.mark.crash


@pytest.fixture
def told(node):
    """A program with four chunks."""
    with node.program() as one:
        one.at = one.alloc(SIZE)
        one.fill(one.at, SIZE, 1)
        yield one


def worker(node):
    return node.mechanism.workers().get(fakecuda.UUID, 0)


def last(node):
    return node.mechanism.tallies[-1]


def test_the_next_agent_takes_the_worker_up_with_all_it_has_pinned(node, told):
    slot, kept = node.park(told)
    pid, pinned = worker(node), node.mechanism.pinned(fakecuda.UUID)
    node.restart()
    assert (worker(node), node.mechanism.pinned(fakecuda.UUID)) == (pid, pinned)
    node.resume(told, slot, kept)
    assert (worker(node), node.mechanism.pinned(fakecuda.UUID)) == (pid, pinned)
    assert told.holds(told.at, SIZE, 1)


def test_the_next_agent_looks_through_all_processes_once(node, told, monkeypatch):
    slot, kept = node.park(told)
    node.restart()
    assert len(node.mechanism.parts(told.body)) == 1
    monkeypatch.setattr(processes, "tree", lambda _: pytest.fail("it looked again"))
    node.resume(told, slot, kept)
    monkeypatch.undo()
    assert told.holds(told.at, SIZE, 1)


def test_whoever_runs_is_looked_for_again(node, told, monkeypatch):
    looked = []
    node.mechanism.parts(told.body)
    tree = processes.tree
    monkeypatch.setattr(processes, "tree", lambda pid: looked.append(pid) or tree(pid))
    node.mechanism.parts(told.body)
    assert told.body.pid in looked


def test_a_new_worker_pins_for_its_first_resume_what_that_needs_and_no_more(node, told):
    slot, kept = node.park(told)
    with node.program() as other:
        at = other.alloc(2 * SIZE)
        other.fill(at, 2 * SIZE, 2)
        node.park(other)
        node.mechanism.dismiss()
        node.restart()
        assert worker(node) == 0
        node.resume(told, slot, kept)
        slabs = {place * CHUNK // node.slab for place in stored(node, told)}
        assert node.mechanism.pinned(fakecuda.UUID) == len(slabs)
        assert len(node.bulk.chunks.slabs.all()) >= 3 * len(slabs)
    assert told.holds(told.at, SIZE, 1)


def stored(node, told):
    (copy,) = node.bulk._spares[told.body.uid].values()
    return copy.stored


def test_what_an_agent_left_half_copied_is_ended_before_chunks_are_given_out_again(node, told):
    body, used = told.body, node.bulk.chunks.used
    node.mechanism.lock(body, 60.0)
    (part,) = node.mechanism.parts(body)
    slot = node.pool.reserve(body.uid, part.size)

    class Dies(BaseException):
        pass

    def die(_):
        node.mechanism._workers[fakecuda.UUID].close()  # what the kernel does for a dead agent
        raise Dies

    with pytest.raises(Dies):
        node.mechanism.copy_out(body, part, slot, die)
    node.restart()
    node.pool.free(body.uid)
    assert node.bulk.chunks.used == used
    slot, kept = node.copy_out(body)
    node.mechanism.release(body, part, 60.0)
    node.resume(told, slot, kept)
    assert told.holds(told.at, SIZE, 1)


def test_a_worker_of_another_build_is_replaced(node, told, monkeypatch):
    slot, kept = node.park(told)
    before = worker(node)
    monkeypatch.setattr(wire, "build", lambda: "of the next version")
    node.restart()
    assert worker(node) == 0
    monkeypatch.undo()
    node.resume(told, slot, kept)
    assert worker(node) not in (0, before)
    assert told.holds(told.at, SIZE, 1)


def test_a_worker_that_died_while_nobody_looked_is_replaced(node, told):
    slot, kept = node.park(told)
    before = worker(node)
    os.kill(before, signal.SIGKILL)
    node.restart()
    node.resume(told, slot, kept)
    assert worker(node) not in (0, before)
    assert told.holds(told.at, SIZE, 1)


def test_a_worker_that_stands_still_is_ended_and_replaced(node, told, monkeypatch):
    slot, kept = node.park(told)
    before = worker(node)
    os.kill(before, signal.SIGSTOP)
    monkeypatch.setattr("nodeagent.gpuworker.process._FOUND_S", 0.3)
    node.restart()
    assert worker(node) == 0
    node.resume(told, slot, kept)
    assert worker(node) not in (0, before)
    assert told.holds(told.at, SIZE, 1)


def test_a_request_that_takes_too_long_ends_the_worker_and_the_park_is_tried_again(
    node, told, monkeypatch
):
    assert node.mechanism.pinned(fakecuda.UUID) >= 0  # one is started, if there was none
    before = worker(node)
    monkeypatch.setattr("nodeagent.mechanisms.handing.COPY_S", 0.3)
    node.mechanism.lock(told.body, 60.0)
    (part,) = node.mechanism.parts(told.body)
    os.kill(before, signal.SIGSTOP)
    slot = node.pool.reserve(told.body.uid, part.size)
    with pytest.raises(NotYet, match="away"):
        node.mechanism.copy_out(told.body, part, slot, lambda _: None)
    monkeypatch.undo()
    slot, kept = node.copy_out(told.body)
    node.mechanism.release(told.body, part, 60.0)
    node.resume(told, slot, kept)
    assert told.holds(told.at, SIZE, 1)


def test_the_next_agent_knows_spares_and_who_shares_what(node, told):
    with node.program() as other:
        other.at = other.alloc(SIZE)
        other.fill(other.at, SIZE, 1)
        node.resume(told, *node.park(told))
        slot, kept = node.park(other)
        used, parked = node.bulk.chunks.used, node.pool.room().used
        node.restart()
        assert (node.bulk.chunks.used, node.pool.room().used) == (used, parked)
        node.resume(told, *node.park(told))
        assert (last(node).chunks, last(node).zeros) == (4, 0)
        assert [one.copied for one in node.mechanism.tallies] == [0, SIZE]
        node.pool.free(told.body.uid)
        node.restart()
        node.resume(other, slot, kept)
        assert other.holds(other.at, SIZE, 1)
        assert told.holds(told.at, SIZE, 1)


def test_slabs_of_another_start_of_the_machine_are_made_anew(tmp_path):
    before = Slabs(tmp_path, size=CHUNK, boot="one")
    before.make(0, -1)
    assert Slabs(tmp_path, size=CHUNK, boot="one").all()
    assert Slabs(tmp_path, size=CHUNK, boot="another").all() == ()
    before = Slabs(tmp_path, size=CHUNK, boot="another")
    before.make(0, -1)
    assert Slabs(tmp_path, size=2 * CHUNK, boot="another").all() == ()


def test_a_slab_that_an_agent_died_over_is_not_one(tmp_path):
    Slabs(tmp_path, size=CHUNK, boot="one")
    (tmp_path / "000000@-1").write_bytes(b"half")
    assert Slabs(tmp_path, size=CHUNK, boot="one").all() == ()
