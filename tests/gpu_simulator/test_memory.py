"""A card holds what it holds: too much is refused, and who ends leaves nothing behind."""

import subprocess
import sys
import textwrap

import pytest

from kybernate.clients.simgpu import ContextGone, DeviceAway, NotNow, OutOfMemory

GIB = 2**30
BIG, SMALL = "GPU-big", "GPU-small"


def used(driver, uuid=BIG):
    return driver.showing().used[uuid]


def test_an_allocation_is_seen_in_the_inventory(driver, attach):
    attach().allocate(BIG, 40 * GIB)
    assert used(driver) == 40 * GIB
    assert used(driver, SMALL) == 0


def test_more_than_is_free_is_refused_and_changes_nothing(driver, attach):
    one = attach()
    one.allocate(BIG, 40 * GIB)
    with pytest.raises(OutOfMemory, match="free"):
        one.allocate(BIG, 40 * GIB + 1)
    assert used(driver) == 40 * GIB
    one.allocate(BIG, 40 * GIB)


def test_bytes_of_strangers_are_not_free(driver, attach):
    driver.inject(BIG, foreign_bytes=50 * GIB)
    with pytest.raises(OutOfMemory):
        attach().allocate(BIG, 40 * GIB)
    assert used(driver) == 50 * GIB
    strangers = [one for one in driver.showing().processes if not one.context]
    assert [(one.pid, one.used) for one in strangers] == [(0, 50 * GIB)]


def test_strangers_cannot_have_what_is_in_use(driver, attach):
    attach().allocate(BIG, 40 * GIB)
    with pytest.raises(OutOfMemory):
        driver.inject(BIG, foreign_bytes=41 * GIB)


def test_freed_memory_can_be_allocated_again(driver, attach):
    one = attach()
    segment = one.allocate(BIG, 80 * GIB)
    one.free(segment)
    assert used(driver) == 0
    one.allocate(BIG, 80 * GIB)


def test_no_bytes_cannot_be_allocated(attach):
    with pytest.raises(NotNow):
        attach().allocate(BIG, 0)


def test_a_context_has_only_the_cards_it_attached_to(attach):
    with pytest.raises(NotNow, match="not one of"):
        attach(BIG).allocate(SMALL, GIB)


def test_a_context_on_two_cards_holds_memory_on_both(driver, attach):
    one = attach(BIG, SMALL)
    one.allocate(BIG, 40 * GIB)
    one.allocate(SMALL, 20 * GIB)
    assert (used(driver, BIG), used(driver, SMALL)) == (40 * GIB, 20 * GIB)


def test_an_unknown_card_cannot_be_attached_to(attach):
    with pytest.raises(ContextGone):
        attach("GPU-nowhere")


def test_a_closed_attachment_leaves_nothing_behind(driver, attach, until):
    one = attach()
    one.allocate(BIG, 40 * GIB)
    one.close()
    until(lambda: used(driver) == 0)
    with pytest.raises(ContextGone):
        driver.lock(one.context)


def test_a_killed_process_leaves_nothing_behind(driver, socket, until):
    program = textwrap.dedent(
        f"""
        import os, sys, threading
        from kybernate.clients.simgpu import Attachment
        one = Attachment({str(socket)!r}, os.getpid(), [{BIG!r}])
        one.allocate({BIG!r}, {40 * GIB})
        print("allocated", flush=True)
        threading.Event().wait()
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"allocated\n"
        assert driver.showing().context_of(process.pid)
        assert used(driver) == 40 * GIB
    finally:
        process.kill()
        process.communicate()
    until(lambda: used(driver) == 0)
    assert driver.showing().context_of(process.pid) is None


def test_a_sick_card_refuses_until_it_is_well(driver, attach):
    one = attach()
    driver.inject(BIG, healthy=False)
    with pytest.raises(DeviceAway, match="unhealthy"):
        one.allocate(BIG, GIB)
    driver.inject(BIG, healthy=True)
    one.allocate(BIG, GIB)


def test_a_process_learns_that_its_context_ended(attach):
    one = attach()
    one.close()
    one.wait_lost()
