"""Contents go out and come back whole, at the bus's rate, or nothing changes."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kybernate.clients.simgpu import DeviceAway, NotNow, OutOfMemory

GIB = 2**30
BIG, SMALL = "GPU-big", "GPU-small"


@pytest.fixture
def model(attach, driver):
    """A locked context with one filled segment of 40 GiB, its counter at 3."""
    one = attach()
    segment = one.allocate(BIG, 40 * GIB)
    one.fill(segment, seed=7)
    one.increment(segment, 3)
    checksum = one.checksum(segment)
    driver.lock(one.context)
    return one, segment, checksum


def digest(contents):
    return hashlib.blake2b(contents, digest_size=32).hexdigest()


def test_a_model_parked_and_resumed_goes_on_where_it_was(driver, model):
    one, segment, checksum = model
    contents = b"".join(driver.copy_out(one.context, segment))
    (shown,) = driver.segments(one.context)
    assert digest(contents) == shown.digest
    assert len(contents) == shown.content == 40 * GIB // 65536
    driver.release(one.context, segment)
    assert driver.showing().used[BIG] == 0
    assert driver.copy_in(one.context, segment, [contents]) == shown.digest
    driver.unlock(one.context)
    assert one.increment(segment) == 4
    assert one.checksum(segment) == checksum


def test_releasing_twice_frees_once(driver, model):
    one, segment, _ = model
    driver.release(one.context, segment)
    driver.release(one.context, segment)
    assert driver.showing().used[BIG] == 0
    (shown,) = driver.segments(one.context)
    assert (shown.backed, shown.digest) == (False, "")


def test_contents_do_not_come_in_without_room(driver, model, attach):
    one, segment, _ = model
    contents = b"".join(driver.copy_out(one.context, segment))
    driver.release(one.context, segment)
    attach(pid=1).allocate(BIG, 50 * GIB)
    with pytest.raises(OutOfMemory):
        driver.copy_in(one.context, segment, [contents])
    assert driver.showing().used[BIG] == 50 * GIB


def test_contents_are_read_no_more_after_a_refusal(driver, model, attach):
    one, segment, _ = model
    driver.release(one.context, segment)
    attach(pid=1).allocate(BIG, 50 * GIB)
    reads = []

    def contents():
        while True:
            reads.append(1)
            yield b"x"

    with pytest.raises(OutOfMemory):
        driver.copy_in(one.context, segment, contents())
    before = len(reads)
    driver.showing()
    assert len(reads) == before


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(lambda whole: whole[:-1], id="short"),
        pytest.param(lambda whole: whole + b"x", id="long"),
        pytest.param(lambda whole: b"", id="empty"),
    ],
)
@pytest.mark.parametrize("released", [True, False], ids=["released", "still-there"])
def test_contents_of_the_wrong_length_change_nothing(driver, model, sent, released):
    one, segment, _ = model
    whole = b"".join(driver.copy_out(one.context, segment))
    if released:
        driver.release(one.context, segment)
    before = driver.segments(one.context), driver.showing().used
    with pytest.raises(NotNow):
        driver.copy_in(one.context, segment, [sent(whole)])
    assert (driver.segments(one.context), driver.showing().used) == before


def test_a_sender_that_fails_is_heard_and_changes_nothing(driver, model):
    one, segment, _ = model
    driver.release(one.context, segment)

    def broken():
        yield b"abc"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        driver.copy_in(one.context, segment, broken())
    assert driver.showing().used[BIG] == 0


def test_a_copy_that_fails_half_way_gives_its_room_back(driver, model):
    one, segment, _ = model
    whole = b"".join(driver.copy_out(one.context, segment))
    driver.release(one.context, segment)
    driver.fail_next("CopyIn", after_bytes=30 * GIB)
    with pytest.raises(DeviceAway):
        driver.copy_in(one.context, segment, [whole])
    assert driver.showing().used[BIG] == 0
    driver.copy_in(one.context, segment, [whole])
    assert driver.showing().used[BIG] == 40 * GIB


def test_who_leaves_half_way_holds_nothing_up(driver, model):
    one, segment, _ = model
    driver.inject(BIG, bus_bytes_per_second=1e9)
    copy = driver.copy_out(one.context, segment)
    next(copy)
    copy.close()
    driver.unlock(one.context, timeout=10)


def test_releasing_waits_for_the_copy(driver, model):
    one, segment, _ = model
    copy = driver.copy_out(one.context, segment)
    first = next(copy)
    with ThreadPoolExecutor(1) as aside:
        released = aside.submit(driver.release, one.context, segment)
        rest = list(copy)
        released.result()
    assert len(first) + sum(map(len, rest)) == 40 * GIB // 65536


def test_a_copy_takes_the_time_of_the_bus(driver, model):
    one, segment, _ = model
    driver.inject(BIG, bus_bytes_per_second=80 * GIB)
    started = time.monotonic()
    list(driver.copy_out(one.context, segment))
    assert 0.5 <= time.monotonic() - started < 2.0


def test_two_copies_share_one_direction(driver, attach):
    driver.inject(BIG, bus_bytes_per_second=80 * GIB)
    jobs = []
    for pid in (1, 2):
        one = attach(pid=pid)
        segment = one.allocate(BIG, 20 * GIB)
        driver.lock(one.context)
        jobs.append((one.context, segment))
    started = time.monotonic()
    with ThreadPoolExecutor(2) as aside:
        list(aside.map(lambda job: list(driver.copy_out(*job)), jobs))
    assert time.monotonic() - started >= 0.5


def test_both_directions_go_at_once(driver, attach):
    one, other = attach(), attach(pid=1)
    out, into = one.allocate(BIG, 40 * GIB), other.allocate(BIG, 40 * GIB)
    for each in (one, other):
        driver.lock(each.context)
    contents = b"".join(driver.copy_out(other.context, into))
    driver.inject(BIG, bus_bytes_per_second=40 * GIB)
    started = time.monotonic()
    with ThreadPoolExecutor(2) as aside:
        leaving = aside.submit(lambda: list(driver.copy_out(one.context, out)))
        driver.copy_in(other.context, into, [contents])
        leaving.result()
    assert 1.0 <= time.monotonic() - started < 1.8


def test_cards_have_a_bus_each(driver, attach):
    one = attach(BIG, SMALL)
    segments = [one.allocate(BIG, 20 * GIB), one.allocate(SMALL, 20 * GIB)]
    driver.lock(one.context)
    driver.inject(bus_bytes_per_second=20 * GIB)
    started = time.monotonic()
    with ThreadPoolExecutor(2) as aside:
        list(aside.map(lambda segment: list(driver.copy_out(one.context, segment)), segments))
    assert 1.0 <= time.monotonic() - started < 1.8


def test_a_failure_on_request_is_one_that_may_pass(driver, model):
    one, _, _ = model
    driver.fail_next("Unlock", times=2)
    for _ in range(2):
        with pytest.raises(DeviceAway):
            driver.unlock(one.context)
    driver.unlock(one.context)
