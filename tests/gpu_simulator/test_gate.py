"""Work runs through an open gate only, copies behind a closed one only, and nobody is forgotten."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from kybernate.clients.simgpu import ContextGone, DeviceAway, NotNow

GIB = 2**30
BIG = "GPU-big"


@pytest.fixture
def model(attach):
    """A context with one filled segment of 40 GiB."""
    one = attach()
    segment = one.allocate(BIG, 40 * GIB)
    one.fill(segment, seed=7)
    return one, segment


@pytest.fixture
def aside():
    """Threads for calls that are to wait."""
    with ThreadPoolExecutor(32) as pool:
        yield pool


def waiting(driver):
    return sum(one.waiting for one in driver.showing().processes)


def test_work_waits_while_locked_and_goes_on_after(driver, model, aside, until):
    one, segment = model
    driver.lock(one.context)
    counted = aside.submit(one.increment, segment)
    until(lambda: waiting(driver) == 1)
    assert not counted.done()
    driver.unlock(one.context)
    assert counted.result() == 1


def test_many_who_wait_all_go_on(driver, model, aside, until):
    one, segment = model
    driver.lock(one.context)
    counted = [aside.submit(one.increment, segment) for _ in range(20)]
    until(lambda: waiting(driver) == 20)
    driver.unlock(one.context)
    assert sorted(each.result() for each in counted) == list(range(1, 21))


def test_allocations_wait_while_locked_too(driver, model, aside, until):
    one, _ = model
    driver.lock(one.context)
    made = aside.submit(one.allocate, BIG, GIB)
    until(lambda: waiting(driver) == 1)
    driver.unlock(one.context)
    assert made.result()


def test_the_lock_waits_for_running_work(driver, model, aside, until):
    one, segment = model
    busy = aside.submit(one.busy, segment, 0.2)
    until(lambda: driver.showing().processes[0].idle_seconds == 0)
    driver.lock(one.context)
    assert driver.showing().processes[0].idle_seconds > 0
    busy.result()


def test_a_lock_given_up_leaves_the_gate_open(driver, model, aside, until):
    one, segment = model
    busy = aside.submit(one.busy, segment, 0.5)
    until(lambda: driver.showing().processes[0].idle_seconds == 0)
    with pytest.raises(DeviceAway):
        driver.lock(one.context, timeout=0.05)
    busy.result()
    assert one.increment(segment, timeout=10) == 1


def test_locking_and_unlocking_twice_is_as_once(driver, model):
    one, segment = model
    driver.lock(one.context)
    driver.lock(one.context)
    driver.unlock(one.context)
    driver.unlock(one.context)
    assert one.increment(segment) == 1


def test_who_gives_up_waiting_is_not_served_later(driver, model, until):
    one, segment = model
    driver.lock(one.context)
    with pytest.raises(DeviceAway):
        one.increment(segment, timeout=0.05)
    until(lambda: waiting(driver) == 0)
    driver.unlock(one.context)
    assert one.increment(segment) == 1


def test_who_waits_is_told_when_the_context_ends(driver, model, aside, until):
    one, segment = model
    driver.lock(one.context)
    held = aside.submit(one.increment, segment)
    until(lambda: waiting(driver) == 1)
    driver.forget(one.context)
    with pytest.raises(ContextGone):
        held.result()


def test_a_context_that_a_locked_process_makes_is_locked_too(driver, model, attach, aside, until):
    one, _ = model
    driver.lock(one.context)
    other = attach()
    made = aside.submit(other.allocate, BIG, GIB)
    until(lambda: waiting(driver) == 1)
    driver.unlock(other.context)
    assert made.result()


def test_work_of_another_process_goes_on_meanwhile(driver, model, attach):
    one, _ = model
    other = attach(pid=1)
    segment = other.allocate(BIG, GIB)
    driver.lock(one.context)
    assert other.increment(segment) == 1


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda d, c, s: list(d.copy_out(c, s)), id="copy-out"),
        pytest.param(lambda d, c, s: d.copy_in(c, s, [b""]), id="copy-in"),
        pytest.param(lambda d, c, s: d.release(c, s), id="release"),
    ],
)
def test_an_open_context_is_not_touched(driver, model, act):
    one, segment = model
    with pytest.raises(NotNow, match="not locked"):
        act(driver, one.context, segment)


def test_the_gate_stays_closed_while_contents_are_elsewhere(driver, model):
    one, segment = model
    driver.lock(one.context)
    driver.release(one.context, segment)
    with pytest.raises(NotNow, match="not in VRAM"):
        driver.unlock(one.context)


def test_idle_seconds_begin_anew_with_each_work(driver, model, until):
    one, segment = model
    until(lambda: driver.showing().processes[0].idle_seconds > 0.05)
    before = driver.showing().processes[0]
    one.increment(segment)
    after = driver.showing().processes[0]
    assert after.idle_seconds < before.idle_seconds
    assert after.submitted == before.submitted + 1
