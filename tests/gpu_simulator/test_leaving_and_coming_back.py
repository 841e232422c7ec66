"""A workload lets go of its connection when told to, and goes on after, here or on another card."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kybernate.clients.simgpu import Attachment, ContextGone, Driver, Moved, NotNow
from kybernate.model.gpu import Gpu
from kybernate.model.ids import GpuUuid
from testbed.gpu import contexts
from testbed.gpu.service import running

GIB = 2**30
BIG = GpuUuid("GPU-big")
ELSEWHERE = GpuUuid("GPU-elsewhere")


@pytest.fixture
def model(attach):
    """A context with one filled segment of 4 GiB, counted to 1."""
    one = attach()
    segment = one.allocate(BIG, 4 * GIB)
    one.fill(segment, seed=7)
    one.increment(segment)
    return one, segment


@pytest.fixture
def aside():
    """Threads for calls that are to wait."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


def connections_to(socket: Path) -> int:
    """How many of anybody's connections the service at a socket has."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(str(socket)) for line in lines) - 1  # it listens on one


def parked(driver: Driver, context: str, segment: str) -> bytes:
    driver.lock(context)
    contents = b"".join(driver.copy_out(context, segment))
    driver.release(context, segment)
    return contents


def test_nothing_of_the_connection_is_left_while_disconnected(driver, socket, model, until):
    one, segment = model
    context = one.context
    contents = parked(driver, context, segment)
    driver.disconnect(context)
    driver.disconnect(context)
    until(lambda: connections_to(socket) == 1)  # the driver's own
    (shown,) = driver.showing().processes
    assert (shown.context, shown.pid, shown.used) == (context, os.getpid(), 0)
    driver.copy_in(context, segment, [contents])
    driver.unlock(context)
    assert one.increment(segment) == 2
    assert one.context == context


def test_who_waits_for_work_does_not_notice(driver, model, aside, until):
    one, segment = model
    whole, context = one.checksum(segment), one.context
    contents = parked(driver, context, segment)
    waiting = [aside.submit(one.increment, segment) for _ in range(4)]
    until(lambda: sum(p.waiting for p in driver.showing().processes) == 4)
    driver.disconnect(context)
    lost = aside.submit(one.wait_lost)
    driver.copy_in(context, segment, [contents])
    driver.unlock(context)
    assert sorted(one.result() for one in waiting) == [2, 3, 4, 5]
    assert one.checksum(segment) == whole
    assert not lost.done()
    driver.forget(context)
    assert lost.result() is None


def test_it_goes_on_on_a_card_it_came_to(driver, socket, model, tmp_path, until):
    one, segment = model
    whole, context = one.checksum(segment), one.context  # who is disconnected has none to show
    contents = parked(driver, context, segment)
    (shown,) = driver.segments(context)
    (process,) = driver.showing().processes
    moved = Moved(
        identity=process.identity,
        own_pid=process.own_pid,
        cards={BIG: ELSEWHERE},
        segments=(shown,),
    )
    driver.disconnect(context)
    driver.forget(context)
    other_card = Gpu(index=3, uuid=ELSEWHERE, product="Big", memory=80 * GIB)
    elsewhere = tmp_path / "other.sock"
    with running([other_card], elsewhere, scale=65536), Driver(elsewhere) as there:
        socket.unlink()
        socket.symlink_to(elsewhere)  # the workload finds another device where it looks
        there.adopt(os.getpid(), moved)
        there.adopt(os.getpid(), moved)
        (here,) = there.showing().processes
        assert (here.uuid, here.used, here.locked) == (ELSEWHERE, 0, True)
        there.copy_in(here.context, segment, [contents])
        there.unlock(here.context)
        assert one.increment(segment, timeout=30.0) == 2
        assert one.checksum(segment) == whole
        more = one.allocate(BIG, GIB)  # by the name it knows
        assert more != segment
        assert there.showing().used == {ELSEWHERE: 5 * GIB}
        one.close()


def test_an_open_context_cannot_be_disconnected(driver, model):
    one, _ = model
    with pytest.raises(NotNow, match="not locked"):
        driver.disconnect(one.context)


def test_a_card_that_is_not_here_adopts_nothing(driver):
    moved = Moved(identity="i", own_pid=1, cards={BIG: ELSEWHERE}, segments=())
    with pytest.raises(ContextGone, match=ELSEWHERE):
        driver.adopt(os.getpid(), moved)


def test_memory_of_a_process_that_never_comes_back_is_free_again(
    driver, socket, model, monkeypatch, until
):
    one, segment = model
    monkeypatch.setattr(contexts, "REJOIN_S", 0.05)
    context = one.context
    contents = parked(driver, context, segment)
    driver.disconnect(context)
    until(lambda: connections_to(socket) == 1)
    one.close()
    driver.copy_in(context, segment, [contents])
    driver.unlock(context)
    until(lambda: not driver.showing().processes)
    assert driver.showing().used[BIG] == 0
    with pytest.raises(ContextGone):
        one.increment(segment)


def test_a_process_of_another_namespace_is_found_by_our_numbers(driver, socket):
    with Attachment(socket, os.getpid(), [BIG]):
        (shown,) = driver.showing().processes
    assert (shown.pid, shown.own_pid) == (os.getpid(), os.getpid())
